"""`books check`: it finds nothing where all is right, and each thing that is wrong, with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from retention.money import Money
from retention.plans import add_months
from service.agreement import auditing, cancelling, crediting, refunding
from service.agreement.auditing import Audit, check_books
from service.agreement.charging import owe
from service.agreement.desk import OPERATOR, Actor
from service.agreement.payments import PaymentDeclined, PaymentUnavailable, Receipt
from storage.catalog.books import Books
from storage.days import MS_PER_DAY
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState
from tests.service.agreement.money_world import START, MoneyWorld


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    return money.add_device(ada)


def audit(money: MoneyWorld, days: int = 36_500) -> Audit:
    return check_books(money.desk, money.bitmap, days=days)


def codes(money: MoneyWorld) -> list[tuple[str, str]]:
    found = audit(money)
    assert found.finding_count == len(found.findings)
    assert all(len(finding.what_to_do) > 15 for finding in found.findings)
    return [(finding.code, finding.subject) for finding in found.findings]


def change(money: MoneyWorld, reference: str, **fields: Any) -> None:
    def work(books: Books) -> None:
        row = books.payment(reference)
        assert row is not None
        books.put_payment(replace(row, **fields))

    money.desk.write(work)


def record(money: MoneyWorld, reference: str) -> Path:
    return money.gateway.folder / f"{reference}.json"


def test_nothing_is_found_where_all_is_right(money: MoneyWorld, ada: Actor, device: int) -> None:
    """Whatever was bought, given back, taken back and cancelled, and closed."""
    bob = money.add_owner("Bob")
    for owner in (ada, bob):
        own = money.add_device(owner)
        money.buy(owner, own, "annual", f"a{own}")
        money.buy(owner, money.add_device(owner), "monthly", f"m{own}")
    refunding.give(money.desk, OPERATOR, 1, Money(1000, "USD"), why="w", reference="h1")
    refunding.give(money.desk, OPERATOR, 2, Money(99, "USD"), why="w", reference="h2", otherwise=True)
    crediting.credit(money.desk, OPERATOR, 1, Money(500, "USD"), why="w", reference="c1")
    money.go(add_months(START, 1) - timedelta(days=1))
    money.renew()
    money.desk.entitlements.roll()
    money.cancel(ada, 1)
    crediting.take_back(money.desk, OPERATOR, "h2", why="w")
    refunding.give(money.desk, OPERATOR, 1, Money(10, "USD"), why="w", reference="h3")
    money.cancel(ada, 2)
    money.terminate(money.add_device(bob))
    assert codes(money) == []
    money.erase(bob)
    found = audit(money)
    assert found.finding_count == 0
    assert (found.accounts, found.unanswered) == (3, 0)
    assert found.listed is not None
    assert found.listed > found.asked > 0, "records of a closed account are known by their hash"
    assert json.dumps(auditing.as_dict(found))


Wrong = Callable[[MoneyWorld, Actor], object]


def _more_than_charged(money: MoneyWorld, ada: Actor) -> None:
    change(money, "r1", minor=5998)


def _given_back(money: MoneyWorld, ada: Actor) -> None:
    [charge] = [row for row in money.payments(ada.account) if row.reference == "r1"]
    money.desk.write(lambda books: owe(money.desk, books, charge, 1, "a slip", plan_id=1))


def _add(money: MoneyWorld, ada: Actor, **fields: Any) -> None:
    row = PaymentRow(
        0, "x", ada.account, 1, 1, PaymentKind.CHARGE, "USD", 5999, PaymentState.DONE, "w", money.clock.ms
    )
    money.desk.write(lambda books: books.add_payment(replace(row, **fields)))


def _not_recorded(money: MoneyWorld, ada: Actor) -> None:
    record(money, "r1").unlink()


def _declined_there(money: MoneyWorld, ada: Actor) -> None:
    path = record(money, "r1")
    path.write_text(json.dumps({**json.loads(path.read_text()), "outcome": "declined"}))


def _only_there(money: MoneyWorld, ada: Actor) -> None:
    money.gateway.charge("elsewhere", Money(7, "USD"), "card", "w")


def _refused_here(money: MoneyWorld, ada: Actor) -> None:
    money.gateway.charge("x", Money(5999, "USD"), "card", "w")
    _add(money, ada, plan_id=None, state=PaymentState.FAILED)


def _old(money: MoneyWorld, ada: Actor) -> None:
    _add(money, ada, plan_id=None, state=PaymentState.PENDING, at_ms=money.clock.ms - 2 * MS_PER_DAY - 1)


def _other_row(money: MoneyWorld, ada: Actor) -> None:
    row = money.bitmap.read(1)
    assert row is not None
    with money.bitmap.locked():
        money.bitmap.write(1, replace(row, days=row.days & row.days - 1))


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (
            _more_than_charged,
            [("kept_too_little", "plan 1"), ("gateway_differs", "r1"), ("gateway_differs", "r1")],
        ),
        (_given_back, [("kept_too_little", "plan 1")]),
        (lambda m, a: _add(m, a, minor=0, plan_id=None), []),
        (_not_recorded, [("not_at_gateway", "r1")]),
        (_declined_there, [("not_at_gateway", "r1")]),
        (_only_there, [("not_in_books", "elsewhere")]),
        (_refused_here, [("made_at_gateway", "x")]),
        (_old, [("pending_for_long", "x")]),
        (_other_row, [("bitmap_differs", "device 1")]),
        (
            lambda m, a: change(m, "r1", state=PaymentState.FAILED),
            [("plan_not_paid", "plan 1"), ("made_at_gateway", "r1")],
        ),
        (lambda m, a: _add(m, a), [("kept_too_much", "plan 1"), ("not_at_gateway", "x")]),
        (lambda m, a: _add(m, a, plan_id=None), [("kept_for_nothing", "x"), ("not_at_gateway", "x")]),
        (
            lambda m, a: _add(m, a, kind=PaymentKind.REFUND, detail={"of": "r1"}, minor=6000),
            [("given_back_above_charge", "r1"), ("kept_too_little", "plan 1"), ("not_at_gateway", "x")],
        ),
        (
            lambda m, a: _add(
                m, a, kind=PaymentKind.REFUND, detail={"of": "r1"}, minor=9, state=PaymentState.FAILED
            ),
            [("kept_too_little", "plan 1"), ("refund_refused", "x")],
        ),
    ],
)
def test_what_is_wrong_is_found(
    money: MoneyWorld, ada: Actor, device: int, wrong: Wrong, expected: list[tuple[str, str]]
) -> None:
    money.buy(ada, device, "annual", "r1")
    assert codes(money) == []
    wrong(money, ada)
    assert codes(money) == expected


def test_a_payment_of_a_plan_that_is_not_there(money: MoneyWorld, ada: Actor, device: int) -> None:
    bob = money.add_owner("Bob")
    money.buy(bob, money.add_device(bob), "annual", "r1")
    money.gateway.charge("x", Money(5999, "USD"), "card", "w")
    _add(money, ada)
    assert codes(money) == [("payment_of_no_plan", "x")]


def test_a_gateway_that_does_not_answer_is_not_asked_for_ever(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        money.buy(ada, money.add_device(ada), "annual", f"r{number}")
    calls = []

    def look_up(*asked: object) -> Receipt | None:
        calls.append(asked)
        raise PaymentUnavailable("away")

    monkeypatch.setattr(money.gateway, "look_up", look_up)
    found = audit(money)
    assert (found.asked, found.unanswered, len(calls)) == (5, 8, 5)
    assert audit(money, days=0).asked == 0


def test_a_refund_that_is_tried_again_is_found_under_its_reference(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    money.buy(ada, device, "annual", "r1")

    def refund(reference: str, of_reference: str, amount: Money) -> Receipt:
        raise PaymentDeclined("the card was closed")

    with monkeypatch.context() as context:
        context.setattr(money.gateway, "refund", refund)
        cancelling.cancel(money.desk, ada, 1)
    assert codes(money) == [("refund_refused", "r1.r1")]
    refunding.retry(money.desk, OPERATOR, "r1.r1", why="w")
    assert codes(money) == []
