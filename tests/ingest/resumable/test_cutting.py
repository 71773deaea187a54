"""Long uploads are cut between pictures: nothing is lost or doubled, and each chunk plays alone."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

from ingest import answers, inits, media
from ingest.resumable.cut_mp4 import MAX_BOXES, Mp4Cutter
from ingest.resumable.cut_ts import APART_BYTES, TsCutter
from ingest.resumable.cutting import CLEAN_KEY, KEY, PICTURE, Cutter, NotCuttable, Place, Places, Times
from ingest.resumable.not_taken import REMEMBERED, REMEMBERED_S, NotTaken
from storage import media_facts as mf
from storage.media_facts import KeyFrame, MediaFacts, continues, unpack_facts
from tests.ingest.fmp4 import boxed
from tests.ingest.resumable import long_media
from tests.ingest.resumable.long_media import MP4_RECIPES, TS_RECIPES, frames, packets

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
        (data[:moof] + boxed(b"free") * (MAX_BOXES + 1), "more than 300000 boxes"),
    ):
        with pytest.raises(NotCuttable, match=why):
            cut(Mp4Cutter(MOST), wrong)


def fed_until_refused(cutter: Cutter, data: bytes, why: str) -> int:
    """The same again and again. Returns the bytes that were taken before."""
    for taken in range(0, 50 * len(data), len(data)):
        try:
            cutter.feed(data)
        except NotCuttable as error:
            found, refused = taken, str(error)
            break
    else:
        pytest.fail("it is taken without a bound")
    assert re.search(why, refused)
    return found


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"emsg", bytes(100_000)),
        (b"moof", bytes(8) + bytes(100_000)),
        (b"moof", boxed(b"mfhd", bytes(8)) + boxed(b"free", bytes(100_000))),
    ],
)
def test_boxes_without_pictures_are_held_up_to_a_bound(kind: bytes, content: bytes) -> None:
    cutter = Mp4Cutter(MOST)
    cutter.feed(long_media.made(MP4_RECIPES["base is moof"], 2))
    taken = fed_until_refused(cutter, boxed(kind, content), "no picture begins|before a fragment")
    assert taken < 4 * MOST


@pytest.mark.parametrize("kind", [b"free", b"mdat", b"styp", b"sidx"])
def test_no_more_boxes_are_read_than_a_bound(kind: bytes) -> None:
    cutter = Mp4Cutter(16 * MOST)
    cutter.feed(long_media.made(MP4_RECIPES["base is moof"], 2))
    assert fed_until_refused(cutter, boxed(kind) * 100_000, "boxes") <= 4 * 800_000


@pytest.mark.parametrize("kind", [b"ftyp", b"free", b"uuid"])
def test_a_header_comes_in_the_first_bytes(kind: bytes) -> None:
    cutter = Mp4Cutter(MOST)
    with pytest.raises(NotCuttable, match=r"header"):
        cutter.feed(boxed(b"ftyp", b"isom\0\0\0\0isom") + boxed(kind, bytes(100)) * 2000)


def cutter_header(data: bytes) -> bytes:
    cutter = Mp4Cutter(MOST)
    cutter.feed(data)
    return cutter.header


def test_times_are_by_the_media_and_add_up_nothing_that_is_rounded() -> None:
    frame = 3754  # of 23.98 a second: no whole millisecond
    times, chunks = Times(1000), []
    for number in range(100):
        facts = MediaFacts(
            video_times=mf.Times(number * 50 * frame % (1 << 33), 49 * frame), video=mf.Codec.H264
        )
        chunks.append(times.begins_ms(facts.pack(), round(50 * frame / 90)))
    assert chunks == [1000 + number * 50 * frame // 90 for number in range(100)]
    # A clock that was set back: it begins where the one before ends.
    facts = MediaFacts(video_times=mf.Times(5, 49 * frame), video=mf.Codec.H264)
    assert times.begins_ms(facts.pack(), 0) == chunks[-1] + round(50 * frame / 90)
    assert times.begins_ms(b"", 0) == times.end_ms - 1, "they only go forward"


def test_refusals_are_remembered_for_a_while() -> None:
    known = NotTaken()
    known.note((1, 2), answers.EXPIRED, 5.0)
    assert known.get((1, 2), 5.0 + REMEMBERED_S - 1) is answers.EXPIRED
    assert known.get((1, 2), 5.0 + REMEMBERED_S) is None
    assert known.get((2, 2), 5.0) is None
    for number in range(REMEMBERED):
        known.note((3, number), answers.EXPIRED, 6.0)
    assert known.get((1, 2), 6.0) is None, "no more are remembered than there is room for"
    assert known.get((3, 0), 6.0) is answers.EXPIRED


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


def interleaved(data: bytes, every: int) -> tuple[bytes, list[int]]:
    """A stream in which sound goes on behind the beginning of every so many key frames, and where these begin."""
    found = [data[at : at + PACKET] for at in range(0, len(data), PACKET)]
    pids = [(packet[1] & 0x1F) << 8 | packet[2] for packet in found]
    keys = [
        at
        for at, packet in enumerate(found)
        if pids[at] == 256 and packet[1] & 0x40 and packet[3] & 0x20 and packet[4] and packet[5] & 0x40
    ]
    moved = []
    for at in keys[1::every]:
        last = max(i for i in range(at) if pids[i] == 257)
        if not found[last][1] & 0x40:
            found.insert(at, found.pop(last))
            pids = [(packet[1] & 0x1F) << 8 | packet[2] for packet in found]
            moved.append((at - 1) * PACKET)
    return b"".join(found), moved


def test_a_unit_of_sound_stays_whole_where_it_can() -> None:
    plain = long_media.made(TS_RECIPES["h264"], 12)
    data, moved = interleaved(plain, 2)
    assert moved
    ends = places_of(cut(TsCutter(MOST), data), data)
    assert len(ends) > 1
    assert not set(ends) & set(moved)
    assert packets(data, "a") == packets(plain, "a")


def places_of(chunks: list[bytes], data: bytes) -> list[int]:
    """Where in the source they begin, less tables that stand before a picture."""
    is_it_but_for_tables(chunks, data)
    found, at = [], 0
    for chunk in chunks:
        found.append(at)
        at += len(chunk) - (0 if data.startswith(chunk, at) else 2 * PACKET)
    return found[1:]


def test_a_key_frame_is_found_where_packets_do_not_mark_it() -> None:
    data = bytearray(long_media.made(TS_RECIPES["h264"], 12))
    for at in range(0, len(data), PACKET):
        if data[at + 3] & 0x20 and data[at + 4]:
            data[at + 5] &= ~0x40
    chunks = cut(TsCutter(MOST), bytes(data))
    assert len(chunks) > 2
    is_it_but_for_tables(chunks, bytes(data))
    told([unpack_facts(media.part_of_stream(chunk).facts) for chunk in chunks])


def test_a_unit_in_every_packet_is_looked_at_no_more_than_others() -> None:
    """Of what a hostile device sends."""
    tables = long_media.made(TS_RECIPES["h264"], 12)[: 3 * PACKET]
    start = b"\0\0\1\xe0\0\0\x80\x80\5\x21\0\1\0\1"
    key = (b"\x47\x41\x00\x30\x07\x50" + bytes(6) + start).ljust(PACKET, b"\xff")
    picture = (b"\x47\x41\x00\x10" + start + b"\0\0\1\x41" * 50)[:PACKET]
    for packet in (key, picture):
        cutter = TsCutter(MOST)
        places = Places(MOST)
        cutter._places = Counted(places)  # type: ignore[assignment]
        chunks = cut(cutter, tables + packet * 20_000)
        is_it_but_for_tables(chunks, tables + packet * 20_000)
        assert cutter._places.told <= 20_000 * PACKET // APART_BYTES + 2  # type: ignore[attr-defined]


class Counted:
    """Counts what is told to it."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self.told = 0

    def at(self, place: Place) -> Iterator[Place]:
        self.told += 1
        return self._places.at(place)

    def __getattr__(self, name: str) -> object:
        return getattr(self._places, name)
