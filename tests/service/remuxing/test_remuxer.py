"""service.remuxing: real media through real processes, and media that breaks them."""

from __future__ import annotations

import io
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
import trio

from ingest.media import Media
from service.playback.refusals import Refused
from service.playback.sharing import Sharer, Shares
from service.remuxing import silence
from service.remuxing.limits import RemuxLimits
from service.remuxing.remuxer import Remuxer, RemuxFailed, Source
from tests.e2e import ffmpeg
from tests.service.remuxing.media import (
    FORMS,
    fragments,
    made,
    pictures,
    session,
    sound_samples,
    source_of,
)

WHO = Sharer("account", "viewer")
TS = Source(Media.MPEG_TS)
MUTATIONS = int(os.environ.get("CLIPKEEP_TEST_MUTATIONS", "300"))
"""Of the fuzzer, by each run; thousands by hand and in `make soak`."""


@asynccontextmanager
async def remuxing(**limits: Any) -> AsyncIterator[Remuxer]:
    bounds = RemuxLimits(**limits)
    turns = Shares(bounds.processes, account_share=1, viewer_share=1, max_waiting=bounds.max_waiting)
    remuxer = Remuxer(bounds, turns)
    try:
        yield remuxer
    finally:
        await remuxer.close()


def children() -> list[int]:
    """Processes of ours that do media jobs."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        if b"service.remuxing.child" in command and parent == os.getpid():
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("form", FORMS)
async def test_each_form_becomes_a_fragment_that_decodes_to_the_same(form: str, tmp_path: Path) -> None:
    data = made(form)
    async with remuxing() as remuxer:
        fragment = await remuxer.fragment(WHO, source_of(form), data)
    file = fragment.init + fragment.data
    assert file[4:8] == b"ftyp"
    assert fragment.data[4:8] == b"moof"
    if form != "ts-aac":
        assert pictures(file, tmp_path) == pictures(data, tmp_path)
        assert fragment.end_ticks - fragment.first_ticks == pytest.approx(4 * 90_000, abs=3600)
    if form != "ts-h264":
        assert sound_samples(file, tmp_path) == pytest.approx(4 * 48_000, abs=2500)
    if "h265" in form:
        assert b"hvc1" in fragment.init
        assert b"hev1" not in fragment.init


@pytest.mark.parametrize("form", ["ts-h264-aac", "ts-h265-aac"])
async def test_chunks_of_a_session_have_one_init_and_a_clock_that_runs_on(form: str, tmp_path: Path) -> None:
    chunks = session(form)
    near_ms = 1_790_000_000_000
    async with remuxing() as remuxer:
        made_of = [
            await remuxer.fragment(WHO, TS, data, decode_ms=near_ms + 2000 * i + 777 * (-1) ** i, sequence=i)
            for i, data in enumerate(chunks)
        ]
        again = await remuxer.fragment(WHO, TS, chunks[1], decode_ms=near_ms)
    assert len({fragment.init for fragment in made_of}) == 1
    for before, after in pairwise(made_of):
        assert after.first_ticks == before.end_ticks
    assert abs(made_of[0].first_ticks - near_ms * 90) <= 1 << 32
    assert again.first_ticks == made_of[1].first_ticks
    joined = made_of[0].init + b"".join(fragment.data for fragment in made_of)
    assert pictures(joined, tmp_path) == pictures(b"".join(chunks), tmp_path)


async def test_fragments_of_a_camera_need_their_init(tmp_path: Path) -> None:
    init, chunks = fragments()
    async with remuxing() as remuxer:
        made_of = [await remuxer.fragment(WHO, Source(Media.MP4, init), data) for data in chunks]
        assert made_of[1].first_ticks == made_of[0].end_ticks
        assert len({fragment.init for fragment in made_of}) == 1
        with pytest.raises(RemuxFailed):
            await remuxer.fragment(WHO, Source(Media.MP4), chunks[0])
    joined = made_of[0].init + b"".join(fragment.data for fragment in made_of)
    assert pictures(joined, tmp_path) == pictures(init + b"".join(chunks), tmp_path)


async def test_pictures_without_sound_get_silence_that_runs_on(tmp_path: Path) -> None:
    chunks = session("ts-h264")
    async with remuxing() as remuxer:
        made_of = [await remuxer.fragment(WHO, TS, data, decode_ms=0, silence=True) for data in chunks]
        bare = await remuxer.fragment(WHO, TS, chunks[0], decode_ms=0)
        heard = await remuxer.fragment(WHO, TS, made("ts-h264-aac"), decode_ms=0, silence=True)
        same = await remuxer.fragment(WHO, TS, made("ts-h264-aac"), decode_ms=0)
    assert len({fragment.init for fragment in made_of}) == 1
    assert b"mp4a" in made_of[0].init
    assert b"mp4a" not in bare.init
    assert (heard.init, heard.data) == (same.init, same.data), "what has sound is left as it is"
    film = made_of[0].init + b"".join(fragment.data for fragment in made_of)
    assert pictures(film, tmp_path) == pictures(b"".join(chunks), tmp_path)
    # A frame after the other, through all of the fragments, as long as the pictures.
    with av.open(io.BytesIO(film)) as file:
        times = [packet.pts for packet in file.demux(audio=0) if packet.pts is not None]
    assert {after - before for before, after in pairwise(times)} == {silence.FRAME}
    seconds = (made_of[-1].end_ticks - made_of[0].first_ticks) / 90_000
    assert abs(len(times) - seconds * silence.RATE_HZ / silence.FRAME) <= 1
    assert sound_samples(film, tmp_path) == len(times) * silence.FRAME


def test_silence_has_a_bound() -> None:
    """A time lapse's chunk lasts an hour, and an answer has a bound of bytes."""
    frames = silence.frames(0, 3600 * silence.CLOCK_HZ)
    assert len(frames) == silence.MOST_S * silence.RATE_HZ // silence.FRAME


