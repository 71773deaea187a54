"""The worker's data-key ciphers: a bounded cache in memory, and the one task that fills it.

The hot path asks `cached` and goes on at once. A miss awaits `load`; misses that come together are fetched
together, in one call of the key store in one thread, because a call costs an fsync whether it is for one key or a
thousand.

    async with trio.open_nursery() as nursery:
        keyring = Keyring(vault.ensure_each)
        await nursery.start(keyring.run)
        cipher = keyring.cached(key_id) or await keyring.load(key_id)
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from itertools import islice

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.errors import CallerError, ClipkeepError, KeyDestroyed, WorldError
from storage.vault import MAX_IDS_PER_CALL, KeyId

Fetch = Callable[[Collection[KeyId]], Mapping[KeyId, bytes | ClipkeepError]]
"""Blocking and called in a thread: `Vault.ensure_each` where chunks are written, `Vault.get_each` where
they are only read. An id without an outcome counts as destroyed."""

DEFAULT_MAX_KEYS = 16_384
"""A cipher takes about 2.7 kB (the expanded key and OpenSSL's context): 45 MB per worker at most."""

DEFAULT_BATCH_KEYS = 1000
"""Most ids in one fetch: measured 6 ms in the key store; so the first of a long queue do not wait for the last."""


class _Wanted:
    """One id that is being waited for, by `waiters` tasks."""

    __slots__ = ("done", "outcome", "purged", "waiters")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: AESGCM | ClipkeepError | None = None
        self.waiters = 0
        self.purged = False


class Keyring:
    """Ciphers of data keys by id, least recently used out first. One per trio loop; not for other threads.

    Python cannot wipe memory: a key that left the cache stays in freed memory until that is used again. What
    `purge` promises is that this process no longer encrypts or decrypts with it.

    Args:
        fetch: where keys come from.
        max_keys: bound of the cache, in keys. Beyond it each miss costs a fetch, and nothing else changes.
        batch_keys: bound of one fetch, in keys.
        wait_s: longest wait of one `load`, whatever a fetch does, and whatever is fetched before: two fetches that hang
            until their own time-outs, one after the other, would be waited for by who asks during the first.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        max_keys: int = DEFAULT_MAX_KEYS,
        batch_keys: int = DEFAULT_BATCH_KEYS,
        wait_s: float = math.inf,
    ) -> None:
        if max_keys < 1 or not 1 <= batch_keys <= MAX_IDS_PER_CALL:
            raise CallerError(f"max_keys is at least 1, batch_keys from 1 to {MAX_IDS_PER_CALL}")
        self._fetch = fetch
        self._max_keys = max_keys
        self._batch_keys = batch_keys
        self._wait_s = wait_s
        self._ciphers: OrderedDict[KeyId, AESGCM] = OrderedDict()
        self._queued: dict[KeyId, _Wanted] = {}  # in the order of asking
        self._loading: dict[KeyId, _Wanted] = {}
        self._work = trio.Event()
        self._running = False
        # A thread of its own: uploads that wait for a slow object store must not hold up keys.
        self._limiter = trio.CapacityLimiter(1)

    def __len__(self) -> int:
        """How many keys are cached."""
        return len(self._ciphers)

    def cached(self, key_id: KeyId) -> AESGCM | None:
        """The cipher, when it is at hand. Synchronous, about 0.1 µs."""
        cipher = self._ciphers.get(key_id)
        if cipher is not None:
            self._ciphers.move_to_end(key_id)
        return cipher

    async def load(self, key_id: KeyId) -> AESGCM:
        """The cipher, fetched when it is not at hand. Always a checkpoint.

        The ids in the queue are never more than the tasks that wait here, so the caller's bound on
        connections bounds it. A cancelled waiter leaves its neighbours alone; when it was the only one and its turn
        had not come, the id is not fetched at all.

        Raises:
            KeyDestroyed: this id is gone for good.
            ClipkeepError: whatever else befell the fetch of this id. Each waiter gets an instance of its own.
            WorldError: `key_store_unavailable` when there was no answer within `wait_s`, or `run` is not running: the
                worker is starting or stopping.
        """
        cipher = self.cached(key_id)
        if cipher is not None:
            await trio.lowlevel.checkpoint()
            return cipher
        if not self._running:
            raise _stopped()
        wanted = self._queued.get(key_id) or self._loading.get(key_id)
        if wanted is None:
            wanted = self._queued[key_id] = _Wanted()
            self._work.set()
        wanted.waiters += 1
        try:
            with trio.move_on_after(self._wait_s) as patience:
                await wanted.done.wait()
        finally:
            wanted.waiters -= 1
            if not wanted.waiters and self._queued.get(key_id) is wanted:
                del self._queued[key_id]
        if isinstance(wanted.outcome, AESGCM):
            return wanted.outcome
        if patience.cancelled_caught:
            raise WorldError(
                f"the vault has not answered for {self._wait_s:g} s; try again", code="key_store_unavailable"
            )
        error = wanted.outcome or _stopped()
        # A raised exception collects the traceback of its task, so tasks must not share one.
        raise copy.copy(error) from error

    def purge(self, is_live: Callable[[KeyId], bool]) -> int:
        """Drop every cached key for which `is_live` says no (its epoch is over, its device erased, its month past).

        Synchronous and in one go: `is_live` is asked once per cached key and must not wait. A key that is being
        fetched meanwhile is asked for too, since it may have been read just before its destruction: when it is not
        live it still reaches those who wait for it, whose commit decides (invariant 9), but is not cached. So one
        purge after a destruction is enough.

        Returns:
            How many keys were dropped.
        """
        for key_id, wanted in self._loading.items():
            wanted.purged = wanted.purged or not is_live(key_id)
        dead = [key_id for key_id in self._ciphers if not is_live(key_id)]
        for key_id in dead:
            del self._ciphers[key_id]
        return len(dead)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the fetching, until cancelled; `task_status.started()` means that `load` may be called.

        A cancellation waits for the fetch under way (bounded by the key store's own timeouts) and delivers it;
        whoever still waits then gets a WorldError.

        Raises:
            CallerError: it is running already.
            Exception: what `fetch` raised beyond ClipkeepError is a bug and ends this task.
        """
        if self._running:
            raise CallerError("this keyring is running already")
        self._running = True
        task_status.started()
        try:
            while True:
                await self._work.wait()
                if self._queued:
                    await self._load_batch()
                else:
                    self._work = trio.Event()
        finally:
            self._running = False
            for wanted in (*self._loading.values(), *self._queued.values()):
                wanted.done.set()
            self._loading, self._queued = {}, {}

    async def _load_batch(self) -> None:
        batch = dict(islice(self._queued.items(), self._batch_keys))
        for key_id in batch:
            del self._queued[key_id]
        self._loading = batch
        outcomes = await trio.to_thread.run_sync(self._fetch_ciphers, tuple(batch), limiter=self._limiter)
        for key_id, wanted in batch.items():
            wanted.outcome = outcome = outcomes[key_id]
            if isinstance(outcome, AESGCM) and not wanted.purged:
                self._ciphers[key_id] = outcome
            wanted.done.set()
        self._loading = {}
        while len(self._ciphers) > self._max_keys:
            self._ciphers.popitem(last=False)

    def _fetch_ciphers(self, ids: tuple[KeyId, ...]) -> dict[KeyId, AESGCM | ClipkeepError]:
        """In a thread: every id with its cipher or its error."""
        try:
            fetched = self._fetch(ids)
        except ClipkeepError as error:
            return dict.fromkeys(ids, error)
        outcomes: dict[KeyId, AESGCM | ClipkeepError] = {}
        for key_id in ids:
            outcome = fetched.get(key_id)
            if outcome is None:
                outcome = KeyDestroyed("there is no such key any more", subject=str(key_id))
            outcomes[key_id] = AESGCM(outcome) if isinstance(outcome, bytes) else outcome
        return outcomes


def _stopped() -> WorldError:
    return WorldError("the keyring is not running; try again", code="key_store_unavailable")
