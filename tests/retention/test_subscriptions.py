"""When a plan begins, beside or behind those that are there."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.plans import Plan, PlanKind, cancel, start_plan
from retention.subscriptions import begin
from storage.errors import CallerError

TRIAL, MONTHLY, ANNUAL = PlanKind.TRIAL, PlanKind.MONTHLY, PlanKind.ANNUAL
TODAY = date(2025, 6, 15)
DAY = timedelta(days=1)


def begun(
    plans: list[Plan], kind: PlanKind, starts_on: date | None = None, retention_days: int | None = None
) -> Plan:
    return begin(
        plans,
        kind,
        today=TODAY,
        starts_on=starts_on,
        retention_days=retention_days,
        default_retention_days=30,
    )


def plan(kind: PlanKind, starts_on: date, ends_on: date | None = None) -> Plan:
    made = start_plan(kind, starts_on, None, 30)
    return made if ends_on is None else Plan(kind, starts_on, made.retention_days, ends_on)


def refusal(plans: list[Plan], kind: PlanKind, starts_on: date | None = None) -> CallerError:
    with pytest.raises(CallerError) as caught:
        begun(plans, kind, starts_on)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "ends_on", "days"),
    [(TRIAL, date(2025, 6, 28), 7), (MONTHLY, None, 30), (ANNUAL, date(2026, 6, 14), 30)],
)
def test_the_first_plan_starts_today(kind: PlanKind, ends_on: date | None, days: int) -> None:
    found = begun([], kind)
    assert (found.starts_on, found.ends_on, found.retention_days) == (TODAY, ends_on, days)
    assert found.cancelled_on is None


@pytest.mark.parametrize("starts_on", [date(2024, 12, 1), TODAY + 40 * DAY])
def test_a_named_date_is_taken_past_or_future(starts_on: date) -> None:
    assert begun([], ANNUAL, starts_on).starts_on == starts_on


def test_retention_is_what_was_said_else_the_default() -> None:
    assert begun([], MONTHLY, retention_days=90).retention_days == 90
    assert begun([], MONTHLY).retention_days == 30


@pytest.mark.parametrize("kind", [MONTHLY, ANNUAL])
def test_a_paid_plan_begins_at_once_during_a_trial(kind: PlanKind) -> None:
    trial = plan(TRIAL, TODAY - 3 * DAY)
    assert begun([trial], kind).starts_on == TODAY


@pytest.mark.parametrize("kind", list(PlanKind))
def test_behind_a_plan_with_a_last_day_the_new_one_follows_it(kind: PlanKind) -> None:
    annual = plan(ANNUAL, date(2025, 1, 1))
    assert begun([annual], kind).starts_on == date(2026, 1, 1)
    second = plan(ANNUAL, date(2026, 1, 1))
    assert begun([second, annual], kind).starts_on == date(2027, 1, 1)


def test_behind_a_cancelled_monthly_plan_the_new_one_follows_it() -> None:
    monthly = cancel(plan(MONTHLY, date(2025, 6, 1)), TODAY)
    assert begun([monthly], ANNUAL).starts_on == date(2025, 7, 1)


def test_a_plan_that_renews_itself_has_to_be_cancelled_first() -> None:
    error = refusal([plan(MONTHLY, date(2025, 6, 1))], ANNUAL)
    assert error.code == "plan_renews"
    assert "2025-06-01" in error.detail


@pytest.mark.parametrize("kind", list(PlanKind))
def test_a_plan_that_ended_is_in_nobodys_way(kind: PlanKind) -> None:
    ended = [plan(TRIAL, date(2025, 1, 1)), plan(ANNUAL, date(2024, 1, 1))]
    assert begun(ended, kind).starts_on == TODAY


@pytest.mark.parametrize("kind", list(PlanKind))
def test_a_plan_cancelled_before_it_began_has_no_day_and_is_in_nobodys_way(kind: PlanKind) -> None:
    """It used to push the new plan behind a beginning that never came."""
    never = cancel(plan(MONTHLY, TODAY + 10 * DAY), TODAY)
    assert begun([never], kind).starts_on == TODAY
    assert begun([never], kind, TODAY + 3 * DAY).starts_on == TODAY + 3 * DAY


@pytest.mark.parametrize(
    ("there", "starts_on"),
    [
        (plan(ANNUAL, date(2025, 1, 1)), date(2025, 12, 31)),
        (plan(ANNUAL, date(2025, 1, 1)), date(2024, 6, 1)),  # would still run when that one begins
        (plan(MONTHLY, date(2025, 1, 1)), date(2030, 1, 1)),
        (plan(ANNUAL, date(2024, 1, 1)), date(2024, 12, 31)),  # ended, but both would have had that day
    ],
)
def test_two_paid_plans_never_run_on_one_day(there: Plan, starts_on: date) -> None:
    error = refusal([there], ANNUAL, starts_on)
    assert error.code == "plan_overlaps"
    assert str(there.starts_on) in error.detail


def test_the_day_after_the_last_is_free() -> None:
    there = plan(ANNUAL, date(2024, 1, 1))
    assert begun([there], ANNUAL, date(2025, 1, 1)).starts_on == date(2025, 1, 1)


def test_a_trial_runs_beside_nothing() -> None:
    assert refusal([plan(TRIAL, TODAY - DAY)], TRIAL).code == "plan_overlaps"
    assert refusal([plan(ANNUAL, TODAY - DAY)], TRIAL, TODAY).code == "plan_overlaps"


def test_bad_retention_is_refused() -> None:
    for kind, days, code in ((TRIAL, 30, "trial_retention_fixed"), (MONTHLY, 256, "bad_retention_days")):
        with pytest.raises(CallerError) as caught:
            begun([], kind, retention_days=days)
        assert caught.value.code == code


@given(st.lists(st.tuples(st.sampled_from(PlanKind), st.integers(-500, 500), st.booleans()), max_size=8))
def test_whatever_was_bought_no_day_is_paid_for_twice(wishes: list[tuple[PlanKind, int, bool]]) -> None:
    plans: list[Plan] = []
    refused: set[str] = set()
    for kind, days, today in wishes:
        try:
            plans.append(begun(plans, kind, None if today else TODAY + days * DAY))
        except CallerError as error:
            refused.add(error.code)
            continue
        if kind is MONTHLY and days % 2:
            plans[-1] = cancel(plans[-1], max(TODAY, plans[-1].starts_on - DAY))
    paid = [p for p in plans if p.kind is not TRIAL]
    for number in range(-600, 1600):
        assert sum(p.runs(TODAY + number * DAY) for p in paid) <= 1
    assert refused <= {"plan_overlaps", "plan_renews"}