async def test_a_clip_begins_where_it_is_told_to() -> None:
    async with remuxing() as remuxer:
        fragment = await remuxer.fragment(WHO, Source(Media.MP4), made("mp4"), decode_ms=60_000)
    assert fragment.first_ticks == 60_000 * 90


async def test_sound_of_clips_in_a_row_is_decoded_in_order(tmp_path: Path) -> None:
    """Of AAC the last frame reaches beyond the pictures. Chromium takes no picture of a clip whose sound is earlier
    than the last of the clip before it."""
    data = made("mp4")
    async with remuxing() as remuxer:
        first = await remuxer.fragment(WHO, Source(Media.MP4), data, decode_ms=60_000)
        length_ms = (first.end_ticks - first.first_ticks) // 90
        second = await remuxer.fragment(WHO, Source(Media.MP4), data, decode_ms=60_000 + length_ms)
    film = first.init + first.data + second.data
    with av.open(io.BytesIO(film)) as file:
        for stream in (file.streams.video[0], file.streams.audio[0]):
            file.seek(0)
            times = [packet.dts for packet in file.demux(stream) if packet.dts is not None]
            assert times == sorted(set(times)), stream.type
    assert pictures(film, tmp_path) == 2 * pictures(data, tmp_path)


async def test_sound_of_a_recording_in_clips_has_no_hole_of_a_frame(tmp_path: Path) -> None:
    """Chromium waits for a key frame where two frames of sound begin more than two lengths of one apart. Parts of
    a recording have the frame on their edge in the one or the other, from 0 to 21 ms beyond the pictures."""
    source, clip = tmp_path / "film.mkv", tmp_path / "clip.mov"
    ffmpeg.run(
        *(
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=160x90:rate=25:duration=24",
            "-f",
            "lavfi",
            "-i",
            "sine=duration=24",
        ),
        *("-ar", "48000", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-c:a", "aac", str(source)),
    )
    times: list[int] = []
    async with remuxing() as remuxer:
        for start_s in range(0, 24, 2):
            cut = ("-y", "-ss", str(start_s), "-t", "2", "-i", str(source), "-c", "copy", str(clip))
            ffmpeg.run(*cut)
            at_ms = 1_796_012_959_676 + 1000 * start_s
            part = await remuxer.fragment(WHO, Source(Media.MP4), clip.read_bytes(), decode_ms=at_ms)
            with av.open(io.BytesIO(part.init + part.data)) as file:
                times += [each.dts for each in file.demux(file.streams.audio[0]) if each.dts is not None]
    apart = [after - before for before, after in itertools.pairwise(times)]
    assert len(apart) > 1000
    assert min(apart) >= 0, "in the order in which it is decoded"
    assert max(apart) <= 2 * 1024


async def test_placed_chunks_are_the_same_bytes_each_time_and_nothing_lies_before_their_place() -> None:
    data = made("ts-h264-aac")
    where: dict[str, Any] = {"at_ticks": 0, "of_ticks": None, "begins": True, "sequence": 7}
    async with remuxing(max_jobs=1) as remuxer:  # a process for each
        first, second = [await remuxer.placed(WHO, TS, data, **where) for _ in range(2)]
    assert first == second
    assert first.first_ticks == 0


async def test_media_that_is_none_is_refused_and_its_child_goes_on() -> None:
    good = made("ts-h264-aac")
    async with remuxing(processes=1) as remuxer:
        await remuxer.fragment(WHO, TS, good)
        before = children()
        for source, data in (
            (TS, b""),
            (TS, b"G" * 1880),
            (Source(Media.MP4), b"\0" * 999),
            (Source(Media.MP4), good),
        ):
            with pytest.raises(RemuxFailed) as failed:
                await remuxer.fragment(WHO, source, data)
            assert failed.value.code == "unplayable_media"
        await remuxer.fragment(WHO, TS, good)
        assert children() == before
        assert remuxer.figures.failures == 4
        assert remuxer.figures.kills == 0


async def test_a_child_that_dies_or_hangs_fails_its_own_job_alone() -> None:
    good = made("ts-h264-aac")
    async with remuxing(processes=2, job_s=2.0) as remuxer:
        await remuxer.fragment(WHO, TS, good)
        (child,) = children()
        os.kill(child, signal.SIGSTOP)  # as one that hangs over a chunk
        outcomes: dict[str, object] = {}

        async def ask(name: str) -> None:
            try:
                outcomes[name] = await remuxer.fragment(WHO, TS, good)
            except RemuxFailed as error:
                outcomes[name] = error.code

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "stopped")
            await trio.sleep(0.1)
            nursery.start_soon(ask, "other")
        assert outcomes["stopped"] == "unplayable_media"
        assert outcomes["other"] != "unplayable_media"
        assert child not in children()
        (child,) = children()
        os.kill(child, signal.SIGSEGV)
        await trio.sleep(0.1)
        await remuxer.fragment(WHO, TS, good)
    assert children() == []


