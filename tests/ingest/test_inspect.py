"""What ingest reads of a chunk's media, and what it refuses because no player could play it: files of a real ffmpeg."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import mpegts, ts_edges
from ingest.media import Found, Media, inspect
from ingest.parameter_sets import h264_size, h265_size
from storage.media_facts import Codec, KeyFrame, MediaFacts, continues, distance_ms, unpack_facts

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
VIDEO = "-f lavfi -i testsrc2=size=322x182:rate={rate}"
SOUND = "-f lavfi -i sine=frequency=440:sample_rate=44100"
H264 = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50"
H265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=error:keyint=50:min-keyint=50"
HLS = "-f hls -hls_time {cut} -hls_list_size 0 -hls_segment_filename"
PACKET = 188


def film(folder: Path, recipe: str, *, rate: str = "25", cut: str = "2") -> list[bytes]:
    """Segments as ffmpeg's HLS muxer cuts them, in order."""
    arguments = f"{recipe} {HLS}".format(rate=rate, cut=cut)
    names = folder / "%03d.ts"
    command = [FFMPEG, "-nostdin", "-v", "error", *arguments.split(), str(names), str(folder / "list.m3u8")]
    subprocess.run(command, check=True, timeout=60)
    return [path.read_bytes() for path in sorted(folder.glob("*.ts"))]


