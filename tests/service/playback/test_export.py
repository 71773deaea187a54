"""service.playback.export: order, ends, and bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import trio

from ingest.media import Media
from retention.bitmap import PRESENT, SUSPENDED
from service.playback import (
    Viewer,
)
from storage.days import MAX_TIME_MS
from storage.errors import CorruptError, KeyDestroyed
from tests.servers.raw_catalogs import change_chunk
from tests.service.world import (
    CHUNK_MS,
    EXPIRES_ON,
    HOUR_MS,
    NOON_MS,
    World,
    clips,
    exported,
    playing,
    refused,
)


async def test_a_probe_says_what_opening_would_and_costs_nothing(world: World) -> None:
    world.keep(*clips(3))
    async with playing(world, max_exports=0) as playback:
        export = await playback.exports.plan(world.viewer(), 0, MAX_TIME_MS)
        await export.probe()
        assert world.store.asked["get_range"] == 0
        world.change(flags=PRESENT | SUSPENDED)
        with refused("suspended"):
            await export.probe()
        world.change(flags=PRESENT)
        world.vault.destroy_device(1, below_epoch=1)
    async with playing(world) as playback:
        export = await playback.exports.plan(world.viewer(), 0, MAX_TIME_MS)
        with pytest.raises(KeyDestroyed):
            await export.probe()


async def test_an_export_leaves_mp4_out_and_says_when_there_is_nothing_else(world: World) -> None:
    video = clips(2)
    mp4 = [replace(clip, media=Media.MP4) for clip in clips(2, start_ms=NOON_MS)]
    viewer = world.viewer()
    async with playing(world) as playback:
        with refused("not_found"):
            await playback.exports.plan(viewer, 0, MAX_TIME_MS)
        world.keep(*mp4)
        with refused("only_mp4"):
            await playback.exports.plan(viewer, 0, MAX_TIME_MS)
        world.keep(*video)
        assert await exported(playback, viewer) == b"".join(clip.data for clip in video)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"flags": PRESENT | SUSPENDED}, "suspended"),
        ({"days": 1}, "plan_lapsed"),
        ({"erase_epoch": 1}, "not_found"),
    ],
)
async def test_an_export_ends_with_the_chunk_at_which_entitlement_was_lost(
    world: World, fields: dict[str, int], code: str
) -> None:
    """Even though the next chunks were read ahead, and are in memory."""
    world.keep(*clips(20))
    written = 0
    async with playing(world) as playback:

        async def write(data: bytes) -> None:
            nonlocal written
            written += 1
            if written == 5:
                await trio.sleep(0.05)  # all that may be read ahead is
                world.change(**fields)

        with refused(code):
            await exported(playback, world.viewer(), write)
        assert written == 5


@pytest.mark.parametrize("deleted", [5, 6, 15])
async def test_an_export_ends_where_a_chunk_was_deleted_or_its_token_ended(
    world: World, deleted: int
) -> None:
    """The chunk may have been read ahead, and wait for a slow client for as long as that likes."""
    kept = clips(20)
    world.keep(*kept)
    async with playing(world) as playback:
        written: list[bytes] = []

        async def delete(data: bytes) -> None:
            written.append(data)
            if len(written) == 5:
                await trio.sleep(0.05)  # all that may be read ahead is
                world.delete(kept[deleted])

        with refused("not_found"):
            await exported(playback, world.viewer(), delete)
        assert written == [clip.data for clip in kept[:deleted]]
        written.clear()

        async def wait(data: bytes) -> None:
            written.append(data)
            world.clock.ms += 1000

        with refused("bad_token"):
            await exported(playback, Viewer(1, world.token(hours=7 / 3600)), wait)
        assert len(written) == 7


async def test_an_export_takes_nothing_of_another_length_into_its_own(world: World) -> None:
    """A device that was erased and renewed half-way, and recorded at the same time again."""
    world.keep(*clips(10))
    written: list[bytes] = []
    async with playing(world, read_ahead_chunks=0) as playback:

        async def renew(data: bytes) -> None:
            written.append(data)
            if len(written) == 3:
                world.catalog.update_device(
                    1, lambda facts: replace(facts, erase_epoch=1), what="test", now_ms=NOON_MS
                )
                world.change(erase_epoch=1)
                world.keep(*clips(10, size=3760), epoch=1)

        with refused("not_found"):
            await exported(playback, world.viewer(), renew)
    assert written == [clip.data for clip in clips(3)]


@pytest.mark.parametrize("bad", [0, 1, 7])
async def test_an_export_never_skips_what_it_cannot_read(world: World, bad: int) -> None:
    kept = clips(10)
    world.keep(*kept)
    wrong = {"crc32": lambda value: (value + 1) % 2**32}
    change_chunk(world.folder, EXPIRES_ON, 1, kept[bad].capture_ms, wrong)
    written: list[bytes] = []

    async def write(data: bytes) -> None:
        written.append(data)

    async with playing(world) as playback:
        with pytest.raises(CorruptError):
            await exported(playback, world.viewer(), write)
    assert written == [clip.data for clip in kept[:bad]]


async def _peak_while_exporting(world: World, sizes: Sequence[int], **limits: int) -> tuple[int, int]:
    """Most chunks and bytes held at once, while the client takes its time."""
    start_ms = NOON_MS - HOUR_MS
    world.keep(*(clips(1, start_ms=start_ms + i * CHUNK_MS, size=size)[0] for i, size in enumerate(sizes)))
    peak_bytes = peak_reads = 0
    async with playing(world, **limits) as playback:

        async def write(data: bytes) -> None:
            nonlocal peak_bytes, peak_reads
            before = world.store.asked["get_range"]
            await trio.sleep(0.02)
            peak_reads = max(peak_reads, world.store.asked["get_range"] - before)
            peak_bytes = max(peak_bytes, playback.memory.held)

        await exported(playback, world.viewer(), write)
    return peak_reads, peak_bytes


async def test_reading_ahead_is_bounded_in_chunks(world: World) -> None:
    reads, held_bytes = await _peak_while_exporting(world, [1880] * 20, read_ahead_chunks=3)
    assert 1 <= reads <= 3
    assert held_bytes == 4 * 1880


async def test_reading_ahead_is_bounded_in_bytes_but_a_large_chunk_passes(world: World) -> None:
    _, held_bytes = await _peak_while_exporting(
        world, [1880, 18800, 1880, 1880, 1880] * 2, read_ahead_bytes=5640
    )
    assert held_bytes == 18800


async def test_exports_are_bounded_and_a_cancelled_one_gives_everything_back(world: World) -> None:
    world.keep(*clips(20))
    viewer = world.viewer()
    async with playing(world, max_exports=1) as playback, trio.open_nursery() as nursery:
        first, second = [await playback.exports.plan(viewer, 0, MAX_TIME_MS) for _ in range(2)]
        await first.open()
        with refused("overloaded"):
            await second.open()
        second.close()
        assert playback.exports.under_way.held == 1

        async def never(data: bytes) -> None:
            await trio.sleep_forever()

        async def stuck() -> None:
            try:
                await first.stream(never)
            finally:
                first.close()

        nursery.start_soon(stuck)
        await trio.sleep(0.05)
        assert playback.memory.held > 0
        nursery.cancel_scope.cancel()
