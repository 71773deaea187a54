"""The segment format: what goes in comes out, and nothing else does."""

from __future__ import annotations

import os
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Barrier

import numpy as np
import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from storage import checksums, segment
from storage.errors import CallerError, CorruptError, ObjectMissing, SegmentCorrupt
from storage.media_facts import FACTS_BYTES, NOTHING_KNOWN, unpack_facts
from storage.memory import MemoryStore
from storage.recover import load_index, load_index_of, verify_object
from storage.rows.recordings import SegmentRow, SegmentState
from storage.segment import (
    FOOTER_BYTES,
    INDEX_DTYPE,
    MAGIC,
    MAX_CHUNK_BYTES,
    MAX_SEGMENT_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    Footer,
    SegmentWriter,
    buffer_bytes,
    decrypt_chunk,
    parse_footer,
    parse_index,
    parse_segment,
    repack,
)

KEYS = {device: AESGCM(bytes([device]) * 32) for device in range(1, 5)}


@dataclass(frozen=True)
class Chunk:
    """One chunk as an upload brings it."""

    device: int
    capture_ms: int
    body: bytes
    nonce: bytes
    epoch: int = 0
    duration_ms: int = 2000
    media: int = 1
    facts: bytes = bytes(FACTS_BYTES)


chunks = st.lists(
    st.builds(
        Chunk,
        device=st.sampled_from(sorted(KEYS)),
        capture_ms=st.integers(-(2**63), 2**63 - 1),
        body=st.binary(min_size=1, max_size=300),
        nonce=st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES),
        epoch=st.integers(0, 2**32 - 1),
        duration_ms=st.integers(0, 2**32 - 1),
        media=st.integers(0, 255),
        facts=st.binary(min_size=FACTS_BYTES, max_size=FACTS_BYTES),
    ),
    max_size=12,
)


def append(writer: SegmentWriter, chunk: Chunk) -> int:
    return writer.append(
        KEYS[chunk.device],
        chunk.nonce,
        chunk.body,
        device=chunk.device,
        capture_ms=chunk.capture_ms,
        epoch=chunk.epoch,
        duration_ms=chunk.duration_ms,
        crc32=checksums.crc32(chunk.body),
        crc64=checksums.crc64nvme(chunk.body),
        media=chunk.media,
        facts=chunk.facts,
    )


def sealed(these: list[Chunk], capacity: int = 64 * 1024) -> tuple[bytes, int]:
    writer = SegmentWriter(bytearray(capacity))
    for ordinal, chunk in enumerate(these):
        assert writer.fits(len(chunk.body))
        assert append(writer, chunk) == ordinal
    body, crc32 = writer.seal(class_days=31, expires_on=20_000, segment_id=7)
    return bytes(body), crc32


def read_back(data: bytes, index: np.ndarray) -> list[Chunk]:
    found = []
    for row in index:
        offset, length = int(row["offset"]), int(row["length"])
        device, capture_ms = int(row["device"]), int(row["capture_ms"])
        nonce = row["nonce"].tobytes()
        body = decrypt_chunk(
            KEYS[device],
            nonce,
            data[offset : offset + length + TAG_BYTES],
            device=device,
            capture_ms=capture_ms,
        )
        assert checksums.crc32(body) == row["crc32"]
        assert checksums.crc64nvme(body) == row["crc64"]
        numbers = int(row["epoch"]), int(row["duration_ms"]), int(row["media"])
        found.append(Chunk(device, capture_ms, body, nonce, *numbers, row["facts"].tobytes()))
    return found


SAMPLE = [
    Chunk(1 + i % 4, 1_700_000_000_000 + i, os.urandom(10 + 7 * i), os.urandom(NONCE_BYTES)) for i in range(5)
]


# --- round trip ---------------------------------------------------------------------------------------------


