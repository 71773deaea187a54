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
        self.fails = False
        self.open = trio.Event()
        self.open.set()
        self._next = 0

    async def __call__(self, class_days: int, expires_on: int, count: int) -> list[PreparedKey]:
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
    assert preparing.calls == [(30, DAY, BLOCK_KEYS)] * 3


async def test_a_key_is_of_the_class_and_day_it_was_asked_for() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    assert (await keys.take(30, DAY, preparing.now_ms)).key.startswith("v1/30/")
    assert (await keys.take(7, DAY, preparing.now_ms)).key.startswith("v1/7/")
    await keys.take(30, DAY + 1, preparing.now_ms)
    await keys.take(30, DAY, preparing.now_ms)
    assert preparing.calls == [(30, DAY, BLOCK_KEYS), (7, DAY, BLOCK_KEYS), (30, DAY + 1, BLOCK_KEYS)]


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
    first = await keys.take(30, DAY, preparing.now_ms)
    preparing.now_ms += later_ms
    second = await keys.take(30, DAY, preparing.now_ms)
    assert (len(preparing.calls) == 2) is fresh
    assert second.segment_id == (BLOCK_KEYS if fresh else first.segment_id + 1)


async def test_old_keys_of_days_that_are_no_longer_written_are_forgotten() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    await keys.take(30, DAY, preparing.now_ms)
    preparing.now_ms += 10_000
    await keys.take(30, DAY + 1, preparing.now_ms)
    assert len(keys.unused()) == BLOCK_KEYS - 1
    assert not keys.unused()


async def test_a_failure_leaves_nothing_half_done() -> None:
    preparing = Preparing()
    keys = KeysAhead(preparing, 10_000)
    preparing.fails = True
    with pytest.raises(CatalogUnavailable):
        await keys.take(30, DAY, preparing.now_ms)
    preparing.fails = False
    assert (await keys.take(30, DAY, preparing.now_ms)).segment_id == 0
    assert len(keys.unused()) == BLOCK_KEYS - 1
