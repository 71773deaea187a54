"""Names of devices, and what was seen of them, over HTTP."""

from __future__ import annotations

from tests.service.api.office import add_operator, add_owner
from tests.service.api.server import Server, refused
from tests.service.world import CHUNK_MS, NOON_MS, World, clips


def test_an_owner_names_devices_and_finds_them(world: World, server: Server) -> None:
    ada, eve = add_owner(server), add_owner(server, "eve")
    door, barn = ada.add_device(), ada.add_device()
    path = f"/v1/devices/{door}"
    assert (ada.get(path)["name"], ada.get(path)["label"]) == ("", "")
    reply = ada.ask("PATCH", path, {"name": "Front door", "label": "Elm Street 3, 家"})
    assert (reply.status, reply.json["name"], reply.json["label"]) == (200, "Front door", "Elm Street 3, 家")
    assert ada.ask("PATCH", path, {"label": None}).json["label"] == "Elm Street 3, 家"
    assert ada.ask("PATCH", path, {"label": ""}).json["label"] == ""
    refused(ada.ask("PATCH", path, {"name": "two\nlines"}), 422, "bad_text")
    refused(ada.ask("PATCH", path, {"name": "x" * 81}), 400, "malformed")
    refused(eve.ask("PATCH", path, {"name": "mine"}), 404, "not_found")
    refused(server.ask("PATCH", path, {"name": "mine"}, token=world.token(door)), 401, "bad_credentials")

    def named(text: str, more: str = "") -> list[int]:
        page = ada.get(f"{ada.home}/devices?name={text}{more}")
        assert page["next"] is None
        return [item["device"] for item in page["items"]]

    assert named("DOOR") == [door]
    assert named("DOOR", f"&after={door}") == []
    assert [item["name"] for item in ada.get(f"{ada.home}/devices")["items"]] == ["Front door", ""]
    refused(ada.ask("GET", f"{ada.home}/devices?name="), 400, "malformed")
    operator = add_operator(server)
    assert operator.get(f"{ada.home}/devices?name=door")["items"][0]["device"] == door
    assert operator.get(f"/v1/devices/{barn}")["name"] == ""


def test_when_it_was_seen_and_what_it_was_refused(server: Server) -> None:
    ada = add_owner(server)
    device = ada.add_device()
    shown = ada.get(f"/v1/devices/{device}")
    assert (shown["seen_ms"], shown["refusals"]) == (None, [])
    refusals = {(device, "plan_lapsed"): (3, NOON_MS), (device, "of_a_later_release"): (1, NOON_MS + 1)}
    server.desk.catalog.note_sightings({device: NOON_MS - 1}, refusals)
    [shown] = ada.get(f"{ada.home}/devices")["items"]
    assert shown["seen_ms"] == NOON_MS - 1
    newest, lapsed = shown["refusals"]
    assert newest == {"code": "of_a_later_release", "why": "", "count": 1, "last_ms": NOON_MS + 1}
    assert (lapsed["code"], lapsed["count"], lapsed["last_ms"]) == ("plan_lapsed", 3, NOON_MS)
    assert "buy one" in lapsed["why"]


def test_how_much_is_kept_by_day(world: World, server: Server) -> None:
    kept = clips(3)
    world.keep(*kept)
    operator, ada = add_operator(server), add_owner(server)
    amount = {
        "chunks": 3,
        "length_bytes": sum(len(clip.data) for clip in kept),
        "duration_ms": 3 * CHUNK_MS,
    }
    day = {"day": "2026-07-06", **amount}
    shown = operator.get("/v1/devices/1/kept")
    assert shown == {"device": 1, **amount, "days": [day], "complete": True}
    of_account = operator.get("/v1/accounts/1/kept?limit=1")
    assert of_account["days"] == [day]
    assert of_account["devices"] == [{"device": 1, **amount}]
    assert of_account["next"] == 1
    refused(ada.ask("GET", "/v1/devices/1/kept"), 404, "not_found")
    refused(ada.ask("GET", "/v1/accounts/1/kept"), 404, "not_found")
    device = ada.add_device()
    nothing = {"chunks": 0, "length_bytes": 0, "duration_ms": 0}
    assert ada.get(f"{ada.home}/kept") == {
        **{"days": [], "complete": True, "next": None},
        "devices": [{"device": device, **nothing}],
    }
