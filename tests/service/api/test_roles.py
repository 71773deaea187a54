"""Who may ask what: owners of their own things only, operators of all, nobody without a token."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import pytest

from service.rights import OF_OWNERS_ALONE
from tests.service.api.office import METHOD, Person, add_operator, add_owner, log_in
from tests.service.api.server import AT, Server, refused
from tests.service.world import HOUR_MS, NOON_MS, TODAY, World, clips

REASON = {"reason": "r"}
ONE_YEAR = {"plan": "annual", "method": METHOD}


@dataclass(frozen=True)
class Ask:
    """A request that its owner, or an operator, could make."""

    method: str
    path: str
    body: object = None


OF_OWNERS = [
    Ask("GET", "/v1/accounts/{account}"),
    Ask("PATCH", "/v1/accounts/{account}", {"name": "x"}),
    Ask("POST", "/v1/accounts/{account}/addresses/email", {"code": "1"}),
    Ask("PUT", "/v1/accounts/{account}/password", {"old": "a", "new": "b"}),
    Ask("GET", "/v1/accounts/{account}/events"),
    Ask("GET", "/v1/accounts/{account}/payments"),
    Ask("GET", "/v1/accounts/{account}/methods"),
    Ask("POST", "/v1/accounts/{account}/methods"),
    Ask("GET", "/v1/accounts/{account}/methods/m-1"),
    Ask("DELETE", "/v1/accounts/{account}/methods/m-1"),
    Ask("POST", "/v1/accounts/{account}/methods/m-1/use", {}),
    Ask("GET", "/v1/accounts/{account}/devices"),
    Ask("POST", "/v1/accounts/{account}/devices"),
    Ask("GET", "/v1/accounts/{account}/cancellation"),
    Ask("POST", "/v1/accounts/{account}/cancellation", {}),
    Ask("DELETE", "/v1/accounts/{account}/cancellation"),
    Ask("GET", "/v1/accounts/{account}/corrections"),
    Ask("GET", "/v1/accounts/{account}/identities"),
    Ask("DELETE", "/v1/accounts/{account}/identities/acme"),
    Ask("GET", "/v1/accounts/{account}/consents"),
    Ask("GET", "/v1/accounts/{account}/exports"),
    Ask("POST", "/v1/accounts/{account}/exports"),
    Ask("GET", "/v1/accounts/{account}/exports/{export}/file"),
    Ask("PUT", "/v1/accounts/{account}/consents/{subject}", {"given": True}),
    Ask("GET", "/v1/devices/{n}"),
    Ask("PATCH", "/v1/devices/{n}", {"name": "Front door"}),
    Ask("GET", "/v1/devices/{n}/kept"),
    Ask("GET", "/v1/accounts/{account}/kept"),
    Ask("GET", "/v1/devices/{n}/token"),
    Ask("POST", "/v1/devices/{n}/token", REASON),
    Ask("POST", "/v1/devices/{n}/viewer-tokens", {}),
    Ask("GET", "/v1/devices/{n}/clips"),
    Ask("POST", "/v1/devices/{n}/clips", {"from": 0, "to": 1}),
    Ask("GET", "/v1/devices/{n}/clips/1"),
    Ask("DELETE", "/v1/devices/{n}/clips/1"),
    Ask("GET", "/v1/devices/{n}/clips/1/playlist.m3u8"),
    Ask("GET", f"/v1/devices/{{n}}/clips/1/chunks/{AT}"),
    Ask("GET", f"/v1/devices/{{n}}/clips/1/chunks/{AT}.ts"),
    *(Ask("GET", f"/v1/devices/{{n}}/clips/1/chunks/{AT}.{kind}") for kind in ("m4s", "map.mp4", "init.mp4")),
    Ask("GET", "/v1/devices/{n}/clips/1/clip.ts"),
    Ask("GET", "/v1/devices/{n}/clips/1/clip.mp4"),
    Ask("GET", "/v1/devices/{n}/clips/1/still.jpg?at=1"),
    Ask("GET", "/v1/devices/{n}/shares"),
    Ask("POST", "/v1/devices/{n}/shares", {"from": 0, "to": 1}),
    Ask("DELETE", "/v1/devices/{n}/shares/1"),
    Ask("POST", "/v1/devices/{n}/termination", REASON),
    Ask("GET", "/v1/devices/{n}/subscriptions"),
    Ask("GET", "/v1/devices/{n}/quote?plan=annual"),
    Ask("POST", "/v1/devices/{n}/trial"),
    Ask("POST", "/v1/devices/{n}/subscriptions", ONE_YEAR),
    Ask("GET", "/v1/devices/{n}/recordings"),
    Ask("GET", "/v1/devices/{n}/playlist.m3u8"),
    Ask("GET", f"/v1/devices/{{n}}/chunks/{AT}"),
    Ask("GET", f"/v1/devices/{{n}}/chunks/{AT}.ts"),
    Ask("GET", f"/v1/devices/{{n}}/chunks/{AT}.m4s"),
    Ask("GET", f"/v1/devices/{{n}}/chunks/{AT}.map.mp4"),
    Ask("GET", f"/v1/devices/{{n}}/chunks/{AT}.init.mp4"),
    Ask("GET", "/v1/devices/{n}/clip.ts?from=0&to=1"),
    Ask("GET", "/v1/devices/{n}/clip.mp4?from=0&to=1"),
    Ask("GET", "/v1/devices/{n}/still.jpg?at=1"),
    Ask("GET", "/v1/devices/{n}/stills.jpg?from=0&to=1"),
    Ask("DELETE", "/v1/devices/{n}/recordings?from=0&to=1"),
    Ask("GET", "/v1/accounts/{account}/purchases"),
    Ask("DELETE", "/v1/devices/{n}/purchase"),
    Ask("GET", "/v1/subscriptions/{subscription}/cancellation"),
    Ask("POST", "/v1/subscriptions/{subscription}/cancellation", {}),
]
OF_OPERATORS = [
    Ask("GET", "/v1/accounts"),
    Ask("POST", "/v1/accounts/{account}/suspension", REASON),
    Ask("DELETE", "/v1/accounts/{account}/suspension?reason=r"),
    Ask("POST", "/v1/accounts/{account}/cancellation/approval"),
    Ask("POST", "/v1/accounts/{account}/cancellation/rejection", REASON),
    Ask("POST", "/v1/accounts/{account}/closure", REASON),
    Ask("GET", "/v1/accounts/{account}/blocks"),
    Ask("POST", "/v1/accounts/{account}/blocks", {"kind": "dispute", "detail": "d"}),
    Ask("DELETE", "/v1/accounts/{account}/blocks/1"),
    Ask("GET", "/v1/corrections"),
    Ask("POST", "/v1/accounts/{account}/corrections", {"fields": ["name"], "detail": "d"}),
    Ask("DELETE", "/v1/accounts/{account}/corrections?reason=r"),
    Ask("POST", "/v1/devices/{n}/grants", {"plan": "annual"}),
    Ask("GET", "/v1/notices"),
    Ask("POST", "/v1/notices/1/confirmation"),
    Ask("POST", "/v1/announcements", {"subject": "s", "body": "b"}),
    Ask("DELETE", "/v1/announcements/x"),
    Ask(
        "POST",
        "/v1/subscriptions/{subscription}/credits",
        {"amount": {"minor": 1, "currency": "USD"}, "reason": "r"},
    ),
    Ask(
        "POST",
        "/v1/subscriptions/{subscription}/refunds",
        {"amount": {"minor": 1, "currency": "USD"}, "reason": "r"},
    ),
    Ask("GET", "/v1/payments"),
    Ask("POST", "/v1/payments/x/retry", REASON),
    Ask("POST", "/v1/payments/x/paid", REASON),
    Ask("POST", "/v1/payments/x/counter-entry", REASON),
]


@dataclass(frozen=True)
class Things:
    """What somebody has."""

    owner: Person
    device: int
    subscription: int

    def path(self, ask: Ask) -> str:
        places = {
            "subject": "advertisements",
            "export": 1,
            "account": self.owner.account,
            "n": self.device,
            "subscription": self.subscription,
        }
        return ask.path.format(**places)


def things_of(owner: Person) -> Things:
    device = owner.add_device()
    bought = owner.buy(device)
    return Things(owner, device, bought["subscription"]["subscription"])


def send(who: Person, things: Things, ask: Ask, **headers: str) -> tuple[int, str]:
    reply = who.ask(
        ask.method, things.path(ask), ask.body, Idempotency_Key=headers.pop("key", uuid.uuid4().hex)
    )
    return reply.status, "" if reply.status < 300 else reply.error


def test_every_page_is_in_one_of_the_lists(server: Server) -> None:
    document = server.ask("GET", "/openapi.json").json
    guarded = {
        (
            method.upper(),
            path.replace("{block}", "1")
            .replace("{method}", "m-1")
            .replace("{provider}", "acme")
            .replace("{notice}", "1")
            .replace("{reference}", "x")
            .replace("{share}", "1")
            .replace("{clip}", "1"),
        )
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if operation.get("security")
    }
    listed = {
        (
            ask.method,
            ask.path.partition("?")[0].replace("/email", "/{kind}").replace(f"/{AT}", "/{capture_ms}"),
        )
        for ask in OF_OWNERS
    } | {(ask.method, ask.path.partition("?")[0]) for ask in OF_OPERATORS}
    assert listed | OF_OWNERS_ALONE | {("DELETE", "/v1/sessions/current")} == guarded


def test_what_is_somebody_elses_is_not_found(server: Server) -> None:
    """The same answer as for what does not exist: whether it exists is nobody else's business."""
    ada, bob = add_owner(server, "ada"), add_owner(server, "bob")
    hers = things_of(ada)
    before = ada.get(ada.home), ada.get(f"/v1/devices/{hers.device}"), ada.get(f"{ada.home}/payments")
    nobodys = Things(Person(server, 999, ""), 999, 999)
    for ask in OF_OWNERS:
        assert send(bob, hers, ask) == (404, "not_found"), ask
        assert send(bob, nobodys, ask) == (404, "not_found"), ask
    assert before == (
        ada.get(ada.home),
        ada.get(f"/v1/devices/{hers.device}"),
        ada.get(f"{ada.home}/payments"),
    )


