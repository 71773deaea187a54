"""What becomes of a chunk, for a task that waits for it."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ingest.packing import Outcome

ENDED_EVERY_S = 0.5
"""How often it is looked whether uploads have ended, which tells nobody."""


class Committed:
    """Called by whoever commits the chunk, as its `done`.

    Args:
        first: what was to be called instead.
    """

    def __init__(self, first: Callable[[Outcome, float], None] | None = None) -> None:
        self._first = first
        self._done = trio.Event()
        self._outcome: Outcome = None

    def __call__(self, outcome: Outcome, now_s: float) -> None:
        if self._first is not None:
            self._first(outcome, now_s)
        self._outcome = outcome
        self._done.set()

    async def outcome(self, has_ended: Callable[[], bool]) -> Outcome:
        """Wait for it. `has_ended`: uploads have, which leaves what is in open segments without an outcome."""
        while not self._done.is_set() and not has_ended():
            with trio.move_on_after(ENDED_EVERY_S):
                await self._done.wait()
        return self._outcome
