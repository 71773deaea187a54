"""Whether the store and the catalog take chunks: learnt from failures, unlearnt by a probe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from storage.errors import ClipkeepError, StoreUnavailable

PROBE_EVERY_S = 1.0
FIRST_PROBE_S = 3.0
"""A worker starts all the same when a store that hangs has not answered by then."""


class Health:
    """Stops admission while nothing can be stored, so that devices are told at once instead of after a time-out.

    Args:
        probe: returns when store and catalog answer, raises a ClipkeepError when one does not. Can be cancelled.
    """

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        self._probe = probe
        self._down = trio.Event()
        self.problem: ClipkeepError | None = None

    @property
    def up(self) -> bool:
        return self.problem is None

    def failed(self, error: ClipkeepError) -> None:
        """A chunk could not be stored because of this."""
        self.problem = error
        self._down.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Probe once at the start, then whenever something failed, until it answers again."""
        with trio.move_on_after(FIRST_PROBE_S) as patience:
            await self._try_once()
        if patience.cancelled_caught:
            self.problem = StoreUnavailable(f"has not answered for {FIRST_PROBE_S:g} s")
        task_status.started()
        while True:
            if self.up:
                self._down = trio.Event()
                await self._down.wait()
            await trio.sleep(PROBE_EVERY_S)
            await self._try_once()

    async def _try_once(self) -> None:
        try:
            await self._probe()
        except ClipkeepError as error:
            self.problem = error
        else:
            self.problem = None
