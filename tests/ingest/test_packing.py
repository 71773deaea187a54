"""Open segments: what goes in, when they are sealed, and how many there may be."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.gathering import GATHER_DAYS, GATHER_WAIT_S, Gathering
from ingest.packing import FEW_CHUNKS, FEW_CHUNKS_STRETCH, Chunk, OpenSegment, Packer
from storage import checksums
from storage.errors import CorruptError
from storage.segment import (
    MAX_CHUNK_BYTES,
    TAG_BYTES,
    buffer_bytes,
    decrypt_chunk,
    parse_segment,
)
from tests.ingest.world import NOW_MS, TODAY, video

CIPHER = AESGCM(bytes(32))
TARGET = 100_000
"""Of few chunks."""
DAY = TODAY + 31


def chunk_of(data: bytes, *, device: int = 1, capture_ms: int = NOW_MS, expires_on: int = DAY) -> Chunk:
    return Chunk(
        device=device,
        capture_ms=capture_ms,
        epoch=0,
        class_days=30,
        expires_on=expires_on,
        duration_ms=4000,
        crc32=checksums.crc32(data),
        crc64=checksums.crc64nvme(data),
        media=1,
        length=len(data),
        facts=b"",
        moves_left=0,
        done=lambda outcome, now_s: None,
    )


class Packing:
    """A packer and what it sealed."""

    def __init__(self, max_segments: int = 4, target_bytes: int = TARGET) -> None:
        self.sealed: list[OpenSegment] = []
        self.gathering = Gathering()
        self.packer = Packer(
            round(target_bytes / FEW_CHUNKS_STRETCH),
            max_segments,
            gathering=self.gathering,
            cached=lambda key_id: CIPHER,
            opened=lambda: None,
            sealed=self.sealed.append,
        )

    def add(self, data: bytes, *, now_s: float = 0.0, **fields: int) -> bool:
        return self.packer.pack_now(chunk_of(data, **fields), memoryview(data), now_s)

    def finish(self, segment: OpenSegment) -> bytes:
        """What a thread and the end of an upload do with a sealed segment. Returns the object."""
        body, crc32 = segment.writer.seal(
            class_days=segment.class_days, expires_on=segment.expires_on, segment_id=1
        )
        assert checksums.crc32(body) == crc32
        kept = bytes(body)
        self.packer.recycle(segment)
        return kept


async def nobody() -> None:
    raise AssertionError("packed by nobody")


def bodies(data: bytes) -> list[bytes]:
    _, index = parse_segment(data)
    found = []
    for row in index:
        start, length = int(row["offset"]), int(row["length"])
        stored = data[start : start + length + TAG_BYTES]
        found.append(
            decrypt_chunk(
                CIPHER,
                row["nonce"].tobytes(),
                stored,
                device=int(row["device"]),
                capture_ms=int(row["capture_ms"]),
            )
        )
    return found


def test_chunks_come_back_in_order_with_all_that_was_said_of_them() -> None:
    packing = Packing()
    videos = [video(500, seed) for seed in range(3)]
    for number, data in enumerate(videos):
        assert packing.add(data, device=number + 1, capture_ms=NOW_MS + number)
    assert not packing.sealed
    packing.packer.seal_older_than(0.0)
    (segment,) = packing.sealed
    assert [chunk.device for chunk in segment.chunks] == [1, 2, 3]
    data = packing.finish(segment)
    assert bodies(data) == videos
    footer, index = parse_segment(data)
    assert (footer.class_days, footer.expires_on) == (30, DAY)
    assert index["duration_ms"].tolist() == [4000] * 3
    assert index["crc64"].tolist() == [checksums.crc64nvme(data) for data in videos]


def test_a_chunk_decrypts_only_as_itself() -> None:
    """Invariant 11: device and capture time are authenticated, and no nonce comes twice."""
    packing = Packing()
    same = video(500)
    packing.add(same, device=1)
    packing.add(same, device=2)
    packing.packer.seal_older_than(0.0)
    data = packing.finish(packing.sealed[0])
    _, index = parse_segment(data)
    first, second = (data[int(r["offset"]) : int(r["offset"]) + 500 + TAG_BYTES] for r in index)
    assert first != second
    nonces = {row["nonce"].tobytes() for row in index}
    assert len(nonces) == 2
    nonce = index[0]["nonce"].tobytes()
    assert decrypt_chunk(CIPHER, nonce, first, device=1, capture_ms=NOW_MS) == same
    for device, capture_ms, stored in ((2, NOW_MS, first), (1, NOW_MS + 1, first), (1, NOW_MS, second)):
        with pytest.raises(CorruptError):
            decrypt_chunk(CIPHER, nonce, stored, device=device, capture_ms=capture_ms)


def test_a_segment_per_expiry_day() -> None:
    """Days are never mixed: an object expires as a whole."""
    packing = Packing()
    for day in (DAY, DAY + 1, DAY):
        packing.add(video(500), expires_on=day)
    packing.packer.seal_older_than(0.0)
    assert sorted((s.expires_on, len(s.chunks)) for s in packing.sealed) == [(DAY, 2), (DAY + 1, 1)]


@pytest.mark.parametrize(
    ("length", "fewest_bytes", "chunks"), [(TARGET // 8, TARGET, 8), (680, TARGET // 2, 96)]
)
def test_few_large_chunks_go_on_past_the_target_of_many_small_ones(
    length: int, fewest_bytes: int, chunks: int
) -> None:
    """What a segment costs, whatever is in it, is to be shared by enough chunks."""
    packing = Packing()
    sent = 0
    while not packing.sealed:
        assert packing.add(video(length), capture_ms=NOW_MS + sent)
        sent += 1
    [segment] = packing.sealed
    assert len(segment.chunks) == sent == chunks
    assert segment.writer.used_bytes >= fewest_bytes
    assert (segment.writer.used_bytes < TARGET) == (chunks >= FEW_CHUNKS)


def test_a_segment_at_its_target_is_sealed_at_once() -> None:
    packing = Packing()
    packing.add(video(TARGET - 200))
    assert not packing.sealed
    packing.add(video(200))
    assert [len(s.chunks) for s in packing.sealed] == [2]


def test_a_chunk_that_does_not_fit_begins_another_segment() -> None:
    packing = Packing(target_bytes=100_000)
    packing.add(video(90_000))
    packing.add(video(2_000_000))
    assert [len(s.chunks) for s in packing.sealed] == [1, 1]
    assert [s.oversize for s in packing.sealed] == [False, True]
    assert [bodies(packing.finish(s)) for s in packing.sealed] == [[video(90_000)], [video(2_000_000)]]


@pytest.mark.parametrize("beyond", [-1, 0, 1, 2])
def test_the_edge_between_an_ordinary_and_an_oversize_chunk(beyond: int) -> None:
    """Whatever its size, a chunk fits the buffer that was made for it."""
    length = 1
    while buffer_bytes(length + 1, 0) <= buffer_bytes(TARGET):
        length += max(1, (buffer_bytes(TARGET) - buffer_bytes(length, 0)) // 2)
    packing = Packing()
    data = video(length + beyond)
    assert packing.add(data)
    assert packing.sealed[0].oversize == (beyond > 0)
    assert bodies(packing.finish(packing.sealed[0])) == [data]


def test_the_largest_chunk_goes_into_a_segment_of_its_own() -> None:
    packing = Packing()
    data = video(MAX_CHUNK_BYTES)
    assert packing.add(data)
    assert bodies(packing.finish(packing.sealed[0])) == [data]
    assert not packing.packer._free, "its buffer is not kept"


def test_linger_is_that_of_the_oldest_chunk() -> None:
    packing = Packing()
    packing.add(video(500), now_s=10.0)
    packing.add(video(500), now_s=19.0)
    packing.add(video(500), now_s=15.0, expires_on=DAY + 1)
    assert packing.packer.seal_older_than(9.9) == 10.0
    assert not packing.sealed
    assert packing.packer.seal_older_than(10.0) == 15.0
    assert [len(s.chunks) for s in packing.sealed] == [2]
    assert packing.packer.seal_older_than(20.0) is None
    assert len(packing.sealed) == 2


def test_no_more_segments_than_allowed() -> None:
    """Open and on their way together; what has no room waits for one to end."""
    packing = Packing(max_segments=2)
    assert packing.add(video(TARGET))
    assert packing.add(video(TARGET))
    assert len(packing.sealed) == packing.packer.in_use == 2
    assert not packing.add(video(500))
    packing.finish(packing.sealed[0])
    assert packing.add(video(500))
    assert packing.add(video(500)), "an open segment takes more, however many are under way"
    assert not packing.add(video(500), expires_on=DAY + 1)


def test_segments_that_are_all_open_give_way() -> None:
    """None of them would end by itself before its linger: the oldest is sealed to make room."""
    packing = Packing(max_segments=2)
    packing.add(video(500), expires_on=DAY, now_s=2.0)
    packing.add(video(500), expires_on=DAY + 1, now_s=1.0)
    assert not packing.add(video(500), expires_on=DAY + 2, now_s=3.0)
    assert [s.expires_on for s in packing.sealed] == [DAY + 1]
    assert not packing.add(video(500), expires_on=DAY + 2, now_s=3.0), "one is enough"
    assert len(packing.sealed) == 1
    packing.finish(packing.sealed[0])
    assert packing.add(video(500), expires_on=DAY + 2, now_s=3.0)


def test_buffers_are_reused_at_their_full_length() -> None:
    packing = Packing(max_segments=1)
    packing.add(video(TARGET))
    buffer = packing.sealed[0].buffer
    packing.finish(packing.sealed[0])
    packing.add(video(500))
    packing.packer.seal_older_than(0.0)
    assert packing.sealed[1].buffer is buffer
    assert len(buffer) == buffer_bytes(TARGET)
    assert bodies(packing.finish(packing.sealed[1])) == [video(500)], "nothing of its former content is left"


def test_a_segment_that_was_never_sealed_into_an_object_gives_its_buffer_back_too() -> None:
    """As when no key could be prepared for it."""
    packing = Packing(max_segments=1)
    packing.add(video(TARGET))
    packing.packer.recycle(packing.sealed[0])
    assert packing.packer.in_use == 0
    assert packing.add(video(TARGET))
    assert bodies(packing.finish(packing.sealed[1])) == [video(TARGET)]


sizes = st.one_of(st.integers(1, 3000), st.integers(90_000, 110_000), st.integers(1_090_000, 1_200_000))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(sizes, st.integers(0, 2), st.booleans()), max_size=25))
def test_every_chunk_comes_out_once_whatever_the_mix(chunks: Iterable[tuple[int, int, bool]]) -> None:
    packing = Packing(max_segments=3)
    expected: dict[int, tuple[int, bytes]] = {}
    found: dict[int, tuple[int, bytes]] = {}

    def finish_all() -> None:
        for segment in packing.sealed:
            numbers = [chunk.device for chunk in segment.chunks]
            for number, body in zip(numbers, bodies(packing.finish(segment)), strict=True):
                assert number not in found
                found[number] = (segment.expires_on, body)
        packing.sealed.clear()

    for number, (size, day, finish) in enumerate(chunks):
        data = video(size, number)
        if finish:
            finish_all()
        if not packing.add(data, device=number, expires_on=DAY + day):
            finish_all()
            assert packing.add(data, device=number, expires_on=DAY + day)
        assert packing.packer.in_use <= 3
        expected[number] = (DAY + day, data)
    packing.packer.seal_older_than(0.0)
    finish_all()
    assert found == expected
    assert packing.packer.in_use == 0


def test_a_device_opens_segments_of_few_days_at_will() -> None:
    packing = Packing(max_segments=100)
    days = range(DAY, DAY + 58)
    taken = [day for day in days if packing.add(video(188), expires_on=day)]
    assert taken == list(days[:GATHER_DAYS]), "the others wait"
    assert packing.add(video(188), expires_on=DAY), "what is open takes more of it"
    assert packing.add(video(188), device=2, expires_on=days[-1]), "others are not kept waiting"
    assert packing.add(video(188), expires_on=days[-1]), "what others opened takes it"
    packing.packer.seal_older_than(0.0)
    assert packing.add(video(188), expires_on=DAY, now_s=1.0), "one of its days"
    packing.packer.seal_older_than(1.0)
    assert not packing.add(video(188), expires_on=days[20], now_s=1.0), "sealed ones count as well"
    assert packing.add(video(188), expires_on=days[20], now_s=GATHER_WAIT_S), "but for so long"


def test_a_segment_that_one_device_waits_for_another_device_opens() -> None:
    """Nobody makes others wait."""
    packing = Packing(max_segments=100)
    for day in range(GATHER_DAYS):
        assert packing.add(video(188), expires_on=DAY + day)
    place = (30, DAY + 9)
    assert packing.gathering.hold(1, place, 188, nobody, 0.0)
    assert packing.gathering.next_due_s() == GATHER_WAIT_S
    assert packing.add(video(188), device=2, expires_on=DAY + 9)
    assert packing.gathering.next_due_s() < 0, "it joins at once"
