"""Monthly plans that renew themselves (agreement 7.2.2), on a real catalog with a moving clock."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from retention.money import Money
from retention.plans import denied_from_ms
from service.agreement.desk import Actor
from service.agreement.payments import PaymentUnavailable, Receipt
from service.agreement.renewing import RenewReport
from service.agreement.settling import Turn, settle_pending
from storage.catalog.books import Books
from storage.rows.accounts import ClosingState, PaymentKind, PaymentState
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import HOUR_MS, MONTHLY, START, MetGateway, MoneyWorld


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    """On a monthly plan since the 31st of January, with id 1."""
    made = money.add_device(ada)
    money.buy(ada, made, "monthly", "r1")
    return made


def test_a_year_of_months(money: MoneyWorld, ada: Actor, device: int) -> None:
    """31 Jan, 28 Feb, 31 Mar: run every day, each month is charged once, some days ahead, and no day is missing."""
    charged = []
    for _ in range(365):
        money.pass_days(1)
        report = money.renew()
        if report.renewed:
            charged.append(money.today)
        assert report == RenewReport(renewed=report.renewed)
        assert money.entitled(device, money.today)
    assert charged[:4] == [date(2025, 2, 24), date(2025, 3, 27), date(2025, 4, 26), date(2025, 5, 27)]
    assert len(charged) == 12
    assert money.spans(device) == [("monthly", START, date(2026, 2, 27))]
    balance.check(money)


def test_it_is_charged_some_days_ahead_and_not_before(money: MoneyWorld, ada: Actor, device: int) -> None:
    for day, renewed in ((date(2025, 2, 23), 0), (date(2025, 2, 24), 1), (date(2025, 2, 24), 0)):
        money.go(day)
        assert money.renew().renewed == renewed
    [_, renewal] = money.payments(ada.account)
    assert (renewal.minor, renewal.plan_id, renewal.state) == (599, 1, PaymentState.DONE)
    assert renewal.why == "monthly plan, device 1, 2025-02-28 to 2025-03-30"
    assert money.notices(ada)[-1].purpose == "receipt"


def test_a_declined_charge_is_tried_again_on_its_schedule(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.decline(ada)
    money.go(date(2025, 2, 24))
    assert money.renew() == RenewReport(declined=1)
    assert money.renew() == RenewReport(), "not before its time"
    row = money.row(1)
    assert (row.failed_charges, row.retry_at_ms) == (1, money.clock.ms + 12 * HOUR_MS)
    money.clock.ms += 12 * HOUR_MS
    assert money.renew() == RenewReport(declined=1)
    assert [n.purpose for n in money.notices(ada)] == ["receipt", "payment_failed"], "told once"
    assert "2025-02-27" in money.notices(ada)[-1].body
    money.decline(ada, False)
    money.clock.ms += 12 * HOUR_MS
    assert money.renew() == RenewReport(renewed=1)
    row = money.row(1)
    assert (row.failed_charges, row.retry_at_ms) == (0, 0)
    references = [p.reference for p in money.payments(ada.account)[1:]]
    assert [r.rsplit("-", 1)[1] for r in references] == ["0", "1", "2"]
    balance.check(money)


def test_a_month_that_ends_unpaid_lapses_for_good(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.decline(ada)
    while money.today < date(2025, 2, 28):
        money.renew()
        money.clock.ms += 6 * HOUR_MS
    money.decline(ada, False)
    money.clock.ms += 12 * HOUR_MS
    calls = money.gateway.calls
    assert money.renew() == RenewReport(lapsed=1)
    assert money.renew() == RenewReport()
    assert money.gateway.calls == calls, "no charge after it"
    assert not money.row(1).renews
    assert money.notices(ada)[-1].purpose == "lapsed"
    assert [money.entitled(device, date(2025, 2, day)) for day in (27, 28)] == [True, False]
    money.buy(ada, device, "monthly", "r2")
    assert money.entitled(device, money.today)
    balance.check(money)


def test_a_last_try_that_was_declined_delays_no_lapse(money: MoneyWorld, ada: Actor, device: int) -> None:
    """The schedule of tries ends with the paid period: the first run after it lets lapse, and tells the owner."""
    money.decline(ada)
    money.clock.ms = denied_from_ms(date(2025, 2, 27)) - 20 * 60_000
    assert money.renew() == RenewReport(declined=1)
    money.clock.ms = denied_from_ms(date(2025, 2, 27))
    assert money.renew() == RenewReport(lapsed=1)
    assert not money.row(1).renews
    assert money.notices(ada)[-1].purpose == "lapsed"
    balance.check(money)


def test_nobody_ran_it_for_too_long(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.go(date(2025, 3, 1))
    assert money.renew() == RenewReport(lapsed=1)
    assert money.gateway.calls == 1
    balance.check(money)


@pytest.mark.parametrize(
    ("stopped", "going"),
    [
        ({"suspended_ms": 1}, {"suspended_ms": None}),
        ({"closing": ClosingState.REQUESTED}, {"closing": ClosingState.NONE}),
    ],
)
def test_who_is_suspended_is_not_charged(
    money: MoneyWorld, ada: Actor, device: int, stopped: dict[str, Any], going: dict[str, Any]
) -> None:
    money.change_account(ada, **stopped)
    money.go(date(2025, 2, 25))
    assert money.renew() == RenewReport()
    money.change_account(ada, **going)
    assert money.renew() == RenewReport(renewed=1)
    money.change_account(ada, **stopped)
    money.go(date(2025, 4, 25))
    assert money.renew() == RenewReport(lapsed=1)
    balance.check(money)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("what", ["cancel", "buy", "terminate", "suspend", "late", "renew", "settle"])
def test_what_happens_while_the_gateway_works(
    money: MoneyWorld, ada: Actor, device: int, what: str, moment: str
) -> None:
    acts = {
        "cancel": lambda: money.cancel(ada, 1),
        "buy": lambda: money.buy(ada, device, "annual", "r2"),
        "terminate": lambda: money.terminate(device),
        "suspend": lambda: money.change_account(ada, suspended_ms=1),
        "late": lambda: money.go(date(2025, 2, 28)),
        "renew": money.renew,
        "settle": lambda: settle_pending(money.desk, older_than_ms=0),
    }
    money.go(date(2025, 2, 25))
    setattr(money.gateway, moment, acts[what])
    report = money.renew()
    if what in ("renew", "settle"):
        assert report == RenewReport(renewed=1)
        assert len(money.payments(ada.account)) == 2
    else:
        assert report == RenewReport(given_back=1)
        [refund] = [p for p in money.payments(ada.account) if p.kind is PaymentKind.REFUND]
        assert (refund.state, refund.minor) == (PaymentState.DONE, 599)
    if what == "suspend":
        money.change_account(ada, suspended_ms=None)
        assert money.renew() == RenewReport(renewed=1), (
            "a charge that was given back is followed by a new one"
        )
    if what == "late":
        assert money.renew() == RenewReport(lapsed=1)
    balance.check(money)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_gateway_that_is_away_is_asked_by_the_next_run(
    money: MoneyWorld, ada: Actor, device: int, moment: str
) -> None:
    money.go(date(2025, 2, 25))
    money.gateway.away = moment
    calls = money.gateway.calls
    for tries, minutes in ((1, 0), (1, 0.9), (2, 0.1), (2, 1.9), (3, 0.1), (3, 3.9), (4, 0.1)):
        money.clock.ms += round(minutes * 60_000)
        assert money.renew() == RenewReport(waiting=1, complete=False)
        assert money.gateway.calls - calls == tries, minutes
    money.gateway.away = ""
    money.clock.ms += 8 * 60_000
    assert money.renew() == RenewReport(finished=1)
    balance.check(money)


def test_the_pause_doubles_up_to_a_bound(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.go(date(2025, 2, 25))
    money.gateway.away = "before"
    pauses = []
    for _ in range(10):
        money.renew()
        row = money.payments(ada.account)[-1]
        pauses.append((row.next_ms - money.clock.ms) // 60_000)
        money.clock.ms = row.next_ms
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


class Deaf(MetGateway):
    """Answers nothing about charges whose method says so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: Counter[str] = Counter()

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt:
        if method.startswith("deaf"):
            self.asked[reference] += 1
            raise PaymentUnavailable("no answer")
        return super().charge(reference, money, method, why)


