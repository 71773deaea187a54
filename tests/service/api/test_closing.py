"""The cancellation of an account over HTTP: asked for, refused, decided on, and over."""

from __future__ import annotations

import pytest

from service.agreement import closing, notices
from service.agreement.senders import FileSender
from storage.days import MS_PER_DAY
from tests.service.api.office import METHOD, Person, add_operator, add_owner, code_of, registration
from tests.service.api.server import Server, refused
from tests.service.world import World, clips


@pytest.fixture
def ada(server: Server) -> Person:
    return add_owner(server)


@pytest.fixture
def operator(server: Server) -> Person:
    return add_operator(server)


def reasons(who: Person, home: str) -> list[str]:
    return [reason["code"] for reason in who.get(f"{home}/cancellation")["reasons"]]


def deliver(world: World, server: Server) -> None:
    """As housekeeping does."""
    files = FileSender(world.folder / "notices", "clipkeep@localhost")
    notices.deliver_due(server.desk, {"email": files, "mobile": files})


def grow_old(world: World) -> None:
    world.clock.ms += 7 * MS_PER_DAY


def test_all_reasons_are_named_at_once_with_what_to_do(
    world: World, server: Server, ada: Person, operator: Person
) -> None:
    device = ada.add_device()
    ada.buy(device)
    ada.ask("PATCH", ada.home, {"email": "new@example.org"})
    kinds = ("dispute", "linked_account", "balance", "transaction", "other")
    blocks = []
    for kind in kinds:
        made = operator.ask("POST", f"{ada.home}/blocks", {"kind": kind, "detail": f"because of {kind}"})
        assert made.status == 201
        blocks.append(made.json["block"])
    reply = ada.ask("POST", f"{ada.home}/cancellation", {"reason": "moving"})
    refused(reply, 422, "cancellation_blocked")
    named = [reason["code"] for reason in reply.json["reasons"]]
    assert set(named) >= {"too_young", "dispute", "linked_account", "balance", "other"}
    assert set(named) >= {"unfinished_transaction", "ongoing_subscription", "ongoing_change"}
    assert all(reason["detail"] and reason["what_to_do"] for reason in reply.json["reasons"])
    assert reasons(ada, ada.home) == named
    assert ada.get(f"{ada.home}/cancellation")["closing"]["state"] == "none"
    assert [block["lifted_ms"] for block in operator.get(f"{ada.home}/blocks")] == [None] * 5
    for block in blocks:
        assert operator.ask("DELETE", f"{ada.home}/blocks/{block}").json["lifted_ms"] is not None
    assert set(reasons(ada, ada.home)) == {"too_young", "ongoing_subscription", "ongoing_change"}
    bob = add_owner(server, "bob")
    refused(operator.ask("DELETE", f"{bob.home}/blocks/{blocks[0]}"), 404, "not_found")
    refused(operator.ask("DELETE", f"{ada.home}/blocks/999"), 404, "not_found")
    odd = {"kind": "whim", "detail": "d"}
    refused(operator.ask("POST", f"{ada.home}/blocks", odd), 400, "malformed")


def test_while_it_is_requested_no_new_business_begins(
    world: World, server: Server, ada: Person, operator: Person
) -> None:
    device = ada.add_device()
    grow_old(world)
    page = f"{ada.home}/cancellation"
    requested = ada.ask("POST", page, {"reason": "moving"})
    assert (requested.status, requested.json["closing"]["state"]) == (202, "requested")
    refused(ada.ask("POST", page, {}), 409, "already_requested")
    for reply in (
        ada.once(f"/v1/devices/{device}/trial"),
        ada.once(f"/v1/devices/{device}/subscriptions", {"plan": "annual", "method": METHOD}),
        ada.ask("GET", f"/v1/devices/{device}/quote?plan=annual"),
        ada.ask("POST", f"{ada.home}/devices"),
        ada.ask("PATCH", ada.home, {"email": "new@example.org"}),
    ):
        refused(reply, 409, "account_closing")
    withdrawn = ada.ask("DELETE", page)
    assert (withdrawn.status, withdrawn.json["closing"]["state"]) == (200, "none")
    refused(ada.ask("DELETE", page), 409, "not_requested")
    assert ada.once(f"/v1/devices/{device}/trial").status == 201
    refused(operator.ask("POST", f"{page}/approval"), 409, "not_requested")
    refused(operator.ask("POST", f"{page}/rejection", {"reason": "r"}), 409, "not_requested")


