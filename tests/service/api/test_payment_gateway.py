"""An owner pays through a gateway of the operator's, a process on a socket; it reports by itself, and strangers try."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.agreement.gateway.client import HttpGateway
from service.agreement.gateway.signing import Keys, signed_headers
from service.agreement.gateway.wire import Bounds, Endpoint
from service.agreement.payments import PaymentGateway
from service.agreement.settling import settle_pending
from service.api.reports import REPORTS
from service.config import PaymentSettings
from storage.rows.accounts import PaymentState
from tests.servers.payments import KEY, PaymentServer, payment_server
from tests.service.api.office import Person, add_operator, add_owner
from tests.service.api.server import Reply, Server
from tests.service.world import World

SETTINGS = PaymentSettings(gateway="http", url="https://set.later", keys=KEY, max_methods=3)


class Joined:
    """A gateway whose address is known when the port that it reports to is."""

    def __init__(self) -> None:
        self.inner: PaymentGateway | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.fixture
def joined(world: World, tmp_path: Path) -> Iterator[tuple[Server, PaymentServer]]:
    gateway = Joined()
    desk = {"payments": SETTINGS, "gateway": gateway}
    with (
        Server(world, desk=desk, settings={"payment_retry_s": 0.1}, report_keys=Keys(KEY)) as server,
        payment_server(tmp_path / "gateway", "--report-to", server.base + REPORTS) as payer,
    ):
        gateway.inner = HttpGateway(Endpoint(payer.url, Bounds(10, 30, 65536)), Keys(KEY))
        yield server, payer


@pytest.fixture
def server(joined: tuple[Server, PaymentServer]) -> Server:
    return joined[0]


@pytest.fixture
def payer(joined: tuple[Server, PaymentServer]) -> PaymentServer:
    return joined[1]


@pytest.fixture
def ann(server: Server) -> Person:
    return add_owner(server, "ann")


def until(found: Callable[[], object]) -> None:
    for _ in range(600):
        if found():
            return
        time.sleep(0.05)
    raise AssertionError("it does not come to that")


def set_up(owner: Person, method: str = "") -> str:
    """A usable method; `method` makes it one of another name at the gateway."""
    reply = owner.once(f"{owner.home}/methods", {})
    assert reply.status == 201, reply
    name = str(reply.json["method"])
    if method:
        desk = owner.server.desk
        with desk.reading() as books:
            row = books.method(name)
        assert row is not None
        desk.write(lambda books: books.put_method(replace(row, method=method)))
    return name


def buy(owner: Person, method: str, device: int = 0, key: str = "", plan: str = "annual") -> Reply:
    device = device or owner.add_device()
    return owner.once(f"/v1/devices/{device}/subscriptions", {"plan": plan, "method": method}, key)


def report(
    server: Server, document: object, *, keys: str = KEY, at_s: float = 0, kind: Any = "report"
) -> Reply:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    stamp = str(int(at_s or time.time()))
    headers = signed_headers(Keys(keys).now(), kind, stamp, "report", body)
    return server.ask("POST", REPORTS, body, **{n.replace("-", "_"): v for n, v in headers.items()})


def plans(owner: Person, device: int) -> list[Any]:
    return list(owner.get(f"/v1/devices/{device}/subscriptions"))


# --- what owners see --------------------------------------------------------------------------------------------------


def test_a_method_is_set_up_used_changed_and_removed(
    server: Server, ann: Person, payer: PaymentServer
) -> None:
    first, second = set_up(ann), set_up(ann)
    listed = ann.get(f"{ann.home}/methods")
    assert [row["method"] for row in listed] == [second, first] or len(listed) == 2
    assert {(row["state"], row["label"]) for row in listed} == {("usable", "Demo 4242")}
    device = ann.add_device()
    assert buy(ann, first, device, plan="monthly").status == 201
    [plan] = plans(ann, device)
    assert ann.ask("DELETE", f"{ann.home}/methods/{first}").error == "method_in_use"
    used = ann.ask("POST", f"{ann.home}/methods/{second}/use", {})
    assert used.json == {"subscriptions": [plan["subscription"]]}
    assert ann.ask("DELETE", f"{ann.home}/methods/{first}").status == 204
    assert ann.ask("GET", f"{ann.home}/methods/{first}").status == 404
    set_up(ann), set_up(ann)
    assert ann.once(f"{ann.home}/methods", {}).error == "too_many_methods"


def test_nobody_pays_with_anothers_method_or_a_made_up_one(server: Server, ann: Person) -> None:
    bob = add_owner(server, "bob")
    mine = set_up(ann)
    for name in (mine, f"card-{mine}", "card-1"):
        assert buy(bob, name).error == "unknown_method"
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/use")):
        body = {} if method == "POST" else None
        assert bob.ask(method, f"{bob.home}/methods/{mine}{path}", body).status == 404
        assert bob.ask(method, f"{ann.home}/methods/{mine}{path}", body).status == 404


def test_a_payment_is_confirmed_on_a_page_and_reported(
    server: Server, ann: Person, payer: PaymentServer
) -> None:
    device = ann.add_device()
    method = set_up(ann, "confirm-1")
    asked = buy(ann, method, device, key="k")
    assert (asked.status, asked.error) == (402, "needs_customer")
    [payment] = ann.get(f"{ann.home}/payments")["items"]
    assert payment["url"] == asked.json["url"] == f"{payer.url}/confirm/{payment['reference']}"
    assert payment["expires_ms"] == asked.json["expires_ms"]
    assert plans(ann, device) == []
    payer.get(f"/confirm/{payment['reference']}")
    assert [plan["plan"] for plan in plans(ann, device)] == ["annual"], "the report has started it"
    assert buy(ann, method, device, key="k").status == 201, "the same request: the same purchase"
    [payment] = ann.get(f"{ann.home}/payments")["items"]
    assert (payment["state"], payment["url"]) == ("done", None)
    assert len(payer.receipts()) == 1


def test_what_is_abandoned_has_no_page_any_more(ann: Person) -> None:
    device = ann.add_device()
    url = buy(ann, set_up(ann, "confirm-1"), device).json["url"]
    [shown] = ann.get(f"{ann.home}/purchases")
    assert (shown["state"], shown["url"]) == ("open", url)
    [abandoned] = ann.ask("DELETE", f"/v1/devices/{device}/purchase").json
    assert (abandoned["state"], abandoned["url"]) == ("void", None)


def test_what_the_gateway_has_not_decided_says_what_to_do(ann: Person) -> None:
    said = buy(ann, set_up(ann, "later-1"))
    assert (said.status, said.error) == (503, "payment_pending")
    assert "the same Idempotency-Key" in said.json["detail"]


def test_a_page_that_is_gone_voids_the_purchase(server: Server, ann: Person, payer: PaymentServer) -> None:
    method = set_up(ann, "confirm-1")
    asked = buy(ann, method)
    server.world.clock.ms = asked.json["expires_ms"] + 1
    assert settle_pending(server.desk, older_than_ms=0) == {"expired": 1}
    with server.desk.reading() as books:
        [payment] = books.payments_of(ann.account)
    assert payment.state is PaymentState.FAILED
    payer.get(f"/confirm/{payment.reference}")
    assert payer.receipts() == [], "void is for ever"


@pytest.mark.parametrize("method", ["early-1", "later-1", "lost-1", "forged-1", "failing-1"])
def test_however_the_outcome_comes_it_is_had_once(
    server: Server, ann: Person, payer: PaymentServer, method: str
) -> None:
    """Reported twice before the answer, reported later, charged and not answered, answered by somebody else, 500."""
    device = ann.add_device()
    name = set_up(ann, method)
    asked = buy(ann, name, device, key="k")
    assert asked.status == (201 if method == "early-1" else 503), asked
    if method == "later-1":
        until(lambda: plans(ann, device))
    assert buy(ann, name, device, key="k").status == 201
    assert len(plans(ann, device)) == 1
    assert len(payer.receipts()) == 1
    [payment] = ann.get(f"{ann.home}/payments")["items"]
    assert payment["state"] == "done"


def test_a_decline_is_told(server: Server, ann: Person) -> None:
    asked = buy(ann, set_up(ann, "declined-1"))
    assert (asked.status, asked.error) == (402, "payment_declined")
    assert "the bank said no" in asked.json["detail"]


def test_a_dispute_holds_the_account_until_it_ends(server: Server, ann: Person, payer: PaymentServer) -> None:
    buy(ann, set_up(ann))
    [payment] = ann.get(f"{ann.home}/payments")["items"]
    minor = payment["amount"]["minor"]

    def blocked() -> bool:
        return "dispute" in [reason["code"] for reason in ann.get(f"{ann.home}/cancellation")["reasons"]]

    assert payer.dispute(payment["reference"], "dp_1", "open", minor) == 202
    assert blocked()
    assert payer.dispute(payment["reference"], "dp_1", "won", minor) == 202
    assert not blocked()
    assert payer.dispute(payment["reference"], "dp_1", "open", minor) == 202, "late, and no news"
    assert not blocked()
    assert payer.dispute("unknown", "dp_1", "open", minor) == 202, "who sent it learns nothing"


# --- strangers --------------------------------------------------------------------------------------------------------

DONE = {"about": "payment", "reference": "r", "outcome": "done", "amount_minor": 1, "currency": "USD"}


def test_only_what_is_signed_now_is_heard(server: Server) -> None:
    assert report(server, DONE).status == 202
    now = time.time()
    for wrong in (
        report(server, DONE, keys="x" * 32),
        report(server, DONE, kind="answer"),
        report(server, DONE, at_s=now - 301),
        report(server, DONE, at_s=now + 301),
        server.ask("POST", REPORTS, DONE),
        server.ask(
            "POST", REPORTS, DONE, Clipkeep_Timestamp=str(int(now)), Clipkeep_Signature="v1=" + "0" * 64
        ),
    ):
        assert (wrong.status, wrong.error) == (401, "bad_signature")
    assert report(server, DONE, at_s=now - 299).status == 202


@pytest.mark.parametrize("keys", [f"{KEY} {'n' * 32}", f"{'n' * 32} {KEY}"])
def test_a_report_signed_with_either_key_is_heard(server: Server, keys: str) -> None:
    assert report(server, DONE, keys=keys).status == 202


def test_the_answer_tells_nothing_of_a_reference(server: Server, ann: Person, payer: PaymentServer) -> None:
    buy(ann, set_up(ann))
    [payment] = ann.get(f"{ann.home}/payments")["items"]
    known, unknown = (
        report(server, DONE | {"reference": name}) for name in (payment["reference"], "unknown")
    )
    assert (known.status, known.body) == (unknown.status, unknown.body) == (202, b'{"status":"taken"}')


def test_another_amount_is_not_taken_for_the_payment(server: Server, ann: Person) -> None:
    name = set_up(ann, "later-1")
    buy(ann, name)
    [payment] = ann.get(f"{ann.home}/payments")["items"]
    for wrong in ({"amount_minor": 1}, {"currency": "EUR"}):
        done = DONE | {"reference": payment["reference"], "amount_minor": payment["amount"]["minor"]} | wrong
        assert report(server, done).status == 202
    assert ann.get(f"{ann.home}/payments")["items"][0]["state"] == "pending"


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (json.dumps(DONE | {"outcome": "perhaps"}).encode(), 400),
        (json.dumps(DONE | {"amount_minor": 1.0}).encode(), 400),
        (json.dumps({"about": "payment", "reference": "../r", "outcome": "declined"}).encode(), 400),
        (json.dumps(DONE | {"amount_minor": None}).encode(), 400),
    ],
)
def test_what_is_signed_and_no_report_is_malformed(server: Server, wrong: bytes, status: int) -> None:
    assert report(server, wrong).status == status


def test_a_long_body_is_refused_by_its_announcement(server: Server) -> None:
    """Before a byte of it is read, let alone hashed: it may be announced and never come."""
    most = SETTINGS.max_report_bytes
    for length in (
        f"Content-Length: {most + 1}",
        "Content-Length: 99999999999",
        "Transfer-Encoding: chunked",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as link:
            head = f"POST {REPORTS} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
            link.sendall(head.encode())
            assert link.recv(12) == b"HTTP/1.1 413"
    assert (
        report(server, json.dumps(DONE | {"detail": "x" * 300, "pad": "x" * 10_000}).encode()).status == 202
    )


def test_a_header_that_is_not_signed_is_refused_before_the_body_comes(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as link:
        link.sendall(f"POST {REPORTS} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n".encode())
        assert link.recv(12) == b"HTTP/1.1 401"


def test_where_payments_are_only_recorded_there_is_no_such_page(world: World) -> None:
    with Server(world) as server:
        assert report(server, DONE).status == 404
        operator = add_operator(server)
        assert operator.ask("POST", REPORTS, DONE).status == 404
