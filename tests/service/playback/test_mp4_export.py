"""service.playback.mp4_export: films that real players accept, of which each byte has its place."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.media import Media, fragment, init_segment, inspect
from service.playback import Playback, Viewer
from service.remuxing.layout import INIT_BYTES
from service.remuxing.remuxer import RemuxFailed
from storage.days import MAX_TIME_MS
from storage.media_facts import Codec, unpack_facts
from tests.service.remuxing.media import (
    complaints,
    duration_s,
    fragments,
    made,
    pictures,
    session,
    sound_samples,
)
from tests.service.world import NOON_MS, Clip, World, playing, refused


def clip_of(data: bytes, capture_ms: int) -> Clip:
    found = inspect(data)
    return Clip(capture_ms, data, found.media, found.duration_ms, facts=unpack_facts(found.facts))


def recorded(form: str, at_ms: int = NOON_MS, chunks: int = 3) -> list[Clip]:
    """A session of a camera, from `at_ms` on."""
    return [clip_of(data, at_ms + 2000 * i) for i, data in enumerate(session(form, chunks))]


async def exported_mp4(playback: Playback, viewer: Viewer, start: int = 0, stop: int | None = None) -> bytes:
    export = await playback.mp4_exports.plan(viewer, 0, MAX_TIME_MS)
    export.keep(start, export.length_bytes if stop is None else stop)
    pieces: list[bytes] = []

    async def write(data: bytes | memoryview) -> None:
        pieces.append(bytes(data))

    try:
        await export.open()
        await export.stream(write)
    finally:
        export.close()
    return b"".join(pieces)


@pytest.mark.parametrize("form", ["ts-h264-aac", "ts-h265-aac", "ts-h264", "ts-aac"])
async def test_a_film_across_gaps_and_restarts_is_whole_and_as_long_as_its_chunks(
    world: World, tmp_path: Path, form: str
) -> None:
    clips = [*recorded(form), *recorded(form, NOON_MS + 60_000), *recorded(form, NOON_MS + 3_600_000)]
    world.keep(*clips)
    async with playing(world) as playback:
        film = await exported_mp4(playback, world.viewer())
        assert playback.memory.held == 0
        assert playback.exports.under_way.held == 0
    path = tmp_path / "film.mp4"
    path.write_bytes(film)
    assert complaints(path) == ""
    assert duration_s(path) == pytest.approx(18, abs=0.2)
    whole = b"".join(session(form))
    if form != "ts-aac":
        assert pictures(film, tmp_path) == pictures(whole, tmp_path) * 3
    if form != "ts-h264":
        assert sound_samples(film, tmp_path) == pytest.approx(18 * 48_000, rel=0.01)
    assert len(film) < sum(len(clip.data) for clip in clips) * 1.02 + INIT_BYTES + 40_000


async def test_any_part_of_a_film_is_as_in_the_whole_and_reads_only_its_chunks(world: World) -> None:
    world.keep(*recorded("ts-h264-aac"), *recorded("ts-h264-aac", NOON_MS + 60_000))
    viewer = world.viewer()
    async with playing(world) as playback:
        whole = await exported_mp4(playback, viewer)
        for start in (0, 7, INIT_BYTES - 1, INIT_BYTES + 33, len(whole) // 2, len(whole) - 1):
            assert await exported_mp4(playback, viewer, start) == whole[start:]
        assert await exported_mp4(playback, viewer, 4, 9) == whole[4:9]
        asked = world.store.asked["get_range"]
        assert await exported_mp4(playback, viewer, len(whole) - 10) == whole[-10:]
        assert world.store.asked["get_range"] == asked + 2  # the first one for its init


async def test_recordings_in_mp4_are_in_it(world: World, tmp_path: Path) -> None:
    world.keep(clip_of(made("mp4"), NOON_MS), clip_of(made("mp4"), NOON_MS + 4000))
    async with playing(world) as playback:
        film = await exported_mp4(playback, world.viewer())
    path = tmp_path / "film.mp4"
    path.write_bytes(film)
    assert pictures(film, tmp_path) == pictures(made("mp4"), tmp_path) * 2
    assert duration_s(path) == pytest.approx(8, abs=0.1)
    assert complaints(path) == ""


async def test_codecs_that_change_make_an_archive_of_films(world: World, tmp_path: Path) -> None:
    forms = ["ts-h264-aac", "ts-h265-aac", "ts-h264"]
    for i, form in enumerate(forms):
        world.keep(*recorded(form, NOON_MS + 60_000 * i))
    viewer = world.viewer()
    async with playing(world) as playback:
        export = await playback.mp4_exports.plan(viewer, 0, MAX_TIME_MS)
        assert (export.content_type, export.film_count) == ("application/zip", 3)
        archive = await exported_mp4(playback, viewer)
        assert len(archive) == export.length_bytes
        for start in (5, len(archive) // 2, len(archive) - 3):
            assert await exported_mp4(playback, viewer, start) == archive[start:]
        assert await exported_mp4(playback, viewer, 10, 5000) == archive[10:5000]
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        assert read.testzip() is None
        for form, entry in zip(forms, read.infolist(), strict=True):
            assert pictures(read.read(entry), tmp_path) == pictures(b"".join(session(form)), tmp_path)


async def test_sound_that_is_known_of_some_chunks_alone_makes_no_other_film(
    world: World, tmp_path: Path
) -> None:
    """Ingest finds it where a chunk's first packets have it; its set-up is part of the hash then."""
    first, second, third = recorded("ts-h264-aac")
    unheard = second.facts._replace(audio=Codec.NONE, audio_times=None, parameters=1)
    world.keep(first, replace(second, facts=unheard), third)
    async with playing(world) as playback:
        film = await exported_mp4(playback, world.viewer())
    whole = b"".join(session("ts-h264-aac"))
    assert pictures(film, tmp_path) == pictures(whole, tmp_path)