def clip(path: Path, recipe: str) -> bytes:
    command = [FFMPEG, "-nostdin", "-v", "error", *recipe.format(rate="25").split(), str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path.read_bytes()


def facts_of(data: bytes) -> MediaFacts:
    found = inspect(data)
    assert not found.missing, found.what
    return unpack_facts(found.facts)


# --- facts --------------------------------------------------------------------------------------------------------

AV = f"{VIDEO} {SOUND} -t 6 {H264} -c:a aac"
KINDS = {
    "h264 and aac": (AV, Codec.H264, Codec.AAC),
    "b-frames": (
        f"{VIDEO} {SOUND} -t 6 {H264} -preset veryfast -bf 3 -c:a mp2",
        Codec.H264,
        Codec.MPEG_AUDIO,
    ),
    "h265, open gop": (f"{VIDEO} -t 6 {H265}", Codec.H265, Codec.NONE),
    "ac-3": (f"{VIDEO} {SOUND} -t 6 {H264} -c:a ac3", Codec.H264, Codec.AC3),
    "opus": (f"{VIDEO} {SOUND} -t 6 {H264} -c:a libopus", Codec.H264, Codec.OPUS),
    "wraps": (f"{AV} -output_ts_offset {2**33 / 90_000 - 3}", Codec.H264, Codec.AAC),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_camera_cuts_is_known_and_continues(tmp_path: Path, kind: str) -> None:
    recipe, video, audio = KINDS[kind]
    chunks = film(tmp_path, recipe)
    assert len(chunks) >= 3
    known = [facts_of(chunk) for chunk in chunks]
    for facts in known:
        assert (facts.video, facts.audio) == (video, audio)
        assert (facts.width, facts.height) == (322, 182)
        assert facts.key_frame is KeyFrame.YES
        assert (facts.tracks, facts.parameters) == (known[0].tracks, known[0].parameters) != (0, 0)
    for earlier, later in pairwise(known):
        assert continues(earlier, later) is True
        assert distance_ms(earlier, later) == pytest.approx(2000, abs=40)
        assert continues(later, earlier) is False
    if kind == "wraps":
        assert known[0].video_times is not None
        assert known[-1].video_times is not None
        assert known[0].video_times.first_ticks > known[-1].video_times.first_ticks


def test_another_camera_continues_nothing(tmp_path: Path) -> None:
    """The same timestamps, and another size, another sound, no sound: each is another set of tracks."""
    mine = facts_of(film(_folder(tmp_path, "mine"), AV)[0])
    for number, recipe in enumerate(
        (
            AV.replace("322x182", "320x180"),
            AV.replace("44100", "48000"),
            f"{VIDEO} -t 6 {H264}",
            f"{VIDEO} {SOUND} -t 6 {H265} -c:a aac",
        )
    ):
        other = facts_of(film(_folder(tmp_path, str(number)), recipe)[1])
        assert continues(mine, other) is False, recipe
    again = facts_of(film(_folder(tmp_path, "again"), AV)[0])
    assert continues(mine, again) is False, "an encoder that started again begins at the same time"


def _folder(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path


def test_a_chunk_that_begins_in_the_midst_of_a_group_says_so(tmp_path: Path) -> None:
    recipe = f"{VIDEO} {SOUND} -t 6 {H264} -g 500 -c:a aac -f segment -segment_time 2 -break_non_keyframes 1"
    command = [FFMPEG, "-nostdin", "-v", "error", *recipe.format(rate=25).split(), str(tmp_path / "%d.ts")]
    subprocess.run(command, check=True, timeout=60)
    first, second, *_ = [facts_of(path.read_bytes()) for path in sorted(tmp_path.glob("*.ts"))]
    assert (first.key_frame, first.may_begin) == (KeyFrame.YES, True)
    assert (second.key_frame, second.may_begin) == (KeyFrame.NO, False)
    assert continues(first, second) is True


@pytest.mark.parametrize("from_end", [False, True])
def test_both_ends_say_what_all_packets_say(segments: list[bytes], from_end: bool) -> None:
    """Cut anywhere, at either end: the two ends of a chunk give the duration that all of its packets give; but for a
    frame, where the cut goes through frames that are stored out of order."""
    data = segments[0]
    for cut in range(PACKET, 400 * PACKET, 3 * PACKET):
        part = data[: len(data) - cut] if from_end else data[cut:]
        found, every = ts_edges.read(part), mpegts.duration_ticks(part)
        assert found is not None
        assert every is not None
        assert abs(found.duration_ticks - every) <= 3600
    found = ts_edges.read(data)
    assert found is not None
    assert found.duration_ticks == mpegts.duration_ticks(data)


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return film(
        tmp_path_factory.mktemp("film"), f"{VIDEO} {SOUND} -t 6 {H264} -preset veryfast -bf 3 -c:a aac"
    )


# --- durations ------------------------------------------------------------------------------------------------------


def test_sound_alone_lasts_as_long_as_its_frames(tmp_path: Path) -> None:
    chunks = film(tmp_path, f"{SOUND} -t 12 -c:a aac -b:a 64k", cut="4")
    assert sum(inspect(chunk).duration_ms for chunk in chunks) == pytest.approx(12_000, abs=60)


@pytest.mark.parametrize("codec", ["mp2", "ac3", "libopus"])
def test_other_sound_alone_is_right_to_some_frames(tmp_path: Path, codec: str) -> None:
    chunks = film(tmp_path, f"{SOUND} -t 12 -c:a {codec}", cut="4")
    assert sum(inspect(chunk).duration_ms for chunk in chunks) == pytest.approx(12_000, abs=400)


def test_a_single_frame_does_not_tell_how_long_it_is_shown(tmp_path: Path) -> None:
    chunks = film(tmp_path, f"{VIDEO} -t 5 {H264} -g 1", rate="1", cut="1")
    known = [facts_of(chunk) for chunk in chunks]
    assert [inspect(chunk).duration_ms for chunk in chunks] == [0] * 5
    assert [distance_ms(a, b) for a, b in pairwise(known)] == [1000] * 4


@pytest.mark.parametrize("at_packet", [3, 200, 600])
@pytest.mark.parametrize("change", ["50 more", "50 less", "a packet and 7 more"])
def test_stray_bytes_are_passed_over(segments: list[bytes], at_packet: int, change: str) -> None:
    data = segments[1]
    at = at_packet * PACKET + 60
    damaged = {
        "50 more": data[:at] + b"G" * 50 + data[at:],
        "50 less": data[:at] + data[at + 50 :],
        "a packet and 7 more": data[:at] + bytes(195) + data[at:],
    }[change]
    assert inspect(damaged).duration_ms == pytest.approx(inspect(data).duration_ms, abs=40)
    assert facts_of(damaged).times == facts_of(data).times


@pytest.mark.parametrize("junk", [b"x", b"GGGG" * 40, bytes(mpegts.MAX_JUNK_BYTES)])
def test_junk_before_the_first_packet_is_passed_over(segments: list[bytes], junk: bytes) -> None:
    found = inspect(junk + segments[1])
    assert (found.media, found.duration_ms) == (Media.MPEG_TS, inspect(segments[1]).duration_ms)
    assert found.facts == inspect(segments[1]).facts


def test_more_junk_than_players_pass_over_is_no_transport_stream(segments: list[bytes]) -> None:
    assert inspect(bytes(mpegts.MAX_JUNK_BYTES + 1) + segments[1]).media is Media.UNKNOWN


# --- what can be played -------------------------------------------------------------------------------------------

MP4 = f"{VIDEO} {SOUND} -t 2 {H264} -c:a aac"


def box(data: bytes, kind: bytes) -> slice:
    """Where a top-level box lies."""
    at = 0
    while data[at + 4 : at + 8] != kind:
        at += int.from_bytes(data[at : at + 4], "big")
    return slice(at, at + int.from_bytes(data[at : at + 4], "big"))


def without(data: bytes, kind: bytes) -> bytes:
    return data[: box(data, kind).start] + data[box(data, kind).stop :]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    return {
        "whole": clip(folder / "a.mp4", MP4),
        "faststart": clip(folder / "b.mp4", f"{MP4} -movflags +faststart"),
        "fragmented": clip(
            folder / "c.mp4", f"{MP4} -g 25 -movflags frag_keyframe+empty_moov+default_base_moof"
        ),
        "quicktime": clip(folder / "d.mov", MP4),
        "192": clip(folder / "e.m2ts", f"{MP4} -mpegts_m2ts_mode 1"),
        "webm": clip(folder / "f.mkv", MP4),
    }


@pytest.mark.parametrize("name", ["whole", "faststart", "fragmented", "quicktime"])
def test_clips_are_known(clips: dict[str, bytes], name: str) -> None:
    facts = facts_of(clips[name])
    assert (facts.video, facts.audio, facts.width, facts.height) == (Codec.H264, Codec.AAC, 322, 182)
    assert facts.key_frame is KeyFrame.YES
    assert inspect(clips[name]).duration_ms == pytest.approx(2000, abs=50)
    assert facts.video_times is not None
    assert facts.video_times.span_ticks == pytest.approx(2 * 90_000 - 3600, abs=3600)


@pytest.mark.parametrize("name", ["whole", "faststart", "fragmented", "quicktime"])
def test_free_space_before_the_first_box_is_taken(clips: dict[str, bytes], name: str) -> None:
    for kind in (b"free", b"skip", b"wide"):
        data = b"\0\0\0\x10" + kind + bytes(8) + clips[name]
        assert (inspect(data).media, inspect(data).duration_ms) == (
            Media.MP4,
            inspect(clips[name]).duration_ms,
        )
        assert name in ("whole", "faststart", "quicktime") or not inspect(data).missing


NULL = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 100


def refused(found: Found) -> str:
    return found.missing or ("unknown" if found.media is Media.UNKNOWN else "")


def test_what_no_player_could_play_is_told(clips: dict[str, bytes], segments: list[bytes]) -> None:
    whole, fast, fragmented = clips["whole"], clips["faststart"], clips["fragmented"]
    header = fast[: box(fast, b"mdat").start]
    cases = {
        "no moov": (without(whole, b"moov"), "header"),
        "moov behind, cut off": (whole[:-200], "header"),
        "mdat alone": (whole[box(whole, b"mdat")], "header"),
        "ftyp alone": (whole[box(whole, b"ftyp")], "header"),
        "header alone": (header, "frames"),
        "moov alone": (whole[box(whole, b"moov")], "frames"),
        "fragments without media": (fragmented[: box(fragmented, b"moof").stop], "frames"),
        "cut before the first frame": (fast[: box(fast, b"mdat").start + 8], "frames"),
        "null packets": (NULL, "frames"),
        "tables alone": (segments[0][: 3 * PACKET], "frames"),
        "tables and null packets": (segments[0][: 3 * PACKET] + NULL, "frames"),
        "noise in packets": ((b"\x47\x01\x00\x10" + b"\x55" * 184) * 50, "frames"),
        "scrambled": (_scrambled(segments[0]), "frames"),
        "packets of 192 bytes": (clips["192"], "unknown"),
        "Matroska": (clips["webm"], "unknown"),
        "text": (b"<html>" * 100, "unknown"),
        "nothing that is known": (b"hello" * 100, "unknown"),
    }
    assert {name: refused(inspect(data)) for name, (data, _) in cases.items()} == {
        name: wanted for name, (_, wanted) in cases.items()
    }
    assert "192" in inspect(clips["192"]).what
    assert "Matroska" in inspect(clips["webm"]).what


def test_what_can_be_played_in_part_is_taken(clips: dict[str, bytes], segments: list[bytes]) -> None:
    for data in (
        segments[0][: len(segments[0]) // 2],
        segments[0][1000 * PACKET :],
        clips["faststart"][:-5000],
        clips["fragmented"][:-5000],
    ):
        assert not inspect(data).missing


def _scrambled(data: bytes) -> bytes:
    packets = bytearray(data)
    for at in range(0, len(packets), PACKET):
        packets[at + 3] |= 0x80
    return bytes(packets)


# --- hostile bytes --------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.randoms(use_true_random=False), flips=st.integers(1, 60), name=st.sampled_from(range(3)))
def test_damage_never_raises(
    segments: list[bytes], clips: dict[str, bytes], seed: object, flips: int, name: int
) -> None:
    data = bytearray((segments[0], clips["faststart"], clips["fragmented"])[name])
    for _ in range(flips):
        place = seed.randrange(min(len(data), 3000))  # type: ignore[attr-defined]
        data[place] = seed.randrange(256)  # type: ignore[attr-defined]
    unpack_facts(inspect(bytes(data)).facts)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_parameter_sets_of_any_bytes_have_some_size(unit: bytes) -> None:
    for width, height in (h264_size(unit), h265_size(unit)):
        assert 0 <= width < 1 << 16
        assert 0 <= height < 1 << 16
