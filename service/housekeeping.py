"""What the API process does beside serving, now and then: it sends notices, lets cancelled accounts end, finishes
payments that a crash left pending, drops what is stale, tells owners of trials that end, and tells the catalog what was
used and who accepted the agreement by that, and has the catalog make ready what tomorrow's commits need.

Each chore has a task of its own, so that one which fails or takes long (a mail server that does not answer) keeps none
of the others from their turn. All of them may run in several processes at once, and beside commands that do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from retention.witness import ClockWitness
from service.agreement import closing, corrections, notices, settling, trials, versions
from service.agreement.desk import Desk
from service.agreement.senders import Senders
from service.agreement.tidying import tidy
from service.playback.used import Used
from storage.catalog.ingest import IngestCatalog
from storage.catalog.uploads import UploadsCatalog
from storage.clock import Clock
from storage.days import day_of_ms
from storage.errors import ClipkeepError
from storage.rows.accounts import NoticeLane

SENT_EVERY_S = 1.0
"""A notice leaves within two seconds, whichever process queued it. Each look costs a read of an index."""
LANES = {"codes": NoticeLane.CODES, "notices": NoticeLane.OWN, "announcements": NoticeLane.BULK}
"""Each has a thread: somebody sits and waits for a code, and nobody's receipt waits behind an announcement."""
ENDINGS_EVERY_S = 600.0
"""All that end within days are looked at anew each time, those that were told too."""
ACCOUNTS_A_TURN = 10_000
"""Some 50 ms of reading. A fleet with more accounts takes as many turns."""
SUMS_A_TURN = 10_000
"""Of earlier days' uploads, dropped at once: some 20 ms, for which other writers may wait."""

_log = structlog.get_logger("housekeeping")


@dataclass(frozen=True, slots=True)
class Chore:
    """`run` blocks; what it returns goes into the log when it is anything. `every_s` is between two runs."""

    name: str
    every_s: float
    run: Callable[[], object]


def chores(desk: Desk, senders: Senders, uses: Uses, witness: ClockWitness, *, every_s: float) -> list[Chore]:
    """All that is to be done."""
    return [
        *(
            Chore(name, min(every_s, SENT_EVERY_S), partial(_send, desk, senders, lane))
            for name, lane in LANES.items()
        ),
        Chore("closings", every_s, lambda: closings_by_clock(desk, witness)),
        Chore("payments", every_s, lambda: payments_by_clock(desk, witness)),
        Chore("stale", every_s, lambda: {"rows": tidy_by_clock(desk, witness)}),
        Chore("erased", every_s, lambda: {"left": not desk.catalog.overwrite_erased()}),
        Chore("corrections", every_s, lambda: corrections_by_clock(desk, witness)),
        Chore("endings", max(every_s, ENDINGS_EVERY_S), lambda: {"told": trials.tell_ending(desk)}),
        Chore("used", every_s, uses.note),
        Chore("accepted", every_s, Accepting(desk)),
    ]


def closings_by_clock(desk: Desk, witness: ClockWitness) -> dict[str, list[int]]:
    """Let cancelled accounts end, by a clock that is home's."""
    witness.require_home()
    return {"closed": closing.settle(desk)}


def payments_by_clock(desk: Desk, witness: ClockWitness) -> dict[str, int]:
    """Finish what a crash left of payments, by a clock that is home's."""
    witness.require_home()
    return dict(settling.settle_pending(desk))


def tidy_by_clock(desk: Desk, witness: ClockWitness) -> int:
    """Drop what is stale by a clock that may be believed, and note that it was: sweeps are judged by that."""
    witness.note()
    return tidy(desk)


def corrections_by_clock(desk: Desk, witness: ClockWitness) -> dict[str, int]:
    """Remind, suspend and cancel whoever did not correct untrue data, by a clock that may be believed."""
    with desk.reading() as books:
        if not books.corrections_due(on=desk.today(), limit=1):
            return {}
    witness.require()
    return corrections.step_due(desk)


class Uses:
    """What of the use of the service is only in memory: devices played back, accounts whose owners asked something. It
    is written down now and then, so that no request writes.

    Each use is noted with the version of the agreement that was current when it was made, or an earlier one: that makes
    it continued use (agreement 11.2).
    """

    def __init__(self, desk: Desk, *, devices: Used, accounts: Used) -> None:
        self._desk = desk
        self._devices = devices
        self._accounts = accounts
        self._version = versions.newest(desk)

    def note(self) -> None:
        """Write down what was used since the last time. What fails is done the next time. Blocks."""
        # Asked before what follows is taken: whatever is used after that is used under it.
        version = versions.newest(self._desk)
        catalog, known = self._desk.catalog, self._version

        def note_accounts(accounts: list[int], day: int) -> None:
            self._desk.write(lambda books: books.note_requests(accounts, day, version=known))

        noted = self._note(self._devices, lambda devices, day: catalog.note_used(devices, day, version=known))
        noted &= self._note(self._accounts, note_accounts)
        if version != known and noted:
            self._version = version
            self._devices.forget()
            self._accounts.forget()

    def _note(self, used: Used, write: Callable[[list[int], int], None]) -> bool:
        """Whether all of it was written down."""
        noted = True
        for day, numbers in used.take().items():
            try:
                write(numbers, day)
            except ClipkeepError as error:
                noted = False
                used.give_back(day, numbers)
                _log.warning("use_not_noted", code=error.code, detail=str(error))
        return noted


class DaysAhead:
    """Has the catalog make ready, once a day, what commits of that day and the next need."""

    def __init__(self, catalog: IngestCatalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._ready_for = -1

    def __call__(self) -> None:
        today = day_of_ms(self._clock.now_ms())
        if today != self._ready_for:
            self._catalog.make_ready(today)
            self._ready_for = today


class UploadsForgotten:
    """Has the catalog forget what devices with limits uploaded on earlier days."""

    def __init__(self, catalog: UploadsCatalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock

    def __call__(self) -> dict[str, int]:
        today = day_of_ms(self._clock.now_ms())
        # Yesterday's stay: another host's clock may be behind.
        return {"sums": self._catalog.drop_uploads(before_day=today - 1, limit=SUMS_A_TURN)}


class Accepting:
    """Records who accepted the current agreement by use, `ACCOUNTS_A_TURN` accounts at a time, round and round."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._next = 1

    def __call__(self) -> dict[str, int]:
        first, last = self._next, self._next + ACCOUNTS_A_TURN - 1
        accepted = versions.accept_by_use(self._desk, first=first, last=last)
        with self._desk.reading() as books:
            self._next = last + 1 if last < books.newest_account() else 1
        return {"accepted": accepted}


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


def _send(desk: Desk, senders: Senders, lane: NoticeLane) -> dict[str, int]:
    report = notices.deliver_now(desk, senders, lane)
    return {
        "delivered": report.delivered,
        "delayed": report.delayed,
        "failed": report.failed,
        "closed": report.closed_accounts,
    }
