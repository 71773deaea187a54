"""Operators with names: each role may ask for what its table says and nothing else, and what each does, watching
included, is in the history with name and reason (agreement 2.8)."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import quote

import pytest

from retention.operators import MAY, Act, OperatorRole
from service.agreement import my_data, operators
from service.agreement.desk import OPERATOR
from service.agreement.watching import SESSION_H, Watching
from service.rights import OF_OWNERS_ALONE, PAGES
from storage.days import MS_PER_DAY
from storage.rows.accounts import OPERATOR_ACCOUNT, EventRow
from tests.service.api.office import METHOD, Person, add_operator, add_owner
from tests.service.api.server import AT, PATHS, Server, refused
from tests.service.api.test_roles import OF_OPERATORS, OF_OWNERS, Ask
from tests.service.world import World, clips

WHY = "case 7: größer als gedacht"
SAYS = {"Clipkeep_Reason": quote(WHY)}
LEFT_OUT = {("DELETE", "/v1/sessions/current"), ("GET", "/metrics")}
"""Pages of `PAGES` that have tests of their own."""
PLACES = {"{account}": "1", "{n}": "1", "{subscription}": "1", "{subject}": "advertisements", "{export}": "1"}


def named(server: Server, role: OperatorRole, name: str = "eve") -> Person:
    operators.add(server.desk, OPERATOR, name, role)
    token, _ = operators.token(server.desk, OPERATOR, name, 1000)
    return Person(server, OPERATOR_ACCOUNT, token)


def told(server: Server, account: int = OPERATOR_ACCOUNT) -> list[EventRow]:
    with server.desk.reading() as books:
        return books.events_of(account, limit=1000)


def filled(ask: Ask) -> str:
    path = ask.path
    for name, number in PLACES.items():
        path = path.replace(name, number)
    return path


def act_of(ask: Ask) -> Act:
    path = ask.path.partition("?")[0].replace(str(AT), "{capture_ms}")
    path = re.sub(r"/(payments|announcements)/x", r"/\1/{reference}", path)
    path = path.replace("/methods/m-1", "/methods/{method}").replace("/acme", "/{provider}")
    path = path.replace("/shares/1", "/shares/{share}").replace("/clips/1", "/clips/{clip}")
    path = re.sub(r"/notices/1", "/notices/{notice}", path).replace("/blocks/1", "/blocks/{block}")
    return PAGES[ask.method, path.replace("/addresses/email", "/addresses/{kind}")]


def test_the_table_has_every_page_that_an_operator_may_ask_for(server: Server) -> None:
    document = server.get("/openapi.json", token=None).json
    closed = {
        (method.upper(), path)
        for path, pages in document["paths"].items()
        for method, page in pages.items()
        if page.get("security")
    }
    assert closed - OF_OWNERS_ALONE == PAGES.keys() - {("GET", "/metrics")}
    asked = {id(act): act for act in (act_of(ask) for ask in (*OF_OWNERS, *OF_OPERATORS))}
    assert len(OF_OWNERS) + len(OF_OPERATORS) == len(PAGES) - len(LEFT_OUT), "each page is asked below"
    assert set(asked.values()) == set(Act) - {Act.APPOINT}


@pytest.mark.parametrize("role", OperatorRole)
def test_a_role_may_ask_for_what_the_table_says_and_nothing_else(server: Server, role: OperatorRole) -> None:
    person = named(server, role)
    for ask in (*OF_OWNERS, *OF_OPERATORS):
        headers = {"Idempotency_Key": uuid.uuid4().hex, **SAYS}
        reply = person.ask(ask.method, filled(ask), ask.body, **headers)
        if act_of(ask) in MAY[role]:
            assert reply.status < 300 or reply.error != "role_lacks", (ask, reply)
        else:
            refused(reply, 403, "role_lacks")


def test_a_page_that_nobody_wrote_down_is_refused_to_operators(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.rights.PAGES", {})
    refused(add_operator(server).ask("GET", "/v1/accounts/1"), 403, "role_lacks")


def test_metrics_are_for_every_role(world: World) -> None:
    with Server(world, open_metrics=False) as server:
        assert named(server, OperatorRole.AUDITOR).ask("GET", "/metrics").status == 200


def test_an_operator_with_a_name_says_why(server: Server) -> None:
    """Whoever has the built-in one's token goes on as before."""
    eve = named(server, OperatorRole.ADMIN)
    refused(eve.ask("GET", CHUNKS, Clipkeep_Reason="%00"), 422, "bad_text")
    assert add_operator(server).ask("GET", CHUNKS).status == 200
    for ask in (*OF_OWNERS, *OF_OPERATORS):
        reply = eve.ask(ask.method, filled(ask), ask.body, Idempotency_Key=uuid.uuid4().hex)
        says_why = "reason" in str(ask.body) or "?reason" in ask.path
        if act_of(ask) is Act.LOOK or says_why:
            assert reply.status < 300 or reply.error != "reason_needed", (ask, reply)
        else:
            refused(reply, 422, "reason_needed")


