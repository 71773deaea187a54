"""Leases and their fencing tokens: a sweeper that lost its lease changes nothing (invariant 8)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from storage.catalog.leases import LeasesCatalog
from storage.errors import LeaseLost
from storage.sql.base import OnDatabase
from storage.sql.connection import Connection, HasDatabase, writing

SWEEP_LEASE = "sweep"


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=HasDatabase)


def fenced(method: Callable[Concatenate[S, Connection, P], R]) -> Callable[Concatenate[S, P], R]:
    """As `writing`, for what only the holder of the sweep's lease may do, whose token is the argument `fence`."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        def work(connection: Connection) -> R:
            require_lease(connection, kwargs["fence"])
            return method(self, connection, *args, **kwargs)

        return self.db.write(work)

    return call


def require_lease(connection: Connection, fence: object) -> None:
    """Raises LeaseLost when the lease is somebody else's. Nobody takes it before the transaction ends."""
    row = connection.execute(
        f"SELECT fence FROM leases WHERE name = ?{connection.locking}", (SWEEP_LEASE,)
    ).fetchone()
    if row is None or row[0] != fence:
        raise LeaseLost("another sweeper took over; this one changes nothing more")


class Leases(OnDatabase, LeasesCatalog):
    @writing()
    def acquire_lease(
        self, connection: Connection, name: str, *, holder: str, ttl_ms: int, now_ms: int
    ) -> int | None:
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
            "INSERT INTO leases VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET holder = excluded.holder, fence = excluded.fence, expires_ms = excluded.expires_ms",
            (name, holder, fence, now_ms + ttl_ms),
        )
        return int(fence)

    @writing()
    def release_lease(self, connection: Connection, name: str, *, fence: int) -> None:
        connection.execute(  # the token goes with it: what still holds it is stale from here on
            "UPDATE leases SET holder = '', fence = fence + 1, expires_ms = 0 WHERE name = ? AND fence = ?",
            (name, fence),
        )

    @contextmanager
    def holding_lease(self, *, fence: int) -> Iterator[None]:
        with self.db.hold() as connection:
            require_lease(connection, fence)
            yield
