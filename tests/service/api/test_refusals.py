"""Who is refused what, and how: one shape on every page, whatever the cause."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from dataclasses import replace

import pytest
import structlog

from retention.bitmap import ERASED, PRESENT, SUSPENDED, TERMINATED
from storage.days import ms_of_day
from storage.errors import WorldError
from storage.faults import Fault, FaultKind, no_faults
from storage.keys import KeyId, Outcome
from storage.rows.devices import EraseState
from tests.service.api.server import ALL, AT, CHUNK, PATHS, Server, refused
from tests.service.world import NOON_MS, TODAY, World, clips


@pytest.mark.parametrize("path", PATHS)
def test_refusals_are_the_same_on_every_page(world: World, server: Server, path: str) -> None:
    world.keep(*clips(3))
    token = world.token(hours=10_000)
    assert server.get(path, token=token).status == 200
    other = world.add_device()
    for bad in (None, "x", world.token(other), world.token(generation=7), world.token(hours=-1)):
        refused(server.get(path, token=bad), 401, "bad_token")
    for flags, code in ((SUSPENDED, "suspended"), (TERMINATED, "terminated"), (ERASED, "erased")):
        world.change(flags=PRESENT | flags)
        refused(server.get(path, token=token), 403, code)
        refused(server.get(path, token="x"), 401, "bad_token")
        assert server.get(path, token=token, method="HEAD").status == 403
        refused(server.get(path, token=token, Range="bytes=0-0"), 403, code)
        refused(server.get(path, token=token, Range="bytes=999999-"), 403, code)
    world.change(flags=PRESENT)
    assert server.get(path, token=token).status == 200
    world.clock.ms = ms_of_day(TODAY + 29) - 1  # the plan's last day
    assert server.get(path, token=token).error == "expired" if "chunks" in path else True
    world.clock.ms += 1
    refused(server.get(path, token=token), 403, "plan_lapsed")
    world.clock.ms = NOON_MS
    at = (4096 + 64) // 2  # the sequence number of row 1: being written
    world.bitmap._seqs[at] |= 1
    refused(server.get(path, token=token), 503, "overloaded")
    world.bitmap._seqs[at] += 1
    with world.bitmap.locked():
        world.bitmap.raise_closed_through(TODAY + 29)
    refused(server.get(path, token=token), 403, "plan_lapsed")


def test_the_token_may_come_in_the_query_and_the_header_goes_first(world: World, server: Server) -> None:
    world.keep(*clips(1))
    good = world.token()
    assert server.get(f"{CHUNK}.ts?token={good}", token=None).status == 200
    assert server.get(f"{CHUNK}.ts?token=bad", token=good).status == 200
    refused(server.get(f"{CHUNK}.ts?token={good}", token="bad"), 401, "bad_token")
    basic = server.get(f"{CHUNK}.ts", token=None, Authorization=f"Basic {good}")
    refused(basic, 401, "bad_token")


MALFORMED = [
    "/v1/devices/one/recordings",
    "/v1/devices/-1/recordings",
    "/v1/devices/4294967296/recordings",
    "/v1/devices/1/recordings?from=yesterday",
    "/v1/devices/1/recordings?from=-1",
    "/v1/devices/1/recordings?to=253402300800000",
    "/v1/devices/1/recordings?from=5&to=5",
    "/v1/devices/1/recordings?limit=0",
    "/v1/devices/1/recordings?limit=10001",
    "/v1/devices/1/playlist.m3u8?from=5&to=4",
    "/v1/devices/1/playlist.m3u8?to=0",
    "/v1/devices/1/clip.ts",
    "/v1/devices/1/clip.ts?from=1",
    "/v1/devices/1/clip.mp4?from=1",
    "/v1/devices/1/clip.ts?to=1",
    "/v1/devices/1/clip.ts?from=2&to=2",
    "/v1/devices/1/chunks/now",
    "/v1/devices/1/chunks/now.ts",
    "/v1/devices/1/chunks/-1",
    "/v1/devices/1/chunks/253402300800000",
    "/v1/devices/1/chunks/99999999999999999999999999",
]


def test_malformed_requests(server: Server) -> None:
    for path in MALFORMED:
        refused(server.get(path), 400, "malformed")


def test_bounds_that_are_still_in(world: World, server: Server) -> None:
    for path in (
        "/v1/devices/1/recordings?from=4&to=5",
        "/v1/devices/1/recordings?to=253402300799999&limit=10000",
        "/v1/devices/1/playlist.m3u8?to=1",
        "/v1/devices/1/playlist.m3u8?from=253402300799999",
        "/v1/devices/1/playlist.m3u8?from=0",
    ):
        assert server.get(path).status == 200, path
    refused(server.get("/v1/devices/4294967295/recordings"), 401, "bad_token")
    refused(server.get("/v1/devices/1/chunks/253402300799999"), 404, "not_found")
    refused(server.get("/v1/devices/1/clip.ts?from=0&to=1"), 404, "not_found")


def test_unknown_pages_and_methods(server: Server) -> None:
    for path in ("/nowhere", "/v1", "/v1/devices", "/v1/devices/1/", f"{CHUNK}/", "/v1/devices/1/clip.avi"):
        refused(server.get(path), 404, "not_found")
    reply = server.get(CHUNK, method="PUT")
    refused(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.SLOW_DOWN, FaultKind.DENIED])
def test_a_store_that_is_down(world: World, server: Server, kind: FaultKind) -> None:
    world.keep(*clips(1))
    world.store.plan = lambda op, key, nth: Fault(kind)
    for path in (CHUNK, f"/v1/devices/1/clip.ts?{ALL}"):
        refused(server.get(path), 503, "store_unavailable")
    assert server.get(f"/v1/devices/1/recordings?{ALL}").status == 200
    world.store.plan = no_faults
    assert server.get(CHUNK).body == clips(1)[0].data


def test_a_catalog_that_is_down(world: World, server: Server) -> None:
    world.catalog.close()
    for path in PATHS:
        refused(server.get(path), 503, "catalog_unavailable")


def test_a_key_store_that_is_down_and_comes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.keep(*clips(1))
    get_each, down = world.vault.get_each, [True]

    def fetch(ids: Iterable[KeyId]) -> dict[KeyId, Outcome]:
        if down:
            raise WorldError("busy", code="key_store_unavailable")
        return get_each(ids)

    monkeypatch.setattr(world.vault, "get_each", fetch)
    with Server(world) as server:
        refused(server.get(CHUNK), 503, "key_store_unavailable")
        refused(server.get(f"/v1/devices/1/clip.ts?{ALL}"), 503, "key_store_unavailable")
        down.clear()
        assert server.get(CHUNK).body == clips(1)[0].data


def test_a_listing_too_large(world: World) -> None:
    world.keep(*clips(11))
    with Server(world, max_listed_chunks=10) as server:
        refused(server.get(f"/v1/devices/1/playlist.m3u8?{ALL}"), 400, "range_too_large")
        refused(server.get(f"/v1/devices/1/clip.ts?{ALL}"), 400, "range_too_large")
        assert server.get(f"/v1/devices/1/recordings?{ALL}").status == 200


@pytest.mark.parametrize("path", [CHUNK, f"{CHUNK}.ts", f"/v1/devices/1/clip.ts?{ALL}"])
def test_destroyed_corrupt_and_missing(world: World, server: Server, path: str) -> None:
    world.keep(*clips(1))
    key, body = next(iter(world.objects.objects.items()))
    world.objects.objects[key] = body[:100] + bytes([body[100] ^ 1]) + body[101:]
    with structlog.testing.capture_logs() as logs:
        refused(server.get(path), 500, "chunk_corrupt")
    assert {"device": 1, "capture_ms": AT, "segment_id": 1, "ordinal": 0}.items() <= logs[0].items()
    assert all(
        isinstance(value, int) or key in ("event", "log_level", "code") for key, value in logs[0].items()
    )
    world.objects.objects[key] = body[:100]
    refused(server.get(path), 500, "chunk_corrupt")
    world.objects.objects.clear()
    refused(server.get(path), 500, "object_missing")


def test_a_destroyed_key(world: World, server: Server) -> None:
    world.keep(*clips(1))
    world.vault.destroy_device(1, below_epoch=1)
    refused(server.get(CHUNK), 410, "deleted")
    assert server.get(CHUNK, method="HEAD").status == 410
    refused(server.get(f"/v1/devices/1/clip.ts?{ALL}"), 410, "deleted")
    assert server.get(f"/v1/devices/1/clip.ts?{ALL}", method="HEAD").status == 410


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_given_of_a_device_that_was_terminated_and_erased(
    world: World, server: Server, path: str
) -> None:
    """By the command's own path through catalog and bitmap, with its rows and objects still there."""
    world.keep(*clips(3))
    token = world.token()
    assert server.get(path, token=token).status == 200  # the key is in the cache now
    world.terminate()
    refused(server.get(path, token=token), 403, "terminated")
    refused(server.get(path, token=token, Range="bytes=0-9"), 403, "terminated")
    head = server.get(path, token=token, method="HEAD")
    assert (head.status, head.headers["cache-control"]) == (403, "no-store")
    assert "etag" not in head.headers