def test_payments_that_are_never_answered_stop_nobody_elses() -> None:
    """300 of them, with lower numbers than ten that are: each gets its turn in the first run already, and what lapses
    in the end is told."""
    with (
        fast_folder() as folder,
        MoneyWorld(folder / "data", gateway=Deaf, max_devices_per_account=1000) as world,
    ):
        assert isinstance(world.gateway, Deaf)
        never_answered(world, world.gateway)


def never_answered(world: MoneyWorld, gateway: Deaf) -> None:
    ada = world.add_owner()
    deaf = [world.add_device(ada) for _ in range(300)]
    for device in deaf:
        world.buy(ada, device, "monthly", f"d{device}")

    def turn_deaf(books: Books) -> None:
        for row in books.subscriptions_of(ada.account):
            books.put_subscription(replace(row, method="deaf-1"))

    world.desk.write(turn_deaf)
    for n in range(10):
        world.buy(ada, world.add_device(ada), "monthly", f"g{n}")
    world.go(date(2025, 2, 25))
    assert world.renew() == RenewReport(renewed=10, waiting=300, complete=False)
    gateway.asked.clear()
    for _ in range(24):
        world.clock.ms += HOUR_MS
        assert world.renew().waiting == 300
    assert len(gateway.asked) == 300
    assert set(gateway.asked.values()) <= {23, 24}, "each has its own turn"
    world.go(date(2025, 2, 28))
    report = world.renew()
    assert (report.lapsed, report.expired, report.waiting) == (300, 300, 0), (
        "nor is anybody charged for days that are over"
    )
    assert world.renew() == RenewReport()
    balance.check(world)


