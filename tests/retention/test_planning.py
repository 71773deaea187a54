"""The planner is pure: frozen facts in, a frozen plan out."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.sweep.planning import MAX_REWRITES, SweepFacts, SweepMoment, is_ours, plan_sweep
from storage.rows.devices import DeviceFacts, EraseState
from storage.rows.recordings import DayTotals, Due, SegmentRow, SegmentState
from tests.retention.world import LIMITS, NOON, SLACK_MS, TODAY, TTL_MS

DAY_MS = 86_400_000
MOMENT = SweepMoment.at(NOON, LIMITS)


def device(number: int, **fields: object) -> DeviceFacts:
    return replace(DeviceFacts(number, 1, 1, 0), **fields)  # type: ignore[arg-type]


def segment(number: int, size_bytes: int) -> SegmentRow:
    key = f"v1/31/2026-01-01/w0/{number}"
    return SegmentRow(
        number, key, 31, TODAY + 200, SegmentState.COMMITTED, NOON, size_bytes, 4, 1, 0, b"refused"
    )


def test_a_moment_decides_by_itself_what_is_over_and_what_is_stale() -> None:
    assert SweepMoment(NOON, TODAY, NOON - TTL_MS) == MOMENT
    midnight = TODAY * DAY_MS
    for ms, day in ((midnight + SLACK_MS - 1, TODAY - 1), (midnight + SLACK_MS, TODAY)):
        assert SweepMoment.at(ms, LIMITS).expired_through == day


@pytest.mark.parametrize(
    ("count", "limit", "allow", "held"), [(3, 3, False, 0), (4, 3, False, 4), (4, 3, True, 0)]
)
def test_the_bulk_limit_holds_back_all_that_is_fresh_and_nothing_that_is_begun(
    count: int, limit: int, allow: bool, held: int
) -> None:
    """Invariant 14. The count is of all, also where not all are in the facts."""
    begun = device(9, erase_state=EraseState.ERASING, erase_reason="lapsed")
    fresh = tuple(device(n) for n in range(1, 3))
    facts = SweepFacts(MOMENT, erasing=(begun,), erasable=fresh, erasable_count=count)
    plan = plan_sweep(facts, replace(LIMITS, bulk_limit=limit), allow_bulk=allow)
    assert plan.erase == ((begun,) if held else (begun, *fresh))
    assert (plan.held_back, plan.held_back_count) == ((fresh, held) if held else ((), 0))


@given(st.lists(st.integers(1, 50), max_size=20), st.integers(0, 200))
def test_rewrites_stay_within_their_bytes_and_none_that_fits_is_left_out(
    sizes: list[int], budget: int
) -> None:
    rows = tuple(segment(n, size) for n, size in enumerate(sizes))
    plan = plan_sweep(SweepFacts(MOMENT, half_dead=rows), replace(LIMITS, rewrite_bytes=budget))
    left = budget - sum(row.size_bytes for row in plan.rewrite)
    assert left >= 0
    assert all(row.size_bytes > left for row in rows if row not in plan.rewrite)
    assert list(plan.rewrite) == sorted(plan.rewrite, key=rows.index)


def test_a_pass_rewrites_a_bounded_number_of_segments() -> None:
    rows = tuple(segment(n, 1) for n in range(MAX_REWRITES + 1))
    assert len(plan_sweep(SweepFacts(MOMENT, half_dead=rows), LIMITS).rewrite) == MAX_REWRITES


def test_the_same_facts_give_the_same_plan_and_nothing_can_change_it() -> None:
    """Invariant 13 rests on it."""
    facts = SweepFacts(MOMENT, stale_prepared=(segment(1, 5),), due=Due(7, 70), unfinished_deletions=(3,))
    plan = plan_sweep(facts, LIMITS)
    assert plan == plan_sweep(facts, LIMITS)
    assert plan.deletes == 8
    assert plan.summary() == plan_sweep(facts, LIMITS).summary()
    assert plan.summary()["finish_deletions"] == [3]
    with pytest.raises(FrozenInstanceError):
        plan.erase = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "ours"), [("v1/31/2026-01-01/w0/0", True), ("v2/x", False), ("v1", False), ("v1/../x", False)]
)
def test_which_keys_are_ours(key: str, ours: bool) -> None:
    assert is_ours(key) == ours


def test_a_plans_decision_is_what_it_newly_ends_and_erases() -> None:
    day = DayTotals(TODAY, 1, 1, 1)
    begun = device(9, erase_state=EraseState.ERASING, erase_reason="lapsed")
    facts = SweepFacts(MOMENT, open_days=(day,), erasing=(begun,), erasable=(device(1),), erasable_count=1)
    decided = plan_sweep(facts, LIMITS).decision
    same = (
        {"due": Due(7, 70)},
        {"stale_prepared": (segment(1, 5),)},
        {"erasing": ()},
        {"open_days": (replace(day, chunks=2),)},
        {"moment": replace(MOMENT, now_ms=NOON + 1)},
    )
    for change in same:
        assert plan_sweep(replace(facts, **change), LIMITS).decision == decided, change  # type: ignore[arg-type]
    other = (
        {"open_days": ()},
        {"open_days": (day, replace(day, expires_on=TODAY - 1))},
        {"erasable": (device(2),)},
        {"erasable": (device(1, terminated_ms=1),)},
        {"erasable_count": LIMITS.bulk_limit + 1},
        {"moment": replace(MOMENT, expired_through=TODAY + 40)},
    )
    for change in other:
        assert plan_sweep(replace(facts, **change), LIMITS).decision != decided, change  # type: ignore[arg-type]
