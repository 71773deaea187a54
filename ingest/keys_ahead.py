"""Segment keys, prepared in the catalog in blocks before they are used (invariant 5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from storage.rows.recordings import PreparedKey

BLOCK_KEYS = 32
"""Keys prepared in one transaction: at full speed about a quarter of a second's worth."""

Prepare = Callable[[int, int, int], Awaitable[list[PreparedKey]]]
"""(class_days, expires_on, count) -> fresh keys."""


class KeysAhead:
    """Prepared keys of one worker, per (class_days, expires_on).

    Args:
        prepare: makes a block of them.
        usable_ms: how long after its preparation a key may still be used: well under `prepare_ttl`, so that the
            sweep never reclaims a key whose PUT has just begun.
    """

    def __init__(self, prepare: Prepare, usable_ms: int) -> None:
        self._prepare = prepare
        self._usable_ms = usable_ms
        self._ready: dict[tuple[int, int], deque[PreparedKey]] = {}

    async def take(self, class_days: int, expires_on: int, now_ms: int) -> PreparedKey:
        """A key that was never used. Waits for the catalog only when the block has run out.

        Raises:
            CatalogUnavailable: no block could be prepared.
        """
        self._drop_stale(now_ms)
        while True:
            ready = self._ready.get((class_days, expires_on))
            if ready:
                return ready.popleft()
            block = await self._prepare(class_days, expires_on, BLOCK_KEYS)
            self._ready.setdefault((class_days, expires_on), deque()).extend(block)

    def _drop_stale(self, now_ms: int) -> None:
        """Forget keys too old to be used; the sweep reclaims them."""
        for place in list(self._ready):
            ready = self._ready[place]
            while ready and not 0 <= now_ms - ready[0].prepared_ms < self._usable_ms:
                ready.popleft()
            if not ready:
                del self._ready[place]

    def unused(self) -> list[int]:
        """Take all unused keys' segment ids, to give them back to the catalog at the end."""
        ids = [key.segment_id for ready in self._ready.values() for key in ready]
        self._ready.clear()
        return ids
