"""Whether chunks can be stored: learnt from failures, unlearnt by a probe that stores something."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from storage.errors import ClipkeepError, StoreUnavailable

PROBE_EVERY_S = 1.0
FIRST_PROBE_S = 3.0
"""A worker starts all the same when a store that hangs has not answered by then."""

_log = structlog.get_logger("ingest")


async def _nothing_to_see() -> None:
    """The look of a service whose files are not watched."""


def _store_unanswered(after_s: float) -> ClipkeepError:
    return StoreUnavailable(f"has not answered for {after_s:g} s")


class Health:
    """Stops admission while nothing can be stored, so that devices are told at once instead of after a time-out.

    What is wrong is logged when it begins, when it becomes something else, and when it is over.

    Args:
        probe: returns when a chunk could be stored, raises a ClipkeepError when not. Can be cancelled. It has to try
            what failed: a store that can be read and refuses every put is not healthy.
        look: asked every `PROBE_EVERY_S` while all seems well, for what no failure would tell: raises too.
        unanswered: what is wrong when the first probe has not returned after so many seconds.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        look: Callable[[], Awaitable[None]] = _nothing_to_see,
        *,
        unanswered: Callable[[float], ClipkeepError] = _store_unanswered,
    ) -> None:
        self._probe = probe
        self._look = look
        self._unanswered = unanswered
        self._down = trio.Event()
        self._failures = 0
        self._problem: ClipkeepError | None = None

    @property
    def problem(self) -> ClipkeepError | None:
        return self._problem

    @problem.setter
    def problem(self, problem: ClipkeepError | None) -> None:
        before, self._problem = self._problem, problem
        if problem is None:
            if before is not None:
                _log.info("ready_again", after=before.code)
        elif before is None or before.code != problem.code:
            _log.error("not_ready", code=problem.code, detail=str(problem))

    @property
    def up(self) -> bool:
        return self._problem is None

    def failed(self, error: ClipkeepError) -> None:
        """A chunk could not be stored because of this."""
        self._failures += 1
        self.problem = error
        self._down.set()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Probe once at the start, then whenever something failed, until it is over."""
        with trio.move_on_after(FIRST_PROBE_S) as patience:
            await self._try_once()
        if patience.cancelled_caught:
            self.problem = self._unanswered(FIRST_PROBE_S)
        task_status.started()
        while True:
            if self.up:
                await self._watch()
            await trio.sleep(PROBE_EVERY_S)
            await self._try_once()

    async def _watch(self) -> None:
        """Return when something is wrong."""
        self._down = trio.Event()
        while self.up:
            with trio.move_on_after(PROBE_EVERY_S):
                await self._down.wait()
            try:
                await self._look()
            except ClipkeepError as error:
                self.failed(error)

    async def _try_once(self) -> None:
        failures = self._failures
        try:
            await self._probe()
        except ClipkeepError as error:
            self.problem = error
        else:
            if failures == self._failures:  # else something failed after this was asked
                self.problem = None
