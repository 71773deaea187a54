"""Reading chunks that a rewrite moves to another segment at the worst moments."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from storage.errors import CorruptError
from storage.recover import load_segment_of
from storage.rows.recordings import SegmentCommit, SegmentState
from storage.segment import repack
from tests.service.world import NOON_MS, World, clips, fetched, playing


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def rewrite(world: World, *, gone: bool) -> None:
    """What a sweep does, with the old object deleted, or still there."""
    fence = world.catalog.acquire_lease("sweep", holder="x", ttl_ms=60_000, now_ms=world.clock.ms)
    assert fence is not None
    for row in world.catalog.segments():
        if row.state is not SegmentState.COMMITTED:
            continue
        body, index = load_segment_of(world.objects, row)
        ordinals = np.arange(row.chunks)[::-1]
        [key] = world.catalog.prepare(
            worker="sweep", class_days=row.class_days, expires_on=row.expires_on, count=1, now_ms=NOON_MS
        )
        where = {"class_days": row.class_days, "expires_on": row.expires_on, "segment_id": key.segment_id}
        packed, crc, moved = repack(body, index, ordinals, **where)
        world.objects.put(key.key, packed, crc)
        new = SegmentCommit(key.segment_id, row.expires_on, len(packed), crc, moved)
        assert world.catalog.swap_segment(
            row.segment_id, new, ordinals, fence=fence, now_ms=NOON_MS, delete_after_ms=NOON_MS
        )
        if gone:
            del world.objects.objects[row.key]
    world.catalog.release_lease("sweep", fence=fence)


@pytest.mark.parametrize("gone", [False, True])
async def test_a_chunk_that_moves_while_it_is_read_is_read(world: World, gone: bool) -> None:
    """Invariant 1."""
    kept = clips(3)
    world.keep(*kept)
    async with playing(world) as playback:
        world.during_next_fetch(lambda: rewrite(world, gone=gone))
        assert await fetched(playback, world.viewer(), kept[0].capture_ms) == kept[0].data


@pytest.mark.parametrize("times", [1, 2])
async def test_a_row_of_a_while_ago_is_read_where_the_chunk_is_now(world: World, times: int) -> None:
    """As an export has it, which listed its chunks at its start and outlives the delete delay."""
    kept = clips(3)
    world.keep(*kept)
    async with playing(world) as playback:
        viewer = world.viewer()
        row = await playback.chunks.find(viewer, kept[1].capture_ms)
        for _ in range(times):
            rewrite(world, gone=True)
        read = await playback.chunks.fetch(viewer, row)
        assert read.data == kept[1].data
        read.release()
        assert (await playback.chunks.confirm(viewer, row)).segment_id != row.segment_id


async def test_a_segment_that_is_gone_without_a_rewrite_is_an_error_not_a_loop(world: World) -> None:
    kept = clips(1)
    world.keep(*kept)
    rewrite(world, gone=True)
    async with playing(world) as playback:
        viewer = world.viewer()
        row = await playback.chunks.find(viewer, kept[0].capture_ms)
        world.objects.objects.clear()
        for asked in (row, row._replace(segment_id=1, segment_key="v1/7/gone")):
            with pytest.raises(CorruptError) as caught:
                await playback.chunks.fetch(viewer, asked)
            assert caught.value.code == "object_missing"
