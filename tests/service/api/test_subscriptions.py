"""Trials, purchases, cancellations and refunds over HTTP, and each of them once."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from service.agreement.payments import PaymentUnavailable, Receipt
from storage.days import MS_PER_DAY
from tests.service.api.office import METHOD, Person, add_operator, add_owner, log_in
from tests.service.api.server import Reply, Server, refused
from tests.service.world import NOON_MS, RETENTION_DAYS, World

MIDNIGHT_MS = NOON_MS - MS_PER_DAY // 2
MONTHLY = {"plan": "monthly", "method": METHOD}
ANNUAL = {"plan": "annual", "method": METHOD}
FEE = {"minor": 599, "currency": "USD"}
YEAR = {"minor": 5999, "currency": "USD"}


def payments(owner: Person) -> list[tuple[str, int, str]]:
    items = owner.get(f"{owner.home}/payments")["items"]
    return [(item["kind"], item["amount"]["minor"], item["state"]) for item in items]


def test_one_trial_for_each_account(world: World, server: Server) -> None:
    ada = add_owner(server)
    device, other = ada.add_device(), ada.add_device()
    reply = ada.once(f"/v1/devices/{device}/trial")
    assert reply.status == 201
    trial = reply.json["subscription"]
    assert (trial["plan"], trial["retention_days"], trial["fee"], trial["renews"]) == (
        "trial",
        7,
        None,
        False,
    )
    assert trial["denied_from_ms"] == MIDNIGHT_MS + 14 * MS_PER_DAY
    assert reply.json["charged"] is None
    for at in (device, other):
        refused(ada.once(f"/v1/devices/{at}/trial"), 409, "trial_used")
    cancellation = f"/v1/subscriptions/{trial['subscription']}/cancellation"
    refused(ada.ask("GET", cancellation), 422, "trial_cannot_be_cancelled")
    refused(ada.once(cancellation, {}), 422, "trial_cannot_be_cancelled")
    assert ada.get(ada.home)["trial_used"] is True


def test_fifty_trials_at_once_are_one(world: World) -> None:
    with Server(world, settings={"max_devices_per_account": 50}) as server:
        ada = add_owner(server)
        devices = [ada.add_device() for _ in range(50)]
        replies: list[Reply] = []
        threads = [
            threading.Thread(target=lambda n=n: replies.append(ada.once(f"/v1/devices/{n}/trial")))
            for n in devices
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(reply.status for reply in replies) == [201] + [409] * 49
        assert server.bugs == []


def test_a_purchase_says_what_will_be_and_then_is(world: World, server: Server) -> None:
    ada = add_owner(server)
    device = ada.add_device()
    quote = ada.get(f"/v1/devices/{device}/quote?plan=monthly")
    assert (quote["fee"], quote["retention_days"], quote["renews"]) == (FEE, RETENTION_DAYS, True)
    assert quote["agreement_version"] == 1
    assert payments(ada) == []
    more = f"/v1/devices/{device}/quote?plan=monthly&retention_days=60"
    refused(ada.ask("GET", more), 403, "operators_only")
    longer = MONTHLY | {"retention_days": 60}
    refused(ada.once(f"/v1/devices/{device}/subscriptions", longer), 403, "operators_only")
    body = MONTHLY | {"retention_days": RETENTION_DAYS, "amount": FEE}
    bought = ada.once(f"/v1/devices/{device}/subscriptions", body).json
    plan = bought["subscription"]
    assert bought["charged"] == FEE
    same = ("starts_on", "last_day", "denied_from_ms", "retention_days", "renews")
    assert {name: plan[name] for name in same} == {name: quote[name] for name in same}
    assert payments(ada) == [("charge", 599, "done")]
    shown = ada.get(f"/v1/devices/{device}")
    assert (shown["state"], shown["entitled_through"]) == ("recording", plan["last_day"])
    assert shown["subscriptions"] == ada.get(f"/v1/devices/{device}/subscriptions") == [plan]
    assert world.bitmap.read(device) is not None


BAD_PURCHASES: list[tuple[dict[str, Any], int, str]] = [
    (MONTHLY | {"amount": {"minor": 598, "currency": "USD"}}, 422, "wrong_amount"),
    (MONTHLY | {"amount": {"minor": 599, "currency": "EUR"}}, 422, "wrong_currency"),
    (MONTHLY | {"amount": {"minor": 599, "currency": "usd"}}, 400, "malformed"),
    (MONTHLY | {"amount": {"minor": 599.0, "currency": "USD"}}, 400, "malformed"),
    (MONTHLY | {"amount": {"minor": 10**30, "currency": "USD"}}, 400, "malformed"),
    (MONTHLY | {"amount": {"minor": -599, "currency": "USD"}}, 400, "malformed"),
    (MONTHLY | {"retention_days": 0}, 400, "malformed"),
    (MONTHLY | {"retention_days": 256}, 400, "malformed"),
    ({"plan": "trial", "method": METHOD}, 422, "not_for_sale"),
    ({"plan": "weekly", "method": METHOD}, 422, "not_for_sale"),
    ({"plan": "Weekly", "method": METHOD}, 400, "malformed"),
    ({"plan": "monthly"}, 400, "malformed"),
    ({"plan": "monthly", "method": ""}, 400, "malformed"),
    ({"plan": "monthly", "method": "declined-card"}, 402, "payment_declined"),
]


@pytest.mark.parametrize(("body", "status", "code"), BAD_PURCHASES, ids=range(len(BAD_PURCHASES)))
def test_purchases_that_are_refused_start_nothing(
    server: Server, body: dict[str, Any], status: int, code: str
) -> None:
    ada = add_owner(server)
    device = ada.add_device()
    refused(ada.once(f"/v1/devices/{device}/subscriptions", body), status, code)
    assert ada.get(f"/v1/devices/{device}")["subscriptions"] == []
    assert [state for _, _, state in payments(ada) if state != "failed"] == []


def test_cancelling_shows_both_ways_first(world: World, server: Server) -> None:
    ada = add_owner(server)
    device = ada.add_device()
    plan = ada.buy(device, "annual")["subscription"]
    world.clock.ms += 40 * MS_PER_DAY  # in the second month
    ada = log_in(server, "ada@example.org")
    page = f"/v1/subscriptions/{plan['subscription']}/cancellation"
    quote = ada.get(page)
    refund = {"minor": 5999 - 2 * 599, "currency": "USD"}
    assert (quote["kind"], quote["keep"]["last_day"]) == ("annual", plan["last_day"])
    assert quote["keep"]["refund"] == {"minor": 0, "currency": "USD"}
    assert quote["cancel"]["refund"] == refund
    assert quote["cancel"]["last_day"] < plan["last_day"]
    done = ada.once(page, {"reason": "moving"})
    assert done.status == 201
    assert (done.json["refund"], done.json["last_day"]) == (refund, quote["cancel"]["last_day"])
    assert [item["state"] for item in done.json["refunds"]] == ["done"]
    assert payments(ada) == [("charge", 5999, "done"), ("refund", refund["minor"], "done")]
    refused(ada.once(page, {}), 409, "plan_already_cancelled")
    refused(ada.ask("GET", page), 409, "plan_already_cancelled")
    events = ada.get(f"{ada.home}/events")["items"]
    assert ("owner", "moving") in [(event["who"], event["why"]) for event in events]


def test_a_credit_lowers_the_refund(server: Server) -> None:
    ada, operator = add_owner(server), add_operator(server)
    plan = ada.buy(ada.add_device(), "annual")["subscription"]
    page = f"/v1/subscriptions/{plan['subscription']}"
    credit = {"amount": {"minor": 1000, "currency": "USD"}, "reason": "an outage"}
    first = operator.once(f"{page}/credits", credit, key="c1")
    assert (first.status, first.json["kind"]) == (201, "credit")
    assert operator.once(f"{page}/credits", credit, key="c1").json == first.json
    other = credit | {"amount": {"minor": 1, "currency": "EUR"}}
    refused(operator.once(f"{page}/credits", other), 422, "wrong_currency")
    huge = credit | {"amount": {"minor": 6000, "currency": "USD"}}
    refused(operator.once(f"{page}/credits", huge), 422, "bad_amount")
    refused(operator.once("/v1/subscriptions/999/credits", credit), 404, "not_found")
    assert ada.get(f"{page}/cancellation")["cancel"]["refund"]["minor"] == 5999 - 599 - 1000


DATES = [
    ("yesterday", 400, "malformed"),
    ("2026-7-1", 400, "malformed"),
    ("2026-02-30", 422, "bad_date"),
    ("0000-01-01", 422, "bad_date"),
    ("0001-01-01", 422, None),
    ("9999-12-31", 422, None),
]


@pytest.mark.parametrize(("starts_on", "status", "code"), DATES, ids=[text for text, _, _ in DATES])
def test_grants_with_absurd_dates(server: Server, starts_on: str, status: int, code: str | None) -> None:
    ada, operator = add_owner(server), add_operator(server)
    device = ada.add_device()
    body = {"plan": "annual", "starts_on": starts_on}
    reply = operator.once(f"/v1/devices/{device}/grants", body)
    assert reply.status == status, reply
    assert code in (None, reply.error)
    granted = operator.once(f"/v1/devices/{device}/grants", {"plan": "monthly"})
    assert (granted.status, granted.json["charged"]) == (201, None)
    assert granted.json["subscription"]["last_day"] is None


# --- once ---------------------------------------------------------------------------------------------------------


def test_the_same_request_again_is_answered_the_same(server: Server) -> None:
    ada = add_owner(server)
    page = f"/v1/devices/{ada.add_device()}/subscriptions"
    first = ada.once(page, MONTHLY, key="k1")
    again = ada.once(page, MONTHLY, key="k1")
    assert (again.status, again.body) == (201, first.body)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert payments(ada) == [("charge", 599, "done")]
    refused(ada.once(page, ANNUAL, key="k1"), 409, "reused_key")
    refused(ada.once(f"{page}?x=1", MONTHLY, key="k1"), 400, "malformed")
    bob = add_owner(server, "bob")
    theirs = bob.once(f"/v1/devices/{bob.add_device()}/subscriptions", MONTHLY, key="k1")
    assert theirs.status == 201, "a key is its account's own"


def test_a_key_is_asked_for(server: Server) -> None:
    ada, operator = add_owner(server), add_operator(server)
    device = ada.add_device()
    plan = ada.buy(device)["subscription"]["subscription"]
    for who, path, body in (
        (ada, f"/v1/devices/{device}/trial", None),
        (ada, f"/v1/devices/{device}/subscriptions", MONTHLY),
        (ada, f"/v1/subscriptions/{plan}/cancellation", {}),
        (operator, f"/v1/devices/{device}/grants", {"plan": "annual"}),
        (operator, f"/v1/subscriptions/{plan}/credits", {"amount": FEE, "reason": "r"}),
    ):
        refused(who.ask("POST", path, body), 400, "malformed")
        for key in ("a b", "x" * 201, "é"):
            refused(who.ask("POST", path, body, Idempotency_Key=key), 400, "malformed")


def test_a_refusal_is_not_kept_under_its_key_and_a_declined_charge_is(server: Server) -> None:
    ada = add_owner(server)
    device = ada.add_device()
    page = f"/v1/devices/{device}/subscriptions"
    wrong = MONTHLY | {"amount": {"minor": 1, "currency": "USD"}}
    refused(ada.once(page, wrong, key="k1"), 422, "wrong_amount")
    declined = {"plan": "monthly", "method": "declined-1"}
    refused(ada.once(page, declined, key="k2"), 402, "payment_declined")
    refused(ada.once(page, declined, key="k2"), 402, "payment_declined")
    assert payments(ada) == [("charge", 599, "failed")]
    assert ada.once(page, MONTHLY, key="k3").status == 201


def test_a_request_that_is_under_way_is_not_done_twice(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = add_owner(server)
    page = f"/v1/devices/{ada.add_device()}/subscriptions"
    charge, begun, go_on = server.desk.gateway.charge, threading.Event(), threading.Event()

    def slow(*args: Any) -> Receipt:
        begun.set()
        assert go_on.wait(20)
        return charge(*args)

    monkeypatch.setattr(server.desk.gateway, "charge", slow)
    replies: list[Reply] = []
    first = threading.Thread(target=lambda: replies.append(ada.once(page, MONTHLY, key="k1")))
    first.start()
    assert begun.wait(20)
    refused(ada.once(page, MONTHLY, key="k1"), 409, "in_progress")
    go_on.set()
    first.join()
    assert replies[0].status == 201
    assert ada.once(page, MONTHLY, key="k1").body == replies[0].body
    assert payments(ada) == [("charge", 599, "done")]


def test_a_gateway_that_is_away_is_tried_again_under_the_same_key(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = add_owner(server)
    page = f"/v1/devices/{ada.add_device()}/subscriptions"
    with monkeypatch.context() as patch:

        def away(*_: object) -> Receipt:
            raise PaymentUnavailable("away")

        patch.setattr(server.desk.gateway, "charge", away)
        refused(ada.once(page, MONTHLY, key="k1"), 503, PaymentUnavailable.code)
    assert payments(ada) == [("charge", 599, "pending")]
    assert ada.once(page, MONTHLY, key="k1").status == 201
    assert payments(ada) == [("charge", 599, "done")]


def test_slow_purchases_keep_nobody_else_waiting_and_too_many_are_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four at once, and the gateway answers none of them: pages of accounts do not wait for it. Of three more one waits
    for a thread, and two are overload."""
    with Server(world, desk_threads=1, money_threads=4, desk_waiting=1) as server:
        ada = add_owner(server)
        pages = [f"/v1/devices/{ada.add_device()}/subscriptions" for _ in range(7)]
        charge, begun, go_on = server.desk.gateway.charge, threading.Semaphore(0), threading.Event()

        def slow(*args: Any) -> Receipt:
            begun.release()
            assert go_on.wait(20)
            return charge(*args)

        monkeypatch.setattr(server.desk.gateway, "charge", slow)
        replies: list[Reply] = []
        buying = [
            threading.Thread(target=lambda page: replies.append(ada.once(page, MONTHLY)), args=(page,))
            for page in pages
        ]
        for thread in buying[:4]:
            thread.start()
            assert begun.acquire(timeout=20)
        for path in ("/v1/agreement", ada.home, pages[0], f"{ada.home}/payments"):
            assert ada.ask("GET", path).status == 200, path
        for thread in buying[4:]:
            thread.start()
        deadline_s = time.monotonic() + 15
        while len(replies) < 2:  # one of the three waits for a thread
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        for reply in replies:
            refused(reply, 503, "overloaded")
        go_on.set()
        for thread in buying:
            thread.join()
        assert sorted(reply.status for reply in replies) == [*[201] * 5, 503, 503]
        assert server.bugs == []
