"""Renewals: what is due when, and which days it pays for (agreement 7.2.2)."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention import renewals
from retention.plans import Plan, PlanKind, add_months, denied_from_ms
from retention.subscriptions import Subscription
from retention.terms import Terms
from storage.errors import CallerError
from tests.retention.life import AHEAD_DAYS, ANNUAL, DAY, MONTHLY, TRIAL, Life, usd

TERMS = Terms(usd(599), usd(599))
HOUR_MS = 3_600_000


def monthly(starts_on: date, months: int = 1, renews: bool = True) -> Subscription:
    return Subscription(1, Plan(MONTHLY, starts_on, 30, add_months(starts_on, months) - DAY), TERMS, renews)


def refusal(call: object, *args: object, **kwargs: object) -> str:
    with pytest.raises(CallerError) as caught:
        call(*args, **kwargs)  # type: ignore[operator]
    return caught.value.code


def extended(sub: Subscription, times: int = 1) -> Subscription:
    for _ in range(times):
        assert sub.plan.ends_on is not None
        sub = renewals.extend(sub, expected_ends_on=sub.plan.ends_on)
    return sub


# ---- periods ----------------------------------------------------------------------------------------


def test_periods_from_the_31st_are_clamped_and_come_back() -> None:
    sub = monthly(date(2025, 1, 31))
    firsts = []
    for _ in range(15):
        firsts.append(renewals.next_period(sub)[0])
        sub = extended(sub)
    assert firsts[:6] == [
        date(2025, 2, 28),
        date(2025, 3, 31),
        date(2025, 4, 30),
        date(2025, 5, 31),
        date(2025, 6, 30),
        date(2025, 7, 31),
    ]
    assert firsts[11:14] == [date(2026, 1, 31), date(2026, 2, 28), date(2026, 3, 31)]


def test_a_leap_day_among_the_periods() -> None:
    sub = monthly(date(2024, 1, 31))
    assert renewals.next_period(sub) == (date(2024, 2, 29), date(2024, 3, 30))
    assert renewals.next_period(extended(sub)) == (date(2024, 3, 31), date(2024, 4, 29))


def test_2100_is_no_leap_year() -> None:
    sub = monthly(date(2100, 1, 30))
    assert sub.plan.ends_on == date(2100, 2, 27)
    assert renewals.next_period(sub) == (date(2100, 2, 28), date(2100, 3, 29))


@given(st.dates(date(1970, 1, 1), date(2200, 1, 1)), st.integers(1, 300))
def test_after_many_renewals_the_days_are_those_of_the_first(starts_on: date, months: int) -> None:
    """No drift: not from one clamped end to the next."""
    sub = extended(monthly(starts_on), months - 1)
    assert sub == monthly(starts_on, months)
    first, last = renewals.next_period(sub)
    assert sub.plan.ends_on is not None
    assert first == sub.plan.ends_on + DAY == add_months(starts_on, months)
    assert last + DAY == add_months(starts_on, months + 1)
    assert 28 <= (last - first).days + 1 <= 31


@pytest.mark.parametrize(
    "plan",
    [
        Plan(PlanKind.MONTHLY, date(2025, 1, 1), 30),
        Plan(PlanKind.MONTHLY, date(2025, 1, 1), 30, date(2025, 1, 20)),
        Plan(PlanKind.MONTHLY, date(2025, 1, 1), 30, date(2024, 12, 31), date(2024, 12, 1)),
        Plan(PlanKind.ANNUAL, date(2025, 1, 1), 30, date(2025, 12, 31)),
        Plan(PlanKind.TRIAL, date(2025, 1, 1), 7, date(2025, 1, 14)),
    ],
)
def test_what_is_no_monthly_plan_with_whole_months_has_no_next_period(plan: Plan) -> None:
    assert refusal(renewals.next_period, Subscription(1, plan)) == "not_renewable"


# ---- due --------------------------------------------------------------------------------------------


def test_it_is_due_from_some_days_before_the_end_through_the_last_day() -> None:
    sub = monthly(date(2025, 1, 1))
    due = [n for n in range(-40, 80) if renewals.due(sub, date(2025, 1, 31) + n * DAY, AHEAD_DAYS)]
    assert due == [-3, -2, -1, 0]
    assert not renewals.due(extended(sub), date(2025, 1, 31), AHEAD_DAYS)


@given(st.dates(date(1970, 1, 1), date(2200, 1, 1)), st.integers(0, 27), st.integers(0, 400))
def test_at_most_one_period_is_charged_ahead(starts_on: date, ahead_days: int, later: int) -> None:
    sub = monthly(starts_on)
    for n in range(later):
        on = starts_on + n * DAY
        if renewals.due(sub, on, ahead_days):
            sub = extended(sub)
            assert not renewals.due(sub, on, ahead_days)
        assert sub.plan.runs(on)  # paid in time, it never stops
        assert sub.plan.ends_on is not None
        assert (sub.plan.ends_on - on).days <= 31 + ahead_days


def test_what_does_not_renew_or_is_suspended_is_not_charged() -> None:
    last = date(2025, 1, 31)
    sub = monthly(date(2025, 1, 1))
    assert renewals.due(sub, last, AHEAD_DAYS)
    assert not renewals.due(sub, last, AHEAD_DAYS, suspended=True)
    assert not renewals.due(replace(sub, renews=False), last, AHEAD_DAYS)
    assert not renewals.due(monthly(date(2025, 2, 1)), last, 27)  # not begun
    assert not renewals.due(Subscription(1, Plan(MONTHLY, date(2025, 1, 1), 30)), last, AHEAD_DAYS)


def test_in_the_last_month_of_the_calendar_nothing_is_due() -> None:
    sub = monthly(date(9999, 11, 15))
    assert not renewals.due(sub, date(9999, 12, 14), AHEAD_DAYS)
    assert refusal(renewals.next_period, sub) == "date_out_of_range"


# ---- paid, or not -----------------------------------------------------------------------------------


def test_an_answer_that_comes_too_late_extends_nothing() -> None:
    """Cancelled, bought over or extended while the gateway was asked: the desk gives the charge back."""
    sub = monthly(date(2025, 1, 1))
    last = date(2025, 1, 31)
    assert refusal(renewals.extend, extended(sub), expected_ends_on=last) == "not_due"
    assert refusal(renewals.extend, replace(sub, renews=False), expected_ends_on=last) == "not_due"
    life = Life(date(2025, 1, 1))
    plan = life.buy(MONTHLY)
    life.cancel(plan)
    assert refusal(renewals.extend, life.sub(plan), expected_ends_on=last) == "not_due"


def test_a_period_that_ended_unpaid_lapses_for_good() -> None:
    sub = monthly(date(2025, 1, 1))
    assert renewals.lapse_unpaid(sub, date(2025, 1, 31)) is sub
    lapsed = renewals.lapse_unpaid(sub, date(2025, 2, 1))
    assert lapsed == replace(sub, renews=False)
    assert renewals.lapse_unpaid(lapsed, date(2025, 3, 1)) is lapsed
    assert not any(renewals.due(lapsed, date(2025, 1, 1) + n * DAY, 27) for n in range(100))
    assert refusal(renewals.extend, lapsed, expected_ends_on=date(2025, 1, 31)) == "not_due"


def test_a_suspended_account_is_not_charged_and_its_plan_lapses_with_the_period() -> None:
    life = Life(date(2025, 1, 1))
    plan = life.buy(MONTHLY)
    life.suspended = True
    life.wait(40)
    life.suspended = False
    life.wait(40)
    assert life.paid[plan] == usd(599)
    assert life.days(plan) == (date(2025, 1, 1), date(2025, 1, 31))
    assert life.buy(MONTHLY) != plan  # it can be bought again, from that day on


@pytest.mark.parametrize("kind", [TRIAL, ANNUAL])
def test_nothing_but_a_monthly_plan_renews(kind: PlanKind) -> None:
    life = Life(date(2025, 1, 1))
    if kind is TRIAL:
        life.trial()
    else:
        life.buy(ANNUAL)
    end = life.subs[0].plan.ends_on
    life.wait(400)
    assert life.subs[0].plan.ends_on == end


# ---- tries ------------------------------------------------------------------------------------------


def test_a_failed_charge_is_tried_again_and_once_more_before_the_end() -> None:
    sub = monthly(date(2025, 1, 1))
    end_ms = denied_from_ms(date(2025, 1, 31))
    tries = [end_ms - 3 * 24 * HOUR_MS + 5]
    while tries[-1] < end_ms and len(tries) < 20:
        tries.append(renewals.retry_at_ms(sub, now_ms=tries[-1], retry_ms=12 * HOUR_MS))
    assert [(end_ms - at) / HOUR_MS for at in tries[-3:-1]] == [pytest.approx(12, abs=1e-3), 1]
    assert len(tries) == 8
    assert tries[-1] == end_ms  # and that one is never made: the plan lapses then


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**10))
def test_a_next_try_is_later_than_this_one_and_no_later_than_the_schedule(
    offset_ms: int, retry_ms: int
) -> None:
    sub = monthly(date(2025, 1, 1))
    now_ms = denied_from_ms(date(2025, 1, 31)) + offset_ms
    assert now_ms < renewals.retry_at_ms(sub, now_ms=now_ms, retry_ms=retry_ms) <= now_ms + retry_ms
