"""Compiled bits equal the windows, for any plans and any day."""

from __future__ import annotations

from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from retention.compile import PAST_DAYS, compile_row
from retention.plans import Plan, PlanKind, cancel, windows
from retention.row import PRESENT, RING_DAYS, SUSPENDED, Row, pack, unpack
from storage.days import to_date, to_day
from tests.retention.life import started

DAY = timedelta(days=1)
START = date(2024, 1, 1)
TODAY = to_day(date(2025, 6, 1))
TRIAL, MONTHLY, ANNUAL = PlanKind.TRIAL, PlanKind.MONTHLY, PlanKind.ANNUAL


@st.composite
def any_plan(draw: st.DrawFn) -> Plan:
    kind = draw(st.sampled_from(PlanKind))
    retention_days = None if kind is TRIAL else draw(st.integers(1, 255))
    plan = started(kind, START + draw(st.integers(0, 1500)) * DAY, retention_days)
    if kind is MONTHLY and draw(st.booleans()):
        return cancel(plan, plan.starts_on + draw(st.integers(-20, 400)) * DAY)
    return plan


def compiled(plans: list[Plan], today: int = TODAY) -> Row:
    return compile_row(plans, today=today, flags=PRESENT, token_generation=1, erase_epoch=2)


@settings(max_examples=200)
@given(st.lists(any_plan(), max_size=5), st.integers(to_day(START) - 100, to_day(START) + 2500))
def test_compiled_bits_equal_the_windows(plans: list[Plan], today: int) -> None:
    """Invariants 2 and 12: within its reach a row allows the days of the windows and no other."""
    row = compiled(plans, today)
    merged = windows(plans)
    for day in range(row.first_day - 5, row.first_day + RING_DAYS + 5):
        paid = any(first <= day and (last is None or day <= last) for first, last in merged)
        in_reach = row.first_day <= day < row.first_day + RING_DAYS
        assert row.allows(day) == (paid and in_reach)
    assert unpack(pack(row)) == row


@given(st.lists(any_plan(), min_size=1, max_size=5), st.integers(TODAY - 900, TODAY + 900))
def test_every_capture_day_still_kept_and_128_days_ahead_are_in_reach(plans: list[Plan], today: int) -> None:
    row = compiled(plans, today)
    assert row.first_day == today - PAST_DAYS
    assert all(plan.retention_days < PAST_DAYS for plan in plans)
    assert row.first_day + RING_DAYS >= today + 128


def test_the_reach_named_in_the_docstring() -> None:
    ahead = {}
    for retention_days in (1, 30, 255):
        row = compiled([started(MONTHLY, START, retention_days)])
        ahead[retention_days] = row.first_day + RING_DAYS - TODAY
        assert row.allows(TODAY + ahead[retention_days] - 1)
        assert not row.allows(TODAY + ahead[retention_days])
    assert ahead == {1: 128, 30: 128, 255: 128}


def test_flags_generation_and_epoch_go_in_as_they_are() -> None:
    flags = PRESENT | SUSPENDED
    row = compile_row([], today=TODAY, flags=flags, token_generation=2**32 - 1, erase_epoch=7)
    assert row == Row(flags, 0, TODAY - PAST_DAYS, 2**32 - 1, 7, 0)


def test_the_window_does_not_begin_before_the_epoch() -> None:
    row = compiled([started(MONTHLY, date(1970, 1, 1), 30)], today=3)
    assert row.first_day == 0
    assert row.allows(0)


def test_the_class_is_that_of_the_plan_running_today() -> None:
    trial = started(TRIAL, date(2025, 6, 1))
    annual = started(ANNUAL, date(2025, 6, 15), 60)
    plans = [annual, trial]
    assert compiled(plans, to_day(date(2025, 5, 31))).class_days == 7  # the next to start
    assert compiled(plans, to_day(date(2025, 6, 14))).class_days == 7
    assert compiled(plans, to_day(date(2025, 6, 15))).class_days == 60
    assert compiled(plans, to_day(date(2027, 1, 1))).class_days == 60  # the last that ended
    assert compiled([trial], to_day(date(2027, 1, 1))).class_days == 7


def test_of_two_plans_running_at_once_the_longer_retention_counts() -> None:
    trial = started(TRIAL, date(2025, 6, 1))
    for retention_days, class_days in ((3, 7), (30, 30)):
        paid = started(MONTHLY, date(2025, 6, 4), retention_days)
        assert compiled([trial, paid], to_day(date(2025, 6, 5))).class_days == class_days


def test_a_plan_cancelled_before_it_began_leaves_no_trace_in_the_row() -> None:
    never = cancel(started(MONTHLY, date(2025, 7, 1), 255), date(2025, 6, 1))
    assert compiled([never]) == compiled([])


@given(st.lists(any_plan(), max_size=4))
def test_a_roll_keeps_what_both_rows_can_tell(plans: list[Plan]) -> None:
    """Invariant 1: rolling a row on changes no day that both windows hold."""
    before, after = compiled(plans), compiled(plans, TODAY + 60)
    for day in range(after.first_day, before.first_day + RING_DAYS):
        assert before.allows(day) == after.allows(day)


def test_a_plan_without_end_is_denied_where_nobody_rolled() -> None:
    """Invariant 2: a row fails closed."""
    row = compiled([started(MONTHLY, START, 30)])
    last_day = row.first_day + RING_DAYS - 1
    assert row.allows(last_day)
    assert not row.allows(last_day + 1)
    assert to_date(last_day) == date(2025, 10, 6)
