"""Cancelling: last days, refunds, and what moves up (agreement 7.2, 8)."""

from __future__ import annotations

from datetime import date

import pytest

from retention import cancelling
from retention.cancelling import CancelKind, Outcome
from retention.money import Money
from retention.plans import Plan, denied_from_ms
from retention.subscriptions import Subscription
from retention.terms import Terms
from storage.errors import CallerError, NotFound
from tests.retention.life import ANNUAL, DAY, FREE, MONTHLY, PRICES, TRIAL, Life, Prices, usd


def refusal(life: Life, plan_id: int) -> str:
    before = life.subs
    with pytest.raises(CallerError) as caught:
        life.cancel(plan_id)
    assert life.subs == before
    return caught.value.code


# ---- annual -----------------------------------------------------------------------------------------


def test_an_annual_plan_cancelled_in_month_5_is_refunded_and_ends_with_that_month() -> None:
    """8.2.1: 59.99 less five months of 5.99; what was charged for is kept, what is refunded is not."""
    life = Life(date(2025, 1, 31))
    plan = life.buy(ANNUAL)
    life.go(date(2025, 6, 15))
    done = life.cancel(plan)
    assert (done.kind, done.refund) == (CancelKind.ANNUAL, usd(3004))
    assert done.last_day == date(2025, 6, 29)
    assert done.denied_from_ms == denied_from_ms(date(2025, 6, 29))
    assert life.sub(plan).plan.cancelled_on == date(2025, 6, 15)
    assert done.change.notes[0].code == "ends_early"


@pytest.mark.parametrize(
    ("on", "months"),
    [
        (date(2025, 1, 31), 1),  # its first day
        (date(2025, 2, 27), 1),
        (date(2025, 2, 28), 2),  # the second month's first day
        (date(2025, 3, 30), 2),
        (date(2025, 3, 31), 3),
        (date(2025, 11, 29), 10),
    ],
)
def test_a_month_that_began_is_charged_whole(on: date, months: int) -> None:
    life = Life(date(2025, 1, 31))
    plan = life.buy(ANNUAL)
    life.go(on)
    assert life.cancel(plan).refund == usd(5999 - 599 * months)
    assert life.months[plan] == months


def test_where_nothing_is_due_an_annual_plan_runs_to_its_end() -> None:
    """Eleven months of 5.99 are more than the year cost."""
    life = Life(date(2025, 1, 31))
    plan = life.buy(ANNUAL)
    life.go(date(2025, 12, 1))
    done = life.cancel(plan)
    assert (done.refund, done.last_day, done.change.notes) == (FREE, date(2026, 1, 30), ())


def test_credits_above_the_refund_let_it_run_to_its_end_too() -> None:
    life = Life(date(2025, 1, 1))
    plan = life.buy(ANNUAL)
    life.credit(plan, 5400)
    done = life.cancel(plan)
    assert (done.refund, done.last_day) == (FREE, date(2025, 12, 31))


def test_an_annual_plan_from_29_february() -> None:
    life = Life(date(2024, 2, 29))
    plan = life.buy(ANNUAL)
    assert life.days(plan) == (date(2024, 2, 29), date(2025, 2, 27))
    life.go(date(2024, 3, 29))
    assert life.cancel(plan).last_day == date(2024, 4, 28)


def test_in_the_last_month_what_is_left_is_refunded_and_the_end_stays() -> None:
    life = Life(date(2025, 1, 1), Prices(usd(100), usd(5999)))
    plan = life.buy(ANNUAL)
    life.go(date(2025, 12, 31))
    done = life.cancel(plan)
    assert (done.refund, done.last_day) == (usd(4799), date(2025, 12, 31))


def test_the_fees_are_those_of_the_day_of_purchase() -> None:
    life = Life(date(2025, 1, 1))
    plan = life.buy(ANNUAL)
    life.prices = Prices(usd(999), usd(9999))
    life.go(date(2025, 2, 1))
    assert life.cancel(plan).refund == usd(5999 - 2 * 599)


# ---- before its first day ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MONTHLY, ANNUAL])
def test_until_it_takes_effect_a_stacked_plan_is_refunded_in_full_and_once(kind: object) -> None:
    """7.2.1."""
    life = Life(date(2025, 1, 1))
    life.buy(ANNUAL)
    stacked = life.buy(MONTHLY if kind is MONTHLY else ANNUAL)
    paid = life.paid[stacked]
    life.go(date(2025, 12, 31))
    done = life.cancel(stacked)
    assert (done.kind, done.refund, done.last_day, done.denied_from_ms) == ("before_start", paid, None, None)
    assert not life.sub(stacked).plan.has_days
    assert life.owners(date(2026, 1, 1)) == []
    assert refusal(life, stacked) == "plan_already_cancelled"


