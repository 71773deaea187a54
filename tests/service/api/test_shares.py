"""Share links over HTTP: an owner makes one, anybody watches by it, and it ends."""

from __future__ import annotations

from typing import Any

from service.api.models.shares import MAX_SHARE_HOURS
from tests.service.api.office import PASSWORD, Person, add_owner
from tests.service.api.server import Server, refused
from tests.service.world import HOUR_MS, NOON_MS, World, clips


def made(server: Server, world: World) -> tuple[Person, str, dict[str, Any]]:
    """An owner with a device that plays, and a link to two of its four chunks."""
    ada = add_owner(server, "ada")
    device = ada.add_device()
    assert ada.once(f"/v1/devices/{device}/trial").status == 201
    recorded = clips(4)
    world.keep(*recorded, device=device)
    path = f"/v1/devices/{device}"
    asked = {"from": recorded[1].capture_ms, "to": recorded[3].capture_ms, "hours": 2}
    reply = ada.ask("POST", f"{path}/shares", asked)
    assert reply.status == 201
    return ada, path, reply.json


def test_whoever_has_the_link_watches_its_range(server: Server, world: World) -> None:
    _, path, link = made(server, world)
    recorded = clips(4)
    assert (link["from_ms"], link["to_ms"]) == (recorded[1].capture_ms, recorded[3].capture_ms)
    assert (link["state"], link["opens"], link["opened_ms"]) == ("live", 0, None)
    by = f"token={link['token']}"
    playlist = server.get(f"{path}/playlist.m3u8?{by}", token=None)
    assert playlist.status == 200
    for number, clip in enumerate(recorded):
        shown = number in (1, 2)
        assert (f"chunks/{clip.capture_ms}.ts" in playlist.body.decode()) == shown
        reply = server.get(f"{path}/chunks/{clip.capture_ms}.ts?{by}", token=None)
        assert (reply.status, reply.status == 200 and reply.body == clip.data) == (
            (200, True) if shown else (404, False)
        )
    assert "#EXT-X-ENDLIST" in playlist.body.decode(), "all of the range, and nothing live"
    everything = f"from=0&to={NOON_MS + HOUR_MS}"
    assert (
        server.get(f"{path}/clip.ts?{everything}&{by}", token=None).body
        == recorded[1].data + recorded[2].data
    )
    listed = server.get(f"{path}/recordings?{by}", token=None).json
    assert [chunk["capture_ms"] for span in listed["spans"] for chunk in span["chunks"]] == [
        recorded[1].capture_ms,
        recorded[2].capture_ms,
    ]
    for method, page in (
        ("GET", path),
        ("GET", f"{path}/shares"),
        ("POST", f"{path}/shares"),
        ("DELETE", f"{path}/recordings?from=0&to=1"),
    ):
        reply = server.ask(method, page, token=link["token"])
        assert reply.status in (400, 401), (method, page)


def test_a_link_is_listed_and_revoked_and_the_history_says_so(server: Server, world: World) -> None:
    ada, path, link = made(server, world)
    [shown] = ada.ask("GET", f"{path}/shares").json["items"]
    assert shown == {name: value for name, value in link.items() if name != "token"}
    share = link["share"]
    bob = add_owner(server, "bob")
    refused(bob.ask("GET", f"{path}/shares"), 404, "not_found")
    refused(bob.ask("DELETE", f"{path}/shares/{share}"), 404, "not_found")
    assert ada.ask("DELETE", f"{path}/shares/{share}?reason=lost").status == 204
    refused(ada.ask("DELETE", f"{path}/shares/{share}"), 404, "not_found")
    refused(server.get(f"{path}/recordings?token={link['token']}", token=None), 401, "bad_token")
    assert ada.ask("GET", f"{path}/shares").json == {"items": []}
    events = ada.ask("GET", f"/v1/accounts/{ada.account}/events").json["items"]
    kept = {event["what"]: event for event in events}
    assert kept["share_made"]["facts"]["share"] == kept["share_revoked"]["facts"]["share"] == share
    assert kept["share_revoked"]["why"] == "lost"


def test_a_new_password_ends_all_links(server: Server, world: World) -> None:
    ada, path, link = made(server, world)
    assert server.get(f"{path}/recordings?token={link['token']}", token=None).status == 200
    change = {"old": PASSWORD, "new": "another password"}
    assert ada.ask("PUT", f"/v1/accounts/{ada.account}/password", change).status == 204
    refused(server.get(f"{path}/recordings?token={link['token']}", token=None), 401, "bad_token")


def test_links_have_limits(server: Server, world: World) -> None:
    ada, path, _ = made(server, world)
    most = server.desk.settings.max_shares_per_device
    asked = {"from": 0, "to": 1}
    refused(ada.ask("POST", f"{path}/shares", asked | {"to": 0}), 422, "bad_range")
    too_long = server.desk.settings.max_share_days * 24 + 1
    assert too_long < MAX_SHARE_HOURS
    refused(ada.ask("POST", f"{path}/shares", asked | {"hours": too_long}), 422, "bad_hours")
    for hours in (0, MAX_SHARE_HOURS + 1):
        refused(ada.ask("POST", f"{path}/shares", asked | {"hours": hours}), 400, "malformed")
    for _ in range(most - 1):
        assert ada.ask("POST", f"{path}/shares", asked | {"hours": 1}).status == 201
    refused(ada.ask("POST", f"{path}/shares", asked), 409, "too_many_shares")
    world.clock.ms += HOUR_MS
    states = [row["state"] for row in ada.ask("GET", f"{path}/shares").json["items"]]
    assert states == ["live"] + ["expired"] * (most - 1)
    assert ada.ask("POST", f"{path}/shares", asked).status == 201, "those that are over make way"
    assert len(ada.ask("GET", f"{path}/shares").json["items"]) == 2
