"""Whether the wall clock may be believed, before something is destroyed or charged by it.

A clock that is wrong by days destroys what lives, and nothing brings that back. So each pass that destroys or charges
asks its witnesses, in this order:

    home's clock            where home is a server: hosts differ from it by `MAX_OFFSET_MS` at most
    the store's own clock   where it has one, it decides
    the mark                a moment that was believed: wall clock and uptime. In the same boot the time since is known
    the newest of all       across a boot, or where there is no mark yet, nothing tells a jump from a long rest: what
                            lies further back than `max_rest_ms` asks

A mark is only moved on from a moment that is believed itself, so a clock that jumped can't vouch for itself. `doubt` is
pure; `ClockWitness` reads and keeps the mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from storage.catalog.continuity import ContinuityCatalog
from storage.clock import Clock, ClockMark, WitnessedClock
from storage.errors import ClipkeepError
from storage.objects import ObjectStore

SETTLED_MS = 900_000
"""Uptime before which a mark does not count as one of this boot: a machine without a battery for its clock begins
with a wrong one, until the network tells the time."""
DRIFT = 0.001
"""How far two clocks may run apart: twice the fastest that a time service slews a clock."""
MAX_OFFSET_MS = 60_000
"""By which a host's clock may differ from home's."""
MARK_EVERY_MS = 30_000
"""A mark that is younger is not replaced: each costs a transaction."""


class ClockDoubted(ClipkeepError):
    """Nothing was changed, because the wall clock can't be right, or nobody can tell. The detail says what to do."""

    code = "clock_jumped"


@dataclass(frozen=True, slots=True)
class ClockFacts:
    """What is known of the time.

    Args:
        now: this moment, as this host has it.
        store_ms: the same by the store's clock; None for a store without one.
        mark: the last moment that was believed, None before the first.
        seen_ms: the newest time that the catalog has of a sweep or an object; 0 when it has none.
    """

    now: ClockMark
    store_ms: int | None
    mark: ClockMark | None
    seen_ms: int
    home_ms: int | None = None
    """This moment by home's clock; None where that is this host's."""


def doubt(facts: ClockFacts, *, max_skew_ms: int, max_rest_ms: int) -> ClockDoubted | None:
    """Why the wall clock is not to be believed; None when it is.

    Args:
        max_skew_ms: how far it may be from another clock.
        max_rest_ms: how far back the last witness may lie where nothing tells how long ago that was.
    """
    now, mark = facts.now, facts.mark
    if facts.home_ms is not None and abs(now.wall_ms - facts.home_ms) > MAX_OFFSET_MS:
        return _off_home(now.wall_ms - facts.home_ms)
    if facts.store_ms is not None:
        skew_ms = abs(facts.store_ms - now.wall_ms)
        return _store_differs(skew_ms) if skew_ms > max_skew_ms else None
    if mark is not None and _same_run(mark, now):
        passed_ms = now.uptime_ms - mark.uptime_ms
        off_ms = now.wall_ms - mark.wall_ms - passed_ms
        return _jumped(facts, mark.wall_ms, off_ms) if abs(off_ms) > max_skew_ms + passed_ms * DRIFT else None
    witness_ms = facts.seen_ms if mark is None else mark.wall_ms
    rest_ms = now.wall_ms - witness_ms
    if witness_ms and not -max_skew_ms <= rest_ms <= max_rest_ms:
        return _jumped(facts, witness_ms, rest_ms)
    return None


def _same_run(mark: ClockMark, now: ClockMark) -> bool:
    """Whether the machine has run all the time since the mark, and the mark was taken when its clock had been set."""
    return mark.boot == now.boot != 0 and SETTLED_MS <= mark.uptime_ms <= now.uptime_ms


def _off_home(off_ms: int) -> ClockDoubted:
    way = "ahead of" if off_ms > 0 else "behind"
    return ClockDoubted(
        f"this host's clock is {_span(abs(off_ms))} {way} home's, which is its database server's. Nothing was changed;"
        " other hosts do it meanwhile. Set the clock right",
        code="clock_off_home",
    )


def _store_differs(skew_ms: int) -> ClockDoubted:
    return ClockDoubted(
        f"this host's clock and the store's differ by {skew_ms / 1000:.0f} s; nothing was deleted. Set the"
        " clock right, then sweep again",
        code="clock_skew",
    )


def _jumped(facts: ClockFacts, witness_ms: int, off_ms: int) -> ClockDoubted:
    way = "ahead of" if off_ms > 0 else "behind"
    return ClockDoubted(
        f"this host's clock says {_time(facts.now.wall_ms)}, which is {_span(abs(off_ms))} {way} what is known: the"
        f" last time that was believed is {_time(witness_ms)}. Nothing was changed. Compare `date -u` with the true"
        " time and set the clock right. If it is right, for the machine was off or paused so long or its clock has"
        " just been corrected, run this once with --accept-clock"
    )


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"


def _span(ms: int) -> str:
    for unit, name in ((86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes")):
        if ms >= 2 * unit:
            return f"{ms / unit:.1f} {name}"
    return f"{ms / 1000:.0f} s"


class ClockWitness:
    """The witnesses of one data folder. Blocks.

    Args:
        store: the one whose clock is asked.
        home: home's clock, where it is another machine's.
    """

    def __init__(
        self,
        catalog: ContinuityCatalog,
        clock: WitnessedClock,
        store: ObjectStore,
        *,
        max_skew_ms: int,
        max_rest_ms: int,
        home: Clock | None = None,
    ) -> None:
        self._home = home
        self._catalog = catalog
        self._clock = clock
        self._store = store
        self._max_skew_ms = max_skew_ms
        self._max_rest_ms = max_rest_ms

    def require_home(self) -> None:
        """To be called before what other hosts do as well, and what a clock that is a little off does wrong.

        Raises:
            ClockDoubted: `clock_off_home`.
            WorldError: home could not be asked.
        """
        if self._home is None:
            return
        off_ms = self._clock.now_ms() - self._home.now_ms()
        if abs(off_ms) > MAX_OFFSET_MS:
            raise _off_home(off_ms)

    def require(self, *, accept: bool = False) -> None:
        """To be called before anything is destroyed or charged by the clock. Writes nothing.

        Args:
            accept: the caller knows that the clock is right: only home's clock and a store's are still asked.

        Raises:
            ClockDoubted: `clock_off_home`, `clock_skew`, `clock_jumped`.
            WorldError: store or catalog could not be asked.
        """
        self._require(self._clock.mark(), accept=accept)

    def note(self, *, accept: bool = False) -> None:
        """As `require`, and keep this moment as one that was believed."""
        now = self._clock.mark()
        known = self._require(now, accept=accept)
        if accept or known is None or not 0 <= now.wall_ms - known.wall_ms < MARK_EVERY_MS:
            self._catalog.note_clock(now)

    def _require(self, now: ClockMark, *, accept: bool) -> ClockMark | None:
        """Returns the mark."""
        home_ms = None if self._home is None else self._home.now_ms()
        store_s = self._store.server_time_s()
        store_ms = None if store_s is None else round(store_s * 1000)
        mark = self._catalog.clock_mark()
        facts = ClockFacts(now, store_ms, mark, 0 if mark else self._catalog.newest_seen_ms(), home_ms)
        doubted = doubt(facts, max_skew_ms=self._max_skew_ms, max_rest_ms=self._max_rest_ms)
        if doubted is not None and not (accept and doubted.code == ClockDoubted.code and store_ms is None):
            raise doubted
        return mark