def test_threads_seal_at_once() -> None:
    """Each has a compressor of its own, kept for its next segment."""
    with ThreadPoolExecutor(4) as pool:
        segments = list(pool.map(lambda n: sealed(SAMPLE[: 1 + n % 5])[0], range(200)))
    for n, data in enumerate(segments):
        assert read_back(data, parse_segment(data)[1]) == SAMPLE[: 1 + n % 5]


def test_no_two_threads_have_one_compressor() -> None:
    """Compiled, a subclass of `threading.local` had one for all: indexes of objects were mixed up, or none was made."""
    all_here = Barrier(4)

    def ask(_: int) -> tuple[object, object]:
        all_here.wait()
        return segment.compressor(), segment.compressor()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert all(one is again for one, again in found), "made once a thread"
    assert len({id(one) for one, _ in found}) == 4


@given(chunks)
def test_any_mix_of_chunks_comes_back(these: list[Chunk]) -> None:
    data, crc32 = sealed(these)
    footer, index = parse_segment(data)
    assert read_back(data, index) == these
    assert crc32 == checksums.crc32(data)
    assert (footer.class_days, footer.expires_on, footer.chunks, footer.segment_id) == (
        31,
        20_000,
        len(these),
        7,
    )


@given(chunks)
def test_the_tail_alone_gives_the_same_index(these: list[Chunk]) -> None:
    data, _ = sealed(these)
    footer = parse_footer(data[-FOOTER_BYTES:], len(data))
    index = parse_index(data[footer.index_offset : -FOOTER_BYTES], footer)
    assert (footer, index.tobytes()) == (parse_segment(data)[0], parse_segment(data)[1].tobytes())
    assert not index.flags.writeable


def test_the_index_before_sealing_is_that_of_the_object() -> None:
    writer = SegmentWriter(bytearray(64 * 1024))
    for chunk in SAMPLE:
        append(writer, chunk)
    index = writer.index()
    data, _ = writer.seal(class_days=1, expires_on=1, segment_id=1)
    assert parse_segment(data)[1].tobytes() == index.tobytes()


# --- damage -------------------------------------------------------------------------------------------------


@given(chunks, st.data())
def test_any_truncation_is_refused(these: list[Chunk], data: st.DataObject) -> None:
    whole, _ = sealed(these)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(SegmentCorrupt):
        parse_segment(cut)
    with pytest.raises(SegmentCorrupt):
        parse_footer(cut[-FOOTER_BYTES:], len(cut))


@given(chunks, st.data())
def test_any_flipped_bit_is_refused(these: list[Chunk], data: st.DataObject) -> None:
    flipped = bytearray(sealed(these)[0])
    place = data.draw(st.integers(0, len(flipped) * 8 - 1))
    flipped[place // 8] ^= 1 << place % 8
    with pytest.raises(SegmentCorrupt):
        parse_segment(flipped)


def test_every_flipped_bit_of_the_tail_is_refused() -> None:
    whole, _ = sealed(SAMPLE[:2])
    offset = parse_segment(whole)[0].index_offset
    for place in range(offset * 8, len(whole) * 8):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(SegmentCorrupt):
            load_index(stored(bytes(flipped)), KEY)  # by footer and index alone: the body is not looked at


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, MAGIC + noise, MAGIC + noise + segment.FOOTER_MAGIC + noise[:56].ljust(56, b"\0")):
        with pytest.raises(SegmentCorrupt):
            parse_segment(data)


def test_bytes_in_excess_are_refused() -> None:
    whole, _ = sealed(SAMPLE)
    for data in (whole + b"\0", b"\0" + whole, whole + whole, MAGIC + whole):
        with pytest.raises(SegmentCorrupt):
            parse_segment(data)


def footer_of(index: np.ndarray, compressed: bytes, **changes: int) -> Footer:
    end = len(MAGIC) + int((index["length"].astype(np.int64) + TAG_BYTES).sum())
    fields = {
        "class_days": 1,
        "expires_on": 1,
        "chunks": len(index),
        "index_offset": end,
        "index_bytes": len(compressed),
        "index_crc32": checksums.crc32(compressed),
        "body_crc32": 0,
        "segment_id": 1,
    }
    return Footer(**{**fields, **changes})


