"""Registering, activating, logging in and out, another password, other addresses: over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.service.api.office import (
    PASSWORD,
    Person,
    add_operator,
    add_owner,
    code_of,
    codes_of,
    log_in,
    registration,
)
from tests.service.api.server import Server, refused
from tests.service.world import HOUR_MS, World

NEW_PASSWORD = "a longer way to say it"


def test_the_agreement_can_be_read_by_anybody(server: Server) -> None:
    now = server.ask("GET", "/v1/agreement")
    assert now.json["version"] == 1
    assert "7.1 Trial use" in now.json["text"]
    assert server.ask("GET", "/v1/agreement/1").json == now.json
    refused(server.ask("GET", "/v1/agreement/2"), 404, "not_found")
    refused(server.ask("GET", "/v1/agreement/0"), 400, "malformed")
    refused(server.ask("GET", "/v1/agreement/9223372036854775808"), 400, "malformed")
    prices = server.ask("GET", "/v1/prices").json
    assert prices == {
        "monthly": {"minor": 599, "currency": "USD"},
        "annual": {"minor": 5999, "currency": "USD"},
    }


def test_register_activate_and_log_in(server: Server) -> None:
    reply = server.ask("POST", "/v1/accounts", registration("Ada@Example.ORG", mobile="+49 151 12345678"))
    assert reply.status == 201
    assert reply.headers["cache-control"] == "no-store"
    account = reply.json["account"]
    assert reply.headers["location"] == f"/v1/accounts/{account}"
    assert (reply.json["state"], reply.json["trial_used"]) == ("new", False)
    assert PASSWORD not in json.dumps(reply.json)
    for login in (str(account), "ada@example.org", "+4915112345678"):
        body = {"login": login, "password": PASSWORD}
        status, code = (403, "not_activated") if login == str(account) else (401, "bad_credentials")
        refused(server.ask("POST", "/v1/sessions", body), status, code)
    activation = f"/v1/accounts/{account}/activation"
    refused(server.ask("POST", activation, {"code": "000000"}), 422, "wrong_code")
    mail, text = codes_of(server, account)
    active = server.ask("POST", activation, {"code": mail}).json
    assert (active["state"], active["email"], active["mobile"]) == ("active", "ada@example.org", None)
    refused(server.ask("POST", activation, {"code": mail}), 409, "already_activated")
    person = log_in(server, "ada@example.org")
    refused(person.ask("POST", f"{person.home}/addresses/mobile", {"code": mail}), 422, "wrong_code")
    bound = person.ask("POST", f"{person.home}/addresses/mobile", {"code": text})
    assert bound.json["mobile"] == "+4915112345678", "each address by its own code"
    for login in (str(account), "ADA@example.org", "+4915112345678"):
        person = log_in(server, login)
        assert person.account == account
        assert person.get(person.home)["email"] == "ada@example.org"


def test_another_code_voids_the_one_before(server: Server) -> None:
    account = server.ask("POST", "/v1/accounts", registration()).json["account"]
    first = code_of(server, account)
    again = server.ask("POST", f"/v1/accounts/{account}/activation-code")
    assert (again.status, again.body) == (202, b"")
    second = code_of(server, account)
    if first != second:
        refused(server.ask("POST", f"/v1/accounts/{account}/activation", {"code": first}), 422, "wrong_code")
    assert server.ask("POST", f"/v1/accounts/{account}/activation", {"code": second}).status == 200
    refused(server.ask("POST", f"/v1/accounts/{account}/activation-code"), 409, "already_activated")
    refused(server.ask("POST", "/v1/accounts/999/activation-code"), 404, "not_found")
    refused(server.ask("POST", "/v1/accounts/999/activation", {"code": second}), 404, "not_found")


REFUSED = [
    ({"email": None}, 422, "no_address"),
    ({"email": "no address"}, 422, "bad_email"),
    ({"email": "a@b@c"}, 422, "bad_email"),
    ({"email": None, "mobile": "12345"}, 422, "bad_mobile"),
    ({"mobile": "+49151123456789012345"}, 422, "bad_mobile"),
    ({"password": "too short"}, 422, "bad_password"),
    ({"accepts_version": 2}, 422, "agreement_not_accepted"),
]


@pytest.mark.parametrize(("fields", "status", "code"), REFUSED, ids=[code for _, _, code in REFUSED])
def test_registrations_that_are_refused(
    server: Server, fields: dict[str, Any], status: int, code: str
) -> None:
    body = registration(**({"email": "b@example.org"} | fields))
    refused(server.ask("POST", "/v1/accounts", body), status, code)


@pytest.mark.parametrize("address", ["taken@example.org", "TAKEN@example.org"])
def test_the_answer_does_not_tell_whether_an_address_is_taken(server: Server, address: str) -> None:
    taken, bob = add_owner(server, "taken"), add_owner(server, "bob")
    free = server.ask("POST", "/v1/accounts", registration("free@example.org"))
    answer = server.ask("POST", "/v1/accounts", registration(address))
    assert (
        (answer.status, list(answer.headers)) == (free.status, list(free.headers)) == (201, [*free.headers])
    )
    numbers = {"account": 0, "created_ms": 0}
    assert answer.json | numbers == free.json | numbers
    changes = [bob.ask("PATCH", bob.home, {"email": asked}) for asked in ("free@example.org", address)]
    assert (
        (changes[0].status, changes[0].json) == (changes[1].status, changes[1].json) == (200, changes[0].json)
    )
    refused(bob.ask("POST", f"{bob.home}/addresses/email", {"code": "12345678"}), 422, "wrong_code")
    with server.desk.reading() as books:
        told = [n.purpose for n in books.notices(account=taken.account)]
    assert told == ["activate", "address_in_use", "address_in_use"], "its owner is told, nobody else"


def test_wrong_passwords_slow_down_and_lock_for_a_while(world: World) -> None:
    with Server(world, settings={"login_failures": 3, "login_lock_s": 30.0}) as server:
        add_owner(server)

        def attempt(login: str, password: str) -> int:
            reply = server.ask("POST", "/v1/sessions", {"login": login, "password": password})
            if reply.status == 429:
                refused(reply, 429, "slow_down")
                assert 1 <= int(reply.headers["retry-after"]) <= 30
            return reply.status

        for login in ("ada@example.org", "nobody@example.org"):  # the same, so that it tells nothing
            assert [attempt(login, "wrong") for _ in range(5)] == [401, 401, 401, 401, 429]
        assert attempt("ada@example.org", PASSWORD) == 429, "the right one has to wait too"
        world.clock.ms += 31_000
        assert attempt("ada@example.org", PASSWORD) == 201


def test_one_client_is_slowed_down_over_all_accounts(world: World) -> None:
    settings = {"login_failures_per_client": 3}
    with Server(world, settings=settings, trusted_proxies="127.0.0.1") as server:
        add_owner(server)

        def attempt(login: str, address: str, password: str = "wrong") -> int:
            body = {"login": login, "password": password}
            return server.ask("POST", "/v1/sessions", body, X_Forwarded_For=address).status

        wrong = [attempt(f"a{n}@example.org", "203.0.113.1") for n in range(5)]
        assert wrong == [401, 401, 401, 401, 429]
        assert attempt("ada@example.org", "203.0.113.1", PASSWORD) == 429
        assert attempt("ada@example.org", "203.0.113.2", PASSWORD) == 201


def test_log_out_ends_this_session_and_a_new_password_all(server: Server) -> None:
    add_owner(server)
    one, two = log_in(server, "ada@example.org"), log_in(server, "ada@example.org")
    assert one.ask("DELETE", "/v1/sessions/current").status == 204
    refused(one.ask("GET", one.home), 401, "session_ended")
    refused(one.ask("DELETE", "/v1/sessions/current"), 401, "session_ended")
    password = f"{two.home}/password"
    refused(two.ask("PUT", password, {"old": "wrong", "new": NEW_PASSWORD}), 401, "bad_credentials")
    refused(two.ask("PUT", password, {"old": PASSWORD, "new": "short"}), 422, "bad_password")
    assert two.get(two.home)["account"] == two.account
    assert two.ask("PUT", password, {"old": PASSWORD, "new": NEW_PASSWORD}).status == 204
    refused(two.ask("GET", two.home), 401, "session_ended")
    body = {"login": "ada@example.org", "password": PASSWORD}
    refused(server.ask("POST", "/v1/sessions", body), 401, "bad_credentials")
    log_in(server, "ada@example.org", NEW_PASSWORD)


def test_a_session_ends_by_itself(world: World) -> None:
    with Server(world, settings={"session_h": 2.0}) as server:
        ada = add_owner(server)
        world.clock.ms += 2 * HOUR_MS - 1
        assert ada.ask("GET", ada.home).status == 200
        world.clock.ms += 1
        refused(ada.ask("GET", ada.home), 401, "session_ended")


def test_a_lost_password_is_replaced_with_a_code(server: Server) -> None:
    ada = add_owner(server)
    for login in ("ada@example.org", "nobody@example.org", "x"):
        asked = server.ask("POST", "/v1/password-resets", {"login": login})
        assert (asked.status, asked.body) == (202, b""), "it does not tell whether there is such an account"
    code = code_of(server, ada.account, "password")
    body = {"login": "ada@example.org", "code": code, "password": NEW_PASSWORD}
    refused(server.ask("PUT", "/v1/password-resets", body | {"code": "1"}), 422, "wrong_code")
    refused(server.ask("PUT", "/v1/password-resets", body | {"login": "b@example.org"}), 422, "wrong_code")
    assert server.ask("PUT", "/v1/password-resets", body).status == 204
    refused(server.ask("PUT", "/v1/password-resets", body), 422, "wrong_code")
    refused(ada.ask("GET", ada.home), 401, "session_ended")
    log_in(server, "ada@example.org", NEW_PASSWORD)


def test_a_new_address_is_bound_when_its_code_comes_back(server: Server) -> None:
    ada, bob = add_owner(server, "ada"), add_owner(server, "bob")
    renamed = ada.ask("PATCH", ada.home, {"name": "Ada L.", "email": "countess@example.org"})
    assert (renamed.json["name"], renamed.json["email"]) == ("Ada L.", "ada@example.org")
    refused(ada.ask("POST", f"{ada.home}/addresses/email", {"code": "1"}), 422, "wrong_code")
    refused(ada.ask("POST", f"{ada.home}/addresses/post", {"code": "1"}), 400, "malformed")
    code = code_of(server, ada.account, "email")
    bound = ada.ask("POST", f"{ada.home}/addresses/email", {"code": code})
    assert bound.json["email"] == "countess@example.org"
    operator = add_operator(server)
    refused(operator.ask("PATCH", bob.home, {"email": "countess@example.org"}), 409, "address_taken")
    refused(bob.ask("PATCH", bob.home, {"email": ""}), 422, "no_address")
    refused(bob.ask("PATCH", bob.home, {"mobile": "5"}), 422, "bad_mobile")
    log_in(server, "countess@example.org")
    history = ada.get(f"{ada.home}/events")
    assert [event["what"] for event in history["items"]].count("updated") == 2
    assert "example.org" not in json.dumps(history), "addresses are in no history"


def test_long_lists_come_in_pages_and_end(server: Server) -> None:
    ada, operator = add_owner(server), add_operator(server)
    devices = [ada.add_device() for _ in range(5)]

    def pages(who: Person, path: str, name: str, limit: int) -> list[list[int]]:
        found: list[list[int]] = []
        after: int | None = 0
        while after is not None:
            page = who.get(f"{path}?limit={limit}&after={after}")
            found.append([item[name] for item in page["items"]])
            assert page["next"] is None or page["next"] == found[-1][-1]
            after = page["next"]
        return found

    path = f"{ada.home}/devices"
    assert pages(ada, path, "device", 5) == [devices]
    assert pages(ada, path, "device", 4) == [devices[:4], devices[4:]]
    assert pages(ada, path, "device", 6) == [devices]
    assert pages(ada, path, "device", 1) == [[device] for device in devices]
    for path, name, who in (
        (f"{ada.home}/events", "event", ada),
        ("/v1/accounts", "account", operator),
        ("/v1/notices", "notice", operator),
    ):
        one_by_one = [number for page in pages(who, path, name, 1) for number in page]
        assert [one_by_one] == pages(who, path, name, 1000)
        assert one_by_one == sorted(set(one_by_one))
    assert ada.get(f"{ada.home}/payments") == {"items": [], "next": None}
    assert ada.get(f"{ada.home}/events?after=9223372036854775807") == {"items": [], "next": None}
    for query in ("limit=0", "limit=1001", "after=-1", "after=9223372036854775808", "after=x", "limit=1.5"):
        refused(ada.ask("GET", f"{ada.home}/events?{query}"), 400, "malformed")


def test_the_outbox_is_shown_without_its_codes(server: Server) -> None:
    ada, operator = add_owner(server), add_operator(server)
    [notice] = operator.get(f"/v1/notices?account={ada.account}")["items"]
    assert (notice["purpose"], notice["channel"], notice["state"]) == ("activate", "email", "queued")
    assert code_of(server, ada.account) not in json.dumps(notice)
    assert operator.get("/v1/notices?state=failed")["items"] == []
    confirmed = operator.ask("POST", f"/v1/notices/{notice['notice']}/confirmation")
    assert confirmed.json["state"] == "delivered"
    again = operator.ask("POST", f"/v1/notices/{notice['notice']}/confirmation")
    refused(again, 409, "already_delivered")
    refused(operator.ask("POST", "/v1/notices/999/confirmation"), 404, "not_found")


def test_an_announcement_reaches_every_active_account_once(server: Server) -> None:
    operator = add_operator(server)
    owners = [add_owner(server, name) for name in ("ada", "bob")]
    server.ask("POST", "/v1/accounts", registration("new@example.org"))
    body = {"subject": "Maintenance", "body": "On Sunday,\nfrom 2 to 3 UTC."}
    first = operator.ask("POST", "/v1/announcements", body)
    assert (first.status, first.json["accounts"]) == (200, 2)
    assert operator.ask("POST", "/v1/announcements", body).json["accounts"] == 0
    told = {n["account"] for n in operator.get("/v1/notices")["items"] if n["subject"] == "Maintenance"}
    assert told == {owner.account for owner in owners}
    refused(operator.ask("POST", "/v1/announcements", body | {"subject": "a\nb"}), 422, "bad_text")
