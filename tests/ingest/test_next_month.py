"""Next month's keys are there before anybody needs them (design §3.9)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date

import trio
from trio.testing import wait_all_tasks_blocked

from ingest.keyring import Keyring
from ingest.next_month import BATCH_KEYS, NextMonth
from storage.days import to_day
from storage.errors import ClipkeepError, WorldError
from storage.keys import KeyId

END_OF_MAY = to_day(date(2026, 5, 28))
MIDDLE_OF_MAY = to_day(date(2026, 5, 15))
MAY, JUNE = 202605, 202606


class Store:
    """Makes a key for each id it is asked for, unless it is down."""

    def __init__(self) -> None:
        self.asked: list[KeyId] = []
        self.down = False

    def __call__(self, ids: Collection[KeyId]) -> Mapping[KeyId, bytes | ClipkeepError]:
        self.asked += ids
        return {i: WorldError("down") if self.down else bytes(32) for i in ids}


async def after(store: Store, chunks: list[tuple[KeyId, int]]) -> None:
    """Let a worker see these chunks, and wait until it has nothing more to do."""
    keyring = Keyring(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(keyring.run)
        next_month = NextMonth(keyring)
        await nursery.start(next_month.run)
        for key_id, expires_on in chunks:
            next_month.seen(expires_on, [(key_id.device, key_id.epoch)])
        while next_month._wanted:  # noqa: ASYNC110 - work in threads has no event to wait for
            await trio.sleep(0.001)
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()


async def test_in_the_last_week_the_next_key_is_made_once() -> None:
    store = Store()
    await after(store, [(KeyId(1, 0, MAY), END_OF_MAY)] * 5)
    assert store.asked == [KeyId(1, 0, JUNE)]


async def test_before_the_last_week_nothing_is_made() -> None:
    store = Store()
    await after(store, [(KeyId(1, 0, MAY), MIDDLE_OF_MAY)])
    assert store.asked == []


async def test_many_devices_are_asked_for_in_batches() -> None:
    store = Store()
    devices = 3 * BATCH_KEYS
    await after(store, [(KeyId(n, 0, MAY), END_OF_MAY) for n in range(1, devices + 1)])
    assert sorted(store.asked) == [KeyId(n, 0, JUNE) for n in range(1, devices + 1)]


async def test_a_key_store_that_is_down_harms_nobody() -> None:
    store = Store()
    store.down = True
    await after(store, [(KeyId(1, 0, MAY), END_OF_MAY)])
    assert store.asked == [KeyId(1, 0, JUNE)]