def rows(*lengths: int) -> np.ndarray:
    index = np.zeros(len(lengths), INDEX_DTYPE)
    index["length"] = lengths
    places = np.cumsum([len(MAGIC), *(n + TAG_BYTES for n in lengths)])
    index["offset"] = places[:-1]
    return index


@pytest.mark.parametrize(
    "index",
    [rows(10, 0), rows(MAX_CHUNK_BYTES + 1), rows(10, 20)[::-1].copy(), rows(10, 20)[1:].copy()],
    ids=["empty chunk", "too large", "out of order", "a gap"],
)
def test_an_index_that_checks_out_but_makes_no_sense_is_refused(index: np.ndarray) -> None:
    compressed = zstandard.ZstdCompressor().compress(index.tobytes())
    with pytest.raises(SegmentCorrupt):
        parse_index(compressed, footer_of(index, compressed))


def test_an_index_of_another_size_than_the_footer_says_is_refused_before_it_is_unpacked() -> None:
    index = rows(10, 20)
    huge = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    without_size = zstandard.ZstdCompressor(write_content_size=False).compress(index.tobytes())
    for compressed in (huge, without_size, b"not zstd at all"):
        with pytest.raises(SegmentCorrupt):
            parse_index(compressed, footer_of(index, compressed))


def test_another_version_says_so() -> None:
    whole = bytearray(sealed(SAMPLE)[0])
    whole[-FOOTER_BYTES + 8] = segment.VERSION + 1
    whole[-4:] = checksums.crc32(whole[-FOOTER_BYTES:-4]).to_bytes(4, "little")
    with pytest.raises(SegmentCorrupt, match="version 3: this release reads up to 2"):
        parse_segment(whole)


def as_version_1(whole: bytes) -> bytes:
    """The same segment as the releases before facts wrote it."""
    footer, index = parse_segment(whole)
    old = struct.Struct("<qQIIIIII12sB3x")
    rows = b"".join(
        old.pack(*(row[name].item() for name in INDEX_DTYPE.names[:8]), row["nonce"].tobytes(), row["media"])
        for row in index
    )
    compressed = zstandard.ZstdCompressor().compress(rows)
    tail = struct.pack(
        "<8sHHIIIIIIQ16x",
        *(b"CLIPEND1", 1, footer.class_days, footer.expires_on, footer.chunks, footer.index_offset),
        *(len(compressed), checksums.crc32(compressed), footer.body_crc32, footer.segment_id),
    )
    return whole[: footer.index_offset] + compressed + tail + checksums.crc32(tail).to_bytes(4, "little")


def test_a_segment_of_version_1_is_read_and_rewritten() -> None:
    old = as_version_1(sealed(SAMPLE)[0])
    footer, index = parse_segment(old)
    assert (footer.version, index.dtype, index.flags.writeable) == (1, INDEX_DTYPE, False)
    assert read_back(old, index) == SAMPLE
    assert {unpack_facts(row["facts"].tobytes()) for row in index} == {NOTHING_KNOWN}
    store = MemoryStore()
    store.put("old", old, checksums.crc32(old))
    assert load_index(store, "old")[1].tobytes() == index.tobytes()
    anew, _, moved = repack(old, index, np.arange(2), class_days=31, expires_on=20_000, segment_id=8)
    assert parse_segment(anew)[0].version == segment.VERSION
    assert read_back(bytes(anew), moved) == SAMPLE[:2]


