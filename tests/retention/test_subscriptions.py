"""When a plan begins, beside or behind those that are there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention.plans import Plan, PlanKind, cancel
from retention.subscriptions import Subscription, begin, buy, end_all, start_trial
from storage.errors import CallerError
from tests.retention.life import PRICES, Life, offer, started

TRIAL, MONTHLY, ANNUAL = PlanKind.TRIAL, PlanKind.MONTHLY, PlanKind.ANNUAL
TODAY = date(2025, 6, 15)
DAY = timedelta(days=1)


def begun(
    plans: list[Plan], kind: PlanKind, starts_on: date | None = None, retention_days: int | None = None
) -> Plan:
    return begin(plans, offer(kind, retention_days), today=TODAY, starts_on=starts_on)


def plan(kind: PlanKind, starts_on: date, ends_on: date | None = None) -> Plan:
    made = started(kind, starts_on)
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
    with pytest.raises(CallerError) as caught:
        begun([], MONTHLY, retention_days=256)
    assert caught.value.code == "bad_retention_days"


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


# ---- the trial --------------------------------------------------------------------------------------


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(CallerError) as caught:
        call()
    return caught.value.code


def test_an_account_has_one_trial_ever_whatever_became_of_it() -> None:
    """Agreement 7.1."""
    change = start_trial((), offer(TRIAL), today=TODAY, account_trial_used=False)
    assert change.new is not None
    assert change.new == Subscription(0, Plan(TRIAL, TODAY, 7, TODAY + 13 * DAY))
    assert (
        code_of(lambda: start_trial((), offer(TRIAL), today=TODAY, account_trial_used=True)) == "trial_used"
    )


def test_a_trial_begins_beside_no_other_plan() -> None:
    for kind in (MONTHLY, ANNUAL):
        life = Life(TODAY)
        life.buy(kind)
        assert code_of(life.trial) == "plan_overlaps"
        life.go(date(2030, 1, 1))
        assert life.trial().new is not None


def test_a_trial_closes_by_itself_after_14_days() -> None:
    life = Life(TODAY)
    life.trial()
    assert life.owners(TODAY + 13 * DAY) == [1]
    assert life.owners(TODAY + 14 * DAY) == []


@pytest.mark.parametrize("kind", [MONTHLY, ANNUAL])
@pytest.mark.parametrize("later", range(14))
def test_paying_during_the_trial_starts_the_plan_at_once_without_a_gap(kind: PlanKind, later: int) -> None:
    """On its first day, on its last, and between: no day is missing and none belongs to both."""
    life = Life(TODAY)
    life.trial()
    life.go(TODAY + later * DAY)
    plan = life.buy(kind)
    assert life.days(plan)[0] == life.today
    owners = [life.owners(TODAY + n * DAY) for n in range(20)]
    assert owners == [[1]] * later + [[plan]] * (20 - later)
    assert life.sub(1).plan.retention_days == 7
    assert life.sub(1).plan.cancelled_on is None


def test_the_purchase_says_that_what_the_trial_recorded_keeps_its_7_days() -> None:
    life = Life(TODAY)
    life.trial()
    for later, text in (
        (3, f"The trial's last day is {TODAY + 2 * DAY}"),
        (0, "takes the place of the trial"),
    ):
        change = buy(life.subs, offer(ANNUAL, 90), PRICES.terms(ANNUAL), today=TODAY + later * DAY)
        [note] = change.notes
        assert note.code == "trial_cut"
        assert text in note.text
        assert "7 days" in note.text
        assert "90 days" in note.text


def test_the_day_after_the_trial_is_not_its_business() -> None:
    life = Life(TODAY)
    life.trial()
    trial = life.subs[0]
    life.go(TODAY + 14 * DAY)
    life.buy(MONTHLY)
    assert life.subs[0] == trial


# ---- buying -----------------------------------------------------------------------------------------


def test_what_is_bought_is_paid_for_through_its_first_period_and_only_monthly_renews() -> None:
    life = Life(date(2025, 1, 31))
    monthly = life.sub(life.buy(MONTHLY))
    assert (monthly.plan.ends_on, monthly.renews) == (date(2025, 2, 27), True)
    annual = life.sub(life.buy(ANNUAL))
    assert (annual.plan.starts_on, annual.plan.ends_on) == (date(2025, 2, 28), date(2026, 2, 27))
    assert not annual.renews
    assert life.buy(MONTHLY, retention_days=90)
    assert [sub.plan.retention_days for sub in life.subs] == [30, 30, 90]


def test_a_plan_bought_while_another_runs_starts_the_day_after_it_ends() -> None:
    """7.2.1."""
    life = Life(TODAY)
    life.buy(ANNUAL)
    change = buy(life.subs, offer(ANNUAL), PRICES.terms(ANNUAL), today=TODAY)
    assert change.new is not None
    assert change.new.plan.starts_on == date(2026, 6, 15)
    assert change.changed == ()
    assert [note.code for note in change.notes] == ["follows"]
    assert "2026-06-15" in change.notes[0].text


@pytest.mark.parametrize("kind", [MONTHLY, ANNUAL])
def test_bought_while_a_monthly_plan_renews_the_renewal_stops_and_the_new_one_follows(kind: PlanKind) -> None:
    life = Life(date(2025, 1, 31))
    monthly = life.buy(MONTHLY)
    life.go(date(2025, 2, 10))
    new = life.buy(kind)
    assert not life.sub(monthly).renews
    assert life.sub(monthly).plan.cancelled_on is None
    assert life.days(new)[0] == date(2025, 2, 28)
    life.wait(60)
    assert life.months[monthly] == 1
    assert life.sub(new).renews == (kind is MONTHLY)
    assert "renewal_stopped" in [
        note.code
        for note in buy(
            [replace(life.sub(monthly), renews=True)],
            offer(kind),
            PRICES.terms(kind),
            today=date(2025, 2, 10),
        ).notes
    ]


def test_after_a_plan_that_was_cancelled_the_new_one_follows_its_last_day() -> None:
    life = Life(date(2025, 1, 1))
    annual = life.buy(ANNUAL)
    life.go(date(2025, 3, 10))
    life.cancel(annual)
    assert life.days(life.buy(MONTHLY))[0] == date(2025, 4, 1)


def test_after_a_plan_that_lapsed_the_new_one_starts_today_and_the_old_one_is_charged_no_more() -> None:
    life = Life(date(2025, 1, 1))
    lapsed = life.buy(MONTHLY)
    life.go(date(2025, 3, 10))  # nobody ran the renewals
    assert life.days(life.buy(ANNUAL))[0] == date(2025, 3, 10)
    assert not life.sub(lapsed).renews


@pytest.mark.parametrize(
    ("granted_on", "ends_on"),
    [(None, date(2025, 7, 14)), (TODAY - 45 * DAY, date(2025, 6, 30)), (TODAY + 10 * DAY, date(2025, 7, 24))],
)
def test_a_plan_granted_without_an_end_ends_with_its_period_when_one_is_bought(
    granted_on: date | None, ends_on: date
) -> None:
    life = Life(TODAY)
    granted = life.grant(MONTHLY, granted_on)
    bought = life.buy(ANNUAL)
    assert life.days(granted)[1] == ends_on
    assert life.days(bought)[0] == ends_on + DAY
    assert life.sub(granted).plan.cancelled_on == TODAY


def test_a_trial_is_not_for_sale_and_a_bad_retention_is_refused() -> None:
    life = Life(TODAY)
    assert code_of(lambda: life.buy(TRIAL, PRICES.terms(ANNUAL))) == "not_for_sale"
    assert code_of(lambda: life.buy(ANNUAL, retention_days=0)) == "bad_retention_days"
    life.go(date(1969, 12, 31))
    assert code_of(lambda: life.buy(ANNUAL)) == "bad_plan_dates"
    life.go(date(9999, 12, 31))
    assert code_of(lambda: life.buy(MONTHLY)) == "date_out_of_range"
    assert life.subs == ()


# ---- granting ---------------------------------------------------------------------------------------


def test_a_grant_cuts_a_trial_in_its_way_and_has_no_fee() -> None:
    life = Life(TODAY)
    life.trial()
    life.go(TODAY + 5 * DAY)
    granted = life.grant(MONTHLY)
    assert life.sub(granted) == Subscription(granted, Plan(MONTHLY, life.today, 30))
    assert life.days(1)[1] == TODAY + 4 * DAY


def test_a_grant_does_not_stop_what_an_owner_pays_for() -> None:
    life = Life(TODAY)
    life.buy(MONTHLY)
    for starts_on in (None, TODAY + 100 * DAY):
        assert code_of(lambda on=starts_on: life.grant(ANNUAL, on)) == "plan_renews"  # type: ignore[misc]
    life.cancel(1)
    assert life.days(life.grant(ANNUAL))[0] == date(2025, 7, 15)


def test_a_trial_to_come_gives_way_once_and_does_not_come_back() -> None:
    life = Life(TODAY)
    trial = life.grant(TRIAL, TODAY + 20 * DAY)
    annual = life.grant(ANNUAL, TODAY + 10 * DAY)
    assert not life.sub(trial).plan.has_days
    life.cancel(annual)
    change = buy(life.subs, offer(MONTHLY), PRICES.terms(MONTHLY), today=TODAY)
    assert (change.changed, change.notes) == ((), ())
    assert change.new is not None
    assert change.new.plan.starts_on == TODAY  # nor is the annual plan without a day in the way
    life = Life(TODAY)
    life.grant(TRIAL, TODAY + 20 * DAY)
    life.buy(MONTHLY)
    assert not life.sub(trial).plan.has_days
    assert life.owners(TODAY + 20 * DAY) == [2]


# ---- all ended --------------------------------------------------------------------------------------


def test_when_all_ends_no_day_is_left_from_today_on() -> None:
    life = Life(date(2025, 1, 1))
    life.trial()
    life.go(date(2025, 1, 10))
    life.buy(ANNUAL)
    life.buy(MONTHLY)
    life.go(date(2025, 5, 5))
    past = [life.owners(date(2025, 1, 1) + n * DAY) for n in range(124)]
    life.terminate()
    assert [life.owners(date(2025, 1, 1) + n * DAY) for n in range(124)] == past
    assert not any(life.owners(date(2025, 5, 5) + n * DAY) for n in range(1000))
    assert not any(sub.renews for sub in life.subs)
    assert [sub.plan.cancelled_on for sub in life.subs] == [None, date(2025, 5, 5), date(2025, 5, 5)]
    assert end_all(life.subs, date(2025, 6, 1)).changed == ()


def test_when_all_ends_what_was_cancelled_keeps_its_date_and_what_lapsed_is_charged_no_more() -> None:
    life = Life(TODAY)
    life.buy(MONTHLY)
    life.cancel(1)
    life.go(TODAY + 5 * DAY)
    life.terminate()
    assert life.sub(1).plan == Plan(MONTHLY, TODAY, 30, TODAY + 4 * DAY, TODAY)
    life = Life(TODAY)
    life.buy(MONTHLY)
    life.go(TODAY + 100 * DAY)  # nobody ran the renewals
    life.terminate()
    assert not life.sub(1).renews
    assert life.days(1) == (TODAY, date(2025, 7, 14))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Subscription(1, Plan(MONTHLY, TODAY, 30), PRICES.terms(MONTHLY)),  # paid, without a last day
        lambda: Subscription(1, Plan(TRIAL, TODAY, 7, TODAY), PRICES.terms(ANNUAL)),
        lambda: Subscription(1, Plan(MONTHLY, TODAY, 30), None, renews=True),
        lambda: Subscription(1, Plan(ANNUAL, TODAY, 30, TODAY), PRICES.terms(ANNUAL), renews=True),
        lambda: Subscription(1, Plan(MONTHLY, TODAY, 30, TODAY, TODAY), PRICES.terms(MONTHLY), renews=True),
    ],
)
def test_what_can_not_be_is_no_subscription(make: Callable[[], object]) -> None:
    assert code_of(make) == "bad_subscription"