def test_on_its_first_day_it_is_no_longer_refunded_in_full() -> None:
    life = Life(date(2025, 1, 1))
    life.buy(ANNUAL)
    stacked = life.buy(ANNUAL)
    life.go(date(2026, 1, 1))
    assert life.cancel(stacked).refund == usd(5400)


# ---- what moves up ----------------------------------------------------------------------------------


def test_three_stacked_plans_move_up_when_the_running_one_is_cut_and_keep_their_months() -> None:
    life = Life(date(2024, 10, 31))
    running = life.buy(ANNUAL)
    second, third, fourth = life.buy(ANNUAL), life.buy(MONTHLY), life.buy(ANNUAL)
    assert life.days(third) == (date(2026, 10, 31), date(2026, 11, 29))
    life.go(date(2025, 1, 31))
    done = life.cancel(running)
    assert done.last_day == date(2025, 2, 27)
    assert done.denied_from_ms is None  # the next one goes on
    assert [sub.plan_id for sub in done.moved] == [second, third, fourth]
    assert life.days(second) == (date(2025, 2, 28), date(2026, 2, 27))
    assert life.days(third) == (date(2026, 2, 28), date(2026, 3, 27))
    assert life.days(fourth) == (date(2026, 3, 28), date(2027, 3, 27))
    assert [note.code for note in done.change.notes] == ["ends_early", "moved_up", "moved_up", "moved_up"]


def test_when_one_in_the_middle_is_cancelled_those_behind_it_move_up() -> None:
    life = Life(date(2025, 1, 1))
    running, middle, last = life.buy(ANNUAL), life.buy(ANNUAL), life.buy(MONTHLY)
    done = life.cancel(middle)
    assert done.refund == usd(5999)
    assert life.days(running) == (date(2025, 1, 1), date(2025, 12, 31))
    assert life.days(last) == (date(2026, 1, 1), date(2026, 1, 31))
    assert life.sub(last).renews
    assert [sub.plan_id for sub in done.moved] == [last]
    assert life.cancel(last).refund == usd(599)  # still not begun


def test_where_a_plan_runs_to_its_end_nothing_moves() -> None:
    life = Life(date(2025, 1, 1))
    running, stacked = life.buy(ANNUAL), life.buy(ANNUAL)
    life.go(date(2025, 12, 15))
    done = life.cancel(running)
    assert (done.moved, done.denied_from_ms) == ((), None)
    assert life.days(stacked)[0] == date(2026, 1, 1)


def test_what_was_granted_for_a_later_date_stays_there() -> None:
    life = Life(date(2025, 1, 1))
    running = life.buy(ANNUAL)
    later = life.grant(ANNUAL, date(2026, 3, 1))
    done = life.cancel(running)
    assert done.moved == ()
    assert done.denied_from_ms == denied_from_ms(date(2025, 1, 31))
    assert life.days(later)[0] == date(2026, 3, 1)


def test_a_trial_granted_behind_a_plan_moves_with_its_days() -> None:
    life = Life(date(2025, 1, 1))
    running, trial = life.buy(ANNUAL), life.grant(TRIAL)
    life.cancel(running)
    assert life.days(trial) == (date(2025, 2, 1), date(2025, 2, 14))


# ---- monthly ----------------------------------------------------------------------------------------


def test_a_monthly_plan_ends_with_its_period_and_refunds_nothing() -> None:
    """8.1, 8.2.2."""
    life = Life(date(2025, 1, 31))
    plan = life.buy(MONTHLY)
    life.go(date(2025, 2, 10))
    done = life.cancel(plan)
    assert (done.kind, done.refund, done.last_day) == (CancelKind.MONTHLY, FREE, date(2025, 2, 27))
    assert not life.sub(plan).renews
    life.wait(60)
    assert life.days(plan) == (date(2025, 1, 31), date(2025, 2, 27))
    assert life.months[plan] == 1


def test_cancelled_on_its_last_day_it_has_that_day() -> None:
    life = Life(date(2025, 1, 31))
    plan = life.buy(MONTHLY)
    life.go(date(2025, 2, 27))
    done = life.cancel(plan)
    assert (done.refund, done.last_day) == (FREE, date(2025, 2, 27))


