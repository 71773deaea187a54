"""service.playback.reading and the key cache: bytes that are right, or none (invariant 11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from retention.bitmap import ERASED, PRESENT, SUSPENDED
from service.playback import (
    Playback,
    Viewer,
)
from storage.days import ms_of_day
from storage.errors import ClipkeepError, CorruptError, KeyDestroyed, StoreUnavailable
from storage.faults import Fault, FaultKind, no_faults
from storage.segment import MAGIC
from tests.servers.raw_catalogs import change_chunk, read_chunk
from tests.service.world import (
    EXPIRES_ON,
    World,
    clips,
    exported,
    fetched,
    listed,
    playing,
)


async def test_what_was_kept_is_listed_and_read_byte_for_byte(world: World) -> None:
    kept = clips(20)
    world.keep(*kept)
    viewer = world.viewer()
    async with playing(world) as playback:
        assert await listed(playback, viewer) == [clip.capture_ms for clip in kept]
        for clip in kept:
            assert await fetched(playback, viewer, clip.capture_ms) == clip.data
        assert await exported(playback, viewer) == b"".join(clip.data for clip in kept)


async def _corrupt(world: World, viewer: Viewer, at_ms: int) -> str:
    async with playing(world) as playback:
        row = await playback.chunks.find(viewer, at_ms)
        with pytest.raises(CorruptError) as caught:
            await playback.chunks.read(viewer, row)
        return caught.value.code


@pytest.mark.parametrize("place", ["first", "middle", "tag"])
async def test_flipped_bits_are_never_served(world: World, place: str) -> None:
    world.keep(*clips(1))
    key, body = next(iter(world.objects.objects.items()))
    length = len(clips(1)[0].data)
    at = len(MAGIC) + {"first": 0, "middle": length // 2, "tag": length}[place]
    world.objects.objects[key] = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    assert await _corrupt(world, world.viewer(), clips(1)[0].capture_ms) == "chunk_corrupt"


async def test_a_read_that_flipped_on_its_way_is_tried_once_more(world: World) -> None:
    """What is stored is whole; once more is enough, and never more than that."""
    (clip,) = clips(1)
    world.keep(clip)
    viewer = world.viewer()
    before = world.store.asked["get_range"]
    world.store.plan = lambda op, key, nth: (
        Fault(FaultKind.FLIP) if (op, nth) == ("get_range", before) else None
    )
    async with playing(world) as playback:
        assert await fetched(playback, viewer, clip.capture_ms) == clip.data
    assert world.store.asked["get_range"] == before + 2
    world.store.plan = lambda op, key, nth: Fault(FaultKind.FLIP) if op == "get_range" else None
    assert await _corrupt(world, viewer, clip.capture_ms) == "chunk_corrupt"
    assert world.store.asked["get_range"] == before + 4


async def test_a_row_that_points_at_anothers_bytes_fails(world: World) -> None:
    other = world.add_device()
    world.keep(*clips(2))
    world.keep(*clips(2), device=other)
    first, second = (clip.capture_ms for clip in clips(2))
    for device, capture_ms in ((other, first), (1, second)):
        found = read_chunk(world.folder, EXPIRES_ON, device, capture_ms)
        place = {name: found[name] for name in ("segment_id", "offset", "nonce")}
        change_chunk(world.folder, EXPIRES_ON, 1, first, place)
        assert await _corrupt(world, world.viewer(), first) == "chunk_corrupt"


@pytest.mark.parametrize(
    "lie",
    [
        {"crc32": lambda value: (value + 1) % 2**32},
        {"length": lambda value: value - 1},
        {"length": lambda value: value + 100_000},
    ],
    ids=["crc32", "shorter", "longer"],
)
async def test_a_row_that_lies_about_its_chunk_fails(world: World, lie: dict[str, Any]) -> None:
    world.keep(*clips(1))
    capture_ms = clips(1)[0].capture_ms
    change_chunk(world.folder, EXPIRES_ON, 1, capture_ms, lie)
    assert await _corrupt(world, world.viewer(), capture_ms) == "chunk_corrupt"


async def test_a_segment_that_is_gone_and_a_store_that_is_down(world: World) -> None:
    world.keep(*clips(1))
    viewer, at_ms = world.viewer(), clips(1)[0].capture_ms
    async with playing(world) as playback:
        row = await playback.chunks.find(viewer, at_ms)
        world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)
        with pytest.raises(StoreUnavailable):
            await playback.chunks.read(viewer, row)
        world.store.plan = no_faults
        world.objects.objects.clear()
        with pytest.raises(CorruptError) as caught:
            await playback.chunks.read(viewer, row)
        assert caught.value.code == "object_missing"


async def test_a_destroyed_key_is_the_end_of_what_it_encrypted(world: World) -> None:
    world.keep(*clips(1))
    world.vault.destroy_device(1, below_epoch=1)
    viewer = world.viewer()
    async with playing(world) as playback:
        row = await playback.chunks.find(viewer, clips(1)[0].capture_ms)
        with pytest.raises(KeyDestroyed):
            await playback.chunks.read(viewer, row)
        with pytest.raises(KeyDestroyed):
            await playback.chunks.readable(viewer, row)


@pytest.mark.parametrize(
    "end",
    [
        lambda world: world.change(erase_epoch=1),
        lambda world: world.change(flags=PRESENT | ERASED),
        lambda world: world.change(flags=0),
        lambda world: setattr(world.clock, "ms", ms_of_day(EXPIRES_ON + 31)),
    ],
    ids=["erased", "erasing", "gone", "month over"],
)
async def test_keys_that_are_over_leave_memory(world: World, end: Callable[[World], None]) -> None:
    world.keep(*clips(1))
    async with playing(world, purge_every_s=0.01) as playback:
        while not len(playback._keyring):  # a key that was fetched during a purge is used and not kept
            await fetched(playback, world.viewer(), clips(1)[0].capture_ms)
        await trio.sleep(0.03)
        assert len(playback._keyring) == 1
        world.change(flags=PRESENT | SUSPENDED)  # may be lifted
        await trio.sleep(0.03)
        assert len(playback._keyring) == 1
        end(world)
        with trio.fail_after(5):
            while len(playback._keyring):  # noqa: ASYNC110
                await trio.sleep(0.005)


async def test_no_key_cache_no_bytes(world: World) -> None:
    world.keep(*clips(1))
    playback = Playback(world.services())
    assert not playback.running
    row = await playback.chunks.find(world.viewer(), clips(1)[0].capture_ms)
    with pytest.raises(ClipkeepError) as caught:
        await playback.chunks.read(world.viewer(), row)
    assert caught.value.code == "key_store_unavailable"
    assert playback.memory.held == 0


async def test_a_part_costs_no_more_than_the_whole_that_is_charged_for_it(world: World) -> None:
    clip = clips(1)[0]
    world.keep(clip)
    async with playing(world) as playback:
        row = await playback.chunks.find(world.viewer(), clip.capture_ms)
        read = await playback.chunks.read(world.viewer(), row)
        read.keep(10, 20)
        assert read.data == clip.data[10:20]
        assert playback.memory.held == len(clip.data)
        read.release()
        read.release()
