"""Segment keys, prepared in the catalog in blocks before they are used (invariant 5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from storage.rows.recordings import PreparedKey

BLOCK_KEYS = 32
"""Most keys prepared in one transaction: at full speed about a quarter of a second's worth."""

Prepare = Callable[[int, int, int], Awaitable[list[PreparedKey]]]
"""(class_days, expires_on, count) -> fresh keys."""


class _Place:
    """Keys of one (class_days, expires_on). `block_keys`: how many are prepared next."""

    def __init__(self) -> None:
        self.ready: deque[PreparedKey] = deque()
        self.block_keys = 1
        self.prepared_ms = 0


class KeysAhead:
    """Prepared keys of one worker, per (class_days, expires_on).

    A place gets one key first, and each further block is twice as large, up to `BLOCK_KEYS`. So what is prepared is
    never more than twice what was used, and one: a device that spreads its chunks over many days would else have a
    block for each. A place of which nothing was prepared for `usable_ms` begins anew.

    Args:
        prepare: makes a block of them.
        usable_ms: how long after its preparation a key may still be used: well under `prepare_ttl`, so that the
            sweep never reclaims a key whose PUT has just begun.
    """

    def __init__(self, prepare: Prepare, usable_ms: int) -> None:
        self._prepare = prepare
        self._usable_ms = usable_ms
        self._places: dict[tuple[int, int], _Place] = {}

    async def take(self, class_days: int, expires_on: int, now_ms: int) -> PreparedKey:
        """A key that was never used. Waits for the catalog only when the block has run out.

        Raises:
            CatalogUnavailable: no block could be prepared.
        """
        self._drop_stale(now_ms)
        while True:
            place = self._places.get((class_days, expires_on))
            if place is not None and place.ready:
                return place.ready.popleft()
            block = await self._prepare(class_days, expires_on, 1 if place is None else place.block_keys)
            place = self._places.setdefault((class_days, expires_on), _Place())
            place.ready.extend(block)
            place.block_keys = min(2 * len(block), BLOCK_KEYS)
            place.prepared_ms = block[-1].prepared_ms

    def _drop_stale(self, now_ms: int) -> None:
        """Forget keys too old to be used; the sweep reclaims them."""
        for where, place in list(self._places.items()):
            ready = place.ready
            while ready and not 0 <= now_ms - ready[0].prepared_ms < self._usable_ms:
                ready.popleft()
            if not ready and not 0 <= now_ms - place.prepared_ms < self._usable_ms:
                del self._places[where]

    def unused(self) -> list[int]:
        """Take all unused keys' segment ids, to give them back to the catalog at the end."""
        ids = [key.segment_id for place in self._places.values() for key in place.ready]
        self._places.clear()
        return ids
