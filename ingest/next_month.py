"""Next month's data keys, made in the week before they are needed.

Otherwise the first chunk of every device in a month would wait for its key at the same moment.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from ingest.keyring import Keyring
from storage.days import month_of_day
from storage.errors import ClipkeepError
from storage.vault import KeyId

AHEAD_DAYS = 7
BATCH_KEYS = 100
"""Asked for at once: one call of the key store, some milliseconds, so that chunks which need a key now hardly wait."""
MAX_REMEMBERED = 1_000_000
"""Keys known to be made; past it some are asked for once more, which costs a look-up each."""


class NextMonth:
    """Makes the keys that devices will need after the end of the month of expiry which they write to now."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._wanted: dict[KeyId, None] = {}
        self._seen: set[KeyId] = set()
        self._work = trio.Event()

    def seen(self, expires_on: int, writers: Iterable[tuple[int, int]]) -> None:
        """These (device, erase epoch) have written to a segment of that day. Synchronous; cheap but in the last week of
        a month."""
        month = month_of_day(expires_on + AHEAD_DAYS)
        if month == month_of_day(expires_on):
            return
        for device, epoch in writers:
            ahead = KeyId(device, epoch, month)
            if ahead not in self._seen:
                if len(self._seen) >= MAX_REMEMBERED:
                    self._seen.clear()
                self._seen.add(ahead)
                self._wanted[ahead] = None
                self._work.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The owning task. A key that could not be made is made when it is needed."""
        task_status.started()
        while True:
            await self._work.wait()
            self._work = trio.Event()
            while self._wanted:
                async with trio.open_nursery() as nursery:
                    for key_id in list(self._wanted)[:BATCH_KEYS]:
                        del self._wanted[key_id]
                        nursery.start_soon(self._make, key_id)

    async def _make(self, key_id: KeyId) -> None:
        try:
            await self._keyring.load(key_id)
        except ClipkeepError:
            self._seen.discard(key_id)