def test_what_operators_do_is_forbidden_to_owners(server: Server) -> None:
    """Of things that are theirs, of others', and of none."""
    ada, bob = add_owner(server, "ada"), add_owner(server, "bob")
    hers = things_of(ada)
    for who in (ada, bob):
        for ask in OF_OPERATORS:
            assert send(who, hers, ask) == (403, "operators_only"), ask
    assert ada.get(ada.home)["suspended_ms"] is None


BAD_TOKENS = ["", "x", "cka_", "cka_" + "A" * 43, "cko_" + "A" * 43, "ckx_" + "A" * 43, "cka_" + "é" * 43]


@pytest.mark.parametrize("token", BAD_TOKENS, ids=range(len(BAD_TOKENS)))
def test_nobody_is_let_in_without_a_token_of_a_log_in(server: Server, token: str) -> None:
    ada = add_owner(server)
    hers = things_of(ada)
    nobody = Person(server, ada.account, token.encode().decode("latin-1"))
    for ask in OF_OWNERS + OF_OPERATORS:
        status, code = send(nobody, hers, ask)
        watches = (
            ask.method == "GET" and "devices/{n}/" in ask.path and not token.startswith(("cka_", "cko_"))
        )
        codes = {"bad_token"} if watches else set()
        assert status == 401, ask
        assert code in {"bad_credentials", "session_ended"} | codes, ask