async def test_a_child_has_no_files_no_core_dumps_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    async with remuxing() as remuxer:
        await remuxer.fragment(WHO, TS, made("ts-h264-aac"))
        (child,) = children()
        proc = Path("/proc", str(child))
        limits = {
            line[:26].strip(): line[26:].split()[:2] for line in (proc / "limits").read_text().splitlines()
        }
        for name in ("Max core file size", "Max file size", "Max open files"):
            assert limits[name] == ["0", "0"], name
        assert int(limits["Max address space"][0]) < 1 << 30
        if os.geteuid() == 0:  # for others it is not even readable: it may not be dumped
            assert b"hunter2" not in (proc / "environ").read_bytes()
            targets = sorted(os.readlink(each).partition(":")[0] for each in (proc / "fd").iterdir())
            assert targets == ["/dev/null", "/dev/null", "/dev/null", "socket"]
        else:
            with pytest.raises(PermissionError):
                (proc / "environ").read_bytes()


async def test_memory_and_waiting_are_bounded() -> None:
    good = made("ts-h264-aac")
    async with remuxing(processes=1, max_waiting=1, max_input_bytes=1 << 20) as remuxer:
        with pytest.raises(RemuxFailed):
            await remuxer.fragment(WHO, TS, bytes((1 << 20) + 1))
        refusals = []

        async def ask() -> None:
            try:
                await remuxer.fragment(WHO, TS, good)
            except Refused as error:
                refusals.append(error.code)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert refusals == ["overloaded", "overloaded"]


