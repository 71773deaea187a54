"""How soon account pages are answered while 300 payments are never answered: p99 within 100 ms.

    make soak ARGS="tests/soak/test_account_pages.py -s"

It prints the quantiles of an idle service, of one whose `renew` and housekeeping wait for the gateway, and how much CPU
that took. For a machine that does nothing else; `CLIPKEEP_TEST_CATALOG=postgresql` asks a catalog on a server.
"""

from __future__ import annotations

import subprocess
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest

from bench.load import quantiles_ms
from service.agreement import devices, purchases
from service.agreement.desk import OPERATOR
from service.demo.ports import free_ports
from service.folder import open_folder
from storage.catalog.books import Books
from tests.e2e.customers import Customer, Town
from tests.e2e.service import CLIPKEEP, SOON_S, Service
from tests.servers.payments import KEY, payment_server

pytestmark = pytest.mark.soak

SILENT, HEARD = 300, 10
LONGEST_MS = 100.0
IDLE_S = 5.0
ANSWER_S = 5.0
"""That each payment waits for the gateway: 300 of them, `payment_calls` (64) at once, take 25 s."""
EVERY_S = 0.02


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as service:
        yield service


def test_account_pages_are_answered_meanwhile(service: Service) -> None:
    [port] = free_ports(1)
    key_file = service.data.parent / "payment-keys"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    service.configure(
        payments_gateway="http",
        payments_url=f"http://127.0.0.1:{port}",
        payments_key_file=key_file,
        payments_answer_s=ANSWER_S,
        agreement_payment_wait_s=ANSWER_S,
        agreement_max_devices_per_account=1000,
    )
    service.init("--test-clock")
    town = Town(service, start := datetime.now(UTC).date() + timedelta(days=1))
    ann, bob = town.move_in("ann@example.org"), town.move_in("bob@example.org")
    with payment_server(service.data.parent / "gateway", "--port", str(port)) as gateway:
        fill(service, ann, bob)
        town.move_to(start + timedelta(days=28))
        ann, bob = town.log_in("ann@example.org"), town.log_in("bob@example.org")
        idle_until = time.monotonic() + IDLE_S
        print("idle:", measured(service, ann, lambda: time.monotonic() < idle_until))
        command = [str(CLIPKEEP), "renew", "--data", str(service.data)]
        with subprocess.Popen(command, env=service.environ, stdout=subprocess.DEVNULL) as renew:
            waiting = measured(service, ann, lambda: renew.poll() is None)
        print(f"while {SILENT} payments are not answered:", waiting)
        later_until = time.monotonic() + 3 * ANSWER_S
        print(
            "housekeeping asks again:",
            later := measured(service, ann, lambda: time.monotonic() < later_until),
        )
        assert renew.returncode == 1, "they still wait"
        heard = [kind for kind, _, state in bob.payments() if state == "done"]
        assert heard == ["charge"] * 2 * HEARD, "every other one was charged in the same pass"
        assert len({told["reference"] for told in gateway.receipts()}) == len(gateway.receipts())
    assert waiting["p99"] <= LONGEST_MS
    assert later["p99"] <= LONGEST_MS


def fill(service: Service, ann: Customer, bob: Customer) -> None:
    """300 monthly plans of Ann's, charged to a method that never answers, and ten of Bob's."""
    with open_folder(service.data, environ=service.environ) as opened:
        desk = opened.desk
        for owner, count in ((ann, SILENT), (bob, HEARD)):
            method = owner.once(f"{owner.home}/methods", {})["method"]
            for number in range(count):
                device = devices.add_device(desk, OPERATOR, owner.account).device
                reference = f"{owner.account}-{number}"
                purchases.buy(desk, OPERATOR, device, "monthly", method=method, reference=reference)

        def deaf(books: Books) -> None:
            for row in books.subscriptions_of(ann.account):
                books.put_subscription(replace(row, method="silent-1"))

        desk.write(deaf)


def measured(service: Service, owner: Customer, goes_on: Callable[[], bool]) -> dict[str, float]:
    """Ask for an account's pages, one each 20 ms over one connection. Quantiles in ms."""
    pages = ("", "/payments", "/purchases", "/devices", "/events")
    took_s = array("d")
    connection = HTTPConnection(*service.api, timeout=SOON_S)
    try:
        while goes_on():
            begun = time.perf_counter()
            path = owner.home + pages[len(took_s) % len(pages)]
            connection.request("GET", path, headers={"Authorization": f"Bearer {owner.token}"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            took_s.append(time.perf_counter() - begun)
            time.sleep(EVERY_S)
    finally:
        connection.close()
    return {"pages": len(took_s), **quantiles_ms(took_s)}
