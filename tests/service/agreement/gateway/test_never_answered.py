"""300 payments that a gateway on a socket never answers: every other charge and refund is made in the same pass."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

from service.agreement import records
from service.agreement.charging import owe
from service.agreement.gateway.client import HttpGateway
from service.agreement.gateway.signing import Keys
from service.agreement.gateway.wire import Bounds, Endpoint
from storage.catalog.books import Books
from tests.servers.payments import KEY, payment_server
from tests.service.agreement.money_world import MoneyWorld

SILENT, HEARD = 300, 10


def test_payments_that_are_never_answered_stop_nobody_elses(tmp_path: Path) -> None:
    with payment_server(tmp_path / "gateway") as server:
        endpoint = Endpoint(server.url, Bounds(connect_s=10, answer_s=2, max_bytes=65536))

        def gateway(folder: Path) -> HttpGateway:
            return HttpGateway(endpoint, Keys(KEY))

        settings: dict[str, Any] = {
            "payment_calls": 128,
            "max_devices_per_account": 1000,
            "payment_retry_s": 1.0,
        }
        with MoneyWorld(tmp_path / "data", gateway=cast(Any, gateway), **settings) as world:
            world.gateway.keeps_methods = False
            never_answered(world)
        receipts = server.receipts()
    charged = [told for told in receipts if told["asked"]["kind"] == "charge"]
    assert len({told["reference"] for told in charged}) == len(charged), "nobody is charged twice"


def never_answered(world: MoneyWorld) -> None:
    ann, bob = world.add_owner("Ann"), world.add_owner("Bob")

    def deaf(books: Books) -> None:
        for row in books.subscriptions_of(ann.account):
            books.put_subscription(replace(row, method="silent-1"))

    for number in range(SILENT):
        world.buy(ann, world.add_device(ann), "monthly", f"s{number}")
    world.desk.write(deaf)
    for number in range(HEARD):
        world.buy(bob, world.add_device(bob), "monthly", f"h{number}")
    world.buy(bob, world.add_device(bob), "annual", "year")
    world.go(date(2025, 2, 25))

    def due(books: Books) -> None:
        charge = books.payment("year")
        assert charge is not None
        owe(world.desk, books, charge, 100, "test", plan_id=charge.plan_id)

    world.desk.write(due)
    world.clock.ms += 61_000
    found: list[Any] = []
    run = threading.Thread(target=lambda: found.append(world.renew()))
    run.start()
    pages = 0
    while run.is_alive():
        assert records.account(world.desk, ann, ann.account).account == ann.account
        records.payments(world.desk, ann, ann.account)
        pages += 1
    run.join()
    [report] = found
    assert (report.renewed, report.refunded, report.waiting) == (HEARD, 1, SILENT)
    assert pages > 20, "account pages are answered meanwhile"
