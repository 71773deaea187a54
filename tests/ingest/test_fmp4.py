"""Reading MP4 of every kind: clips, init segments and fragments of a real ffmpeg, and what no player could play."""

from __future__ import annotations

import random
import subprocess
from itertools import pairwise
from pathlib import Path

import imageio_ffmpeg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest import inits, media, mp4
from ingest.inits import KnownInit
from ingest.media import Media, inspect
from storage.media_facts import Codec, KeyFrame, MediaFacts, continues, unpack_facts
from tests.ingest.fmp4 import H264, SOUND, VIDEO, boxed, camera, made

H265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=error:keyint=25:min-keyint=25"
KINDS = {
    "h264 and aac": (f"{VIDEO} {SOUND} {H264} -c:a aac", Codec.H264, Codec.AAC),
    "b-frames and mp3": (f"{VIDEO} {SOUND} {H264} -bf 3 -c:a libmp3lame", Codec.H264, Codec.MPEG_AUDIO),
    "mp2": (f"{VIDEO} {SOUND} {H264} -c:a mp2", Codec.H264, Codec.MPEG_AUDIO),
    "opus": (f"{VIDEO} {SOUND} {H264} -c:a libopus", Codec.H264, Codec.OPUS),
    "ac-3": (f"{VIDEO} {SOUND} {H264} -c:a ac3", Codec.H264, Codec.AC3),
    "h265 as hev1": (f"{VIDEO} {H265} -tag:v hev1", Codec.H265, Codec.NONE),
    "h265 as hvc1": (f"{VIDEO} {SOUND} {H265} -tag:v hvc1 -c:a aac", Codec.H265, Codec.AAC),
    "no sound": (f"{VIDEO} {H264}", Codec.H264, Codec.NONE),
    "sound alone": (f"{SOUND} -c:a aac", Codec.NONE, Codec.AAC),
}


def known(data: bytes) -> KnownInit:
    found = inits.read(7, data)
    assert isinstance(found, KnownInit), found.what
    return found


def fragment(data: bytes, init: KnownInit) -> media.Found:
    return media.fragment(data, init.movie, init.init.number)


@pytest.mark.parametrize("kind", KINDS)
def test_fragments_are_read_by_their_init_segment(kind: str) -> None:
    recipe, video, audio = KINDS[kind]
    header, fragments = made(recipe)
    assert inspect(header).media is inspect(fragments[0]).media is Media.FMP4
    init = known(header)
    of_init = unpack_facts(init.init.facts)
    assert (of_init.video, of_init.audio) == (video, audio)
    found = [fragment(data, init) for data in fragments]
    assert not any(each.missing for each in found)
    assert abs(sum(each.duration_ms for each in found) - 3000) < 150
    facts = [unpack_facts(each.facts) for each in found]
    for each in facts:
        assert (each.video, each.audio, each.parameters) == (video, audio, init.init.number)
        assert each.key_frame is KeyFrame.YES
        assert (each.width, each.height) == ((160, 90) if video else (0, 0))
    assert all(continues(*pair) for pair in pairwise(facts))
    assert [mp4.is_first(data) for data in fragments] == [True, *[False] * (len(fragments) - 1)]


def test_another_init_segment_is_another_number_and_the_same_one_is_not() -> None:
    one, other = camera()[0], camera("320x180")[0]
    assert known(one).init.number == known(bytes(one)).init.number != known(other).init.number
    assert 0 < known(one).init.number < 1 << 32
    facts = [
        unpack_facts(fragment(camera(size)[1][0], known(camera(size)[0])).facts)
        for size in ("160x90", "320x180")
    ]
    assert continues(*facts) is False


CLIPS = {
    "moov last": "",
    "moov first": "-movflags +faststart",
    "fragmented": "-movflags +frag_keyframe+empty_moov",
    "fragmented, and a first part": "-movflags +frag_keyframe",
    "dash": "-movflags +dash+frag_keyframe+empty_moov",
}


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("before", [b"", b"free", b"skip", b"wide", b"styp"])
def test_clips_whatever_comes_first(tmp_path: Path, kind: str, ending: str, before: bytes) -> None:
    path = tmp_path / f"clip.{ending}"
    recipe = f"{VIDEO} {SOUND} -t 2 {H264} -c:a aac {CLIPS[kind]}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *recipe.split(), str(path)]
    subprocess.run(command, check=True, timeout=60)
    data = path.read_bytes()
    if before == b"styp":
        data = boxed(b"styp", b"msdh\0\0\0\0") + data
    elif before and kind.startswith(
        "frag"
    ):  # where places of samples count from the file's start, it moves nothing
        data = boxed(before, bytes(20)) + data
    found = inspect(data)
    assert (
        (found.media, found.missing) == (Media.MP4, "") if before != b"styp" or kind != "moov last" else True
    )
    facts = unpack_facts(found.facts)
    assert (facts.video, facts.audio) == (Codec.H264, Codec.AAC)
    assert abs(found.duration_ms - 2000) < 60