async def test_a_damaged_chunk_is_left_out_and_the_others_are_there(world: World, tmp_path: Path) -> None:
    good = recorded("ts-h264")
    middle = Clip(good[1].capture_ms, b"G" + bytes(187) * 40, Media.MPEG_TS, 2000)
    world.keep(good[0], middle, good[2])
    async with playing(world) as playback:
        film = await exported_mp4(playback, world.viewer())
        assert playback.remuxer.figures.failures > 0
    path = tmp_path / "film.mp4"
    path.write_bytes(film)
    assert duration_s(path) == pytest.approx(6, abs=0.1)
    kept = pictures(film, tmp_path)
    assert kept == [*pictures(good[0].data, tmp_path), *pictures(good[2].data, tmp_path)]


async def test_what_can_not_be_played_at_all_is_refused_before_an_answer(world: World) -> None:
    viewer = world.viewer()
    async with playing(world) as playback:
        with refused("not_found"):
            await playback.mp4_exports.plan(viewer, 0, MAX_TIME_MS)
        world.keep(Clip(NOON_MS, b"G" + bytes(187) * 40, Media.MPEG_TS, 2000))
        with pytest.raises(RemuxFailed):
            await exported_mp4(playback, viewer)
        assert playback.memory.held == 0
        assert playback.exports.under_way.held == 0


def fragment_clips(at_ms: int) -> list[Clip]:
    """What a camera sent as fragments, and its init segment as ingest stores it."""
    init, chunks = fragments()
    _, movie = init_segment(init)
    assert movie is not None
    found = [fragment(data, movie, 5) for data in chunks]
    clips = [
        Clip(at_ms + 2000 * i, data, Media.FMP4, each.duration_ms, facts=unpack_facts(each.facts))
        for i, (data, each) in enumerate(zip(chunks, found, strict=True))
    ]
    return [Clip(-5, init, Media.FMP4, 0), *clips]


async def test_fragments_are_exported_and_seen_with_their_init_segment(world: World, tmp_path: Path) -> None:
    world.keep(*fragment_clips(NOON_MS))
    init, chunks = fragments()
    async with playing(world) as playback:
        film = await exported_mp4(playback, world.viewer())
        taken = await playback.stills.still(world.viewer(), NOON_MS + 2500, 64)
    path = tmp_path / "film.mp4"
    path.write_bytes(film)
    assert duration_s(path) == pytest.approx(6, abs=0.1)
    assert complaints(path) == ""
    assert pictures(film, tmp_path) == pictures(init + b"".join(chunks), tmp_path)
    assert taken.at_ms == NOON_MS + 2000
