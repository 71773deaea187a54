"""Exports over HTTP: whole, or broken off for anybody to see."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable

import pytest
import structlog

from retention.bitmap import PRESENT, SUSPENDED
from tests.service.api.server import ALL, Server, refused
from tests.service.world import HOUR_MS, World, clips


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