def test_a_viewer_token_opens_recordings_and_nothing_else(world: World, server: Server) -> None:
    ada = add_owner(server)
    hers = things_of(ada)
    given = ada.ask("POST", f"/v1/devices/{hers.device}/viewer-tokens", {"hours": 2})
    assert given.status == 201
    assert given.json["expires_s"] == NOON_MS // 1000 + 2 * 3600
    viewer = Person(server, ada.account, given.json["token"])
    for ask in OF_OWNERS + OF_OPERATORS:
        status, code = send(viewer, hers, ask)
        watches = ask.method == "GET" and ask.path.partition("?")[0].rpartition("{n}/")[2] in (
            "recordings",
            "playlist.m3u8",
            f"chunks/{AT}",
            f"chunks/{AT}.ts",
            f"chunks/{AT}.m4s",
            f"chunks/{AT}.map.mp4",
            f"chunks/{AT}.init.mp4",
            "clip.ts",
            "clip.mp4",
            "still.jpg",
            "stills.jpg",
            "clips/1/playlist.m3u8",
            f"clips/1/chunks/{AT}",
            f"clips/1/chunks/{AT}.ts",
            f"clips/1/chunks/{AT}.m4s",
            f"clips/1/chunks/{AT}.map.mp4",
            f"clips/1/chunks/{AT}.init.mp4",
            "clips/1/clip.ts",
            "clips/1/clip.mp4",
            "clips/1/still.jpg",
        )
        assert status in (200, 404) if watches else (status, code) == (401, "bad_credentials"), ask
    world.clock.ms += 2 * HOUR_MS
    refused(viewer.ask("GET", f"/v1/devices/{hers.device}/recordings"), 401, "bad_token")
    for hours in (0, -1, 8785, 10**30, 1.5, "1"):
        bad = ada.ask("POST", f"/v1/devices/{hers.device}/viewer-tokens", {"hours": hours})
        refused(bad, 400, "malformed")


