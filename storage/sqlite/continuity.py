"""The catalog's facts about itself, in `meta`; see `storage.continuity`."""

from __future__ import annotations

from collections.abc import Mapping

from storage.clock import ClockMark
from storage.errors import CallerError
from storage.sqlite.leases import Leases
from storage.sqlite.meta import number, put_number
from storage.sqlite.numbers import KINDS, ceiling, highest_given, raise_ceiling, start_above
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

    def numbers_given(self) -> dict[str, int]:
        with self._db.read() as connection:
            return {kind: highest_given(connection, kind) for kind in KINDS}

    def ceilings(self) -> dict[str, int]:
        with self._db.read() as connection:
            found = {kind: ceiling(connection, kind) for kind in KINDS}
            return {kind: value for kind, value in found.items() if value is not None}

    def raise_ceilings(self, ceilings: Mapping[str, int]) -> None:
        with self._db.write() as connection:
            for kind, value in ceilings.items():
                raise_ceiling(connection, kind, value)

    def start_above(self, ceilings: Mapping[str, int]) -> None:
        with self._db.write() as connection:
            start_above(connection, ceilings)
