"""Another price reaches all monthly plans that run, though who tells their owners is killed again and again."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from retention.subscriptions import buy as buy_rule
from service.agreement import packages
from service.agreement.desk import SYSTEM
from service.agreement.holdings import Bought, keep
from storage.catalog.books import Books
from storage.days import to_date
from storage.rows.accounts import AccountRow, AccountState
from tests.retention.world import fast_folder
from tests.service.shop.working import ShopWorld
from tests.service.shop.year import START, Process, midnight_ms

NOBODY = "http://127.0.0.1:9"
"""No money moves here."""
PRICES = {"USD": [799, 799]}
EACH = 4
"""Devices of an account."""
STEPS = (5, 20, 60, 150)
KILLS = 16
"""At most; a machine that is quick has fewer."""


def sell(world: ShopWorld, plans: int) -> None:
    """Accounts with so many monthly plans together."""
    package = next(each for each in packages.listed(world.desk) if each.name == "monthly")

    def work(books: Books) -> None:
        now_ms = world.clock.ms
        new = AccountRow(0, "owner", "Ann", now_ms, AccountState.ACTIVE, activated_ms=now_ms)
        row = books.add_account(new)
        books.put_account(AccountRow(**{**_fields(row), "email": f"a{row.account}@example.org"}))
        for _ in range(EACH):
            facts = books.add_device(row.account)
            change = buy_rule((), package.offer(), package.terms("USD"), today=world.today)
            keep(
                world.desk,
                books,
                SYSTEM,
                facts,
                change.after,
                what="subscribed",
                bought=Bought("card", 0),
            )

    for _ in range(plans // EACH):
        world.desk.entitlements.transact(work, new_accounts=1)


def _fields(row: AccountRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}


def tell_and_kill(folder: Path, *, most_ms: int) -> int:
    """Have workers apply the price until one gets through; how many were killed."""
    workers = Process("tests.service.shop.working")
    items = [
        {"do": "price", "package": "monthly", "prices": PRICES},
        {"do": "apply", "package": "monthly"},
    ]
    try:
        for killed in range(1000):
            kill = _kill(killed, most_ms) if killed < KILLS else {}
            asked = {"folder": str(folder), "url": NOBODY, "answer_s": 1, "away": True, "after": 0}
            workers.ask({**asked, "clock_ms": midnight_ms(START), "items": items, "kill": kill})
            while not (answer := json.loads(workers.line())).get("ended"):
                assert "done" in answer, answer
            assert answer["killed"] or not answer["status"]
            if not answer["killed"]:
                return killed
    finally:
        workers.end()
    raise AssertionError("it does not get through")


def _kill(killed: int, most_ms: int) -> dict[str, int]:
    """First at steps that each worker comes to, then at any moment."""
    return {"step": STEPS[killed]} if killed < len(STEPS) else {"ms": random.randrange(most_ms // 5, most_ms)}


def run(plans: int, *, most_ms: int) -> None:
    with fast_folder() as folder, ShopWorld(folder / "data", NOBODY, clock_ms=midnight_ms(START)) as world:
        sell(world, plans)
        began_s = time.monotonic()
        killed = tell_and_kill(folder / "data", most_ms=most_ms)
        print(f"{plans} plans: {killed} killed, {time.monotonic() - began_s:.1f} s")
        assert killed >= len(STEPS)
        last = START + timedelta(days=31)
        with world.desk.reading() as books:
            accounts = [row.account for row in books.accounts(limit=plans + 1) if row.kind == "owner"]
            notices = Counter(
                notice.body
                for account in accounts
                for notice in books.notices(account=account, limit=100)
                if notice.purpose == "fee"
            )
            rows = [row for account in accounts for row in books.subscriptions_of(account)]
        assert len(rows) == plans
        assert sum(notices.values()) == plans
        assert set(notices.values()) == {1}, "each plan once"
        told = {(row.next_fee_version, row.next_fee_minor, to_date(row.next_fee_on)) for row in rows}
        assert told == {(2, 799, last)}


def test_a_price_reaches_all_plans_though_it_is_killed() -> None:
    run(400, most_ms=500)


@pytest.mark.soak
def test_a_price_reaches_ten_thousand_plans_though_it_is_killed() -> None:
    run(10_000, most_ms=3000)