# --- what no player could play -------------------------------------------------------------------------------------


def test_encrypted_samples_are_told(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    recipe = f"{VIDEO} -t 1 {H264} -encryption_scheme cenc-aes-ctr"
    keys = ["-encryption_key", "0" * 32, "-encryption_kid", "1" * 32]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *recipe.split(), *keys, str(path)]
    subprocess.run(command, check=True, timeout=60)
    found = inspect(path.read_bytes())
    assert (found.media, found.missing) == (Media.MP4, "clear")
    assert "encv" in found.what


@pytest.mark.parametrize("entry", [b"encv", b"drmi"])
def test_an_init_segment_of_encrypted_samples_is_told(entry: bytes) -> None:
    found = inits.read(7, camera()[0].replace(b"avc1", entry, 2))
    assert isinstance(found, media.Found)
    assert (found.media, found.missing) == (Media.FMP4, "clear")


@pytest.mark.parametrize(("entry", "other"), [(b"avc1", b"vp31"), (b"mp4a", b"sowt")])
def test_codecs_that_nobody_knows_are_told(entry: bytes, other: bytes) -> None:
    header = camera()[0]
    at = header.index(b"stsd", header.index(b"stsd") + 1 if entry == b"mp4a" else 0)
    changed = header[:at] + header[at:].replace(entry, other, 1)
    found = inits.read(7, changed)
    assert isinstance(found, media.Found)
    assert found.missing == "codec"
    assert other.decode() in found.what


def test_fragments_of_a_track_that_their_header_does_not_have_are_told() -> None:
    """Of sound and picture, by a header of picture alone."""
    init = known(made(f"{VIDEO} {H264}")[0])
    found = fragment(camera()[1][0], init)
    assert (found.media, found.missing) == (Media.FMP4, "init")


def test_what_is_neither(tmp_path: Path) -> None:
    header, fragments = camera()
    assert inspect(header + fragments[0]).media is Media.MP4  # a fragmented clip
    assert inspect(fragments[0] + fragments[1]).media is Media.FMP4
    plain = header[: header.index(b"mvex") - 4] + header[header.index(b"mvex") - 4 :].replace(
        b"mvex", b"free"
    )
    assert inspect(plain).missing == "frames"  # a header of a file, alone
    assert inspect(header[:-100]).missing == "header"
    assert inspect(boxed(b"styp", b"msdh\0\0\0\0") + boxed(b"mdat", bytes(100))).missing == "header"
    moof = fragments[0].index(b"mdat") - 4
    assert fragment(fragments[0][:moof], known(header)).missing == "frames"


# --- hostile bytes --------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), flips=st.integers(1, 60), cut=st.floats(0, 1))
def test_damage_never_raises(seed: int, flips: int, cut: float) -> None:
    chance = random.Random(seed)
    header, fragments = camera()
    init = known(header)
    for data, most in ((header, len(header)), (fragments[1], 900)):
        damaged = bytearray(data)
        for _ in range(flips):
            damaged[chance.randrange(most)] = chance.choice((0, 1, 255, chance.randrange(256)))
        for part in (bytes(damaged), bytes(damaged[: int(len(damaged) * cut)])):
            for found in (inspect(part), fragment(part, init), media.init_segment(part)[0]):
                assert isinstance(unpack_facts(found.facts), MediaFacts)
                assert 0 <= found.duration_ms <= media.MAX_DURATION_MS
            mp4.is_first(part)
            inits.read(7, part)


@settings(max_examples=100, deadline=None)
@given(cut=st.floats(0, 0.999))
def test_a_fragment_that_was_cut_is_taken_in_part_or_refused(cut: float) -> None:
    header, fragments = camera()
    part = fragments[1][: max(int(len(fragments[1]) * cut), 1)]
    found = inspect(part)
    if found.media is Media.FMP4:
        assert fragment(part, known(header)).missing in ("", "frames")
    else:
        assert found.media is Media.UNKNOWN or found.missing


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_the_kind_of_sound_is_read_of_anything(entry: bytes) -> None:
    header = camera()[0]
    at = header.index(b"esds")
    found = inits.read(7, header[: at + 4] + entry + header[at + 4 + len(entry) :])
    assert isinstance(found, (KnownInit, media.Found))