async def test_a_still_is_a_key_frame_and_a_strip_joins_them(tmp_path: Path) -> None:
    async with remuxing() as remuxer:
        stills = [
            await remuxer.still(WHO, TS, made("ts-h264-aac"), at_ms=at_ms, width=80)
            for at_ms in (0, 2500, 9000)
        ]
        assert [still.offset_ms for still in stills] == [0, 2000, 3000]
        assert (stills[0].width, stills[0].height) == (80, 44)
        strip = await remuxer.strip(
            WHO, [stills[0].data, b"", stills[2].data], columns=2, width=80, height=44
        )
        for data in (stills[0].data, strip):
            assert data.startswith(b"\xff\xd8\xff")
            assert len(pictures(data, tmp_path)) == 1
        with pytest.raises(RemuxFailed) as failed:
            await remuxer.still(WHO, TS, made("ts-aac"), at_ms=0, width=80)
        assert failed.value.code == "no_picture"


def mutated(data: bytes, random_: random.Random) -> bytes:
    """Bytes turned, stretches cut out, doubled or overwritten, numbers made large: what a fuzzer does to media."""
    found = bytearray(data)
    for _ in range(random_.choice((1, 1, 2, 5, 30))):
        at = random_.randrange(len(found))
        if random_.random() < 0.5:
            at = random_.randrange(min(len(found), 4096))  # headers are where decisions are
        length = random_.choice((1, 1, 4, 8, 188, 3000))
        match random_.randrange(5):
            case 0:
                found[at] ^= 1 << random_.randrange(8)
            case 1:
                found[at : at + length] = random_.randbytes(length)
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = found[at : at + length]
            case 4:
                found[at : at + 4] = random_.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        if not found:
            found.append(0)
    return bytes(found)


def resident_bytes(process: int) -> int:
    pages = int(Path("/proc", str(process), "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_hostile_media_harms_nobody_but_itself() -> None:
    """Thousands of mutations through the real process: it answers each, and every good chunk after it."""
    random_ = random.Random(14)
    forms = ["ts-h264-aac", "ts-h265-ac3", "ts-h264-opus", "mp4", "mp4-fragmented", "mp4-faststart-h265"]
    init, chunks = fragments()
    inputs = [(source_of(form), made(form)) for form in forms] + [(Source(Media.MP4, init), chunks[1])]
    async with remuxing(processes=1, job_s=5.0) as remuxer:
        expected = {data: await remuxer.fragment(WHO, source, data) for source, data in inputs}
        held = []
        for number in range(MUTATIONS):
            source, data = inputs[number % len(inputs)]
            bad = mutated(data, random_)
            if source.init and random_.random() < 0.5:
                bad, source = data, Source(source.media, mutated(source.init, random_))
            for job in ("fragment", "still"):
                try:
                    if job == "fragment":
                        await remuxer.fragment(WHO, source, bad, decode_ms=number)
                    else:
                        await remuxer.still(WHO, source, bad, at_ms=1000, width=64)
                except RemuxFailed:
                    pass
            if number % 10 == 9:
                source, data = inputs[random_.randrange(len(inputs))]
                assert await remuxer.fragment(WHO, source, data) == expected[data]
                held.append(resident_bytes(children()[0]))
        print(remuxer.figures, f"resident MiB: {held[0] >> 20} to {held[-1] >> 20}, most {max(held) >> 20}")
        assert max(held[len(held) // 2 :]) < max(held[: len(held) // 2]) + (64 << 20)
