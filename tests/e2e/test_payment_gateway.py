"""A shop that bills through an endpoint of its own: `serve`, `renew` and the gateway are real processes on sockets."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta

import pytest

from service.api.reports import REPORTS
from service.demo.ports import free_ports
from tests.e2e.customers import Camera, Customer, Said, Town
from tests.e2e.service import Service, until
from tests.servers.payments import KEY, payment_server

pytestmark = pytest.mark.e2e
ADA = "ada@example.org"
MONTHLY = 599


def test_a_shop_with_a_gateway_of_its_own(service: Service) -> None:
    """A method is entered on a page; a renewal by `renew`; the bank takes a month back,
    reported while `serve` is down and again when it is up; a gateway that is killed and comes back."""
    [port] = free_ports(1)
    service.configure(
        payments_gateway="http",
        payments_url=f"http://127.0.0.1:{port}",
        payments_answer_s=10,
        agreement_payment_retry_s=0.5,
    )
    key_file = service.data.parent / "payment-keys"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    service.configure(payments_key_file=key_file)
    service.init("--test-clock")
    town = Town(service, start := today() + timedelta(days=1))
    report_to = f"http://{service.api[0]}:{service.api[1]}{REPORTS}"
    options = ("--port", str(port), "--report-to", report_to, "--enter-methods")
    ada = town.move_in(ADA)
    camera = ada.add_camera()
    with payment_server(service.data.parent / "gateway", *options) as gateway:
        asked = ada.once(f"{ada.home}/methods", {})
        assert asked["state"] == "pending"
        assert buy(ada, camera, asked["method"]).is_refusal(409, "method_not_usable")
        gateway.get(asked["url"].removeprefix(gateway.url))
        method = ada.get(f"{ada.home}/methods/{asked['method']}")
        assert (method["state"], method["label"]) == ("usable", "Demo 4242")
        assert buy(ada, camera, asked["method"]).status == 201
        camera.record()
        town.move_to(start + timedelta(days=28))
        assert town.renew() == 1
        assert ada.payments() == [("charge", MONTHLY, "done")] * 2
        assert [told["amount_minor"] for told in gateway.receipts()] == [MONTHLY] * 2
        listed = service.command("method", "list", "--account", str(ada.account))
        assert [row["method"] for row in listed["methods"]] == [asked["method"]]
        [second] = [p["reference"] for p in payments(ada) if p["reference"].startswith("renewal")]
        service.stop()
        assert gateway.dispute(second, "dp_1", "lost", MONTHLY) == 0, "nobody listens: to be sent again"
        service.start(ports=(service.ingest[1], service.api[1]))
        assert gateway.dispute(second, "dp_1", "lost", MONTHLY) == 202
        ada = town.log_in(ADA)
        assert ada.payments()[-1] == ("dispute", MONTHLY, "lost")
    # The gateway is gone, with all that it knew: what is asked for now waits for it.
    again = ada.add_camera()
    said = buy(ada, again, asked["method"], key := uuid.uuid4().hex)
    assert said.is_refusal(503, "payment_unavailable")
    with payment_server(service.data.parent / "gateway", *options) as gateway:
        until(lambda: buy(ada, again, asked["method"], key).status == 201, "the purchase under the same key")
        assert len(gateway.receipts()) == 1
    again.record()


def today() -> date:
    return datetime.now(UTC).date()


def payments(owner: Customer) -> list[dict[str, str]]:
    return list(owner.get(f"{owner.home}/payments")["items"])


def buy(owner: Customer, camera: Camera, method: str, key: str = "") -> Said:
    body = {"plan": "monthly", "method": method}
    return owner.ask("POST", f"/v1/devices/{camera.number}/subscriptions", body, key or uuid.uuid4().hex)
