"""Another price for monthly plans that run: told, waited for, taken up or withdrawn (agreement 7.2.2, 11.2, 3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import pytest

from retention.fee_changes import first_day
from retention.history import replay
from retention.money import Money
from retention.packages import Package
from retention.terms import Terms
from service.agreement import fees, packages
from service.agreement.desk import OPERATOR, Actor
from service.agreement.fees import FeeReport
from service.agreement.renewing import RenewReport
from service.agreement.settling import settle_pending
from storage.catalog.books import Books
from storage.rows.accounts import PaymentState
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import START, MoneyWorld
from tests.service.agreement.refusing import refused

DAY = timedelta(days=1)
TOLD = START + 10 * DAY  # 10 February 2025: 30 days later is 12 March
HOUR_MS = 3_600_000


@pytest.fixture
def money() -> Iterator[MoneyWorld]:
    with fast_folder() as folder, MoneyWorld(folder / "data") as world:
        yield world


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    """On a monthly plan since the 31st of January, 599 a month, with id 1."""
    made = money.add_device(ada)
    money.buy(ada, made, "monthly", "r1")
    return made


def price(money: MoneyWorld, minor: int, currency: str = "USD", sold_from: date | None = None) -> Package:
    terms = Terms(Money(minor, currency), Money(minor, currency))
    return packages.reprice(money.desk, OPERATOR, "monthly", {currency: terms}, sold_from=sold_from)


def apply(money: MoneyWorld) -> FeeReport:
    return fees.apply(money.desk, OPERATOR, "monthly")[1]


def withdraw(money: MoneyWorld) -> FeeReport:
    return fees.withdraw(money.desk, OPERATOR, "monthly")[1]


def year(money: MoneyWorld, until: date) -> None:
    while money.today < until:
        money.pass_days(1)
        money.renew()


def charged(money: MoneyWorld, owner: Actor) -> list[int]:
    return [p.minor for p in money.payments(owner.account) if p.state is PaymentState.DONE]


def told(money: MoneyWorld, owner: Actor) -> list[str]:
    return [notice.subject for notice in money.notices(owner) if notice.purpose == "fee"]


def replays(money: MoneyWorld, owner: Actor, device: int) -> bool:
    with money.catalog.books() as books:
        events = books.events_of(owner.account, limit=1000)
    return replay(events).devices[device] == tuple(money.plans(device))


def test_a_higher_price_is_for_purchases_until_it_is_applied(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    price(money, 699)
    year(money, date(2025, 6, 1))
    assert charged(money, ada) == [599] * 5
    assert told(money, ada) == []


def test_a_raise_comes_with_the_first_period_after_the_notice(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    """Told on 10 February with 30 days' notice: the period from 28 February is at the old fee, that from 31 March on at
    the new one."""
    money.go(TOLD)
    price(money, 699)
    assert apply(money) == FeeReport(told=1)
    assert told(money, ada) == ["Device 1: the monthly fee is 6.99 USD from 2025-03-31 on"]
    [sub] = money.plans(device)
    assert (sub.terms, first_day(sub)) == (Terms(Money(599, "USD"), Money(599, "USD")), date(2025, 3, 31))
    assert apply(money) == FeeReport(), "nobody is told twice"
    year(money, date(2025, 5, 1))
    assert charged(money, ada) == [599, 599, 699, 699]
    row = money.row(1)
    assert (row.fee_minor, row.monthly_fee_minor, row.fee_version, row.next_fee_version) == (699, 699, 2, 0)
    assert "fee_changed" in money.events(ada)
    assert replays(money, ada, device)
    balance.check(money)


@pytest.mark.parametrize(("days_before", "minor"), [(30, 599), (31, 699)])
def test_the_notice_has_run_out_when_the_period_begins(
    money: MoneyWorld, ada: Actor, device: int, days_before: int, minor: int
) -> None:
    """The period that begins on 31 March: 30 days' notice on 1 March is too late, on 28 February in time."""
    year(money, date(2025, 3, 31) - days_before * DAY)
    price(money, 699)
    apply(money)
    year(money, date(2025, 4, 1))
    assert charged(money, ada)[-1] == minor


