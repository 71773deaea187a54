"""Resumable uploads that are not finished, or are, and what ends or mends recordings: erasures, sweeps, check, rebuild.

What came of them is sent to a real worker beside a data folder, and is held to the same proofs as chunks are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from retention.erasure import mark_account_cancelled, mark_erasing, mark_terminated
from retention.proof import Prover
from service.checks import CheckResult, check_folder, rebuild_catalog
from service.folder import open_folder
from storage.days import MS_PER_DAY
from storage.rows.devices import DeviceFacts
from storage.rows.recordings import FIRST_PART_MS
from tests.ingest.resumable.test_requests import ask, begun, go_on, head, offset
from tests.ingest.served import Client, Worker
from tests.ingest.world import video
from tests.retention.world import DELAY_MS, NOON, TODAY, World, fast_folder, monthly
from tests.servers.catalogs import home_settings
from tests.servers.raw_catalogs import drop_all_days

DATA = video(40_000)
PART_BYTES = 10_000
PARTS_END = TODAY + 2
"""Parts of an upload that begins today are kept for so long, by default."""
FIRST, SECOND = 1, 2
"""Devices."""


def quiet(phase: str, done: int, of: int) -> None:
    pass


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        (folder / "config.toml").write_text(home_settings(folder))
        with World(folder, local=True) as world:
            for device in (FIRST, SECOND):
                assert world.add(monthly(TODAY - 100, days=200)) == device
            yield world


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Client]:
    """A connection to a worker on the world's folder."""
    async with trio.open_nursery() as nursery:
        worker = Worker(
            world.folder,
            nursery,
            bitmap_name="entitlements.bitmap",
            clock=world.clock,  # type: ignore[arg-type]
            objects=world.store.inner,
        )
        with worker.stack:
            client = await (await worker.start()).connect()
            yield client
            await client.close()
            worker.server.stop()
            await worker.served.wait()
            await worker.uploads.drain()
            nursery.cancel_scope.cancel()


async def parts(client: Client, path: str, count: int, *, device: int = FIRST) -> None:
    for at in range(0, count * PART_BYTES, PART_BYTES):
        reply = await go_on(client, path, at, DATA[at : at + PART_BYTES], device=device)
        assert (reply.status, reply.code) == (204, "")


async def begin(client: Client, *, device: int = FIRST) -> str:
    return await begun(client, DATA, capture_ms=NOON - 60_000, device=device)


def rows(world: World, device: int = FIRST) -> list[int]:
    """Capture times of all that the catalog has of a device."""
    days = {row.expires_on for row in world.catalog.segments()}
    found = [row for day in sorted(days) for row in world.catalog.day_rows(day)]
    return sorted(row.capture_ms for row in found if row.device == device)


def check(world: World) -> CheckResult:
    with open_folder(world.folder, environ={}) as opened:
        return check_folder(opened, deep=True, progress=quiet)


# --- the end of a device ------------------------------------------------------------------------------------------

ENDS: dict[str, Callable[[DeviceFacts], DeviceFacts]] = {
    "terminated and erased": lambda facts: mark_terminated(facts, now_ms=NOON, erase=True),
    "account cancelled": lambda facts: mark_account_cancelled(facts, now_ms=NOON, reason="account_cancelled"),
    "recordings erased": lambda facts: mark_erasing(facts, "terminated"),
}


@pytest.mark.parametrize("how", ENDS)
async def test_parts_end_with_their_device(world: World, how: str) -> None:
    """From the decision on nobody goes on with it; with its keys whoever has copied the objects can't read them."""
    async with serving(world) as client:
        path, other = await begin(client), await begin(client, device=SECOND)
        await parts(client, path, 3)
        await parts(client, other, 2, device=SECOND)
        world.copy_objects(set())
        assert len([1 for device, _ in world.attacked() if device == FIRST]) == 3
        world.change(FIRST, ENDS[how])
        reply = await go_on(client, path, 30_000, DATA[30_000:])
        assert reply.code == ("upload_gone" if how == "recordings erased" else "terminated")
        world.sweep().run()
        assert {device for device, _ in world.attacked()} == {SECOND}
        assert rows(world) == []
        found = world.catalog.erasures(device=FIRST)[-1]
        assert (found.state, found.keys_destroyed, found.unindexed_chunks) == ("unindexed", 1, 3)
        proof = Prover(world.catalog, world.store, world.vault, []).prove(FIRST, found.epoch)
        assert proof.holds
        assert proof.chunks == 3
        assert (await go_on(client, path, 30_000, DATA[30_000:])).code == reply.code
        # The neighbour's goes on, byte for byte.
        assert await offset(client, other, device=SECOND) == 20_000
        assert (await go_on(client, other, 20_000, DATA[20_000:], device=SECOND)).status == 204
    row = world.catalog.chunk(SECOND, NOON - 60_000)
    assert row is not None
    assert world.decrypted(row) == DATA