def test_operators_see_and_do_everything(server: Server) -> None:
    ada, operator = add_owner(server), add_operator(server)
    hers = things_of(ada)
    for ask in OF_OWNERS:
        if ask.method == "GET":
            status, code = send(operator, hers, ask)
            assert status == 200 or code == "not_found", ask
    accounts = operator.get("/v1/accounts")["items"]
    assert [row["account"] for row in accounts] == [1, ada.account]
    assert operator.get("/v1/accounts?state=new")["items"] == []


def test_a_suspended_owner_is_let_in_nowhere_until_it_is_lifted(server: Server) -> None:
    ada, operator = add_owner(server), add_operator(server)
    hers = things_of(ada)
    watching = ada.ask("POST", f"/v1/devices/{hers.device}/viewer-tokens", {}).json["token"]
    assert operator.ask("POST", f"{ada.home}/suspension", {"reason": "false data"}).status == 200
    again = operator.ask("POST", f"{ada.home}/suspension", {"reason": "false data"})
    refused(again, 409, "already_suspended")
    for ask in OF_OWNERS:
        status, code = send(ada, hers, ask)
        assert (status, code) == (403, "account_suspended"), ask
    refused(
        server.ask("POST", "/v1/sessions", {"login": "ada@example.org", "password": "no"}),
        401,
        "bad_credentials",
    )
    reply = server.ask(
        "POST", "/v1/sessions", {"login": "ada@example.org", "password": "correct horse battery"}
    )
    refused(reply, 403, "account_suspended")
    recordings = f"/v1/devices/{hers.device}/recordings"
    refused(server.ask("GET", recordings, token=watching), 403, "suspended")
    assert operator.ask("DELETE", f"{ada.home}/suspension?reason=corrected").status == 200
    assert server.ask("GET", recordings, token=watching).status == 200
    refused(operator.ask("DELETE", f"{ada.home}/suspension?reason=again"), 409, "not_suspended")
    ada = log_in(server, "ada@example.org")
    history = [
        (event["what"], event["who"], event["why"]) for event in ada.get(f"{ada.home}/events")["items"]
    ]
    assert ("suspended", "operator", "false data") in history
    assert ("resumed", "operator", "corrected") in history


def test_the_operators_own_account_is_left_alone(server: Server) -> None:
    operator = add_operator(server)
    for path in ("suspension", "closure"):
        refused(operator.ask("POST", f"/v1/accounts/1/{path}", REASON), 422, "operator_account")


def test_the_own_token_watches_and_the_playlist_does_not_show_it(world: World, server: Server) -> None:
    """Its segments carry a token of the device alone: addresses end up in logs and histories."""
    ada = add_owner(server)
    hers = things_of(ada)
    kept = clips(3)
    world.keep(*kept, device=hers.device)
    device = f"/v1/devices/{hers.device}"
    assert ada.ask("GET", f"{device}/chunks/{kept[0].capture_ms}").body == kept[0].data
    playlist = ada.ask("GET", f"{device}/playlist.m3u8?from=0&to={NOON_MS}").body.decode()
    assert "cka_" not in playlist
    assert playlist == ada.ask("GET", f"{device}/playlist.m3u8?from=0&to={NOON_MS}").body.decode()
    segment = next(line for line in playlist.splitlines() if line.startswith("chunks/"))
    assert server.ask("GET", f"{device}/{segment}").body == kept[0].data
    refused(server.ask("GET", f"{device}/chunks/{kept[0].capture_ms}?token={ada.token}"), 401, "bad_token")
    assert server.used.take() == {TODAY: [hers.device]}