CHUNKS = "/v1/devices/1/recordings"


def test_whatever_an_operator_does_is_in_the_history_with_name_and_reason(
    server: Server, world: World
) -> None:
    eve = named(server, OperatorRole.ADMIN)
    ada, bob, cyd = (add_owner(server, name) for name in ("ada", "bob", "cyd"))
    done: set[tuple[str, str]] = set()

    def do(account: int, ask: Ask, *, why: str = WHY) -> Any:
        before = len(told(server, account))
        reply = eve.ask(ask.method, ask.path, ask.body, Idempotency_Key=uuid.uuid4().hex, **SAYS)
        assert reply.status < 300, (ask, reply)
        events = told(server, account)[before:]
        assert ("operator", "eve", why) in {(e.who, e.operator, e.why) for e in events}, (ask, events)
        done.add((ask.method, re.sub(r"\d+", "1", ask.path.partition("?")[0])))
        return reply.json if reply.body else None

    home = f"/v1/accounts/{ada.account}"
    first, second = (do(ada.account, Ask("POST", f"{home}/devices"))["device"] for _ in range(2))
    one, two = f"/v1/devices/{first}", f"/v1/devices/{second}"
    for ask in (
        Ask("PATCH", home, {"name": "Ada L."}),
        Ask("GET", f"{one}/token"),
        Ask("POST", f"{one}/viewer-tokens", {}),
        Ask("POST", f"{one}/shares", {"from": 0, "to": 1}),
        Ask("DELETE", f"{one}/shares/1"),
        Ask("POST", f"{one}/trial"),
        Ask("GET", f"{one}/recordings"),
        Ask("DELETE", f"{one}/recordings?from=0&to=1"),
        Ask("POST", f"{one}/grants", {"plan": "annual"}),
    ):
        do(ada.account, ask)
    do(ada.account, Ask("POST", f"{home}/blocks", {"kind": "other", "detail": "case 9"}), why="case 9")
    do(ada.account, Ask("DELETE", f"{home}/blocks/1"))
    bought = do(ada.account, Ask("POST", f"{two}/subscriptions", {"plan": "annual", "method": METHOD}))
    plan = f"/v1/subscriptions/{bought['subscription']['subscription']}"
    own = "words of its own"
    credit = {"amount": {"minor": 1, "currency": "USD"}, "reason": own}
    given = do(ada.account, Ask("POST", f"{plan}/credits", credit), why=own)
    entry = f"/v1/payments/{given['reference']}/counter-entry"
    do(ada.account, Ask("POST", entry, {"reason": own}), why=own)
    done.add(("POST", "/v1/payments/x/counter-entry"))
    do(ada.account, Ask("POST", f"{plan}/refunds", credit), why=own)
    do(ada.account, Ask("POST", f"{home}/corrections", {"fields": ["name"], "detail": own}), why=own)
    do(ada.account, Ask("DELETE", f"{home}/corrections?reason={quote(own)}"), why=own)
    do(ada.account, Ask("PUT", f"{home}/consents/advertisements", {"given": True}))
    do(ada.account, Ask("POST", f"{home}/exports"))
    assert my_data.make_next(server.desk, world.store, world.catalog, world.folder / "exports") == 1
    before = len(told(server, ada.account))
    assert eve.ask("GET", f"{home}/exports/1/file", **SAYS).status == 200
    [event] = told(server, ada.account)[before:]
    assert (event.what, event.operator, event.why) == ("export_downloaded", "eve", WHY)
    done.add(("GET", "/v1/accounts/1/exports/1/file"))
    do(ada.account, Ask("POST", f"{plan}/cancellation", {"reason": own}), why=own)
    do(ada.account, Ask("PATCH", one, {"name": "Front door"}))
    for path in (f"{one}/token", f"{one}/termination", f"{home}/suspension"):
        do(ada.account, Ask("POST", path, {"reason": own}), why=own)
    do(ada.account, Ask("DELETE", f"{home}/suspension?reason={quote(own)}"), why=own)
    window = {"from_ms": server.desk.now_ms(), "until_ms": server.desk.now_ms() + 1000}
    news = {"subject": "s", "body": "b", "reference": "x", "planned": window}
    do(OPERATOR_ACCOUNT, Ask("POST", "/v1/announcements", news))
    do(OPERATOR_ACCOUNT, Ask("DELETE", "/v1/announcements/x"))

    world.clock.ms += 8 * MS_PER_DAY
    closing = f"/v1/accounts/{bob.account}/cancellation"
    do(bob.account, Ask("POST", closing, {}))
    do(bob.account, Ask("DELETE", closing))
    do(bob.account, Ask("POST", closing, {"reason": own}), why=own)
    do(bob.account, Ask("POST", f"{closing}/rejection", {"reason": own}), why=own)
    do(bob.account, Ask("POST", closing, {}))
    do(bob.account, Ask("POST", f"{closing}/approval"))
    do(cyd.account, Ask("POST", f"/v1/accounts/{cyd.account}/closure", {"reason": own}), why=own)
    with server.desk.reading() as books:
        notice = books.notices(account=ada.account)[-1].notice_id
    do(ada.account, Ask("POST", f"/v1/notices/{notice}/confirmation"))
    elsewhere = {  # they need the owner's code or password, or a gateway that refuses or is silent
        "/v1/devices/1/purchase",
        "/v1/accounts/1/identities/acme",
        "/v1/accounts/1/methods/m-1",
        "/v1/accounts/1/methods/m-1/use",
        "/v1/accounts/1/methods",  # the history has it when the gateway has
        "/v1/accounts/1/addresses/email",
        "/v1/accounts/1/password",
        "/v1/payments/x/paid",
        "/v1/payments/x/retry",
        "/v1/devices/1/clips",  # there has to be something to keep
        "/v1/devices/1/clips/1",
    }
    watched = {re.sub(r"\d+", "1", page.partition("?")[0]) for page in PATHS}  # each as `recordings`, below
    media = ("clip.mp4", "still.jpg", "stills.jpg", "chunks/1.m4s", "chunks/1.map.mp4", "chunks/1.init.mp4")
    watched |= {re.sub(r"\d+", "1", f"/v1/devices/1/{name}") for name in media}  # through the same door
    asked = {
        (ask.method, re.sub(r"\d+", "1", filled(ask).partition("?")[0]))
        for ask in (*OF_OWNERS, *OF_OPERATORS)
        if act_of(ask) is not Act.LOOK
    }
    assert {
        page for page in asked - done if page[1] not in elsewhere | watched and "/clips/1/" not in page[1]
    } == set()


