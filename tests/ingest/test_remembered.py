"""What a worker remembers of chunks' tables and pictures: bounded in bytes, whatever a device with a token sends."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import pytest

from bench.media import transport_stream
from ingest import media, pictures, ts_quick, ts_tables

PACKET = 188
SETS = b"\0\0\1\x67%b\0\0\1\x68%b\0\0\1\x65"
BOUND_BYTES = 5_000_000
"""That of docs/design.md §8."""
MEMORIES = (
    ts_tables.map_pid,
    ts_tables.program,
    pictures._described,
    ts_quick._tables,
    ts_quick._seen,
)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    for memory in MEMORIES:
        memory.cache_clear()
    yield
    for memory in MEMORIES:
        memory.cache_clear()


def packet(pid: int, payload: bytes, counter: int = 0) -> bytes:
    return bytes((0x47, 0x40 | pid >> 8, pid & 0xFF, 0x10 | counter)) + payload.ljust(PACKET - 4, b"\xff")


def association(number: int) -> bytes:
    """A program association table of which the rest of the packet is never twice the same."""
    body = b"\0\1\xc1\0\0" + bytes((0, 1, 0xE1, 0)) + b"\0\0\0\0"
    section = b"\0" + (0xB000 | len(body)).to_bytes(2, "big") + body
    return packet(0, b"\0" + section + number.to_bytes(8, "big"))


def program_map(number: int) -> bytes:
    """As many streams as there is room for, each with a PID of its own, picture and sound first."""
    kinds = [(0x1B, 0x101), (0x0F, 0x102)] + [(0x80, 0x200 + (number * 31 + i) % 7000) for i in range(31)]
    streams = b"".join(bytes((kind, 0xE0 | pid >> 8, pid & 0xFF, 0xF0, 0)) for kind, pid in kinds[:33])
    body = (b"\0\1\xc1\0\0\xe1\0\xf0\0" + number.to_bytes(4, "big") + streams)[: PACKET - 4 - 4]
    body = b"\0\1\xc1\0\0\xe1\0\xf0\4" + number.to_bytes(4, "big") + body[13:]
    return packet(0x100, b"\0\2" + (0xB000 | len(body)).to_bytes(2, "big") + body)


def frame(pid: int, stream: int, pts: int, payload: bytes) -> list[bytes]:
    time = bytes(
        (
            0x21 | pts >> 29 & 0x0E,
            pts >> 22 & 0xFF,
            1 | pts >> 14 & 0xFE,
            pts >> 7 & 0xFF,
            1 | pts << 1 & 0xFE,
        )
    )
    return [packet(pid, b"\0\0\1" + bytes((stream, 0, 0, 0x80, 0x80, 5)) + time + payload)]


def hostile(number: int) -> bytes:
    """A chunk whose tables and picture are no other one's, as large as what is remembered of it may be."""
    sets = SETS % (number.to_bytes(4, "big") + b"\x55" * 90, b"\x55" * 60)
    packets = [association(number), program_map(number)]
    packets += frame(0x101, 0xE0, 0, sets) + frame(0x102, 0xC0, 0, b"\xff\xf1")
    for at in range(1, 30):
        packets += frame(0x101, 0xE0, at * 3600, b"\0\0\1\x41") + frame(0x102, 0xC0, at * 3600, b"\xff\xf1")
    return b"".join(packets)


def test_a_device_fills_every_memory_to_a_bound_in_bytes() -> None:
    assert ts_quick.read(hostile(0)) is not None
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(3000):
        assert media.inspect(hostile(number)).facts
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for memory in MEMORIES:
        assert memory.cache_info().currsize == memory.cache_info().maxsize == 1024, memory.__name__
    assert 1_000_000 < held < BOUND_BYTES, held


def test_large_parameter_sets_and_pictures_are_not_remembered() -> None:
    """Larger than MAX_REMEMBERED_BYTES: over several packets."""
    body = transport_stream(65_536)
    for number in range(50):
        sets = SETS % (number.to_bytes(4, "big") + b"\x55" * 900, b"\x55" * 60)
        assert pictures.described(sets, pictures.H264)[0]
        assert media.inspect(bytes(body)).facts
    assert pictures._described.cache_info().currsize <= 1
