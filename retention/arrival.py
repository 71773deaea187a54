"""A change of rights arrives: whoever made one waits until no host acts on what was before.

Hosts learn of it from the change log (`retention.feed`), and say by their beat how far they are. A host that does not
say so serves nothing by its old rows for long: it stamps its bitmap with the moment before it asked home, and what is
older than `max_stale_s` refuses. So a wait ends when each host that is listed

    has applied the change, or
    was last heard by home more than its `max_stale_s` and `GRACE_S` ago: what it was told then is over,

and in any case so long after the commit, when home can't be asked: whoever has asked since has the change, and the
stamps of the others are over. A host that registers after the commit reads the change with its first rows.

Nobody waits inside a lock or a transaction. Whoever changes much in a row waits once, see `Entitlements.together`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from storage.catalog.hosts import HostsCatalog
from storage.errors import WorldError
from storage.rows.hosts import HostRow

GRACE_S = 1.0
"""For home's clock and the host's, which run at different speeds, and for a beat that home has committed and not
answered yet. A feed whose beat took longer does not stamp."""
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 0.2


class Arrival(Protocol):
    """How a change of rights arrives."""

    def wait(self, number: int) -> None:
        """Return when change `number` and all before it are in force, whoever made them. May take as long as
        `max_stale_s` and `GRACE_S`."""


class Here:
    """Home is on this host, and its processes read the rows that were just written."""

    def wait(self, number: int) -> None:
        pass


HERE = Here()


def bound_ms(host: HostRow) -> int:
    """How long after home heard a host its stamp is over. Each says its own: while it is being changed they differ."""
    return host.max_stale_ms + round(GRACE_S * 1000)


def waited_for(hosts: Iterable[HostRow], number: int, *, now_ms: int) -> list[HostRow]:
    """Those that may still act on what was before change `number`.

    Args:
        now_ms: home's clock, Unix milliseconds.
    """
    return [host for host in hosts if host.applied < number and now_ms - host.asked_ms <= bound_ms(host)]


class OnHosts:
    """Home is a server, with any number of hosts. One object may be used by several threads.

    Args:
        max_stale_s: this host's. How long the others act by what they have asked the list says; while home is away, it
            is the longest that this object has read there.
        interrupted: is given what a person should know who stops waiting.
    """

    def __init__(
        self,
        catalog: HostsCatalog,
        *,
        max_stale_s: float,
        interrupted: Callable[[str], None] = lambda said: None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._bound_s = max_stale_s + GRACE_S
        self._interrupted = interrupted
        self._sleep = sleep
        self._monotonic = monotonic

    def wait(self, number: int) -> None:
        began_s = self._monotonic()
        pause_s = FIRST_PAUSE_S
        try:
            while self._is_waited_for(number) and (left_s := began_s + self._bound_s - self._monotonic()) > 0:
                self._sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except KeyboardInterrupt:
            self._interrupted(
                f"the change is made. A host that does not answer yet has it, or serves nothing, {self._bound_s:g} s"
                " after it; `clipkeep hosts` shows which"
            )
            raise

    def _is_waited_for(self, number: int) -> bool:
        try:
            hosts, now_ms = self._catalog.hosts()
        except WorldError:  # the change is committed; while home is away time alone tells
            return True
        waited = waited_for(hosts, number, now_ms=now_ms)
        self._bound_s = max([self._bound_s, *(bound_ms(host) / 1000 for host in waited)])
        return bool(waited)


class Later:
    """Notes what is to be waited for, by whatever threads, and waits once: for whoever makes many changes in a row."""

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival
        self._lock = threading.Lock()
        self._number = 0

    def wait(self, number: int) -> None:
        with self._lock:
            self._number = max(number, self._number)

    def arrive(self) -> None:
        """Return when all that was noted is in force."""
        if self._number:
            self._arrival.wait(self._number)
