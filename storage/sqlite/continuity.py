"""The catalog's facts about itself, in `meta`; see `storage.continuity`."""

from __future__ import annotations

import sqlite3

from storage.clock import ClockMark
from storage.errors import CallerError
from storage.sqlite.leases import Leases
from storage.sqlite.schema import closed_through

_CLOCK = ("clock_wall_ms", "clock_uptime_ms", "clock_boot")
_FIRST_KEY_MONTH = "first_key_month"


class Continuing(Leases):
    def clock_mark(self) -> ClockMark | None:
        with self._db.read() as connection:
            wall_ms, uptime_ms, boot = (number(connection, name) for name in _CLOCK)
        if wall_ms is None or uptime_ms is None or boot is None:
            return None
        return ClockMark(wall_ms, uptime_ms, boot)

    def note_clock(self, mark: ClockMark) -> None:
        with self._db.write() as connection:
            for name, value in zip(_CLOCK, (mark.wall_ms, mark.uptime_ms, mark.boot), strict=True):
                put_number(connection, name, value)

    def newest_seen_ms(self) -> int:
        with self._db.read() as connection:
            row = connection.execute(
                "SELECT max(coalesce((SELECT prepared_ms FROM segments ORDER BY segment_id DESC LIMIT 1), 0),"
                " coalesce((SELECT at_ms FROM sweeps ORDER BY sweep_id DESC LIMIT 1), 0))"
            ).fetchone()
            return int(row[0])

    @property
    def first_key_month(self) -> int:
        with self._db.read() as connection:
            return number(connection, _FIRST_KEY_MONTH) or 0

    def raise_first_key_month(self, month: int) -> None:
        with self._db.write() as connection:
            put_number(connection, _FIRST_KEY_MONTH, max(month, number(connection, _FIRST_KEY_MONTH) or 0))

    def reopen_days(self, through: int, *, fence: int, delete_after_ms: int) -> None:
        with self._fenced(fence) as connection:
            if closed_through(connection) <= through:
                raise CallerError(f"no day after day {through} is closed", code="not_closed")
            put_number(connection, "closed_through", through)
            connection.execute(
                "UPDATE segments SET delete_after_ms = ?1 WHERE state = 2 AND delete_after_ms > ?1",
                (delete_after_ms,),
            )
            connection.execute(
                "UPDATE segments SET retry_at_ms = ?1 WHERE retry_at_ms > ?1", (delete_after_ms,)
            )


def number(connection: sqlite3.Connection, name: str) -> int | None:
    """A number in `meta`."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def put_number(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