def test_an_operator_rejects_with_a_reason(
    world: World, server: Server, ada: Person, operator: Person
) -> None:
    grow_old(world)
    ada.ask("POST", f"{ada.home}/cancellation", {})
    done = operator.ask("POST", f"{ada.home}/cancellation/rejection", {"reason": "a claim is open"})
    assert done.json["closing"]["state"] == "none"
    said = [event for event in ada.get(f"{ada.home}/events")["items"] if event["what"] == "closing_rejected"]
    assert [(event["who"], event["why"]) for event in said] == [("operator", "a claim is open")]


def test_approved_it_takes_effect_with_the_delivery_and_everything_is_gone(
    world: World, server: Server, ada: Person, operator: Person
) -> None:
    device = ada.add_device()
    assert ada.once(f"/v1/devices/{device}/trial").status == 201
    kept = clips(3)
    world.keep(*kept, device=device)
    watching = ada.ask("POST", f"/v1/devices/{device}/viewer-tokens", {"hours": 8000}).json["token"]
    world.clock.ms += 15 * MS_PER_DAY  # the trial is over
    ada.ask("POST", f"{ada.home}/cancellation", {"reason": "moving"})
    approved = operator.ask("POST", f"{ada.home}/cancellation/approval")
    assert approved.json["closing"]["state"] == "approved"
    refused(operator.ask("POST", f"{ada.home}/cancellation/approval"), 409, "already_approved")
    refused(ada.ask("DELETE", f"{ada.home}/cancellation"), 409, "already_approved")
    waiting = ada.get(f"{ada.home}/cancellation")
    assert waiting["undelivered"] == ["email"]
    closing.settle(server.desk)
    assert ada.get(ada.home)["state"] == "active", "not before the notice is delivered"
    deliver(world, server)
    refused(ada.ask("GET", ada.home), 401, "session_ended")
    body = {"login": "ada@example.org", "password": "correct horse battery"}
    refused(server.ask("POST", "/v1/sessions", body), 401, "bad_credentials")
    refused(server.ask("GET", f"/v1/devices/{device}/recordings", token=watching), 403, "suspended")
    left = operator.get(ada.home)
    assert (left["state"], left["email"], left["name"]) == ("cancelled", None, "")
    assert operator.get(f"{ada.home}/events")["items"] == []
    assert operator.get(f"{ada.home}/payments")["items"] == []
    refused(operator.ask("POST", f"{ada.home}/suspension", {"reason": "r"}), 409, "account_cancelled")


def test_the_address_is_kept_for_ten_days(
    world: World, server: Server, ada: Person, operator: Person
) -> None:
    assert operator.ask("POST", f"{ada.home}/closure", {"reason": "false data"}).status == 200
    deliver(world, server)
    assert operator.get(ada.home)["state"] == "cancelled"
    for _ in range(11):
        asked = server.ask("POST", "/v1/accounts", registration())
        assert asked.status == 201, "as for any other address"
        with server.desk.reading() as books:
            [notice] = books.notices(account=asked.json["account"])
        assert notice.purpose == "address_reserved", "no code"
        world.clock.ms += MS_PER_DAY
    again = server.ask("POST", "/v1/accounts", registration())
    assert again.status == 201
    assert again.json["account"] != ada.account
    code = code_of(server, again.json["account"])
    done = server.ask("POST", f"/v1/accounts/{again.json['account']}/activation", {"code": code})
    assert done.json["trial_used"] is False


def test_a_notice_that_cannot_be_delivered_is_confirmed_by_hand(
    server: Server, ada: Person, operator: Person
) -> None:
    operator.ask("POST", f"{ada.home}/closure", {"reason": "an authority's demand"})
    found = operator.get(f"/v1/notices?account={ada.account}")["items"]
    [notice] = [row for row in found if row["purpose"] == "closing"]
    assert operator.ask("POST", f"/v1/notices/{notice['notice']}/confirmation").status == 200
    assert operator.get(ada.home)["state"] == "cancelled"
