"""Refunds by hand, payments of all accounts, and purchases that are open, over HTTP."""

from __future__ import annotations

import pytest

from service.agreement.payments import PaymentDeclined, PaymentUnavailable, Receipt
from tests.service.api.office import METHOD, add_operator, add_owner
from tests.service.api.server import Server, refused
from tests.service.world import World

TEN = {"minor": 1000, "currency": "USD"}
GIVEN = {"amount": TEN, "reason": "camera was away"}
REASON = {"reason": "a slip"}


def test_a_refund_by_hand_is_given_once_and_a_note_taken_back(world: World, server: Server) -> None:
    ada, boss = add_owner(server), add_operator(server)
    plan = ada.buy(ada.add_device(), "annual")["subscription"]["subscription"]
    page = f"/v1/subscriptions/{plan}/refunds"
    first, again = boss.once(page, GIVEN, "k1"), boss.once(page, GIVEN, "k1")
    assert first.status == 201
    assert again.json == first.json
    [refund] = first.json["refunds"]
    assert (refund["kind"], refund["state"], refund["amount"], refund["why"]) == (
        "refund",
        "done",
        TEN,
        "camera was away",
    )
    [noted] = boss.once(page, GIVEN | {"paid_by_other_means": True}, "k2").json["refunds"]
    quoted = boss.get(f"/v1/subscriptions/{plan}/cancellation")
    assert quoted["cancel"]["refund"]["minor"] == 5999 - 599 - 2000
    assert noted["state"] == "paid_otherwise"
    taken = boss.ask("POST", f"/v1/payments/{noted['reference']}/counter-entry", REASON)
    assert (taken.status, taken.json["state"]) == (200, "taken_back")
    assert (
        boss.get(f"/v1/subscriptions/{plan}/cancellation")["cancel"]["refund"]["minor"] == 5999 - 599 - 1000
    )
    refused(boss.ask("POST", f"/v1/payments/{refund['reference']}/counter-entry", REASON), 409, "money_left")
    refused(boss.once(page, GIVEN | {"amount": TEN | {"minor": 6000}}), 422, "more_than_paid")
    kinds = [(item["kind"], item["state"]) for item in ada.get(f"{ada.home}/payments")["items"]]
    assert kinds == [("charge", "done"), ("refund", "done"), ("refund", "taken_back"), ("counter", "done")]


def test_a_refused_refund_is_listed_asked_for_again_and_noted(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, boss = add_owner(server), add_operator(server)
    plan = ada.buy(ada.add_device(), "annual")["subscription"]["subscription"]

    def refund(*asked: object) -> Receipt:
        raise PaymentDeclined("the card was closed")

    monkeypatch.setattr(server.desk.gateway, "refund", refund)
    boss.once(f"/v1/subscriptions/{plan}/refunds", GIVEN)
    [item] = boss.get("/v1/payments?kind=refund&state=failed")["items"]
    assert (item["account"], item["refused"], item["age_s"]) == (ada.account, "the card was closed", 0)
    assert boss.get("/v1/payments?older_than_h=1")["items"] == []
    page = boss.get("/v1/payments?limit=1")
    assert [one["kind"] for one in page["items"]] == ["charge"]
    assert boss.get(f"/v1/payments?after={page['next']}")["items"] == [item]
    again = boss.ask("POST", f"/v1/payments/{item['reference']}/retry", REASON)
    assert (again.json["state"], again.json["reference"]) == ("failed", f"{item['reference']}.a1")
    refused(boss.ask("POST", f"/v1/payments/{item['reference']}/retry", REASON), 404, "not_found")
    blocks = ada.get(f"{ada.home}/cancellation")["reasons"]
    assert "refund_failed" in [block["code"] for block in blocks]
    paid = boss.ask("POST", f"/v1/payments/{again.json['reference']}/paid", {"reason": "bank transfer"})
    assert paid.json["state"] == "paid_otherwise"
    assert boss.get("/v1/payments?kind=refund&state=failed")["items"] == []


def test_a_purchase_that_is_not_answered_is_open_and_abandoned(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = add_owner(server)
    device = ada.add_device()
    page, bought = f"/v1/devices/{device}/subscriptions", {"plan": "annual", "method": METHOD}

    def charge(*asked: object) -> Receipt:
        raise PaymentUnavailable("away")

    with monkeypatch.context() as context:
        context.setattr(server.desk.gateway, "charge", charge)
        refused(ada.once(page, bought, "k1"), 503, "payment_unavailable")
    [one] = ada.get(f"{ada.home}/purchases")
    assert (one["device"], one["package"], one["state"], one["fee"]["minor"]) == (
        device,
        "annual",
        "open",
        5999,
    )
    assert one["expires_ms"] - one["ordered_ms"] == 24 * 3_600_000
    refused(ada.once(page, {"plan": "monthly", "method": METHOD}), 409, "purchase_open")
    refused(add_owner(server, "bob").ask("DELETE", f"/v1/devices/{device}/purchase"), 404, "not_found")
    [left] = ada.ask("DELETE", f"/v1/devices/{device}/purchase").json
    assert (left["payment"], left["state"]) == (one["payment"], "void")
    refused(ada.once(page, bought, "k1"), 402, "purchase_abandoned")
    refused(ada.ask("DELETE", f"/v1/devices/{device}/purchase"), 404, "no_open_purchase")
    assert ada.get(f"{ada.home}/purchases") == []
    assert ada.once(page, {"plan": "monthly", "method": METHOD}).status == 201
