"""service.playback.stills: pictures of the right moment, and none of what is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.media import Media
from retention.bitmap import ERASED, PRESENT, SUSPENDED
from service.playback.stills import Stills, Taken
from service.remuxing.remuxer import RemuxFailed
from storage.days import ms_of_day
from tests.service.playback.test_mp4_export import clip_of, recorded
from tests.service.remuxing.media import made, pictures
from tests.service.world import EXPIRES_ON, NOON_MS, Clip, World, playing, refused


def kept(stills: Stills) -> int:
    return stills.cache.held_bytes


async def test_a_still_is_of_its_moment_and_is_made_once(world: World, tmp_path: Path) -> None:
    world.keep(*recorded("ts-h264-aac"), clip_of(made("mp4"), NOON_MS + 60_000))
    viewer = world.viewer()
    async with playing(world) as playback:
        for at_ms, taken_ms in ((0, 0), (1500, 1000), (2999, 2000), (61_500, 61_000), (5999, 5000)):
            taken = await playback.stills.still(viewer, NOON_MS + at_ms, 80)
            assert taken.at_ms == NOON_MS + taken_ms
            assert len(pictures(taken.still.data, tmp_path)) == 1
        jobs = playback.remuxer.figures.jobs
        again = await playback.stills.still(viewer, NOON_MS + 1600, 80)
        assert (again.at_ms, playback.remuxer.figures.jobs) == (NOON_MS + 1000, jobs)
        for at_ms in (-1, 10_000, 59_000, 70_000):
            with refused("not_found"):
                await playback.stills.still(viewer, NOON_MS + at_ms, 80)
        assert playback.memory.held == 0


async def test_a_still_needs_a_picture(world: World) -> None:
    world.keep(Clip(NOON_MS, made("ts-aac"), Media.MPEG_TS, 4000))
    async with playing(world) as playback:
        with pytest.raises(RemuxFailed) as failed:
            await playback.stills.still(world.viewer(), NOON_MS, 80)
        assert failed.value.code == "no_picture"


async def test_what_is_kept_is_given_to_nobody_who_may_not_see_the_chunk(world: World) -> None:
    world.keep(*recorded("ts-h264-aac"))
    viewer = world.viewer()
    async with playing(world) as playback:

        async def ask() -> Taken:
            return await playback.stills.still(viewer, NOON_MS, 80)

        await ask()
        world.change(flags=PRESENT | SUSPENDED)
        with refused("suspended"):
            await ask()
        world.change(flags=PRESENT)
        await ask()
        world.delete(recorded("ts-h264-aac")[0])
        with refused("not_found"):
            await ask()


async def test_pictures_leave_memory_with_keys_days_and_deleted_ranges(world: World) -> None:
    world.keep(*recorded("ts-h264-aac"))
    viewer = world.viewer()
    async with playing(world, purge_every_s=3600) as playback:
        stills = playback.stills

        async def fill() -> None:
            await stills.still(viewer, NOON_MS + 2000, 80)
            await stills.purge(lambda key_id: True)
            assert kept(stills) > 0

        await fill()
        await stills.purge(lambda key_id: False)  # as of a stale host, and of an erased device
        assert kept(stills) == 0
        await fill()
        world.change(flags=PRESENT | ERASED)
        await stills.purge(playback._gate.key_is_live())
        assert kept(stills) == 0
        world.change(flags=PRESENT)
        await fill()
        world.clock.ms = ms_of_day(EXPIRES_ON)
        await stills.purge(lambda key_id: True)
        assert kept(stills) == 0
        world.clock.ms = NOON_MS
        await fill()
        world.delete(recorded("ts-h264-aac")[1])
        await stills.purge(lambda key_id: True)
        assert kept(stills) == 0


async def test_the_cache_is_bounded(world: World) -> None:
    world.keep(*recorded("ts-h264-aac"))
    async with playing(world, max_still_bytes=5000) as playback:
        for width in range(16, 60, 2):
            await playback.stills.still(world.viewer(), NOON_MS, width)
            assert kept(playback.stills) <= 5000


async def test_a_strip_has_a_place_for_each_part_of_its_range(world: World, tmp_path: Path) -> None:
    world.keep(*recorded("ts-h264-aac"), *recorded("ts-h265-aac", NOON_MS + 20_000))
    async with playing(world) as playback:
        strip = await playback.stills.strip(world.viewer(), NOON_MS, NOON_MS + 26_000, 13, 64)
        assert (strip.columns, strip.width, strip.height) == (10, 64, 36)
        expected = [1000, 3000, 5000, *[None] * 7, 21_000, 23_000, 25_000]
        assert strip.times_ms == [None if at is None else NOON_MS + at for at in expected]
        assert len(pictures(strip.data, tmp_path)) == 1
        with refused("not_found"):
            await playback.stills.strip(world.viewer(), NOON_MS + 8000, NOON_MS + 9000, 3, 64)
