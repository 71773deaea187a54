"""The memory of bodies: grown, reused, and not spent before it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.body import Body
from ingest.buffers import SMALLEST_BYTES, BufferPool

MIB = 1024 * 1024


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (1, SMALLEST_BYTES),
        (SMALLEST_BYTES, SMALLEST_BYTES),
        (SMALLEST_BYTES + 1, 2 * SMALLEST_BYTES),
        (MIB, MIB),
        (16 * MIB, 16 * MIB),
    ],
)
def test_buffers_come_in_powers_of_two(size: int, length: int) -> None:
    assert BufferPool().take(size).length == length


def test_a_buffer_given_back_is_used_again_for_its_size() -> None:
    pool = BufferPool()
    first = pool.take(MIB)
    assert pool.take(MIB) is not first
    pool.give(first)
    assert pool.take(2 * MIB) is not first
    assert pool.take(MIB - 5) is first
    assert pool.take(MIB) is not first


def test_what_is_kept_is_bounded() -> None:
    pool = BufferPool(kept_bytes=2 * MIB)
    buffers = [pool.take(MIB) for _ in range(3)]
    for buffer in buffers:
        pool.give(buffer)
    again = [pool.take(MIB) for _ in range(3)]
    assert sum(any(buffer is old for old in buffers) for buffer in again) == 2
    for buffer in again:
        pool.give(buffer)  # what was taken out is counted out
    third = [pool.take(MIB) for _ in range(3)]
    assert sum(any(buffer is old for old in again) for buffer in third) == 2


def test_what_is_lent_counts_and_other_sizes_give_way() -> None:
    """Lent and free together stay within the bound, whatever sizes come."""
    pool = BufferPool(kept_bytes=4 * MIB)
    small = [pool.take(MIB) for _ in range(4)]
    for buffer in small:
        pool.give(buffer)
    assert pool._free_bytes == 4 * MIB
    large = pool.take(2 * MIB)
    assert pool._free_bytes == 2 * MIB, "two small ones have given way"
    pool.give(large)
    assert pool._free_bytes == 4 * MIB


def test_what_nobody_used_since_the_last_trim_goes_back() -> None:
    pool = BufferPool(kept_bytes=8 * MIB)
    for buffer in [pool.take(MIB) for _ in range(4)]:
        pool.give(buffer)
    pool.trim()
    assert pool._free_bytes == 4 * MIB, "they were in use since"
    first, second = pool.take(MIB), pool.take(MIB)
    pool.give(first)
    pool.give(second)
    pool.trim()
    assert pool._free_bytes == 2 * MIB
    pool.trim()
    assert pool._free_bytes == 0


def test_memory_is_only_taken_where_it_is_written() -> None:
    """Invariant 15: a head that announces 16 MiB, and nothing after it, costs next to nothing."""
    pool = BufferPool()
    before = resident_bytes()
    bodies = [Body(pool, 16 * MIB) for _ in range(32)]
    for body in bodies:
        body.append(b"x")
        body.tail(SMALLEST_BYTES)[:] = bytes(SMALLEST_BYTES)
        body.received(SMALLEST_BYTES)
    assert resident_bytes() - before < 32 * MIB
    for body in bodies:
        body.release()


@given(
    st.lists(st.binary(max_size=300), max_size=30),
    st.integers(0, 100),
    st.sampled_from([None, 0, 5, 200_000]),
)
def test_a_body_is_what_was_put_into_it(
    pieces: list[bytes], blow_up: int, content_length: int | None
) -> None:
    """Whether it was appended or received into its tail, whatever length was announced."""
    pool = BufferPool()
    body = Body(pool, content_length)
    expected = b""
    for number, piece in enumerate(pieces):
        piece = piece * (blow_up + 1)
        if number % 3 == 2 and piece:
            body.tail(len(piece))[:] = piece
            body.received(len(piece))
        else:
            body.append(piece)
        expected += piece
        assert body.length == len(expected)
    data = body.data()
    assert bytes(data) == expected
    data.release()
    body.release()


def test_a_body_that_came_in_one_piece_takes_no_buffer() -> None:
    pool = BufferPool()
    piece = b"all of it"
    body = Body(pool, len(piece))
    body.append(piece)
    assert body.data().obj is piece
    body.release()
    assert not pool._free


def test_a_tail_received_short_loses_nothing() -> None:
    body = Body(BufferPool(), 10)
    body.tail(10)[:4] = b"abcd"
    body.received(4)
    body.tail(6)[:] = b"efghij"
    body.received(6)
    assert bytes(body.data()) == b"abcdefghij"


def test_growing_and_releasing_give_the_memory_back() -> None:
    pool = BufferPool()
    body = Body(pool, None)
    for _ in range(100):
        body.append(b"x" * 10_000)
    body.release()
    body.release()  # harmless: a connection that ends may have dropped it already
    kept = {length: len(buffers) for length, buffers in pool._free.items()}
    assert kept == {SMALLEST_BYTES << n: 1 for n in range(5)}
    assert sum(length * count for length, count in kept.items()) == pool._free_bytes


def test_spare_pages_are_given_back_when_the_budget_needs_them() -> None:
    """Of free buffers, and of lent ones what their body has not reached; never what a body holds."""
    pool = BufferPool(kept_bytes=8 * MIB)
    large = [Body(pool, 4 * MIB) for _ in range(2)]
    for body in large:
        body.tail(4 * MIB)[:] = bytes(4 * MIB)
        body.received(4 * MIB)
    for body in large:
        body.release()
    assert pool.spare_bytes == 8 * MIB
    small = Body(pool, 4 * MIB)
    small.tail(5000)[:] = b"x" * 5000
    small.received(5000)
    assert pool.spare_bytes == 8 * MIB - 5000
    before = resident_bytes()
    pool.shrink(0)
    assert pool.spare_bytes == 0
    assert before - resident_bytes() >= 7 * MIB
    assert bytes(small.data()) == b"x" * 5000
    small.tail(MIB)[:] = b"y" * MIB
    small.received(MIB)
    assert (pool.spare_bytes, bytes(small.data())) == (0, b"x" * 5000 + b"y" * MIB)
    small.release()
    assert pool.spare_bytes == 5000 + MIB


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 400_000)), max_size=40))
def test_spare_bytes_are_those_written_and_not_used(steps: list[tuple[int, int]]) -> None:
    """Whatever was taken, filled, given back, shrunk and trimmed, and no body loses a byte."""
    pool = BufferPool(kept_bytes=MIB)
    bodies: list[tuple[Body, bytes]] = []
    for what, size in steps:
        if what == 0:
            bodies.append((Body(pool, size + 1), b""))
        elif what == 1 and bodies:
            body, content = bodies.pop(0)
            piece = bytes([size % 251]) * size
            body.tail(size)[:] = piece
            body.received(size)
            bodies.append((body, content + piece))
        elif what == 2 and bodies:
            bodies.pop(0)[0].release()
        elif what == 3:
            pool.shrink(size)
            assert pool.spare_bytes <= size
            pool.trim()
    for body, content in bodies:
        assert bytes(body.data()) == content
        body.release()
    assert 0 <= pool.spare_bytes <= MIB
    pool.shrink(0)
    assert pool.spare_bytes == 0
