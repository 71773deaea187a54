"""Chunks as fragmented MP4: what comes out of the remuxer for a viewer, what it is charged, and who may not have it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ingest import inits, media
from ingest.inits import KnownInit
from ingest.media import Media
from service.playback import Playback, Viewer
from service.remuxing.remuxer import RemuxFailed
from storage.errors import CorruptError
from storage.media_facts import unpack_facts
from tests.ingest.fmp4 import camera
from tests.service.world import NOON_MS, Clip, World, playing, refused

INIT, FRAGMENTS = camera()


def known() -> KnownInit:
    found = inits.read(1, INIT)
    assert isinstance(found, KnownInit)
    return found


def stored() -> list[Clip]:
    """The init segment, and three fragments, as ingest stores them."""
    init = known()
    clips = [Clip(-init.init.number, INIT, Media.FMP4, 0, facts=unpack_facts(init.init.facts))]
    for i, data in enumerate(FRAGMENTS):
        found = media.fragment(data, init.movie, init.init.number)
        facts = unpack_facts(found.facts)
        clips.append(Clip(NOON_MS - 60_000 + 1000 * i, data, Media.FMP4, found.duration_ms, facts=facts))
    return clips


async def fragment(
    playback: Playback, viewer: Viewer, clip: Clip, near_ms: int | None = None
) -> tuple[bytes, bytes]:
    row = await playback.chunks.find(viewer, clip.capture_ms)
    read = await playback.fragments.read(viewer, row, near_ms=near_ms)
    init, data = read.init, read.data
    assert playback.memory.held > 0
    read.release()
    read.release()
    assert playback.memory.held == 0
    return init, data


def decode_time(data: bytes) -> int:
    """Of the first track: `tfdt` of version 1 (ISO/IEC 14496-12 §8.8.12)."""
    at = data.index(b"tfdt")
    assert data[at + 4] == 1
    return int.from_bytes(data[at + 8 : at + 16], "big")


async def test_fragments_have_one_header_and_times_that_run_on(world: World) -> None:
    clips = stored()
    world.keep(*clips)
    viewer = world.viewer()
    async with playing(world) as playback:
        made = [await fragment(playback, viewer, clip) for clip in clips[1:]]
        assert len({init for init, _ in made}) == 1
        assert made[0][0][4:8] == b"ftyp"
        times = [decode_time(data) for _, data in made]
        assert all(abs(b - a - 90_000) <= 1 for a, b in pairwise(times))  # whole ticks of two clocks
        near_ms = 2 * 95_443_718
        _, moved = await fragment(playback, viewer, clips[2], near_ms)
        assert abs(decode_time(moved) - times[1] - 2 * 2**33) <= 10  # its sound has a clock of its own
        row = await playback.chunks.find(viewer, clips[1].capture_ms)
        assert await playback.chunks.init(viewer, row) == INIT


async def test_a_clip_is_decoded_at_its_capture_time(world: World) -> None:
    """Its own clock begins with it. ffmpeg leaves out a fragment of a time that it has read already."""
    at_ms = NOON_MS - 60_000
    clips = [Clip(at_ms + 1000 * i, INIT + FRAGMENTS[0], Media.MP4, 1000) for i in range(2)]
    world.keep(*clips)
    async with playing(world) as playback:
        made = [await fragment(playback, world.viewer(), clip) for clip in clips]
        assert made[0][0] == made[1][0], "one header does for both"
        assert [decode_time(data) for _, data in made] == [90 * clip.capture_ms for clip in clips]


async def test_what_can_not_be_played_is_charged_to_nobody(world: World) -> None:
    clip = Clip(NOON_MS - 9000, b"\0\0\0\x10ftypisom" + bytes(2000), Media.MP4)
    world.keep(clip)
    async with playing(world) as playback:
        row = await playback.chunks.find(world.viewer(), clip.capture_ms)
        with pytest.raises(RemuxFailed):
            await playback.fragments.read(world.viewer(), row)
        assert playback.memory.held == 0


async def test_a_fragment_whose_init_segment_is_gone_is_corrupt(world: World) -> None:
    init, clip, *_ = stored()
    world.keep(init, clip)
    viewer = world.viewer()
    async with playing(world) as playback:
        row = await playback.chunks.find(viewer, clip.capture_ms)
        facts = clip.facts._replace(parameters=known().init.number ^ 1)
        with pytest.raises(CorruptError, match="init segment"):
            await playback.fragments.read(viewer, row._replace(facts=facts.pack()))
        assert playback.memory.held == 0


async def test_who_loses_the_right_meanwhile_gets_nothing(world: World) -> None:
    clips = stored()
    world.keep(*clips)
    viewer = world.viewer()
    async with playing(world) as playback:
        row = await playback.chunks.find(viewer, clips[1].capture_ms)
        world.during_next_fetch(world.terminate)
        with refused("terminated"):
            await playback.fragments.read(viewer, row)
        assert playback.memory.held == 0


async def test_a_range_that_is_deleted_meanwhile_is_not_sent(world: World) -> None:
    clips = stored()
    world.keep(*clips)
    viewer = world.viewer()
    async with playing(world) as playback:
        row = await playback.chunks.find(viewer, clips[1].capture_ms)
        world.during_next_fetch(lambda: world.delete(clips[1]))
        with refused("not_found"):
            await playback.fragments.read(viewer, row)
