"""The feed: keeps a host's entitlement bitmap what home says, and says when home was last asked.

One step, of which nothing waits for a client, nor for whoever changes rights on this host:

    note CLOCK_BOOTTIME -> read the change log, write the rows of the devices changed -> beat -> stamp that moment

The beat is a write, and tells which change was the newest where it was taken. The stamp is made when the rows are of
that one: so it holds though a pooler, or a failover, has another server answer the reading.

**What a stamp says**: of all that was committed before that moment, the bitmap has the rows. Admission, playback and
each piece of a long answer refuse when it is older than `max_stale_s`. A host that was cut off, or that was stopped and
goes on, is refused by the first comparison: the clock ran on.

**Why the beat comes before the stamp**: whoever changes rights waits for hosts by when home last heard them
(`retention.arrival`). Home has heard this one at or after the moment that the stamp says, and has it durable, before
anybody here acts by it. A beat that home took after it had heard nothing for `max_stale_s` may be too late: somebody
may have gone on without this host meanwhile. So that step stamps nothing, and the next one asks anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retention.arrival import GRACE_S
from retention.bitmap import EntitlementBitmap
from retention.entitlements import Entitlements
from storage.catalog.hosts import HostsCatalog
from storage.clock import Clock, boottime_ns
from storage.days import day_of_ms
from storage.errors import WorldError

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class HostIs:
    """What a host says of itself when it registers. `host` is a random id, new with each start of the service."""

    host: str
    name: str
    release: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did."""

    devices: int
    """How many rows were written."""
    stamped: bool
    lag_ms: int
    """Between the moments of this stamp and the one before; of one that was not made, how old that is."""
    offset_ms: int
    """By how much this host's clock is ahead of home's."""


def may_stamp(*, silent_ms: float, took_ms: float, max_stale_ms: int) -> bool:
    """Whether what was read before a beat that home has taken may be acted on. Both times are by a clock that nobody
    sets, and no shorter than what home saw.

    Args:
        silent_ms: from the beginning of the beat before to the end of this one.
        took_ms: of this one.
    """
    return silent_ms <= max_stale_ms and took_ms <= GRACE_S * 1000


class Feed:
    """See the module docstring. One per host; for one thread.

    Args:
        catalog: what the feed itself asks; the rows go through `entitlements`.
        home_days: whether nothing is entitled before the day by home's clock: not where this host's is moved for tests.
        load_pct: of the host's cores, of late.
    """

    def __init__(
        self,
        catalog: HostsCatalog,
        bitmap: EntitlementBitmap,
        entitlements: Entitlements,
        clock: Clock,
        me: HostIs,
        *,
        max_stale_ms: int,
        home_days: bool = True,
        load_pct: Callable[[], int] = lambda: 0,
        boottime_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        self._catalog = catalog
        self._bitmap = bitmap
        self._entitlements = entitlements
        self._clock = clock
        self._me = me
        self._max_stale_ms = max_stale_ms
        self._home_days = home_days
        self._load_pct = load_pct
        self._boottime_ns = boottime_ns
        self._lag_ms = 0
        self._heard_ns: int | None = None
        """When this feed began the last beat or registration that home has taken."""

    def register(self) -> None:
        """Have the host listed. Before the bitmap is made from the catalog: see `HostsCatalog.register_host`."""
        began_ns = self._boottime_ns()
        self._catalog.register_host(
            self._me.host, name=self._me.name, release=self._me.release, max_stale_ms=self._max_stale_ms
        )
        self._heard_ns = began_ns

    def step(self) -> Step:
        """See the module docstring. Blocks for as long as home takes.

        Raises:
            WorldError: home can't be asked, or `reads_behind`; nothing was stamped.
            CatalogRestored: home is behind this host.
        """
        asked_ns = self._boottime_ns()
        devices = self._entitlements.follow()
        beat_ns = self._boottime_ns()
        clock_ms = self._clock.now_ms()
        beat = self._catalog.beat(
            self._me.host,
            applied=self._bitmap.last_change,
            load_pct=self._load_pct(),
            lag_ms=self._lag_ms,
            clock_ms=clock_ms,
        )
        ended_ns = self._boottime_ns()
        if beat is None:
            self.register()
            return Step(devices, stamped=False, lag_ms=self._since_ms(asked_ns), offset_ms=0)
        heard_ns, self._heard_ns = self._heard_ns, beat_ns
        devices += self._catch_up(beat.newest_change)
        if self._home_days:
            self._bitmap.set_home_day(day_of_ms(beat.now_ms))
        if beat.closed_through > self._bitmap.closed_through:
            with self._bitmap.writing():
                self._bitmap.raise_closed_through(beat.closed_through)
        self._lag_ms = self._since_ms(asked_ns)
        stamped = heard_ns is not None and may_stamp(
            silent_ms=(ended_ns - heard_ns) / NS_PER_MS,
            took_ms=(ended_ns - beat_ns) / NS_PER_MS,
            max_stale_ms=self._max_stale_ms,
        )
        if stamped:
            self._bitmap.stamp(asked_ns)
        return Step(devices, stamped, self._lag_ms, clock_ms - beat.now_ms)

    def _catch_up(self, newest: int) -> int:
        """Take up what was committed between the reading of the log and the beat. Returns how many devices.

        Raises:
            WorldError: `reads_behind`: the log lacks what the server knew that took the beat.
        """
        if newest <= self._bitmap.last_change:
            return 0
        devices = self._entitlements.follow()
        if newest > self._bitmap.last_change:
            raise WorldError(
                "reads are answered by another server than writes, which is behind: a replica, or an earlier primary."
                " Have the address of [home] catalog lead to the primary alone, without a pooler that splits reads off",
                code="reads_behind",
            )
        return devices

    def leave(self) -> None:
        """Have the host taken from the list. Its rows are refused first."""
        self._bitmap.stamp(0)
        self._catalog.leave_host(self._me.host)

    def forget(self, unseen_ms: int) -> int:
        """Take hosts from the list that are gone. Returns how many."""
        return self._catalog.forget_hosts(unseen_ms=unseen_ms)

    def _since_ms(self, now_ns: int) -> int:
        """How old the stamp is; 0 when there is none of this boot."""
        before_ns = self._bitmap.asked_ns
        return (now_ns - before_ns) // NS_PER_MS if 0 < before_ns <= now_ns else 0