def test_a_run_ends_in_time_and_the_next_begins_with_what_it_left(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    for n in range(9):
        money.buy(ada, money.add_device(ada), "monthly", f"s{n}")
    money.go(date(2025, 2, 25))
    money.gateway.away = "before"
    now_s = 0.0

    def passing() -> float:
        nonlocal now_s
        now_s += 200
        return now_s

    money.desk = replace(money.desk, settings=replace(money.settings, payment_threads=1))
    assert money.renew(turn=Turn(money.desk, passing)) == RenewReport(waiting=10, complete=False)
    asked = [row.attempts for row in money.payments(ada.account) if row.state is PaymentState.PENDING]
    assert asked == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], "one more call would end after payment_run_s"
    money.gateway.away = ""
    money.clock.ms += 60_000 - 1
    assert money.renew() == RenewReport(renewed=8, waiting=2, complete=False)
    money.clock.ms += 1
    assert money.renew() == RenewReport(finished=2)
    balance.check(money)


def test_a_charge_known_too_late_is_given_back_and_the_plan_lapses(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    """Nothing could be recorded meanwhile: those days are not sold."""
    money.go(date(2025, 2, 27))
    money.gateway.away = "after"
    assert money.renew() == RenewReport(waiting=1, complete=False)
    money.gateway.away = ""
    money.go(date(2025, 2, 28))
    assert money.renew() == RenewReport(given_back=1, lapsed=1)
    balance.check(money)


def test_a_plan_whose_charge_is_never_answered_lapses_and_is_counted(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.go(date(2025, 2, 27))
    money.gateway.away = "before"
    money.renew()
    money.go(date(2025, 2, 28))
    assert money.renew() == RenewReport(lapsed=1, waiting=1, complete=False)
    assert money.notices(ada)[-1].purpose == "lapsed"
    assert money.entitled(device, date(2025, 2, 28)) is False
    money.gateway.away = ""
    money.pass_days(1)
    assert money.renew() == RenewReport(expired=1)
    assert money.kept_minor() == MONTHLY.minor
    balance.check(money)


def test_a_run_is_bounded_and_the_next_goes_on(money: MoneyWorld, ada: Actor, device: int) -> None:
    for n in range(120):
        money.buy(ada, money.add_device(ada) if n < 60 else device, "monthly", f"s{n}")
    money.go(date(2025, 2, 25))
    assert money.renew(limit=50) == RenewReport(renewed=50, complete=False)
    assert money.renew(limit=50) == RenewReport(renewed=10)
    assert money.renew(limit=0) == RenewReport(complete=False)
    balance.check(money)


def test_one_that_can_not_be_charged_does_not_stop_the_others(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    second = money.add_device(ada)
    money.buy(ada, second, "monthly", "r2")
    money.go(date(2025, 2, 25))
    taken = f"renewal-1-{money.row(1).bought_ms}-2025-02-28-0"
    money.gateway.charge(taken, MONTHLY + MONTHLY, "card", "somebody else's")
    assert money.renew() == RenewReport(renewed=1, declined=1)
    money.clock.ms += 12 * HOUR_MS
    assert money.renew() == RenewReport(renewed=1), "under the next reference"


class Silent(MetGateway):
    """Holds whoever charges a method that says so until nobody else has anything to do."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.others = threading.Semaphore(0)
        self.lock = threading.Lock()
        self.waiting = 0

    def charge(self, reference: str, money: Money, method: str, why: str) -> Receipt:
        if not method.startswith("silent"):
            self.others.release()
            return super().charge(reference, money, method, why)
        with self.lock:
            self.waiting += 1
        assert self.others.acquire(timeout=60), "those that are answered are not come to"
        self.others.release()
        raise PaymentUnavailable("no answer")


def test_those_who_wait_for_an_answer_keep_nobody_elses_turn() -> None:
    """Twenty that are not answered before one that has a higher number was charged: with 8 turns it would not be."""
    with fast_folder() as folder, MoneyWorld(folder / "data", gateway=Silent) as world:
        ada = world.add_owner()
        for number in range(21):
            world.buy(ada, world.add_device(ada), "monthly", f"d{number}")
        assert isinstance(world.gateway, Silent)
        while world.gateway.others.acquire(blocking=False):
            pass

        def turn_silent(books: Books) -> None:
            for row in books.subscriptions_of(ada.account)[:20]:
                books.put_subscription(replace(row, method="silent-1"))

        world.desk.write(turn_silent)
        world.go(date(2025, 2, 25))
        report = world.renew()
        assert (report.renewed, report.waiting) == (1, 20)
        assert world.gateway.waiting == 20
