"""Long uploads are cut between pictures: nothing is lost or doubled, and each chunk plays alone."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from ingest import inits, media
from ingest.cut_mp4 import Mp4Cutter
from ingest.cut_ts import TsCutter
from ingest.cutting import CLEAN_KEY, KEY, PICTURE, Cutter, NotCuttable, Place, Places
from storage.media_facts import KeyFrame, MediaFacts, continues, unpack_facts
from tests.ingest import long_media
from tests.ingest.fmp4 import boxed
from tests.ingest.long_media import MP4_RECIPES, TS_RECIPES, frames, packets

MOST = 1024 * 1024
PACKET = 188


def cut(cutter: Cutter, data: bytes, seed: int = 0) -> list[bytes]:
    """Fed in pieces of any size."""
    choose, at, found = random.Random(seed), 0, []
    while at < len(data):
        size = choose.choice((1, 100, 5000, 300_000))
        found += cutter.feed(data[at : at + size])
        at += size
    return found + cutter.end()


def told(facts: list[MediaFacts]) -> None:
    """They are listed as one: no discontinuity, and each may be begun at."""
    assert all(each.key_frame is KeyFrame.YES for each in facts)
    assert all(continues(before, after) for before, after in pairwise(facts))


def is_it_but_for_tables(chunks: list[bytes], data: bytes) -> None:
    """Byte for byte, but for the tables that were sent before and stand before a chunk once more."""
    at = 0
    for chunk in chunks:
        own = 0 if data.startswith(chunk, at) else 2 * PACKET
        assert data.startswith(chunk[own:], at)
        assert all(chunk[i : i + PACKET] in data[:at] for i in range(0, own, PACKET))
        at += len(chunk) - own
    assert at == len(data)


@pytest.mark.parametrize("recipe", TS_RECIPES)
def test_a_transport_stream(recipe: str) -> None:
    data = long_media.made(TS_RECIPES[recipe], 30 if recipe == "sound alone" else 12)
    stream = "a" if recipe == "sound alone" else "v"
    chunks = cut(TsCutter(MOST), data)
    assert len(chunks) > 2
    assert all(len(chunk) <= MOST for chunk in chunks)
    is_it_but_for_tables(chunks, data)
    assert packets(b"".join(chunks), stream) == packets(data, stream)
    whole = frames(data, stream)
    assert frames(b"".join(chunks), stream) == whole
    if recipe != "sound alone":  # whose decoder goes on from what was before
        alone = [frames(chunk, stream) for chunk in chunks]
        assert [frame for each in alone for frame in each] == whole
    told([unpack_facts(media.part_of_stream(chunk).facts) for chunk in chunks])
    total_ms = sum(media.part_of_stream(chunk).duration_ms for chunk in chunks)
    assert abs(total_ms - media.inspect(data).duration_ms) <= 45 * len(chunks)


@pytest.mark.parametrize("recipe", MP4_RECIPES)
def test_fragmented_mp4(recipe: str) -> None:
    data = long_media.made(MP4_RECIPES[recipe], 30 if recipe == "sound alone" else 12)
    stream = "a" if recipe == "sound alone" else "v"
    cutter = Mp4Cutter(MOST)
    chunks = cut(cutter, data)
    assert len(chunks) > 2
    assert all(len(chunk) <= MOST for chunk in chunks)
    assert data.startswith(cutter.header[:16])
    whole = cutter.header + b"".join(chunks)
    for each in ("v", "a") if "aac" in MP4_RECIPES[recipe] and stream == "v" else (stream,):
        assert packets(whole, each) == packets(data, each)
    assert frames(whole, stream) == frames(data, stream)
    alone = [frames(cutter.header + chunk, stream) for chunk in chunks]
    if stream == "v":
        assert [frame for each in alone for frame in each] == frames(data)
    known = inits.read(1, cutter.header)
    assert isinstance(known, inits.KnownInit)
    found = [media.fragment(chunk, known.movie, known.init.number) for chunk in chunks]
    assert [each.missing for each in found] == [""] * len(chunks)
    told([unpack_facts(each.facts) for each in found])


def test_any_pieces_give_the_same_chunks() -> None:
    ts, mp4 = long_media.made(TS_RECIPES["h264"]), long_media.made(MP4_RECIPES["base is file"])
    assert len({tuple(cut(TsCutter(MOST), ts, seed)) for seed in range(5)}) == 1
    assert len({tuple(cut(Mp4Cutter(MOST), mp4, seed)) for seed in range(5)}) == 1


def test_no_more_is_held_than_a_chunk_and_what_was_fed() -> None:
    data = long_media.made(TS_RECIPES["h264"]) * 3
    cutter = TsCutter(MOST)
    for at in range(0, len(data), 300_000):
        cutter.feed(data[at : at + 300_000])
        assert len(cutter._buffer) < MOST + 600_000


def test_what_is_no_packet_stays_where_it_is() -> None:
    data = long_media.made(TS_RECIPES["h264"])
    middle = len(data) // PACKET // 2 * PACKET
    for stray in (b"\0", b"\x47" * 5, bytes(5000), bytes(100_000)):
        strange = b"junk" + data[:middle] + stray + data[middle:]
        chunks = cut(TsCutter(MOST), strange)
        assert len(chunks) > 2
        is_it_but_for_tables(chunks, strange)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes(3 * MOST), "not packets|no picture"),
        ((b"\x47\x1f\xff\x10" + bytes(184)) * 20_000, "no picture"),
        (random.Random(1).randbytes(3 * MOST), "not packets|no picture"),
        ((b"\x47\x1f\xff\x10" + bytes(185)) * 20_000, "not packets|no picture"),
    ],
)
def test_a_stream_that_has_no_place_to_cut(data: bytes, why: str) -> None:
    with pytest.raises(NotCuttable, match=why):
        cut(TsCutter(MOST), data)


MP4 = "-f lavfi -i testsrc2=size=160x90:rate=25 -c:v libx264 -preset ultrafast -g 25 -pix_fmt yuv420p"


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        (f"{MP4} -f mp4", "does not come first"),
        (f"{MP4} -movflags +faststart -f mp4", "without fragments"),
        (f"{MP4} -movflags +frag_keyframe -f mp4", "pictures of its own"),
        (f"{MP4} -f mov", "does not come first"),
    ],
)
def test_mp4_that_is_not_fragmented_is_told_at_its_first_bytes(recipe: str, why: str) -> None:
    data = long_media.made(recipe, 2)
    with pytest.raises(NotCuttable, match=why):
        Mp4Cutter(MOST).feed(data)


def test_mp4_that_is_not_whole() -> None:
    data = long_media.made(MP4_RECIPES["base is moof"])
    header = cutter_header(data)
    moof = data.index(b"moof") - 4
    for wrong, why in (
        (data[:moof], "no fragment"),
        (data[:moof] + data[moof : moof + 100], "no fragment"),
        (data + b"\0\0\1\0moof", "cut"),
        (data[:moof] + boxed(b"moov", bytes(100)), "between"),
        (data[:moof] + b"\0\0\0\1moof", "more|no fragment|no size"),
        (data[:moof] + b"\0\0\0\4moof", "no size"),
        (data[:moof] + (1 << 30).to_bytes(4, "big") + b"moof", "has 1073741824 bytes"),
        (header + boxed(b"moov", bytes(70_000)), "moov"),
        (boxed(b"moov", bytes(70_000)), "without fragments"),
    ):
        with pytest.raises(NotCuttable, match=why):
            cut(Mp4Cutter(MOST), wrong)


def cutter_header(data: bytes) -> bytes:
    cutter = Mp4Cutter(MOST)
    cutter.feed(data)
    return cutter.header


def test_the_best_place_in_time_is_chosen() -> None:
    def places(*found: tuple[int, int, int]) -> list[int]:
        where = Places(1000)
        return [
            each.position
            for position, rank, s in found
            for each in where.at(Place(position, rank, s * 90_000))
        ]

    assert places((0, CLEAN_KEY, 0), (400, CLEAN_KEY, 1), (600, CLEAN_KEY, 2), (700, CLEAN_KEY, 3)) == [600]
    assert places((0, CLEAN_KEY, 0), (200, CLEAN_KEY, 11), (300, CLEAN_KEY, 12)) == [200], (
        "it plays long enough"
    )
    assert places((0, CLEAN_KEY, 0), (20, CLEAN_KEY, 11), (300, CLEAN_KEY, 12)) == [300], (
        "and is large enough"
    )
    assert places((0, CLEAN_KEY, 0), (600, KEY, 1), (900, PICTURE, 2), (1001, PICTURE, 3)) == [600]
    assert places((0, CLEAN_KEY, 0), (400, CLEAN_KEY, 1), (900, KEY, 2), (1001, PICTURE, 3)) == [400]
    assert places((0, CLEAN_KEY, 0), (600, PICTURE, 1), (1001, PICTURE, 2)) == [600]
    with pytest.raises(NotCuttable):
        places((0, CLEAN_KEY, 0), (1001, PICTURE, 2))