def test_the_owner_may_leave_first_and_pays_the_old_fee(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.go(TOLD)
    price(money, 699)
    apply(money)
    year(money, date(2025, 3, 20))
    money.cancel(ada, 1)
    year(money, date(2025, 6, 1))
    assert charged(money, ada) == [599, 599]
    [sub] = money.plans(device)
    assert (sub.plan.ends_on, first_day(sub)) == (date(2025, 3, 30), None)


def test_a_lower_fee_needs_no_waiting(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.go(TOLD)
    price(money, 499)
    assert apply(money) == FeeReport(told=1)
    assert told(money, ada) == ["Device 1: the monthly fee is 4.99 USD from 2025-02-28 on"]
    year(money, date(2025, 4, 1))
    assert charged(money, ada) == [599, 499, 499]


def test_a_lower_fee_leaves_a_charge_under_way_as_it_is(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.go(date(2025, 2, 26))
    money.gateway.away = "before"
    money.renew()
    price(money, 499)
    apply(money)
    assert told(money, ada) == ["Device 1: the monthly fee is 4.99 USD from 2025-03-31 on"]
    money.gateway.away = ""
    money.clock.ms += 3 * HOUR_MS
    assert settle_pending(money.desk)["done"] == 1
    year(money, date(2025, 4, 1))
    assert charged(money, ada) == [599, 599, 499]
    balance.check(money)


def test_no_plan_that_runs_has_a_price_before_it_is_sold(money: MoneyWorld, ada: Actor, device: int) -> None:
    price(money, 499, sold_from=date(2025, 4, 15))
    apply(money)
    assert told(money, ada) == ["Device 1: the monthly fee is 4.99 USD from 2025-04-30 on"]


def test_another_raise_takes_the_place_of_one_that_did_not_take_effect(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.go(TOLD)
    price(money, 699)
    apply(money)
    money.go(date(2025, 2, 20))
    price(money, 799)
    assert apply(money) == FeeReport(told=1)
    year(money, date(2025, 5, 1))
    assert charged(money, ada) == [599, 599, 799, 799]
    assert len(told(money, ada)) == 2


def test_a_raise_that_is_withdrawn_never_comes(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.go(TOLD)
    price(money, 699)
    apply(money)
    assert withdraw(money) == FeeReport(withdrawn=1)
    assert told(money, ada)[-1] == "Device 1: the monthly fee stays 5.99 USD"
    with refused(409, "not_applied"):
        withdraw(money)
    year(money, date(2025, 5, 1))
    assert charged(money, ada) == [599] * 4
    assert replays(money, ada, device)


def test_a_withdrawal_is_in_force_before_anybody_is_told(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after the transaction that takes it back: the next charge is at the old fee, and `renew` tells."""
    money.go(TOLD)
    price(money, 699)
    apply(money)
    money.go(date(2025, 2, 25))
    money.renew()
    money.go(date(2025, 3, 29))
    with monkeypatch.context() as patched:
        patched.setattr(fees, "tell_owners", lambda *args, **more: FeeReport())
        withdraw(money)
        assert money.renew() == RenewReport(renewed=1)
    assert charged(money, ada) == [599] * 3
    assert money.renew() == RenewReport(fees_told=1)
    assert told(money, ada)[-1] == "Device 1: the monthly fee stays 5.99 USD"


def test_a_raise_that_took_effect_is_lowered_by_a_new_version_only(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.go(TOLD)
    price(money, 699)
    apply(money)
    year(money, date(2025, 4, 2))
    assert withdraw(money) == FeeReport()
    year(money, date(2025, 5, 2))
    assert charged(money, ada) == [599, 599, 699, 699]


def test_the_price_of_before_again_is_no_change_but_takes_a_raise_back(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.go(TOLD)
    price(money, 699)
    apply(money)
    price(money, 599)
    assert apply(money) == FeeReport(withdrawn=1)
    assert money.row(1).fee_version == 3
    assert apply(money) == FeeReport()


def test_a_plan_in_a_currency_without_a_price_keeps_its_fee(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.go(TOLD)
    price(money, 650, "EUR")
    assert apply(money) == FeeReport(without_price=1)
    year(money, date(2025, 5, 1))
    assert charged(money, ada) == [599] * 4
    price(money, 699)
    assert apply(money) == FeeReport(told=1)


def test_suspended_accounts_are_told_when_they_go_on(money: MoneyWorld, ada: Actor, device: int) -> None:
    def suspended(at_ms: int | None) -> None:
        def work(books: Books) -> None:
            books.put_account(replace(books.account(ada.account), suspended_ms=at_ms))

        money.desk.change(work)

    money.go(TOLD)
    suspended(money.clock.ms)
    price(money, 699)
    assert apply(money) == FeeReport(waiting=1)
    assert told(money, ada) == []
    suspended(None)
    money.pass_days(3)
    assert money.renew().fees_told == 1
    [sub] = money.plans(device)
    assert sub.next_fee is not None
    assert sub.next_fee.on == money.today + 31 * DAY, "the notice begins when they are told"


def test_cancelled_and_lapsed_plans_hear_nothing(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.go(TOLD)
    money.cancel(ada, 1)
    price(money, 699)
    assert apply(money) == FeeReport()
    assert told(money, ada) == []


def test_a_plan_in_arrears_pays_what_is_due_at_the_old_fee(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.decline(ada)
    money.go(date(2025, 2, 26))
    money.renew()
    price(money, 699)
    assert apply(money) == FeeReport(told=1)
    money.decline(ada, False)
    money.pass_days(1)
    money.renew()
    assert charged(money, ada) == [599, 599]
    year(money, date(2025, 5, 3))
    assert charged(money, ada) == [599, 599, 699, 699]
    balance.check(money)


def test_an_account_without_an_address_keeps_its_fee(money: MoneyWorld, ada: Actor, device: int) -> None:
    def forget(books: Books) -> None:
        books.put_account(replace(books.account(ada.account), email=None, mobile=None))

    money.desk.write(forget)
    price(money, 699)
    assert apply(money) == FeeReport(without_address=1)
    assert money.row(1).next_fee_version == 0


def test_a_declined_charge_at_the_new_fee_is_tried_again_at_it(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.go(TOLD)
    price(money, 699)
    apply(money)
    year(money, date(2025, 3, 27))
    money.decline(ada)
    money.pass_days(1)
    money.renew()
    money.decline(ada, False)
    money.pass_days(1)
    money.renew()
    assert charged(money, ada) == [599, 599, 699]
    balance.check(money)


def test_only_monthly_packages_and_operators(money: MoneyWorld, ada: Actor) -> None:
    with refused(422, "not_monthly"):
        fees.apply(money.desk, OPERATOR, "annual")
    with refused(403, "operators_only"):
        fees.apply(money.desk, ada, "monthly")
    with refused(403, "operators_only"):
        fees.withdraw(money.desk, ada, "monthly")
    with refused(404, "not_found"):
        fees.apply(money.desk, OPERATOR, "none")
    price(money, 699)
    apply(money)
    with refused(409, "newer_applied"):
        fees.apply(money.desk, OPERATOR, "monthly", version=1)


class Killed(BaseException):
    """What a SIGKILL leaves is what is committed."""


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_raise_that_is_killed_between_pages_goes_on_and_tells_nobody_twice(
    money: MoneyWorld, ada: Actor, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr(fees, "AT_ONCE", 3)
    made = [money.add_device(ada) for _ in range(10)]
    for number, device in enumerate(made):
        money.buy(ada, device, "monthly", f"r{number}")
    price(money, 699)
    seen: list[int] = []

    def progress(count: int) -> None:
        seen.append(count)
        if len(seen) == turns:
            raise Killed

    with pytest.raises(Killed):
        fees.apply(money.desk, OPERATOR, "monthly", progress=progress)
    assert seen == [3 * (n + 1) for n in range(turns)]
    assert len(told(money, ada)) == 3 * turns
    assert apply(money) == FeeReport(told=10 - 3 * turns)
    assert len(told(money, ada)) == 10
    assert len(set(told(money, ada))) == 10