def test_an_object_too_large_to_be_a_segment_is_refused_by_its_size() -> None:
    fields = parse_segment(sealed([])[0])[0]
    tail = segment._FOOTER.pack(
        segment.FOOTER_MAGIC, 1, 1, 1, 0, MAX_SEGMENT_BYTES, fields.index_bytes, fields.index_crc32, 0, 1
    )
    tail += checksums.crc32(tail).to_bytes(4, "little")
    with pytest.raises(SegmentCorrupt):
        parse_footer(tail, MAX_SEGMENT_BYTES + fields.index_bytes + FOOTER_BYTES)


# --- a chunk decrypts only as itself ------------------------------------------------------------------------


@given(st.integers(0, 4), st.integers(0, 4))
def test_invariant_11_a_chunk_decrypts_only_as_itself(mine: int, other: int) -> None:
    """Invariant 11: with any part of another chunk's identity, even under the same key, it fails."""
    data, _ = sealed(SAMPLE)
    index = parse_segment(data)[1]
    row, wrong = index[mine], SAMPLE[other]
    chunk = SAMPLE[mine]
    stored = data[int(row["offset"]) : int(row["offset"]) + int(row["length"]) + TAG_BYTES]
    key = KEYS[chunk.device]

    def decrypts(cipher: AESGCM, nonce: bytes, device: int, capture_ms: int) -> bool:
        try:
            return decrypt_chunk(cipher, nonce, stored, device=device, capture_ms=capture_ms) == chunk.body
        except CorruptError:
            return False

    assert decrypts(key, chunk.nonce, chunk.device, chunk.capture_ms)
    same = mine == other
    assert decrypts(key, chunk.nonce, chunk.device, wrong.capture_ms) is same
    assert decrypts(key, wrong.nonce, chunk.device, chunk.capture_ms) is same
    assert decrypts(key, chunk.nonce, wrong.device, chunk.capture_ms) is (wrong.device == chunk.device)
    assert decrypts(KEYS[wrong.device], chunk.nonce, chunk.device, chunk.capture_ms) is (
        wrong.device == chunk.device
    )


@pytest.mark.parametrize("stored", [b"", b"x" * 15, b"x" * 16, b"x" * 40])
@pytest.mark.parametrize("nonce", [b"", b"n" * 7, b"n" * 12])
def test_a_row_or_body_of_impossible_size_is_corrupt_not_a_crash(nonce: bytes, stored: bytes) -> None:
    with pytest.raises(CorruptError):
        decrypt_chunk(KEYS[1], nonce, stored, device=1, capture_ms=1)


# --- the writer's bounds ------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 200), max_size=30), st.integers(300, 4000))
def test_what_fits_can_be_sealed(lengths: list[int], capacity: int) -> None:
    """Whatever is appended while `fits` says so, sealing never overflows."""
    writer = SegmentWriter(bytearray(capacity))
    added = 0
    for ordinal, length in enumerate(lengths):
        if writer.fits(length):
            append(writer, Chunk(1, ordinal, os.urandom(length), os.urandom(NONCE_BYTES)))
            added += 1
    data, _ = writer.seal(class_days=1, expires_on=1, segment_id=1)
    assert len(data) <= capacity
    assert parse_segment(data)[0].chunks == added


@pytest.mark.parametrize("already", [0, 1, 40])
def test_fits_by_one_byte(already: int) -> None:
    """The largest chunk that fits does, one byte more does not; and its index is random, the worst to compress."""
    capacity = 16 * 1024
    writer = SegmentWriter(bytearray(capacity))

    def random_chunk(length: int) -> Chunk:
        epoch, duration_ms, capture_ms = (int.from_bytes(os.urandom(n), "little") for n in (4, 4, 7))
        nonce, media = os.urandom(NONCE_BYTES), os.urandom(1)[0]
        return Chunk(1, capture_ms, os.urandom(length), nonce, epoch, duration_ms, media)

    for _ in range(already):
        append(writer, random_chunk(50))
    largest = max(n for n in range(capacity) if writer.fits(n))
    assert not writer.fits(largest + 1)
    append(writer, random_chunk(largest))
    assert not writer.fits(1)
    data, _ = writer.seal(class_days=1, expires_on=1, segment_id=1)
    # The reserve for an index that does not compress is all that can be left over.
    assert capacity - 1024 - 30 * (already + 1) < len(data) <= capacity
    parse_segment(data)


