"""Refunds by hand (8.2.1) and one that the gateway refuses: with real commands, a real service and a real gateway."""

from __future__ import annotations

import csv
import io
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from service.api.reports import REPORTS
from service.demo.ports import free_ports
from tests.e2e.customers import Camera, Customer, Town
from tests.e2e.service import Service
from tests.servers.payments import KEY, PaymentServer, payment_server

pytestmark = pytest.mark.e2e
ADA, OPERATORS = "ada@example.org", "shop@example.org"
ANNUAL, MONTHLY = 5999, 599


def test_refunds_by_hand_and_one_that_is_refused(service: Service) -> None:
    [port] = free_ports(1)
    key_file = service.data.parent / "payment-keys"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    service.configure(
        payments_gateway="http",
        payments_url=f"http://127.0.0.1:{port}",
        payments_key_file=key_file,
        notices_operators=OPERATORS,
    )
    service.init("--test-clock")
    town = Town(service, start := datetime.now(UTC).date() + timedelta(days=1))
    report_to = f"http://{service.api[0]}:{service.api[1]}{REPORTS}"
    options = ("--port", str(port), "--report-to", report_to, "--enter-methods")
    ada = town.move_in(ADA)
    camera = ada.add_camera()
    with payment_server(service.data.parent / "gateway", *options) as gateway:
        plan = str(bought(ada, camera, gateway))
        first = refused(service, plan)
        town.read_mail(ADA, "5.00 USD could not be paid back yet")
        assert first in town.read_mail(OPERATORS, "was refused: 5.00 USD")
        blocks = {reason["code"] for reason in ada.get(f"{ada.home}/cancellation")["reasons"]}
        assert "refund_failed" in blocks
        reason = ("--reason", "the card is good again")
        again = service.command("refund", "retry", "--reference", first, *reason)
        assert (again["state"], again["reference"]) == ("done", f"{first}.a1")
        town.read_mail(ADA, "5.00 USD is paid back")
        noted = give(service, plan, 200, "cash", "--other-means")
        taken = service.command("refund", "take-back", "--reference", noted, "--reason", "it was not")
        assert taken["state"] == "taken_back"
        said = ada.once(f"/v1/subscriptions/{plan}/cancellation")
        assert said["refund"]["minor"] == ANNUAL - MONTHLY - 500
        assert [one["amount_minor"] for one in gateway.receipts()] == [ANNUAL, 500, ANNUAL - MONTHLY - 500]
        assert service.command("books", "check")["findings"] == []
    days = ("--from", str(start), "--through", str(start))
    rows = csv.DictReader(io.StringIO(service.run("payments", "export", *days).stdout))
    assert sum(int(row["moved_minor"]) for row in rows) == MONTHLY, "what is kept: the month that has begun"


def bought(ada: Customer, camera: Camera, gateway: PaymentServer) -> int:
    """A year, paid with a method of which the first refund is declined."""
    method = ada.once(f"{ada.home}/methods", {})
    with urllib.request.urlopen(f"{method['url']}?as=kept", timeout=30):
        pass
    said = ada.once(
        f"/v1/devices/{camera.number}/subscriptions", {"plan": "annual", "method": method["method"]}
    )
    return int(said["subscription"]["subscription"])


def give(service: Service, plan: str, minor: int, reason: str, *more: str) -> str:
    asked = ("refund", "give", "--plan", plan, "--minor", str(minor), "--reason", reason)
    return str(service.command(*asked, *more)["refunds"][0]["reference"])


def refused(service: Service, plan: str) -> str:
    """The reference of a refund of 5.00 that the gateway declines."""
    done = service.run("refund", "give", "--plan", plan, "--minor", "500", "--reason", "two days without")
    assert (done.returncode, "refund retry" in done.stderr) == (1, True)
    [row] = service.command("payments", "list", "--kind", "refund", "--state", "failed")["payments"]
    return str(row["reference"])
