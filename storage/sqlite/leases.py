"""Leases and their fencing tokens: a sweeper that lost its lease changes nothing (invariant 8)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import LeaseLost
from storage.sqlite.commits import OnDatabase

SWEEP_LEASE = "sweep"


class Leases(OnDatabase):
    @contextmanager
    def _fenced(self, fence: int) -> Iterator[sqlite3.Connection]:
        """A write transaction that only the holder of the lease with this token may make."""
        with self._db.write() as connection:
            row = connection.execute("SELECT fence FROM leases WHERE name = ?", (SWEEP_LEASE,)).fetchone()
            if row is None or row[0] != fence:
                raise LeaseLost("another sweeper took over; this one changes nothing more")
            yield connection

    def acquire_lease(self, name: str, *, holder: str, ttl_ms: int, now_ms: int) -> int | None:
        with self._db.write() as connection:
            row = connection.execute(
                "SELECT holder, fence, expires_ms FROM leases WHERE name = ?", (name,)
            ).fetchone()
            if row is None:
                fence = 1
            else:
                current, fence, expires_ms = row
                if current != holder:
                    if now_ms < expires_ms:
                        return None
                    fence += 1
            connection.execute(
                "REPLACE INTO leases VALUES (?, ?, ?, ?)", (name, holder, fence, now_ms + ttl_ms)
            )
            return int(fence)

    def release_lease(self, name: str, *, fence: int) -> None:
        with self._db.write() as connection:
            connection.execute(  # the token goes with it: what still holds it is stale from here on
                "UPDATE leases SET holder = '', fence = fence + 1, expires_ms = 0 WHERE name = ? AND fence = ?",
                (name, fence),
            )

    @contextmanager
    def holding_lease(self, *, fence: int) -> Iterator[None]:
        with self._fenced(fence):
            yield