def test_a_period_charged_ahead_is_refunded_in_full_and_cut_off() -> None:
    life = Life(date(2025, 1, 31))
    plan = life.buy(MONTHLY)
    life.wait(24)  # 24 February, three days before the end
    assert life.days(plan) == (date(2025, 1, 31), date(2025, 3, 30))
    done = life.cancel(plan)
    assert (done.refund, done.last_day) == (usd(599), date(2025, 2, 27))
    assert life.months[plan] == 1


def test_once_that_period_has_begun_nothing_of_it_is_refunded() -> None:
    life = Life(date(2025, 1, 31))
    plan = life.buy(MONTHLY)
    life.wait(28)  # 28 February, its first day
    done = life.cancel(plan)
    assert (done.refund, done.last_day) == (FREE, date(2025, 3, 30))


def test_what_follows_a_month_charged_ahead_moves_up_when_that_is_cut_off() -> None:
    life = Life(date(2025, 1, 31))
    monthly = life.buy(MONTHLY)
    life.wait(25)
    annual = life.buy(ANNUAL)
    assert life.days(annual)[0] == date(2025, 3, 31)
    done = life.cancel(monthly)
    assert (done.refund, done.last_day, done.denied_from_ms) == (usd(599), date(2025, 2, 27), None)
    assert life.days(annual) == (date(2025, 2, 28), date(2026, 2, 27))


# ---- granted ----------------------------------------------------------------------------------------


def test_what_was_granted_ends_as_paid_plans_do_and_refunds_nothing() -> None:
    life = Life(date(2025, 1, 31))
    monthly = life.grant(MONTHLY)
    life.go(date(2025, 4, 1))
    done = life.cancel(monthly)
    assert (done.kind, done.refund, done.last_day) == (CancelKind.GRANTED, FREE, date(2025, 4, 29))
    life.go(date(2025, 5, 1))
    annual = life.grant(ANNUAL)
    done = life.cancel(annual)
    assert (done.kind, done.refund, done.last_day) == (CancelKind.GRANTED, FREE, date(2026, 4, 30))


def test_what_was_granted_for_later_and_is_cancelled_gets_no_day() -> None:
    for kind in (MONTHLY, ANNUAL):
        life = Life(date(2025, 1, 31))
        plan = life.grant(kind, date(2025, 3, 1))
        done = life.cancel(plan)
        assert (done.kind, done.refund, done.last_day) == (CancelKind.BEFORE_START, FREE, None)
        assert not life.sub(plan).plan.has_days


# ---- what is refused --------------------------------------------------------------------------------


def test_a_trial_ends_by_itself() -> None:
    """7.1."""
    life = Life(date(2025, 1, 1))
    trial = life.trial().after[-1].plan_id
    assert refusal(life, trial) == "trial_cannot_be_cancelled"
    life.buy(ANNUAL)  # the trial has no day now
    assert refusal(life, trial) == "trial_cannot_be_cancelled"


def test_nothing_is_cancelled_twice_or_after_its_end() -> None:
    life = Life(date(2025, 1, 1))
    plan, other = life.buy(ANNUAL), life.buy(MONTHLY)
    life.cancel(plan)
    assert refusal(life, plan) == "plan_already_cancelled"
    life.cancel(other)
    life.go(date(2030, 1, 1))
    late = life.buy(MONTHLY)
    life.go(date(2030, 2, 1))
    assert refusal(life, late) == "plan_ended"


@pytest.mark.parametrize("plan_id", [0, -1, 99])
def test_a_plan_that_is_not_there_is_not_found(plan_id: int) -> None:
    life = Life(date(2025, 1, 1))
    life.buy(ANNUAL)
    unstored = (Subscription(0, life.subs[0].plan, life.subs[0].terms),)
    for subs in (life.subs, unstored, ()):
        with pytest.raises(NotFound):
            cancelling.cancel(subs, plan_id, today=life.today, paid=FREE, credits=FREE)


