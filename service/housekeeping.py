"""What the API process does beside serving, now and then: it sends notices, lets cancelled accounts end, finishes
payments that a crash left pending, drops what is stale, and tells the catalog which devices were played back.

Each chore has a task of its own, so that one which fails or takes long (a mail server that does not answer) keeps none
of the others from their turn. All of them may run in several processes at once, and beside commands that do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from retention.witness import ClockWitness
from service.agreement import closing, notices, settling
from service.agreement.desk import Desk
from service.agreement.senders import Senders
from service.agreement.tidying import tidy
from service.playback.used import UsedDevices
from storage.catalog import Catalog
from storage.errors import ClipkeepError

_log = structlog.get_logger("housekeeping")


@dataclass(frozen=True, slots=True)
class Chore:
    """`run` blocks; what it returns goes into the log when it is anything. `every_s` is between two runs."""

    name: str
    every_s: float
    run: Callable[[], object]


def chores(
    desk: Desk, senders: Senders, used: UsedDevices, witness: ClockWitness, *, every_s: float
) -> list[Chore]:
    """All that is to be done."""
    return [
        Chore("notices", every_s, lambda: _counts(notices.deliver_due(desk, senders))),
        Chore("closings", every_s, lambda: {"closed": closing.settle(desk)}),
        Chore("payments", every_s, lambda: dict(settling.settle_pending(desk))),
        Chore("stale", every_s, lambda: {"rows": tidy_by_clock(desk, witness)}),
        Chore("erased", every_s, lambda: {"left": not desk.catalog.overwrite_erased()}),
        Chore("used", every_s, lambda: note_used(desk.catalog, used)),
    ]


def tidy_by_clock(desk: Desk, witness: ClockWitness) -> int:
    """Drop what is stale by a clock that may be believed, and note that it was: sweeps are judged by that."""
    witness.note()
    return tidy(desk)


def note_used(catalog: Catalog, used: UsedDevices) -> None:
    """Write down which devices were played back since the last time. What fails is done the next time."""
    for day, devices in used.take().items():
        try:
            catalog.note_used(devices, day)
        except ClipkeepError as error:
            used.give_back(day, devices)
            _log.warning("use_not_noted", code=error.code, detail=str(error))


async def keep_house(tasks: Sequence[Chore]) -> None:
    """Do all chores again and again, until cancelled; what is under way then is waited for."""
    async with trio.open_nursery() as nursery:
        for chore in tasks:
            nursery.start_soon(_repeat, chore, trio.CapacityLimiter(1))


async def _repeat(chore: Chore, thread: trio.CapacityLimiter) -> None:
    while True:
        try:
            done = await trio.to_thread.run_sync(chore.run, limiter=thread)
        except ClipkeepError as error:
            _log.warning("chore_failed", chore=chore.name, code=error.code, detail=error.detail)
        except Exception as error:  # a fault of ours must not end the others, nor the service
            _log.error("bug", chore=chore.name, exc_info=error)
        else:
            if isinstance(done, dict) and any(done.values()):
                _log.info("chore_done", chore=chore.name, **done)
        await trio.sleep(chore.every_s)


def _counts(report: notices.DeliveryReport) -> dict[str, int]:
    return {
        "delivered": report.delivered,
        "delayed": report.delayed,
        "failed": report.failed,
        "closed": report.closed_accounts,
    }