def test_an_erased_device_that_renewed_starts_empty(world: World, server: Server) -> None:
    world.keep(*clips(1))
    assert server.get(CHUNK).status == 200
    world.catalog.update_device(
        1,
        lambda facts: replace(facts, erase_epoch=1, erase_state=EraseState.NONE),
        what="test",
        now_ms=NOON_MS,
    )
    refused(server.get(CHUNK), 404, "not_found")  # the catalog's word
    world.change(erase_epoch=1)
    refused(server.get(CHUNK), 404, "not_found")
    world.keep(*clips(1), epoch=1)
    assert server.get(CHUNK).body == clips(1)[0].data


def test_a_fault_of_the_service_is_a_500_in_the_same_shape(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(world.catalog, "chunk", broken)
    with structlog.testing.capture_logs() as logs:
        refused(server.get(CHUNK), 500, "internal")
    assert [entry["event"] for entry in logs] == ["bug"]
    deadline_s = time.monotonic() + 5
    while not server.bugs:  # the server tells after it has answered
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert server.bugs.pop() == "RuntimeError('boom')"


def test_what_clients_can_repeat_is_not_a_line_for_each(
    world: World, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.keep(*clips(1))
    world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            refused(server.get(CHUNK), 503, "store_unavailable")
        world.store.plan = no_faults

        def out_of_files(*_: object) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(world.catalog, "chunk", out_of_files)
        for _ in range(4):
            refused(server.get(CHUNK), 503, "overloaded")
    assert [entry["event"] for entry in logs] == ["store_unavailable", "out_of_files"]
    deadline_s = time.monotonic() + 5
    while len(server.bugs) < 4:  # the server tells after it has answered
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    server.bugs.clear()
