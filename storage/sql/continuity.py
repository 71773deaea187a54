"""The catalog's facts about itself, in `meta`; see `storage.catalog.continuity`."""

from __future__ import annotations

from collections.abc import Mapping

from storage.catalog.continuity import ContinuityCatalog
from storage.clock import ClockMark
from storage.errors import CallerError
from storage.sql.chunktables import closed_through
from storage.sql.connection import Connection, writing
from storage.sql.devices import newest_change
from storage.sql.leases import Leases, fenced
from storage.sql.meta import number, put_number
from storage.sql.numbers import KINDS, ceiling, highest_given, raise_ceiling, start_above

_CLOCK = ("clock_wall_ms", "clock_uptime_ms", "clock_boot")
_HOME = "home"
_FIRST_KEY_MONTH = "first_key_month"
_DOUBTED = "doubted"


class Continuing(Leases, ContinuityCatalog):
    def require_files(self) -> None:
        self.db.require_files()

    def require_writable(self) -> None:
        self.db.require_writable()

    @property
    def closed_through(self) -> int:
        with self.db.read() as connection:
            return closed_through(connection)

    def newest_change(self) -> int:
        with self.db.read() as connection:
            return newest_change(connection)

    def highest_segment_id(self) -> int:
        with self.db.read() as connection:
            return connection.last_number("segments")

    def clock_mark(self) -> ClockMark | None:
        with self.db.read() as connection:
            wall_ms, uptime_ms, boot = (number(connection, name) for name in _CLOCK)
        if wall_ms is None or uptime_ms is None or boot is None:
            return None
        return ClockMark(wall_ms, uptime_ms, boot)

    @writing()
    def note_clock(self, connection: Connection, mark: ClockMark) -> None:
        for name, value in zip(_CLOCK, (mark.wall_ms, mark.uptime_ms, mark.boot), strict=True):
            put_number(connection, name, value)

    @property
    def home(self) -> int | None:
        with self.db.read() as connection:
            return number(connection, _HOME)

    @writing()
    def settle_home(self, connection: Connection, home: int) -> int:
        if (known := number(connection, _HOME)) is not None:
            return known
        put_number(connection, _HOME, home)
        return home

    def newest_seen_ms(self) -> int:
        with self.db.read() as connection:
            newest = (
                connection.execute(f"SELECT {column} FROM {table} ORDER BY {number} DESC LIMIT 1").fetchone()
                for table, column, number in (
                    ("segments", "prepared_ms", "segment_id"),
                    ("sweeps", "at_ms", "sweep_id"),
                )
            )
            return max(0 if row is None else int(row[0]) for row in newest)

    @property
    def is_doubted(self) -> bool:
        with self.db.read() as connection:
            return bool(number(connection, _DOUBTED))

    @writing()
    def note_doubt(self, connection: Connection, doubted: bool) -> None:
        put_number(connection, _DOUBTED, int(doubted))

    @property
    def first_key_month(self) -> int:
        with self.db.read() as connection:
            return number(connection, _FIRST_KEY_MONTH) or 0

    @writing()
    def raise_first_key_month(self, connection: Connection, month: int) -> None:
        put_number(connection, _FIRST_KEY_MONTH, max(month, number(connection, _FIRST_KEY_MONTH) or 0))

    @fenced
    def reopen_days(self, connection: Connection, through: int, *, fence: int, delete_after_ms: int) -> None:
        if closed_through(connection) <= through:
            raise CallerError(f"no day after day {through} is closed", code="not_closed")
        connection.exclude_commits()
        put_number(connection, "closed_through", through)
        connection.execute(
            "UPDATE segments SET delete_after_ms = :at WHERE state = 2 AND delete_after_ms > :at",
            {"at": delete_after_ms},
        )
        connection.execute(
            "UPDATE segments SET retry_at_ms = :at WHERE retry_at_ms > :at", {"at": delete_after_ms}
        )

    def numbers_given(self) -> dict[str, int]:
        with self.db.read() as connection:
            return {kind: highest_given(connection, kind) for kind in KINDS}

    def ceilings(self) -> dict[str, int]:
        with self.db.read() as connection:
            found = {kind: ceiling(connection, kind) for kind in KINDS}
            return {kind: value for kind, value in found.items() if value is not None}

    @writing()
    def raise_ceilings(self, connection: Connection, ceilings: Mapping[str, int]) -> None:
        for kind, value in ceilings.items():
            raise_ceiling(connection, kind, value)

    @writing()
    def start_above(self, connection: Connection, ceilings: Mapping[str, int]) -> None:
        start_above(connection, ceilings)
