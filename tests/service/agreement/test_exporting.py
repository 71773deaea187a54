"""Payments of a period as CSV."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from retention.money import Money
from service.agreement import crediting, exporting, refunding
from service.agreement.desk import OPERATOR, Actor
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState
from tests.service.agreement.money_world import START, MoneyWorld
from tests.service.agreement.refusing import refused


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    return money.add_device(ada)


def exported(money: MoneyWorld, first: date = START, last: date = START) -> list[dict[str, str]]:
    text = "".join(exporting.lines(money.desk, OPERATOR, first, last))
    assert all(line.endswith("\r\n") for line in text.splitlines(keepends=True))
    return list(csv.DictReader(text.splitlines()))


def test_a_line_for_each_payment_and_what_moved_adds_up(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 2)
    money.buy(ada, device, "annual", "r1")
    crediting.credit(money.desk, OPERATOR, 1, Money(500, "USD"), why="late", reference="c1")
    refunding.give(money.desk, OPERATOR, 1, Money(1000, "USD"), why="w", reference="h1")
    for reference in ("h2", "h3"):
        refunding.give(money.desk, OPERATOR, 1, Money(9, "USD"), why="w", reference=reference, otherwise=True)
    crediting.take_back(money.desk, OPERATOR, "h3", why="a slip")
    rows = exported(money)
    assert [row["reference"] for row in rows] == ["r1", "c1", "h1", "h2", "h3", "h3.c"]
    assert [int(row["moved_minor"]) for row in rows] == [5999, 0, -1000, -9, 0, 0]
    assert sum(int(row["moved_minor"]) for row in rows) == money.kept_minor() - 9
    first = rows[0]
    assert (first["day"], first["amount"], first["account"], first["plan"], first["settled"]) == (
        START.isoformat(),
        "59.99",
        str(ada.account),
        "1",
        START.isoformat(),
    )
    assert (rows[2]["of"], rows[2]["by_hand"]) == ("r1", "yes")


def test_of_a_closed_account_number_amount_and_day_stay(money: MoneyWorld, ada: Actor, device: int) -> None:
    """6.5.4: nothing of whose they were."""
    bob = money.add_owner("Bob")
    money.buy(ada, device, "annual", "r1")
    money.buy(bob, money.add_device(bob), "monthly", "r2")
    before = exported(money)
    money.erase(ada)
    hers, left = exported(money)[::-1], exported(money)[:1]
    assert left == before[1:]
    kept = {name: value for name, value in hers[0].items() if value}
    assert kept == {
        "payment": "1",
        "day": START.isoformat(),
        "kind": "charge",
        "state": "done",
        "currency": "USD",
        "minor": "5999",
        "amount": "59.99",
        "moved_minor": "5999",
    }
    assert exported(money, START - timedelta(days=9), START - timedelta(days=1)) == []


def test_periods_that_follow_each_other_have_each_payment_once(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    midnight_ms = money.clock.ms - money.clock.ms % 86_400_000
    for number, at_ms in enumerate((midnight_ms - 1, midnight_ms, midnight_ms + 86_400_000 - 1)):
        add(money, ada, f"p{number}", at_ms=at_ms)
    yesterday = START - timedelta(days=1)
    names = [[row["reference"] for row in exported(money, day, day)] for day in (yesterday, START)]
    assert names == [["p0"], ["p1", "p2"]]
    with refused(422, "bad_period"):
        exported(money, START, yesterday)
    with refused(403, "operators_only"):
        exporting.lines(money.desk, ada, START, START)


def add(money: MoneyWorld, ada: Actor, reference: str, **fields: Any) -> None:
    row = PaymentRow(
        0,
        reference,
        ada.account,
        None,
        1,
        PaymentKind.CREDIT,
        "USD",
        1,
        PaymentState.DONE,
        "w",
        money.clock.ms,
    )
    money.desk.write(lambda books: books.add_payment(replace(row, **fields)))


@pytest.mark.parametrize(
    "why",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1", '=HYPERLINK("http://x","y")'],
)
def test_no_cell_is_taken_for_a_formula(money: MoneyWorld, ada: Actor, device: int, why: str) -> None:
    add(money, ada, "p", why=why)
    add(money, ada, "q", why='a "b", c; =d')
    text = "".join(exporting.lines(money.desk, OPERATOR, START, START))
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert [row["why"] for row in rows] == ["'" + why, 'a "b", c; =d']
    for row in rows:
        for name, cell in row.items():
            assert not cell.lstrip(" ").startswith(("=", "+", "@", "\t", "\r")), (name, cell)
            assert not cell.startswith("-") or name == "moved_minor"


@pytest.mark.parametrize(("currency", "amount"), [("USD", "12.34"), ("JPY", "1234"), ("KWD", "1.234")])
def test_amounts_by_currency(money: MoneyWorld, ada: Actor, device: int, currency: str, amount: str) -> None:
    add(money, ada, "p", currency=currency, minor=1234)
    [row] = exported(money)
    assert (row["minor"], row["amount"]) == ("1234", amount)
