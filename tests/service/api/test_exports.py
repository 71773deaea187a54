"""Exports over HTTP: whole, or broken off for anybody to see."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable

import pytest
import structlog

from retention.bitmap import PRESENT, SUSPENDED
from storage.days import MS_PER_DAY, ms_of_day
from tests.service.api.server import ALL, AT, Server, refused
from tests.service.world import EXPIRES_ON, HOUR_MS, World, clips


def test_an_export_is_the_chunks_one_after_the_other(world: World, server: Server) -> None:
    kept = clips(30)
    world.keep(*kept)
    path = f"/v1/devices/1/clip.ts?from={kept[1].capture_ms}&to={kept[29].capture_ms}"
    reply = server.get(path)
    assert reply.body == b"".join(clip.data for clip in kept[1:29])
    assert reply.headers["content-type"] == "video/mp2t"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-disposition"] == f'attachment; filename="device-1-{kept[1].capture_ms}.ts"'
    head = server.get(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(reply.body))


def test_a_broken_download_goes_on(world: World, server: Server) -> None:
    kept = clips(30)
    world.keep(*kept)
    path = f"/v1/devices/1/clip.ts?{ALL}"
    whole = server.get(path)
    assert (whole.status, whole.headers["accept-ranges"]) == (200, "bytes")
    size, tag = len(whole.body), whole.headers["etag"]
    world.store.asked.clear()
    for asked, start, stop in (
        (f"bytes={size - 1880 * 2 - 7}-", size - 1880 * 2 - 7, size),
        ("bytes=0-0", 0, 1),
        ("bytes=1879-1880", 1879, 1881),
        ("bytes=1880-3759", 1880, 3760),
        ("bytes=-10", size - 10, size),
        (f"bytes=5-{size}", 5, size),
    ):
        for more in ({}, {"If_Range": tag}):
            reply = server.get(path, Range=asked, **more)
            assert (reply.status, reply.body) == (206, whole.body[start:stop]), asked
            assert reply.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
            assert reply.headers["etag"] == tag
            head = server.get(path, method="HEAD", Range=asked, **more)
            assert (head.status, head.headers["content-length"]) == (206, str(stop - start))
    assert world.store.asked["get_range"] <= 2 * (3 + 1 + 2 + 1 + 1 + 30), (
        "no chunk that is not needed is read"
    )
    reply = server.get(path, Range=f"bytes={size}-")
    refused(reply, 416, "range_not_satisfiable")
    assert reply.headers["content-range"] == f"bytes */{size}"


def test_a_download_never_goes_on_with_other_bytes(world: World, server: Server) -> None:
    kept = clips(30)
    world.keep(*kept)
    path = f"/v1/devices/1/clip.ts?{ALL}"
    whole = server.get(path)
    world.delete(kept[3])
    for more in ({"If_Range": whole.headers["etag"]}, {}):
        reply = server.get(path, Range="bytes=18800-", **more)
        assert reply.status == 200, "all of it anew: what was deleted lay before"
        assert reply.body == b"".join(clip.data for clip in kept if clip is not kept[3])
    later = f"/v1/devices/1/clip.ts?from={kept[5].capture_ms}&to={kept[29].capture_ms}"
    assert server.get(later, Range="bytes=10-").status == 206, "nothing of this range was deleted"
    reply = server.get(path, Range="bytes=10-", If_Range=reply.headers["etag"])
    assert reply.status == 206


def test_a_download_of_everything_does_not_go_on_where_its_beginning_expired(
    world: World, server: Server
) -> None:
    before, kept = clips(3), clips(3, start_ms=AT + MS_PER_DAY, expires_on=EXPIRES_ON + 1)
    world.keep(*before)
    world.keep(*kept)
    world.change(days=(1 << 60) - 1)
    path = f"/v1/devices/1/clip.ts?from=0&to={AT + 2 * MS_PER_DAY}"
    token = world.token(hours=300)
    assert server.get(path, token=token, Range="bytes=1880-").status == 206
    world.clock.ms = ms_of_day(EXPIRES_ON)
    reply = server.get(path, token=token, Range="bytes=1880-")
    assert (reply.status, reply.body) == (200, b"".join(clip.data for clip in kept))
    assert server.get(path, token=token, Range="bytes=1880-", If_Range=reply.headers["etag"]).status == 206


@pytest.mark.parametrize(
    "end",
    [
        lambda world: world.change(flags=PRESENT | SUSPENDED),
        lambda world: world.change(days=1),
        lambda world: world.change(token_generation=2),
        lambda world: setattr(world.clock, "ms", world.clock.ms + 25 * HOUR_MS),
        lambda world: world.terminate(),
        lambda world: world.objects.objects.clear(),
    ],
    ids=["suspended", "lapsed", "tokens withdrawn", "token ended", "erased", "store lost"],
)
@pytest.mark.parametrize("version", [10, 11])
def test_an_export_breaks_off_when_the_right_to_it_ends(
    world: World, server: Server, end: Callable[[World], None], version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = clips(60, size=18_800)
    world.keep(*kept)
    whole = b"".join(clip.data for clip in kept)

    def plan(op: str, key: str, nth: int) -> None:
        if nth == 20 and op == "get_range":
            end(world)

    world.store.plan = plan
    monkeypatch.setattr(http.client.HTTPConnection, "_http_vsn", version)
    monkeypatch.setattr(http.client.HTTPConnection, "_http_vsn_str", f"HTTP/1.{version - 10}")
    with structlog.testing.capture_logs() as logs, pytest.raises(http.client.IncompleteRead) as caught:
        server.get(f"/v1/devices/1/clip.ts?{ALL}")
    got = caught.value.partial
    assert whole.startswith(got)
    assert len(got) % len(kept[0].data) == 0, "whole chunks, none that was refused"
    # The twentieth fetch may be of the last chunk of those read ahead, and the others are sent meanwhile.
    assert 10 * len(kept[0].data) <= len(got) <= 24 * len(kept[0].data)
    assert logs[-1]["event"] == "export_stopped"
    assert logs[-1]["sent_bytes"] == len(got)


def test_a_client_that_goes_away_ends_its_export(world: World) -> None:
    """And gives back what it held: there is room for one export only."""
    kept = clips(200, size=188_000)
    world.keep(*kept)
    with Server(world, max_exports=1) as server:
        request = f"GET /v1/devices/1/clip.ts?{ALL}&token={world.token()} HTTP/1.1\r\nHost: x\r\n\r\n"
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.sendall(request.encode())
        assert gone.recv(1000).startswith(b"HTTP/1.1 200")
        refused(server.get(f"/v1/devices/1/clip.ts?{ALL}"), 503, "overloaded")
        gone.close()
        deadline_s = time.monotonic() + 5
        while (reply := server.get("/v1/devices/1/clip.ts?from=0&to=253402300799999")).status == 503:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert world.store.asked["get_range"] < 2 * len(kept)
        assert reply.body == b"".join(clip.data for clip in kept)
    assert server.bugs == []
