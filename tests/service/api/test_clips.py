"""Kept clips and share links of fMP4 over HTTP: what a playlist names can be fetched."""

from __future__ import annotations

import re

from service.keeping import Keeping
from tests.service.api.office import Person, add_owner
from tests.service.api.server import Server, refused
from tests.service.playback.test_fragments import INIT, stored
from tests.service.world import World

NAMED = re.compile(r"chunks/[^\"\s]+")


def recorded(server: Server, world: World) -> tuple[Person, str, int, int]:
    """An owner, a device that recorded an init segment and fragments of it, and their range."""
    ada = add_owner(server, "ada")
    device = ada.add_device()
    assert ada.once(f"/v1/devices/{device}/trial").status == 201
    init, *fragments = stored()
    world.keep(init, *fragments, device=device)
    return ada, f"/v1/devices/{device}", fragments[0].capture_ms, fragments[-1].capture_ms + 1


def named(server: Server, page: str, token: str) -> list[str]:
    """What a playlist names, each fetched: a header, then a fragment for each chunk."""
    reply = server.get(f"{page}/playlist.m3u8?token={token}", token=None)
    assert reply.status == 200, reply.body
    found = NAMED.findall(reply.body.decode())
    for address in found:
        got = server.get(f"{page}/{address}", token=None)
        assert (got.status, got.headers["content-type"]) == (200, "video/mp4"), got.body
        assert (b"moov" in got.body[:64]) == (".map.mp4" in address)
        assert (b"moof" in got.body[:200]) == (".m4s" in address)
    return found


def test_a_kept_clip_of_fmp4_is_played_as_recordings_are(server: Server, world: World) -> None:
    ada, path, from_ms, to_ms = recorded(server, world)
    made = ada.ask("POST", f"{path}/clips", {"from": from_ms, "to": to_ms, "name": "the cat"})
    assert made.status == 201, made.body
    page = f"{path}/clips/{made.json['clip']}"
    keeping = Keeping(world.catalog, world.store, world.vault, world.clock)
    while keeping.run():
        pass
    assert ada.get(page)["state"] == "ready"
    token = ada.ask("POST", f"{path}/viewer-tokens", {"hours": 2}).json["token"]
    assert len(named(server, page, token)) == 1 + len(stored()[1:])
    init = server.get(f"{page}/chunks/{from_ms}.init.mp4?token={token}", token=None)
    assert (init.status, init.body) == (200, INIT)


def test_a_link_to_fmp4_plays_its_range_and_no_more(server: Server, world: World) -> None:
    ada, path, from_ms, to_ms = recorded(server, world)
    last_ms = to_ms - 1
    link = ada.ask("POST", f"{path}/shares", {"from": from_ms, "to": last_ms, "hours": 2}).json["token"]
    assert len(named(server, path, link)) == len(stored()[1:])
    init = server.get(f"{path}/chunks/{from_ms}.init.mp4?token={link}", token=None)
    assert (init.status, init.body) == (200, INIT)
    for kind in (".m4s", ".map.mp4", ".init.mp4", ""):
        refused(server.get(f"{path}/chunks/{last_ms}{kind}?token={link}", token=None), 404, "not_found")
