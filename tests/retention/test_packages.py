"""What may be sold, and when: `retention.packages`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from retention import packages
from retention.cancelling import CancelKind
from retention.cancelling import cancel as cancel_rule
from retention.money import Money
from retention.packages import Package, PackageKind
from retention.plans import Offer, PlanKind, start_plan
from retention.subscriptions import buy
from retention.terms import Terms
from storage.errors import CallerError, NotFound
from tests.retention.life import FREE, Life, usd

TRIAL, MONTHLY, FULL = PackageKind.TRIAL, PackageKind.MONTHLY, PackageKind.FULL
TODAY = date(2026, 3, 1)
DAY = timedelta(days=1)
FEE = {"USD": Terms(usd(599), usd(599))}
HALF = Package("half-year", 1, FULL, 60, TODAY, months=6, prices={"USD": Terms(usd(3299), usd(599))})
BASIC = Package("basic", 1, MONTHLY, 7, TODAY, prices=FEE)
TRY = Package("try", 1, TRIAL, 7, TODAY, days=14)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(CallerError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize(
    ("package", "changed", "code"),
    [
        (BASIC, {"name": ""}, "bad_package"),
        (BASIC, {"name": "Basic"}, "bad_package"),
        (BASIC, {"name": "-basic"}, "bad_package"),
        (BASIC, {"name": "basic\n"}, "bad_package"),
        (BASIC, {"name": "b" * 41}, "bad_package"),
        (BASIC, {"retention_days": 0}, "bad_retention_days"),
        (BASIC, {"retention_days": 256}, "bad_retention_days"),
        (BASIC, {"months": 1}, "bad_package"),
        (BASIC, {"prices": {}}, "bad_package"),
        (BASIC, {"prices": {"EUR": FEE["USD"]}}, "bad_package"),
        (BASIC, {"prices": {"USD": Terms(usd(600), usd(599))}}, "bad_package"),
        (BASIC, {"max_devices": -1}, "bad_package"),
        (BASIC, {"sold_until": TODAY - 2 * DAY}, "bad_package"),
        (HALF, {"months": 0}, "bad_package"),
        (HALF, {"months": 121}, "bad_package"),
        (HALF, {"days": 1}, "bad_package"),
        (TRY, {"days": 0}, "bad_package"),
        (TRY, {"days": 367}, "bad_package"),
        (TRY, {"prices": FEE}, "bad_package"),
    ],
)
def test_what_can_not_be_sold_is_refused(package: Package, changed: dict[str, Any], code: str) -> None:
    assert refusal(lambda: replace(package, **changed)) == code


def test_at_the_bounds_it_can() -> None:
    replace(BASIC, name="b" * 40, retention_days=255, max_devices=1)
    replace(HALF, months=120, sold_until=TODAY - DAY)
    replace(TRY, days=366)


def test_a_plan_is_of_the_version_that_it_was_started_from() -> None:
    assert HALF.offer() == Offer(PlanKind.FULL, 60, 6, 0, "half-year", 1)
    plan = start_plan(HALF.offer(), TODAY)
    assert (plan.kind, plan.ends_on, plan.retention_days) == (PlanKind.FULL, date(2026, 8, 31), 60)
    assert (plan.package, plan.version) == ("half-year", 1)
    assert replace(HALF, months=12).plan_kind is PlanKind.ANNUAL
    assert BASIC.offer(90).retention_days == 90
    assert TRY.offer(7).days == 14
    assert refusal(lambda: TRY.offer(8)) == "trial_retention_fixed"


def test_it_is_sold_through_its_last_day() -> None:
    short = replace(BASIC, sold_until=TODAY + DAY)
    assert [short.is_sold(TODAY + n * DAY) for n in (-1, 0, 1, 2)] == [False, True, True, False]
    assert packages.sold([HALF, short], TODAY) == [short, HALF]
    assert packages.on_sale([HALF, short], "basic", TODAY + DAY) == short
    assert refusal(lambda: packages.on_sale([HALF, short], "basic", TODAY + 2 * DAY)) == "not_for_sale"
    assert refusal(lambda: packages.on_sale([], "basic", TODAY)) == "not_for_sale"


def test_terms_are_those_of_the_currency() -> None:
    yen = Terms(Money(800, "JPY"), Money(800, "JPY"))
    both = replace(BASIC, prices={**FEE, "JPY": yen})
    assert both.terms("JPY") == yen
    assert refusal(lambda: both.terms("EUR")) == "wrong_currency"
    assert refusal(lambda: TRY.terms("USD")) == "not_for_sale"


def test_a_name_is_given_once_and_one_trial_is_offered_at_a_time() -> None:
    assert packages.added([BASIC, TRY], HALF) == HALF
    assert refusal(lambda: packages.added([BASIC], BASIC)) == "package_exists"
    other = replace(TRY, name="other")
    assert refusal(lambda: packages.added([TRY], other)) == "trial_on_sale"
    ended = replace(TRY, sold_until=TODAY + DAY)
    assert refusal(lambda: packages.added([ended], other)) == "trial_on_sale"
    later = replace(other, sold_from=TODAY + 2 * DAY)
    assert packages.added([ended], later) == later
    assert packages.trial_on_sale([ended, later], TODAY + DAY) == ended
    assert packages.trial_on_sale([ended, later], TODAY + 2 * DAY) == later
    assert refusal(lambda: packages.trial_on_sale([BASIC], TODAY)) == "not_for_sale"
    many = [replace(BASIC, version=n) for n in range(packages.MAX_VERSIONS)]
    assert refusal(lambda: packages.added(many, HALF)) == "too_many_packages"


def test_another_price_is_another_version_and_no_day_has_two() -> None:
    dear = {"USD": Terms(usd(699), usd(699))}
    begins = TODAY + 30 * DAY
    old, new = packages.repriced([BASIC, HALF], "basic", dear, sold_from=begins, today=TODAY)
    assert old == replace(BASIC, sold_until=begins - DAY)
    assert new == replace(BASIC, version=2, prices=dear, sold_from=begins)
    for n in range(60):
        assert sum(package.is_sold(TODAY + n * DAY) for package in (old, new)) == 1
    at_once, _ = packages.repriced([BASIC], "basic", dear, sold_from=TODAY, today=TODAY)
    assert not at_once.is_sold(TODAY)
    for day in (TODAY - DAY, begins - DAY):
        refused = refusal(
            lambda day=day: packages.repriced([old, new], "basic", dear, sold_from=day, today=TODAY)  # type: ignore[misc]
        )
        assert refused == "bad_date"
    with pytest.raises(NotFound):
        packages.repriced([BASIC], "half-year", dear, sold_from=TODAY, today=TODAY)
    ended = replace(BASIC, sold_until=TODAY)
    refused = refusal(lambda: packages.repriced([ended], "basic", dear, sold_from=TODAY + DAY, today=TODAY))
    assert refused == "package_ended"


def test_the_end_of_a_package_takes_what_was_to_follow_along() -> None:
    old, new = packages.repriced([BASIC], "basic", FEE, sold_from=TODAY + 30 * DAY, today=TODAY)
    for last in (TODAY - DAY, TODAY + 10 * DAY, TODAY + 40 * DAY):
        changed = packages.ended([HALF, old, new], "basic", last_day=last, today=TODAY)
        after = {package.version: package for package in (old, new)} | {
            package.version: package for package in changed
        }
        for n in range(60):
            day = TODAY + n * DAY
            assert any(package.is_sold(day) for package in after.values()) == (day <= last)
    assert (
        refusal(lambda: packages.ended([BASIC], "basic", last_day=TODAY - 2 * DAY, today=TODAY)) == "bad_date"
    )
    ended = replace(BASIC, sold_until=TODAY)
    assert refusal(lambda: packages.ended([ended], "basic", last_day=TODAY, today=TODAY)) == "package_ended"


def test_months_of_a_half_year_are_counted_like_those_of_a_year() -> None:
    """8.2.1: 32.99 less two months of 5.99, and it ends with the second."""
    life = Life(date(2026, 1, 31))
    plan = life.buy(PlanKind.FULL, HALF.terms("USD"))
    assert life.days(plan) == (date(2026, 1, 31), date(2026, 7, 30))
    life.go(date(2026, 3, 1))
    done = cancel_rule(life.subs, plan, today=life.today, paid=usd(3299), credits=FREE)
    assert (done.kind, done.refund, done.last_day) == (CancelKind.FULL, usd(2101), date(2026, 3, 30))


def test_another_package_follows_what_runs_and_nothing_is_converted() -> None:
    """7.2.1, 7.2.2: through the paid period the old days of storage and the old fee go on."""
    life = Life(TODAY)
    basic = buy(life.subs, BASIC.offer(), BASIC.terms("USD"), today=TODAY)
    running = replace(basic.after[-1], plan_id=1)
    change = buy([running], HALF.offer(), HALF.terms("USD"), today=TODAY + 10 * DAY)
    kept, new = change.after
    assert (kept.plan, kept.terms, kept.renews) == (running.plan, running.terms, False)
    assert (new.plan.starts_on, new.plan.retention_days) == (date(2026, 4, 1), 60)
    assert [note.code for note in change.notes] == ["renewal_stopped", "follows"]