def test_the_buffer_of_a_target_takes_the_last_chunk() -> None:
    """A segment one byte short of its target still takes the largest chunk."""
    target, largest = 256 * 1024, 64 * 1024
    writer = SegmentWriter(bytearray(buffer_bytes(target, largest)))
    while writer.used_bytes < target - 4096 - TAG_BYTES:
        assert writer.fits(4096)
        append(writer, Chunk(1, writer.chunks, bytes(4096), os.urandom(NONCE_BYTES)))
    append(writer, Chunk(1, -1, bytes(target - writer.used_bytes - TAG_BYTES - 1), os.urandom(NONCE_BYTES)))
    assert writer.used_bytes == target - 1
    assert writer.fits(largest)
    append(writer, Chunk(1, -2, bytes(largest), os.urandom(NONCE_BYTES)))
    parse_segment(writer.seal(class_days=1, expires_on=1, segment_id=1)[0])


@pytest.mark.parametrize(
    ("length", "nonce_bytes"), [(0, 12), (MAX_CHUNK_BYTES + 1, 12), (10, 8), (10, 11), (10, 13), (10, 16)]
)
def test_what_no_reader_would_take_back_is_not_written(length: int, nonce_bytes: int) -> None:
    writer = SegmentWriter(bytearray(MAX_CHUNK_BYTES + 4096))
    with pytest.raises(CallerError):
        append(writer, Chunk(1, 1, bytes(length), bytes(nonce_bytes)))
    assert (writer.chunks, writer.used_bytes) == (0, len(MAGIC))


def test_the_largest_chunk_is_written() -> None:
    writer = SegmentWriter(bytearray(buffer_bytes(0, MAX_CHUNK_BYTES)))
    assert writer.fits(MAX_CHUNK_BYTES)
    append(writer, Chunk(1, 1, bytes(MAX_CHUNK_BYTES), bytes(NONCE_BYTES)))
    data, _ = writer.seal(class_days=1, expires_on=1, segment_id=1)
    assert parse_segment(data)[1]["length"][0] == MAX_CHUNK_BYTES


def test_a_buffer_above_what_readers_take_is_refused() -> None:
    class Large(bytearray):
        def __len__(self) -> int:
            return MAX_SEGMENT_BYTES + 1

    with pytest.raises(CallerError):
        SegmentWriter(Large())


@pytest.mark.parametrize(("filled", "in_place"), [(0.4, False), (0.6, True), (0.95, True)])
def test_sealing_keeps_the_memory_of_the_buffer(filled: float, in_place: bool) -> None:
    """More than half full it is shortened in place, else the used part is copied; either way its memory stays."""
    capacity = 64 * 1024
    buffer = bytearray(capacity)
    room = buffer.__sizeof__()
    writer = SegmentWriter(buffer)
    append(writer, Chunk(1, 1, bytes(int(capacity * filled)), bytes(NONCE_BYTES)))
    data, crc32 = writer.seal(class_days=1, expires_on=1, segment_id=1)
    assert (data is buffer) is in_place
    assert crc32 == checksums.crc32(data)
    parse_segment(data)
    assert buffer.__sizeof__() == room
    shortened = len(buffer)
    again = SegmentWriter(buffer, capacity)
    append(again, SAMPLE[0])
    assert len(buffer) == shortened, "not lengthened before there is need"
    largest = Chunk(1, 2, bytes(capacity - again.used_bytes - 600), bytes(NONCE_BYTES))
    assert again.fits(len(largest.body))
    append(again, largest)
    assert (len(buffer), buffer.__sizeof__()) == (capacity, room)
    data, crc32 = again.seal(class_days=1, expires_on=1, segment_id=1)
    assert crc32 == checksums.crc32(data)
    assert parse_segment(data)[0].chunks == 2
    assert buffer.__sizeof__() == room


