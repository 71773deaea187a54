"""Keys prepared ahead (invariant 5)."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from ingest.keys_ahead import BLOCK_KEYS, KeysAhead
from storage.errors import CatalogUnavailable
from storage.rows.recordings import PreparedKey

DAY = 20_700


class Preparing:
    """A catalog that hands out keys, and can be made to fail or to wait."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.calls: list[tuple[int, int, int]] = []
        self.prepared = 0
        self.fails = False
        self.open = trio.Event()
        self.open.set()
        self._next = 0

    async def __call__(self, class_days: int, expires_on: int, count: int) -> list[PreparedKey]:
        self.prepared += count
        self.calls.append((class_days, expires_on, count))
        await self.open.wait()
        if self.fails:
            raise CatalogUnavailable("injected")
        first = self._next
        self._next += count
        return [PreparedKey(first + i, f"v1/{class_days}/{first + i}", self.now_ms) for i in range(count)]


async def test_keys_come_in_blocks_and_never_twice() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    taken = [await keys.take(30, DAY, preparing.now_ms) for _ in range(2 * BLOCK_KEYS + 1)]
    assert len({key.segment_id for key in taken}) == len(taken)
    assert [count for *_, count in preparing.calls] == [1, 2, 4, 8, 16, BLOCK_KEYS, BLOCK_KEYS]


async def test_what_is_prepared_follows_what_is_used() -> None:
    """A device that spreads its chunks over 58 days had a block of 32 keys prepared for each."""
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    for used in range(1, 11):
        for day in range(58):
            await keys.take(30, DAY + day, preparing.now_ms)
        assert 58 * used <= preparing.prepared < 58 * 2 * used
    preparing.now_ms += 10_000
    await keys.take(30, DAY, preparing.now_ms)
    assert preparing.calls[-1] == (30, DAY, 1), "a day that was not written to for a while begins anew"


async def test_a_fast_place_asks_the_catalog_no_more_than_before() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    for _ in range(1000):
        await keys.take(30, DAY, preparing.now_ms)
    assert len(preparing.calls) <= 1000 // BLOCK_KEYS + 5


async def test_a_key_is_of_the_class_and_day_it_was_asked_for() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    assert (await keys.take(30, DAY, preparing.now_ms)).key.startswith("v1/30/")
    assert (await keys.take(7, DAY, preparing.now_ms)).key.startswith("v1/7/")
    await keys.take(30, DAY + 1, preparing.now_ms)
    await keys.take(30, DAY, preparing.now_ms)
    assert preparing.calls == [(30, DAY, 1), (7, DAY, 1), (30, DAY + 1, 1), (30, DAY, 2)]


async def test_tasks_that_ask_at_once_get_different_keys() -> None:
    preparing = Preparing()
    preparing.open = trio.Event()
    keys = KeysAhead(preparing, 10_000)
    taken: list[int] = []

    async def take() -> None:
        taken.append((await keys.take(30, DAY, preparing.now_ms)).segment_id)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        preparing.open.set()
    assert len(set(taken)) == 5


@pytest.mark.parametrize(("later_ms", "fresh"), [(9_999, False), (10_000, True), (-1, True)])
async def test_a_key_too_old_is_left_to_the_sweep(later_ms: int, fresh: bool) -> None:
    """Also when the clock was set back: its age is unknown then."""
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    for _ in range(2):
        last = await keys.take(30, DAY, preparing.now_ms)
    left = last.segment_id + 1  # of the second block, of two
    preparing.now_ms += later_ms
    key = await keys.take(30, DAY, preparing.now_ms)
    assert (len(preparing.calls) == 3) is fresh
    assert key.segment_id == (left + 1 if fresh else left)


async def test_old_keys_of_days_that_are_no_longer_written_are_forgotten() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    for _ in range(4):
        await keys.take(30, DAY, preparing.now_ms)  # of blocks of 1, 2 and 4
    preparing.now_ms += 10_000
    for _ in range(2):
        key = await keys.take(30, DAY + 1, preparing.now_ms)
    assert keys.unused() == [key.segment_id + 1]
    assert not keys.unused()


async def test_a_failure_leaves_nothing_half_done() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    preparing.fails = True
    with pytest.raises(CatalogUnavailable):
        await keys.take(30, DAY, preparing.now_ms)
    preparing.fails = False
    assert (await keys.take(30, DAY, preparing.now_ms)).segment_id == 0
    assert (await keys.take(30, DAY, preparing.now_ms)).segment_id == 1
    assert keys.unused() == [2]