@pytest.mark.parametrize(
    ("paid", "credits", "code"),
    [
        (Money(5999, "EUR"), usd(0), "wrong_currency"),
        (usd(5999), Money(0, "EUR"), "wrong_currency"),
        (Money(5999, "EUR"), Money(0, "EUR"), "wrong_currency"),
        (usd(-1), usd(0), "bad_amount"),
        (usd(5999), usd(-1), "bad_amount"),
    ],
)
def test_amounts_that_can_not_be_change_nothing(paid: Money, credits: Money, code: str) -> None:
    for days in (0, -5):  # on its first day, and before
        for kind in (MONTHLY, ANNUAL):
            life = Life(date(2025, 6, 1))
            life.buy(kind)
            with pytest.raises(CallerError) as caught:
                cancelling.cancel(life.subs, 1, today=life.today + days * DAY, paid=paid, credits=credits)
            assert caught.value.code == code


def test_a_day_long_before_the_plan_counts_as_before_it() -> None:
    """A clock that was set back refunds all and lets nothing begin."""
    life = Life(date(2025, 6, 1))
    plan = life.buy(ANNUAL)
    life.go(date(1, 1, 1))
    done = life.cancel(plan)
    assert (done.kind, done.refund, done.last_day) == (CancelKind.BEFORE_START, usd(5999), None)


def test_at_the_end_of_the_calendar_a_plan_is_still_cancelled() -> None:
    terms = Terms(usd(5999), usd(599))
    life = Life(date(9998, 12, 31))
    plan = life.buy(ANNUAL, terms)
    assert life.days(plan)[1] == date(9999, 12, 30)
    life.go(date(9999, 12, 30))
    assert life.cancel(plan).last_day == date(9999, 12, 30)
    with pytest.raises(CallerError) as caught:
        life.buy(ANNUAL)
    assert caught.value.code == "date_out_of_range"


# ---- both outcomes ----------------------------------------------------------------------------------


def test_the_owner_sees_both_outcomes_before_confirming() -> None:
    life = Life(date(2025, 1, 31))
    annual = life.buy(ANNUAL)
    life.go(date(2025, 6, 15))
    before = life.subs
    seen = cancelling.outcomes(life.subs, annual, today=life.today, paid=usd(5999), credits=FREE)
    assert seen.keep == Outcome(date(2026, 1, 30), denied_from_ms(date(2026, 1, 30)), False, FREE)
    assert seen.cancel == Outcome(date(2025, 6, 29), denied_from_ms(date(2025, 6, 29)), False, usd(3004))
    assert life.subs == before
    assert life.cancel(annual) == seen.cancellation


def test_outcomes_of_a_monthly_plan_that_renews_and_of_one_granted_without_an_end() -> None:
    life = Life(date(2025, 1, 31))
    monthly = life.buy(MONTHLY)
    seen = cancelling.outcomes(life.subs, monthly, today=life.today, paid=PRICES.monthly, credits=FREE)
    end = date(2025, 2, 27)
    assert seen.keep == Outcome(end, denied_from_ms(end), True, FREE)
    assert seen.cancel == Outcome(end, denied_from_ms(end), False, FREE)
    life = Life(date(2025, 1, 31))
    granted = life.grant(MONTHLY)
    seen = cancelling.outcomes(life.subs, granted, today=life.today, paid=FREE, credits=FREE)
    assert seen.keep == Outcome(None, None, True, FREE)
    assert seen.cancel.last_day == end


def test_what_can_not_be_cancelled_has_no_outcomes() -> None:
    life = Life(date(2025, 1, 1))
    life.trial()
    with pytest.raises(CallerError) as caught:
        cancelling.outcomes(life.subs, 1, today=life.today, paid=FREE, credits=FREE)
    assert caught.value.code == "trial_cannot_be_cancelled"


@pytest.mark.parametrize("today", [date(2099, 3, 1), date(2096, 2, 29)])
def test_2100_is_no_leap_year(today: date) -> None:
    life = Life(today)
    plan = life.buy(ANNUAL)
    first, last = life.days(plan)
    assert last is not None
    assert (first, last) == (today, date(2100, 2, 28) if today.year == 2099 else date(2097, 2, 27))
    life.go(last)
    assert life.cancel(plan).refund == FREE


def test_a_plan_imported_through_the_last_day_there_is() -> None:
    plan = Plan(ANNUAL, date(9999, 1, 1), 30, date.max)
    subs = [Subscription(1, plan, Terms(usd(5999), usd(599)))]
    seen = cancelling.outcomes(subs, 1, today=date(9999, 1, 5), paid=usd(5999), credits=FREE)
    assert seen.keep.denied_from_ms == denied_from_ms(date.max)
    assert (seen.cancel.last_day, seen.cancel.refund) == (date(9999, 1, 31), usd(5400))
