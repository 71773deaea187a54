"""Whether a clock may be believed: the rule, and what it keeps from happening (invariants 3, 12)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retention.sweep import SweepRefused
from retention.witness import MARK_EVERY_MS, SETTLED_MS, ClockDoubted, ClockFacts, doubt
from storage.clock import ClockMark, SystemClock
from storage.errors import StoreUnavailable
from storage.faults import Fault, FaultKind
from tests.retention.world import DELAY_MS, HOUR, NOON, SKEW_MS, World, fast_folder, monthly

DAY = 24 * HOUR
UP = 10 * SETTLED_MS
MARK = ClockMark(NOON, UP, boot=7)


def doubted(
    now: ClockMark,
    mark: ClockMark | None = MARK,
    *,
    store_ms: int | None = None,
    seen_ms: int = 0,
    home_ms: int | None = None,
) -> str | None:
    found = doubt(ClockFacts(now, store_ms, mark, seen_ms, home_ms), max_skew_ms=SKEW_MS, max_rest_ms=DAY)
    return None if found is None else found.code


@given(passed_ms=st.integers(0, 400 * DAY), off_ms=st.integers(-400 * DAY, 400 * DAY))
def test_in_one_boot_the_time_since_the_mark_is_known(passed_ms: int, off_ms: int) -> None:
    now = ClockMark(NOON + passed_ms + off_ms, UP + passed_ms, boot=7)
    allowed = SKEW_MS + passed_ms * 0.001
    assert doubted(now) == ("clock_jumped" if abs(off_ms) > allowed else None)


@given(off_ms=st.integers(-HOUR, HOUR))
@example(60_000)
@example(-60_001)
def test_a_host_differs_from_home_by_a_minute_at_most(off_ms: int) -> None:
    """Whatever the other witnesses say."""
    wanted = "clock_off_home" if abs(off_ms) > 60_000 else None
    assert doubted(MARK, home_ms=NOON - off_ms) == wanted
    assert doubted(MARK, home_ms=NOON - off_ms, store_ms=NOON) == wanted


@given(rest_ms=st.integers(-400 * DAY, 400 * DAY))
def test_across_a_boot_nobody_can_tell_and_a_long_rest_asks(rest_ms: int) -> None:
    wanted = None if -SKEW_MS <= rest_ms <= DAY else "clock_jumped"
    later = NOON + rest_ms
    assert doubted(ClockMark(later, UP + 5, boot=8)) == wanted, "another boot"
    assert doubted(ClockMark(later, UP - 5, boot=7)) == wanted, "an uptime that began anew"
    assert doubted(ClockMark(later, UP + 5, boot=0), ClockMark(NOON, UP, 0)) == wanted, "no boot id"
    assert doubted(ClockMark(later, UP, boot=7), None, seen_ms=NOON) == wanted, "before the first mark"


def test_a_mark_of_the_first_minutes_of_a_boot_is_of_a_clock_that_nobody_set_yet() -> None:
    """A machine without a battery for its clock, which the network then tells the time."""
    early = ClockMark(NOON, SETTLED_MS - 1, boot=7)
    assert doubted(ClockMark(NOON + 8 * HOUR, SETTLED_MS, boot=7), early) is None
    assert doubted(ClockMark(NOON + 2 * DAY, SETTLED_MS, boot=7), early) == "clock_jumped"


def test_a_new_folder_has_nothing_to_lose() -> None:
    assert doubted(ClockMark(NOON, UP, boot=7), None) is None


@pytest.mark.parametrize(("off_ms", "code"), [(SKEW_MS, None), (-SKEW_MS - 1, "clock_skew")])
def test_a_store_that_has_a_clock_decides(off_ms: int, code: str | None) -> None:
    """However long the host was off."""
    now = ClockMark(NOON + 90 * DAY, 5, boot=8)
    assert doubted(now, store_ms=now.wall_ms + off_ms) == code


def test_this_machine_says_how_long_it_runs() -> None:
    first, second = SystemClock().mark(), SystemClock().mark()
    assert first.boot == second.boot != 0
    assert 0 < first.uptime_ms <= second.uptime_ms


# --- sweeps ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder, local=True) as world:
        yield world


def test_forty_days_ahead_and_one_sweep_destroys_nothing(world: World) -> None:
    device = world.add(monthly(0))
    world.keep([(device, NOON)])
    world.sweep().run()
    world.clock.jump(40 * DAY)
    before = world.state()
    for act in (world.sweep().run, world.sweep().plan):
        with pytest.raises(SweepRefused) as caught:
            act()
        assert caught.value.code == "clock_jumped"
        assert "--accept-clock" in caught.value.detail
    assert world.state() == before
    world.clock.jump(-40 * DAY)
    world.sweep().run()
    assert world.serves(device, NOON) == [True]


def test_a_clock_that_jumped_does_not_vouch_for_itself(world: World) -> None:
    """Neither by being asked again and again, nor by what is recorded meanwhile."""
    device = world.add(monthly(0))
    world.keep([(device, NOON)])
    world.sweep().run()
    world.clock.jump(40 * DAY)
    for _ in range(3):
        world.keep([(device, world.clock.ms)])
        with pytest.raises(ClockDoubted):
            world.witness.note()
        world.clock.ms += HOUR
    with pytest.raises(SweepRefused):
        world.sweep().run()


def test_an_operator_says_once_that_the_clock_is_right(world: World) -> None:
    device = world.add(monthly(0))
    world.keep([(device, NOON)])
    world.sweep().run()
    world.clock.jump(40 * DAY)
    before = world.catalog.clock_mark()
    assert world.sweep().plan(accept_clock=True).expire
    assert world.catalog.clock_mark() == before, "a dry run writes nothing"
    assert world.sweep().run(accept_clock=True).unindexed_chunks == 1
    world.clock.ms += DELAY_MS
    assert world.sweep().run().deleted_objects == 1


def test_time_that_passes_is_no_jump(world: World) -> None:
    device = world.add(monthly(0))
    world.keep([(device, NOON)])
    world.sweep().run()
    world.clock.ms += 40 * DAY
    assert world.sweep().run().unindexed_chunks == 1


def test_a_mark_is_not_written_for_every_question(world: World) -> None:
    world.witness.note()
    first = world.catalog.clock_mark()
    world.clock.ms += MARK_EVERY_MS - 1
    world.witness.note()
    assert world.catalog.clock_mark() == first
    world.clock.ms += 1
    world.witness.note()
    assert world.catalog.clock_mark() == world.clock.mark()


def test_a_store_that_is_away_is_not_taken_for_one_without_a_clock(world: World) -> None:
    world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE) if op == "server_time_s" else None
    with pytest.raises(StoreUnavailable):
        world.witness.require(accept=True)