# --- watching -----------------------------------------------------------------------------------------------------


def watched(server: Server) -> list[EventRow]:
    return [event for event in told(server) if event.what == "watched"]


def test_watching_is_a_line_of_the_history_and_no_more_than_one_for_hours(
    server: Server, world: World
) -> None:
    [clip] = clips(1)
    world.keep(clip)
    eve, max_ = named(server, OperatorRole.SUPPORT), named(server, OperatorRole.SUPPORT, "max")
    for _ in range(3):
        for path in PATHS:
            assert eve.ask("GET", path, **SAYS).status == 200, path
    [line] = watched(server)
    assert (line.operator, line.why, line.device) == ("eve", WHY, 1)
    until_ms = line.facts["until_ms"]
    assert until_ms == world.clock.ms + SESSION_H * 3_600_000

    playlist = eve.ask("GET", PATHS[3], **SAYS).body.decode()
    [segment] = [f"/v1/devices/1/{row}" for row in playlist.splitlines() if "token=" in row]
    assert server.get(segment, token=None).status == 200
    world.clock.ms = until_ms
    refused(server.get(segment, token=None), 401, "bad_token")
    assert len(watched(server)) == 1
    assert eve.ask("GET", PATHS[0], **SAYS).status == 200
    assert max_.ask("GET", PATHS[0], **SAYS).status == 200
    assert [line.operator for line in watched(server)] == ["eve", "eve", "max"]


