"""The sweeper's lease: one acts, and one that lost it changes nothing more (invariant 8)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from retention.sweep.guards import SweepRefused
from storage.catalog.leases import LeasesCatalog
from storage.clock import Clock
from storage.errors import LeaseLost, WorldError

LEASE = "sweep"


class Lease:
    """One run's claim to be the only sweeper.

    Changes of the catalog carry `fence`, so that the catalog itself refuses a stale one. What it cannot see, the
    destruction of keys, happens while `held` keeps everyone else from taking the lease.

    Args:
        ttl_ms: how long it lasts unless renewed.
    """

    def __init__(self, catalog: LeasesCatalog, clock: Clock, *, ttl_ms: int) -> None:
        self._catalog = catalog
        self._clock = clock
        self._ttl_ms = ttl_ms
        self._holder = secrets.token_hex(8)
        self.fence = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the lease, and give it back.

        Raises:
            SweepRefused: `busy`, somebody else has it.
        """
        fence = self._acquire()
        if fence is None:
            raise SweepRefused(
                f"another sweep is at work, or died less than {self._ttl_ms / 1000:.0f} s ago; try again then",
                code="busy",
            )
        self.fence = fence
        try:
            yield
        finally:
            with suppress(WorldError):  # it runs out by itself, and the first error is the one to tell
                self._catalog.release_lease(LEASE, fence=fence)

    def renew(self) -> None:
        """Keep it, before each step that takes time.

        Raises:
            LeaseLost: somebody else has, or had, it.
        """
        fence = self._acquire()
        if fence == self.fence:
            return
        if fence is not None:
            self._catalog.release_lease(LEASE, fence=fence)
        raise LeaseLost("another sweeper took over; this one changes nothing more")

    def held(self) -> AbstractContextManager[None]:
        """Inside, nobody can take the lease, and commits wait: for steps of milliseconds.

        Raises:
            LeaseLost: on entry, as `renew`.
        """
        self.renew()
        return self._catalog.holding_lease(fence=self.fence)

    def _acquire(self) -> int | None:
        return self._catalog.acquire_lease(
            LEASE, holder=self._holder, ttl_ms=self._ttl_ms, now_ms=self._clock.now_ms()
        )
