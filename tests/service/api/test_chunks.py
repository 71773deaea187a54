"""Chunks over HTTP: their heads, ranges of them, one connection for many."""

from __future__ import annotations

import http.client
from dataclasses import replace

import pytest

from ingest.media import Media
from retention.bitmap import PRESENT, TERMINATED
from tests.service.api.server import ALL, AT, CHUNK, Server, refused
from tests.service.world import World, clips


def test_a_chunk_and_its_head(world: World, server: Server) -> None:
    clip = clips(1)[0]
    world.keep(clip)
    for path in (CHUNK, f"{CHUNK}.ts"):
        reply = server.get(path)
        assert (reply.status, reply.body) == (200, clip.data)
        assert reply.headers["content-type"] == "video/mp2t"
        assert reply.headers["accept-ranges"] == "bytes"
        assert reply.headers["cache-control"] == "no-store"
        fetches = world.store.asked["get_range"]
        head = server.get(path, method="HEAD")
        assert world.store.asked["get_range"] == fetches
        assert (head.status, head.body) == (200, b"")
        same = ("content-length", "content-type", "etag", "accept-ranges", "cache-control")
        assert {k: head.headers[k] for k in same} == {k: reply.headers[k] for k in same}
    refused(server.get(f"/v1/devices/1/chunks/{AT + 1}"), 404, "not_found")
    refused(server.get(f"/v1/devices/1/chunks/{AT - 1}.ts"), 404, "not_found")


def test_an_mp4_chunk_is_downloadable_and_in_playlists_as_a_fragment(world: World, server: Server) -> None:
    clip = replace(clips(1)[0], media=Media.MP4)
    world.keep(clip)
    for path in (CHUNK, f"{CHUNK}.ts"):
        reply = server.get(path)
        assert (reply.body, reply.headers["content-type"]) == (clip.data, "video/mp4")
    assert f"chunks/{AT}.m4s?".encode() in server.get(f"/v1/devices/1/playlist.m3u8?{ALL}").body
    refused(server.get(f"/v1/devices/1/clip.ts?{ALL}"), 404, "only_mp4")


SIZE = 1880


RANGES: list[tuple[str, tuple[int, int] | None]] = [
    ("bytes=0-0", (0, 1)),
    ("bytes=0-", (0, SIZE)),
    ("bytes=1-", (1, SIZE)),
    (f"bytes=0-{SIZE - 2}", (0, SIZE - 1)),
    (f"bytes=0-{SIZE - 1}", (0, SIZE)),
    (f"bytes=0-{SIZE}", (0, SIZE)),
    (f"bytes={SIZE - 1}-{SIZE - 1}", (SIZE - 1, SIZE)),
    (f"bytes={SIZE - 1}-", (SIZE - 1, SIZE)),
    ("bytes=-1", (SIZE - 1, SIZE)),
    (f"bytes=-{SIZE - 1}", (1, SIZE)),
    (f"bytes=-{SIZE}", (0, SIZE)),
    (f"bytes=-{SIZE + 1}", (0, SIZE)),
    ("BYTES = 5-9", (5, 10)),
    (f"bytes={SIZE}-", None),
    (f"bytes={SIZE}-{SIZE}", None),
    (f"bytes={SIZE + 1}-", None),
    ("bytes=-0", None),
    ("bytes=5-4", (0, SIZE)),  # no range at all: ignored
    ("bytes=a-b", (0, SIZE)),
    ("bytes=-", (0, SIZE)),
    ("bytes=", (0, SIZE)),
    ("bytes=0-1,3-4", (0, SIZE)),
    ("frames=0-1", (0, SIZE)),
    ("bytes=" + "9" * 50 + "-", (0, SIZE)),
    ("bytes=²-", (0, SIZE)),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_ranges(world: World, server: Server, method: str) -> None:
    clip = clips(1, size=SIZE)[0]
    world.keep(clip)
    for asked, part in RANGES:
        reply = server.get(CHUNK, method=method, Range=asked)
        if part is None:
            assert reply.status == 416, asked
            assert reply.headers["content-range"] == f"bytes */{SIZE}"
            if method == "GET":
                refused(reply, 416, "range_not_satisfiable")
            continue
        start, stop = part
        assert reply.status == (200 if part == (0, SIZE) else 206), asked
        assert reply.body == (clip.data[start:stop] if method == "GET" else b""), asked
        assert reply.headers["content-length"] == str(stop - start)
        wanted = None if part == (0, SIZE) else f"bytes {start}-{stop - 1}/{SIZE}"
        assert reply.headers.get("content-range") == wanted


def test_a_range_of_something_else_is_the_whole(world: World, server: Server) -> None:
    world.keep(*clips(1))
    etag = server.get(CHUNK, method="HEAD").headers["etag"]
    assert server.get(CHUNK, Range="bytes=0-9", If_Range=etag).status == 206
    assert server.get(CHUNK, Range="bytes=0-9", If_Range='"other"').status == 200


def test_a_revocation_between_read_and_send_wins(world: World, server: Server) -> None:
    world.keep(*clips(1))
    token = world.token()
    for path in (CHUNK, f"/v1/devices/1/clip.ts?{ALL}"):
        assert server.get(path, token=token).status == 200
        world.during_next_fetch(lambda: world.change(flags=PRESENT | TERMINATED))
        reply = server.get(path, token=token)
        refused(reply, 403, "terminated")
        assert clips(1)[0].data not in reply.body
        world.change(flags=PRESENT)


def test_one_connection_serves_good_and_bad_in_turn(world: World, server: Server) -> None:
    world.keep(*clips(2))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for path, status in ((CHUNK, 200), (f"{CHUNK}?token=x", 401), (f"{CHUNK}9", 404), (CHUNK, 206)) * 3:
        headers = {"Range": "bytes=1-5"} if status == 206 else {}
        glue = "&" if "?" in path else f"?token={world.token()}&"
        connection.request("GET", path + glue, headers=headers)
        reply = connection.getresponse()
        reply.read()
        assert reply.status == status
    connection.close()