async def test_their_objects_go_with_the_last_that_is_in_them(world: World) -> None:
    async with serving(world) as client:
        await parts(client, await begin(client), 3)
    known = world.objects()
    assert len(known) == 3
    world.change(FIRST, ENDS["terminated and erased"])
    world.sweep().run()
    world.clock.ms += DELAY_MS
    world.sweep().run()
    assert world.objects() == set()


# --- the end of a day ---------------------------------------------------------------------------------------------


async def test_a_sweep_takes_parts_on_their_day_and_leaves_what_became_of_them(world: World) -> None:
    async with serving(world) as client:
        finished, unfinished = await begin(client), await begun(client, DATA, capture_ms=NOON - 120_000)
        await parts(client, finished, 4)
        await parts(client, unfinished, 2)
        assert len([ms for ms in rows(world) if ms <= FIRST_PART_MS]) == 3 + 1 + 2, "parts, and a mark"
        world.copy_objects(set())
        world.clock.ms = PARTS_END * MS_PER_DAY - 1
        world.sweep().run()
        assert await offset(client, unfinished) == 2 * PART_BYTES
        assert await offset(client, finished) == len(DATA)
        world.clock.ms = PARTS_END * MS_PER_DAY
        assert (await head(client, unfinished)).status == 410
        world.clock.ms += 2 * DELAY_MS
        world.sweep().run()
        world.clock.ms += 2 * DELAY_MS
        world.sweep().run()
        assert rows(world) == [NOON - 60_000]
        assert len(world.objects()) == 1
        assert (await go_on(client, unfinished, 20_000, DATA[20_000:])).code == "upload_gone"
    row = world.catalog.chunk(FIRST, NOON - 60_000)
    assert row is not None
    assert world.decrypted(row) == DATA


# --- check and rebuild --------------------------------------------------------------------------------------------


async def test_a_check_finds_parts_sound_and_a_rebuild_brings_them_back(world: World) -> None:
    """Those of one that is under way, of one that is finished and of one that was ended: each is what it was."""
    async with serving(world) as client:
        finished, unfinished = await begin(client), await begun(client, DATA, capture_ms=NOON - 120_000)
        ended = await begun(client, DATA, capture_ms=NOON - 180_000)
        await parts(client, finished, 4)
        await parts(client, unfinished, 2)
        await parts(client, ended, 1)
        assert (await ask(client, "DELETE", ended)).status == 204
    before = rows(world)
    assert len(before) == (3 + 1 + 1) + 2 + (1 + 1)
    found = check(world)
    assert (found.broken_count, found.chunks) == (0, len(before))

    assert drop_all_days(world.folder) == 2
    assert check(world).broken_count > 0
    with open_folder(world.folder, environ={}) as opened:
        result = rebuild_catalog(opened, progress=quiet)
    assert (result["chunks"], result["unreadable"]) == (len(before), {})
    assert rows(world) == before
    found = check(world)
    assert (found.broken_count, found.chunks) == (0, len(before))

    async with serving(world) as client:
        assert await offset(client, finished) == len(DATA)
        assert (await head(client, ended)).status == 410
        assert await offset(client, unfinished) == 2 * PART_BYTES
        assert (await go_on(client, unfinished, 20_000, DATA[20_000:])).status == 204
    row = world.catalog.chunk(FIRST, NOON - 120_000)
    assert row is not None
    assert world.decrypted(row) == DATA