def test_the_end_of_a_segment_may_need_the_last_of_a_shortened_buffer() -> None:
    capacity = 64 * 1024
    buffer = bytearray(capacity)
    writer = SegmentWriter(buffer)
    append(writer, Chunk(1, 1, bytes(40_000), bytes(NONCE_BYTES)))
    writer.seal(class_days=1, expires_on=1, segment_id=1)
    again = SegmentWriter(buffer, capacity)
    append(again, Chunk(1, 1, bytes(len(buffer) - 8 - TAG_BYTES), bytes(NONCE_BYTES)))
    assert again.used_bytes == len(buffer) < capacity
    parse_segment(again.seal(class_days=1, expires_on=1, segment_id=1)[0])


@given(st.integers(300, 3000), st.integers(1, 3000))
def test_sealing_at_exactly_half_keeps_the_memory(capacity: int, length: int) -> None:
    buffer = bytearray(capacity)
    room = buffer.__sizeof__()
    writer = SegmentWriter(buffer)
    if writer.fits(length):
        append(writer, Chunk(1, 1, bytes(length), bytes(NONCE_BYTES)))
    writer.seal(class_days=1, expires_on=1, segment_id=1)
    assert buffer.__sizeof__() == room


# --- recovery from the object alone -------------------------------------------------------------------------


KEY = "v1/31/2024-10-04/w0/a"


def stored(data: bytes) -> MemoryStore:
    store = MemoryStore()
    store.objects[KEY] = data
    return store


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.reads.append(length)
        return super().get_range(key, start, length)


def test_the_index_is_read_with_two_small_ranges() -> None:
    data, crc32 = sealed([Chunk(1, 1, os.urandom(50_000), os.urandom(NONCE_BYTES))])
    store = CountingStore()
    store.put(KEY, bytearray(data), crc32)
    footer, index = load_index(store, KEY)
    assert store.reads == [FOOTER_BYTES, footer.index_bytes]
    assert index.tobytes() == parse_segment(data)[1].tobytes()
    assert [row.tobytes() for row in verify_object(store, KEY)[1]] == [row.tobytes() for row in index]


@given(st.data())
def test_a_damaged_object_is_refused_by_verify_and_never_misread_by_load(data: st.DataObject) -> None:
    whole, _ = sealed(SAMPLE)
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    if len(damaged) == len(whole):
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SegmentCorrupt) as caught:
        verify_object(stored(bytes(damaged)), KEY)
    assert caught.value.subject == KEY
    with suppress(SegmentCorrupt):  # no other error, unless the damage is in a body: its tag will tell
        assert load_index(stored(bytes(damaged)), KEY)[1].tobytes() == parse_segment(whole)[1].tobytes()


def test_a_missing_object_is_missing_and_a_small_one_corrupt() -> None:
    for read in (load_index, verify_object):
        with pytest.raises(ObjectMissing):
            read(MemoryStore(), KEY)
        for size in (0, 1, segment.MIN_SEGMENT_BYTES - 1, segment.MIN_SEGMENT_BYTES):
            with pytest.raises(SegmentCorrupt):
                read(stored(bytes(size)), KEY)


def test_an_object_is_taken_for_a_segment_row_only_when_it_is_that_segment() -> None:
    store = stored(sealed(SAMPLE)[0])

    def row(segment_id: int = 7, expires_on: int = 20_000, count: int = len(SAMPLE)) -> SegmentRow:
        state = SegmentState.COMMITTED
        return SegmentRow(segment_id, KEY, 31, expires_on, state, 0, 0, count, count, 0, b"")

    assert len(load_index_of(store, row())) == len(SAMPLE)
    for other in (row(segment_id=8), row(expires_on=20_001), row(count=4)):
        with pytest.raises(SegmentCorrupt, match="the catalog says"):
            load_index_of(store, other)
