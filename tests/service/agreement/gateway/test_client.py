"""The HTTP gateway against the reference server, a process of its own on a socket."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from retention.money import Money
from service.agreement.gateway.client import HttpGateway
from service.agreement.gateway.signing import Keys
from service.agreement.gateway.wire import Bounds, Endpoint
from service.agreement.payments import (
    CustomerNeeded,
    Method,
    PaymentDeclined,
    PaymentPending,
    PaymentUnavailable,
)
from tests.servers.payments import KEY, PaymentServer, payment_server

FIVE = Money(500, "USD")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaymentServer]:
    with payment_server(tmp_path_factory.mktemp("gateway")) as started:
        yield started


def gateway_of(
    server: PaymentServer, *, keys: str = KEY, answer_s: float = 30, late_s: float = 0
) -> HttpGateway:
    endpoint = Endpoint(server.url, Bounds(connect_s=10, answer_s=answer_s, max_bytes=65536))
    return HttpGateway(endpoint, Keys(keys), now_s=lambda: time.time() - late_s)


@pytest.fixture
def gateway(server: PaymentServer) -> HttpGateway:
    return gateway_of(server)


def charged(server: PaymentServer, reference: str) -> int:
    return sum(receipt["reference"] == reference for receipt in server.receipts())


def test_a_charge_is_made_once_and_told_again(server: PaymentServer, gateway: HttpGateway) -> None:
    receipt = gateway.charge("c1", FIVE, "card-1", "a plan")
    assert (receipt.reference, receipt.kind, receipt.money, receipt.gateway_id) == (
        "c1",
        "charge",
        FIVE,
        "demo",
    )
    assert gateway.charge("c1", FIVE, "card-1", "a plan") == receipt == gateway.look_up("c1", "charge", FIVE)
    assert gateway.void("c1", FIVE) == receipt, "it was charged already"
    assert charged(server, "c1") == 1


def test_what_was_never_asked_for_is_unknown(gateway: HttpGateway) -> None:
    assert gateway.look_up("nothing", "charge", FIVE) is None


def test_a_decline_is_for_ever(gateway: HttpGateway) -> None:
    for call in (
        lambda: gateway.charge("d1", FIVE, "declined-1", ""),
        lambda: gateway.look_up("d1", "charge", FIVE),
    ):
        with pytest.raises(PaymentDeclined, match="the bank said no"):
            call()


def test_a_void_charge_is_never_made(server: PaymentServer, gateway: HttpGateway) -> None:
    assert gateway.void("v1", FIVE) is None
    assert gateway.void("v1", FIVE) is None
    with pytest.raises(PaymentDeclined):
        gateway.charge("v1", FIVE, "card-1", "")
    assert not charged(server, "v1")


def test_a_refund_is_of_a_charge(server: PaymentServer, gateway: HttpGateway) -> None:
    gateway.charge("c2", FIVE, "card-1", "")
    receipt = gateway.refund("c2.r1", "c2", FIVE)
    assert (receipt.kind, receipt.of_reference) == ("refund", "c2")
    assert gateway.look_up("c2.r1", "refund", FIVE, "c2") == receipt
    with pytest.raises(PaymentDeclined):
        gateway.refund("c9.r1", "c9", FIVE)


@pytest.mark.parametrize("method", ["lost-1", "failing-1", "forged-1"])
def test_an_answer_that_was_lost_is_asked_for(
    server: PaymentServer, gateway: HttpGateway, method: str
) -> None:
    """Not guessed: neither a charge nor a decline is made of it, and it is charged once."""
    with pytest.raises(PaymentUnavailable):
        gateway.charge(f"l-{method}", FIVE, method, "")
    found = gateway.look_up(f"l-{method}", "charge", FIVE)
    assert (found is None) == (method == "failing-1"), "what was charged before the answer was lost is known"
    assert gateway.charge(f"l-{method}", FIVE, method, "").money == FIVE
    assert charged(server, f"l-{method}") == 1


@pytest.mark.parametrize("method", ["slow-1", "silent-1"])
def test_a_slow_answer_is_a_lost_one(server: PaymentServer, gateway: HttpGateway, method: str) -> None:
    with pytest.raises(PaymentUnavailable, match="within 1 s"):
        gateway_of(server, answer_s=1).charge(f"s-{method}", FIVE, method, "")
    assert gateway.look_up(f"s-{method}", "charge", FIVE) is not None


def test_whoever_pays_may_have_to_open_a_page(server: PaymentServer, gateway: HttpGateway) -> None:
    for call in (
        lambda: gateway.charge("p1", FIVE, "confirm-1", ""),
        lambda: gateway.look_up("p1", "charge", FIVE),
    ):
        with pytest.raises(CustomerNeeded) as caught:
            call()
    assert caught.value.url == f"{server.url}/confirm/p1"
    assert caught.value.until_ms > time.time() * 1000
    server.get("/confirm/p1")
    assert gateway.charge("p1", FIVE, "confirm-1", "").money == FIVE


def test_a_charge_may_be_decided_later(gateway: HttpGateway) -> None:
    with pytest.raises(PaymentPending):
        gateway.charge("w1", FIVE, "later-1", "")


def test_an_answer_about_another_amount_counts_as_none(gateway: HttpGateway) -> None:
    gateway.charge("a1", FIVE, "card-1", "")
    with pytest.raises(PaymentUnavailable, match="moved"):
        gateway.charge("a1", Money(501, "USD"), "card-1", "")


def test_keys_are_changed_one_side_after_the_other(server: PaymentServer) -> None:
    assert gateway_of(server, keys=f"{'n' * 32} {KEY}").look_up("k", "charge", FIVE) is None
    for wrong in (gateway_of(server, keys="n" * 32), gateway_of(server, late_s=1000)):
        with pytest.raises(PaymentUnavailable, match="status 401"):
            wrong.look_up("k", "charge", FIVE)


def test_a_method_is_set_up_looked_up_and_removed(gateway: HttpGateway) -> None:
    assert gateway.look_up_method("m1") is None
    found = gateway.set_up_method("m1")
    assert found == Method("card-m1", "Demo 4242") == gateway.look_up_method("m1")
    gateway.remove_method("m1", found.name)
    gateway.remove_method("m1", found.name)
    with pytest.raises(PaymentDeclined):
        gateway.set_up_method("m1")
