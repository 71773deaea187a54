"""Errands of one process, one at a time: begun by a page, carried out by a task, looked at by other pages.

What is known of them is in memory, of the newest of each kind; what they did for good is in the catalog, as of any
sweep or verification, whoever ran it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
import trio

from storage.errors import ClipkeepError, Conflict

_log = structlog.get_logger("errands")


class Kind(StrEnum):
    PLAN = "plan"  # what a sweep would do now; changes nothing
    SWEEP = "sweep"
    VERIFY = "verify"  # try to decrypt what a device stored before its erasure


@dataclass(frozen=True, slots=True)
class Errand:
    """What is asked for.

    Args:
        who: the operator's name.
        device: of VERIFY.
        allow_bulk: of PLAN and SWEEP: erase more devices than the bulk limit.
        confirmed: of SWEEP: the decision of the plan that was shown (`SweepPlan.decision`).
    """

    kind: Kind
    who: str
    device: int = 0
    allow_bulk: bool = False
    confirmed: str = ""


@dataclass(slots=True)
class Run:
    """How far an errand is, or what came of it.

    Args:
        phase, done, of: what it is at.
        answer: what it came to; None before, and when it was refused.
        code, detail: why it was refused, or did not end; "" else.
    """

    number: int
    errand: Errand
    began_ms: int
    phase: str = ""
    done: int = 0
    of: int = 0
    ended_ms: int | None = None
    answer: dict[str, Any] | None = None
    code: str = ""
    detail: str = ""

    @property
    def is_under_way(self) -> bool:
        return self.ended_ms is None


Told = Callable[[str, int, int], None]
"""(phase, done, of); called in the loop's thread."""
CarryOut = Callable[[Errand, Told], Awaitable[dict[str, Any]]]
"""Raises ClipkeepError."""


async def none_here(errand: Errand, told: Told) -> dict[str, Any]:
    """Of a process that carries nothing out."""
    raise Conflict("this process runs no sweeps and no verifications", code="not_here")


class Errands:
    """See the module docstring.

    Args:
        now_ms: Unix ms, for people.
    """

    def __init__(self, carry_out: CarryOut, now_ms: Callable[[], int]) -> None:
        self._carry_out = carry_out
        self._now_ms = now_ms
        self._count = 0
        self._newest: dict[Kind, Run] = {}
        self._current: Run | None = None
        self._wanted = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def current(self) -> Run | None:
        """What is under way."""
        return self._current

    def newest(self, kind: Kind) -> Run | None:
        return self._newest.get(kind)

    def require_free(self) -> None:
        """Raises Conflict `busy`: one is under way."""
        if self._current is not None:
            raise Conflict(
                f"a {self._current.errand.kind} that {self._current.errand.who} began is under way here; wait until it"
                " has ended",
                code="busy",
            )

    def begin(self, errand: Errand) -> Run:
        """Have it carried out. Raises Conflict `busy`."""
        self.require_free()
        self._count += 1
        run = Run(self._count, errand, self._now_ms())
        self._current = self._newest[errand.kind] = run
        self._wanted.set()
        return run

    def stop(self) -> bool:
        """Have what is under way stopped. Returns whether there is something."""
        if self._current is None:
            return False
        self._scope.cancel()
        return True

    async def run(self) -> None:
        """The task that carries them out."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            run = self._current
            assert run is not None, "what was wanted is there"
            with trio.CancelScope() as self._scope:
                await self._do(run)
            if self._scope.cancelled_caught:
                run.code, run.detail = "stopped", "it was stopped; what was done stays done"
            run.ended_ms = self._now_ms()
            self._current = None
            _log.info("errand_ended", kind=run.errand.kind, code=run.code or "done")

    async def _do(self, run: Run) -> None:
        def told(phase: str, done: int, of: int) -> None:
            run.phase, run.done, run.of = phase, done, of

        try:
            run.answer = await self._carry_out(run.errand, told)
        except ClipkeepError as error:
            run.code, run.detail = error.code, str(error)
        except Exception as error:  # a fault of ours: the next errand goes on
            _log.error("bug", exc_info=error)
            run.code, run.detail = "internal", "something broke here; the log says more"
