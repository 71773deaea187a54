"""Plans: months that come back, ends that are entitled days, windows that merge."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.plans import (
    Plan,
    PlanKind,
    add_months,
    cancel,
    denied_from_ms,
    months_started,
    moved,
    period,
    plus_days,
    whole_months,
    windows,
)
from storage.days import to_date, to_day
from storage.errors import CallerError
from tests.retention.life import started

DAY = timedelta(days=1)
DATES = st.dates(date(1970, 1, 1), date(2200, 1, 1))
TRIAL, MONTHLY, ANNUAL = PlanKind.TRIAL, PlanKind.MONTHLY, PlanKind.ANNUAL
PAID = st.sampled_from([MONTHLY, ANNUAL])


def code(error: pytest.ExceptionInfo[CallerError]) -> str:
    return error.value.code


# ---- days and months --------------------------------------------------------------------------------


@given(DATES)
def test_day_number_and_date_are_inverse(on: date) -> None:
    assert to_date(to_day(on)) == on
    assert to_day(on + DAY) == to_day(on) + 1
    assert to_day(date(1970, 1, 1)) == 0


@pytest.mark.parametrize(
    ("start", "months", "expected"),
    [
        (date(2025, 1, 31), 1, date(2025, 2, 28)),
        (date(2025, 1, 31), 2, date(2025, 3, 31)),
        (date(2025, 1, 31), 3, date(2025, 4, 30)),
        (date(2024, 1, 31), 1, date(2024, 2, 29)),
        (date(2024, 2, 29), 12, date(2025, 2, 28)),
        (date(2024, 2, 29), 48, date(2028, 2, 29)),
        (date(2100, 1, 30), 1, date(2100, 2, 28)),  # no leap year
        (date(2096, 2, 29), 48, date(2100, 2, 28)),
        (date(2000, 1, 30), 1, date(2000, 2, 29)),  # a leap year
        (date(2025, 12, 31), 2, date(2026, 2, 28)),
        (date(2025, 6, 30), -4, date(2025, 2, 28)),
        (date(2025, 6, 15), 0, date(2025, 6, 15)),
    ],
)
def test_months_end_and_come_back(start: date, months: int, expected: date) -> None:
    assert add_months(start, months) == expected


@given(DATES, st.integers(0, 600))
def test_months_keep_the_day_or_stop_at_the_months_end(start: date, months: int) -> None:
    on = add_months(start, months)
    assert (on.year - start.year) * 12 + on.month - start.month == months
    assert on.day == start.day or (on.day < start.day and (on + DAY).day == 1)
    assert on < add_months(start, months + 1)


@pytest.mark.parametrize(("start", "months"), [(date(9999, 12, 1), 1), (date(1, 1, 1), -1)])
def test_a_month_the_calendar_does_not_have_is_refused(start: date, months: int) -> None:
    with pytest.raises(CallerError) as caught:
        add_months(start, months)
    assert code(caught) == "date_out_of_range"


# ---- starting ---------------------------------------------------------------------------------------


def test_a_trial_is_fourteen_days_with_seven_days_of_storage() -> None:
    plan = started(TRIAL, date(2025, 2, 20))
    assert plan == Plan(TRIAL, date(2025, 2, 20), 7, date(2025, 3, 5))


@pytest.mark.parametrize(
    ("starts_on", "ends_on"),
    [
        (date(2025, 3, 1), date(2026, 2, 28)),
        (date(2023, 3, 1), date(2024, 2, 29)),
        (date(2024, 2, 29), date(2025, 2, 27)),
        (date(2025, 1, 1), date(2025, 12, 31)),
        (date(2099, 3, 1), date(2100, 2, 28)),
    ],
)
def test_an_annual_plan_is_twelve_months_less_a_day(starts_on: date, ends_on: date) -> None:
    assert started(ANNUAL, starts_on) == Plan(ANNUAL, starts_on, 30, ends_on)


def test_a_monthly_plan_has_no_end_and_the_retention_that_was_offered() -> None:
    plan = started(MONTHLY, date(2025, 1, 31), 255)
    assert plan == Plan(MONTHLY, date(2025, 1, 31), 255, None)
    assert plan.runs(date(9999, 12, 31))
    assert not plan.runs(date(2025, 1, 30))


@pytest.mark.parametrize("retention_days", [-1, 0, 256, 10**9])
def test_a_retention_that_is_no_class_is_refused(retention_days: int) -> None:
    for kind in PlanKind:
        with pytest.raises(CallerError) as caught:
            started(kind, date(2025, 1, 1), retention_days)
        assert code(caught) == "bad_retention_days"


@pytest.mark.parametrize("kind", [TRIAL, ANNUAL])
def test_a_plan_that_would_end_after_the_calendar_is_refused(kind: PlanKind) -> None:
    with pytest.raises(CallerError) as caught:
        started(kind, date(9999, 12, 25))
    assert code(caught) == "date_out_of_range"


@pytest.mark.parametrize(
    ("kind", "starts_on", "ends_on", "cancelled_on"),
    [
        (MONTHLY, date(1969, 12, 31), None, None),
        (MONTHLY, date(2025, 1, 1), None, date(2025, 1, 2)),
        (MONTHLY, date(2025, 1, 2), date(2024, 12, 31), None),
        (ANNUAL, date(2025, 1, 1), None, None),
        (TRIAL, date(2025, 1, 1), None, None),
    ],
)
def test_dates_that_make_no_plan_are_refused(
    kind: PlanKind, starts_on: date, ends_on: date | None, cancelled_on: date | None
) -> None:
    with pytest.raises(CallerError) as caught:
        Plan(kind, starts_on, 30, ends_on, cancelled_on)
    assert code(caught) == "bad_plan_dates"


# ---- periods ----------------------------------------------------------------------------------------


def test_the_periods_of_a_plan_that_starts_on_the_31st() -> None:
    plan = started(MONTHLY, date(2025, 1, 31))
    assert period(plan, date(2025, 1, 31)) == (date(2025, 1, 31), date(2025, 2, 27))
    assert period(plan, date(2025, 2, 27)) == (date(2025, 1, 31), date(2025, 2, 27))
    assert period(plan, date(2025, 2, 28)) == (date(2025, 2, 28), date(2025, 3, 30))
    assert period(plan, date(2025, 3, 31)) == (date(2025, 3, 31), date(2025, 4, 29))


@given(PAID, DATES, st.integers(0, 3000))
def test_periods_leave_no_gap_and_no_overlap(kind: PlanKind, starts_on: date, later: int) -> None:
    plan = started(kind, starts_on)
    on = starts_on + later * DAY
    if not plan.runs(on):
        with pytest.raises(CallerError) as caught:
            period(plan, on)
        assert code(caught) == "not_in_plan"
        return
    first, last = period(plan, on)
    assert first <= on <= last
    assert period(plan, first) == period(plan, last) == (first, last)
    if last == plan.ends_on:
        return
    assert period(plan, last + DAY)[0] == last + DAY


@given(DATES)
def test_an_annual_plan_has_twelve_periods(starts_on: date) -> None:
    plan = started(ANNUAL, starts_on)
    periods = [period(plan, add_months(starts_on, n)) for n in range(12)]
    assert periods[0][0] == starts_on
    assert periods[-1][1] == plan.ends_on
    assert len(set(periods)) == 12


def test_a_trial_is_one_period() -> None:
    plan = started(TRIAL, date(2025, 2, 20))
    assert period(plan, date(2025, 3, 1)) == (date(2025, 2, 20), date(2025, 3, 5))


# ---- cancelling -------------------------------------------------------------------------------------


@given(DATES, st.integers(0, 3000))
def test_a_cancelled_monthly_plan_ends_with_the_period_paid_for(starts_on: date, later: int) -> None:
    """Invariant 2, agreement 8.1: entitled through the last day of the period, not a day longer."""
    plan = started(MONTHLY, starts_on)
    on = starts_on + later * DAY
    cancelled = cancel(plan, on)
    assert cancelled.ends_on == period(plan, on)[1]
    assert cancelled.cancelled_on == on
    assert cancelled.runs(on)
    assert windows([cancelled]) == [(to_day(starts_on), to_day(period(plan, on)[1]))]


def test_a_monthly_plan_cancelled_before_it_starts_never_begins() -> None:
    plan = cancel(started(MONTHLY, date(2025, 3, 1)), date(2025, 2, 27))
    assert plan.ends_on == date(2025, 2, 28)
    assert not plan.runs(date(2025, 3, 1))
    assert not plan.runs(date(2025, 2, 28))
    assert windows([plan]) == []


def test_a_monthly_plan_whose_renewal_was_unpaid_keeps_its_earlier_end_when_cancelled() -> None:
    plan = Plan(MONTHLY, date(2025, 3, 1), 30, ends_on=date(2025, 3, 31))
    assert cancel(plan, date(2025, 3, 31)).ends_on == date(2025, 3, 31)


@given(DATES, st.integers(0, 364))
def test_a_cancelled_annual_plan_runs_to_its_end(starts_on: date, later: int) -> None:
    plan = started(ANNUAL, starts_on)
    on = starts_on + later * DAY
    assert cancel(plan, on) == Plan(ANNUAL, starts_on, 30, plan.ends_on, on)


def test_what_cannot_be_cancelled_says_why() -> None:
    monthly = started(MONTHLY, date(2025, 1, 1))
    annual = started(ANNUAL, date(2025, 1, 1))
    cases = [
        (started(TRIAL, date(2025, 1, 1)), date(2025, 1, 2), "trial_cannot_be_cancelled"),
        (cancel(monthly, date(2025, 1, 2)), date(2025, 1, 3), "plan_already_cancelled"),
        (cancel(annual, date(2025, 1, 2)), date(2025, 1, 3), "plan_already_cancelled"),
        (annual, date(2026, 1, 1), "plan_ended"),
    ]
    for plan, on, expected in cases:
        with pytest.raises(CallerError) as caught:
            cancel(plan, on)
        assert code(caught) == expected


# ---- windows ----------------------------------------------------------------------------------------


@st.composite
def any_plan(draw: st.DrawFn) -> Plan:
    plan = started(draw(st.sampled_from(PlanKind)), date(2024, 1, 1) + draw(st.integers(0, 1500)) * DAY)
    if plan.kind is MONTHLY and draw(st.booleans()):
        return cancel(plan, plan.starts_on + draw(st.integers(-20, 400)) * DAY)
    return plan


@given(st.lists(any_plan(), max_size=6))
def test_windows_are_the_days_of_the_plans_merged_and_in_order(plans: list[Plan]) -> None:
    """Invariant 12."""
    merged = windows(plans)
    for day in range(to_day(date(2023, 12, 1)), to_day(date(2030, 1, 1))):
        in_window = any(first <= day and (last is None or day <= last) for first, last in merged)
        assert in_window == any(plan.runs(to_date(day)) for plan in plans)
    for (_, last), (first, _) in pairwise(merged):
        assert last is not None
        assert last + 1 < first


def test_a_plan_that_follows_without_a_gap_makes_one_window() -> None:
    trial = started(TRIAL, date(2025, 1, 1))
    assert windows([started(ANNUAL, date(2025, 1, 15)), trial]) == [
        (to_day(date(2025, 1, 1)), to_day(date(2026, 1, 14)))
    ]
    assert windows([started(MONTHLY, date(2025, 1, 16)), trial]) == [
        (to_day(date(2025, 1, 1)), to_day(date(2025, 1, 14))),
        (to_day(date(2025, 1, 16)), None),
    ]


# ---- months of a plan, and plans that move ----------------------------------------------------------


def test_a_month_counts_from_its_first_day_on() -> None:
    """Agreement 8.2.1."""
    plan = started(ANNUAL, date(2025, 1, 31))
    begun = {on: months_started(plan, on) for on in (date(2025, 1, 30), date(2025, 1, 31))}
    assert begun == {date(2025, 1, 30): 0, date(2025, 1, 31): 1}
    assert months_started(plan, date(2025, 2, 27)) == 1
    assert months_started(plan, date(2025, 2, 28)) == 2  # clamped to the month's end
    assert months_started(plan, date(2025, 3, 30)) == 2
    assert months_started(plan, date(2025, 3, 31)) == 3
    assert plan.ends_on is not None
    assert months_started(plan, plan.ends_on) == 12


@given(DATES, st.integers(-500, 4000))
def test_months_started_is_the_number_of_first_days_reached(starts_on: date, later: int) -> None:
    plan = started(MONTHLY, starts_on)
    on = starts_on + later * DAY
    assert months_started(plan, on) == sum(add_months(starts_on, n) <= on for n in range(150))


@given(DATES, st.integers(0, 40), DATES)
def test_a_plan_that_moves_keeps_its_months(starts_on: date, months: int, to: date) -> None:
    plan = Plan(MONTHLY, starts_on, 30, add_months(starts_on, months) - DAY)
    assert whole_months(plan) == months
    there = moved(plan, to)
    assert (there.starts_on, whole_months(there)) == (to, months)
    assert moved(there, starts_on) == plan


def test_a_trial_that_moves_keeps_its_days() -> None:
    trial = started(TRIAL, date(2025, 2, 1))
    assert whole_months(trial) is None
    assert moved(trial, date(2024, 2, 20)).ends_on == date(2024, 3, 4)


def test_a_plan_without_an_end_moves_without_one() -> None:
    plan = started(MONTHLY, date(2025, 2, 1))
    assert moved(plan, date(2025, 1, 1)) == started(MONTHLY, date(2025, 1, 1))
    assert whole_months(plan) is None


def test_a_plan_through_the_last_day_there_is_moves_by_its_days() -> None:
    plan = Plan(ANNUAL, date(9999, 12, 1), 30, date.max)
    assert whole_months(plan) is None
    assert moved(plan, date(9999, 11, 1)).ends_on == date(9999, 12, 1)


def test_access_is_denied_from_midnight_utc_after_the_last_day() -> None:
    """Agreement 8.1."""
    assert denied_from_ms(date(1970, 1, 1)) == 86_400_000
    assert denied_from_ms(date(2025, 6, 30)) == round(datetime(2025, 7, 1, tzinfo=UTC).timestamp() * 1000)
    assert denied_from_ms(date.max) == 253_402_300_800_000  # the year 10000 has no date, but an instant


def test_days_beyond_the_calendar_are_refused() -> None:
    for start, days in ((date.max, 1), (date.min, -1), (date(2025, 1, 1), 10**9)):
        with pytest.raises(CallerError) as caught:
            plus_days(start, days)
        assert code(caught) == "date_out_of_range"