def test_owners_see_who_watched_and_why(server: Server) -> None:
    ada = add_owner(server)
    device = ada.ask("POST", f"{ada.home}/devices").json["device"]
    eve = named(server, OperatorRole.SUPPORT)
    eve.ask("GET", f"/v1/devices/{device}/recordings", **SAYS)
    eve.ask("POST", f"/v1/devices/{device}/viewer-tokens", {"hours": 2}, **SAYS)
    ada.ask("GET", f"/v1/devices/{device}/recordings")
    *_, seen, token = ada.get(f"{ada.home}/events")["items"]
    assert (seen["what"], seen["operator"], seen["why"]) == ("watched", "eve", WHY)
    assert (token["what"], token["operator"], token["why"]) == ("viewer_token", "eve", WHY)
    assert token["facts"] == {"until_ms": server.desk.now_ms() + 2 * 3_600_000}


def test_what_is_remembered_of_watching_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.agreement.watching.MAX_SESSIONS", 2)
    watching = Watching(server.desk)
    devices = [server.world.add_device() for _ in range(3)]
    for device in (*devices, devices[2], devices[1], devices[0]):
        watching.token(OPERATOR, device)
    assert [event.device for event in watched(server)] == [*devices, devices[0]]


# --- the end ------------------------------------------------------------------------------------------------------


def test_a_token_is_revoked_one_by_one_and_all_with_their_operator(server: Server) -> None:
    eve, max_ = named(server, OperatorRole.ADMIN), named(server, OperatorRole.ADMIN, "max")
    second, row = operators.token(server.desk, OPERATOR, "eve", 1)
    other = Person(server, OPERATOR_ACCOUNT, second)
    page = "/v1/accounts/1"
    operators.revoke(server.desk, OPERATOR, row.token_id)
    refused(other.ask("GET", page), 401, "session_ended")
    assert (eve.ask("GET", page).status, max_.ask("GET", page).status) == (200, 200)
    operators.end(server.desk, OPERATOR, "eve")
    refused(eve.ask("GET", page), 401, "session_ended")
    assert max_.ask("GET", page).status == 200
    assert max_.ask("DELETE", "/v1/sessions/current").status == 204
    refused(max_.ask("GET", page), 401, "session_ended")
    assert [(event.what, event.operator) for event in told(server)][-3:] == [
        ("operator_token_revoked", "system"),
        ("operator_ended", "system"),
        ("operator_token_revoked", "max"),
    ]


def test_another_role_counts_for_tokens_that_there_are(server: Server) -> None:
    eve = named(server, OperatorRole.AUDITOR)
    refused(eve.ask("POST", "/v1/accounts/1/devices", **SAYS), 403, "role_lacks")
    operators.give_role(server.desk, OPERATOR, "eve", OperatorRole.SUPPORT)
    assert eve.ask("POST", "/v1/accounts/1/devices", **SAYS).status == 201


def test_two_operators_share_no_idempotency_key(server: Server) -> None:
    eve, max_ = named(server, OperatorRole.MONEY), named(server, OperatorRole.MONEY, "max")
    ada = add_owner(server)
    made = [ada.ask("POST", f"{ada.home}/devices").json["device"] for _ in range(2)]
    for person, device in zip((eve, max_), made, strict=True):
        reply = person.ask(
            "POST", f"/v1/devices/{device}/grants", {"plan": "annual"}, Idempotency_Key="k", **SAYS
        )
        assert reply.status == 201, reply
