"""The catalog as the sweep uses it. Every change is fenced: a sweeper that lost its lease changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from storage.catalog.sweep import SweepCatalog
from storage.days import day_of_ms
from storage.errors import CallerError
from storage.rows.recordings import DayTotals, Due, SegmentRow, SegmentState, Tombstone
from storage.sql.chunktables import chunk_days, chunk_table
from storage.sql.connection import Connection
from storage.sql.deletions import Deletions
from storage.sql.leases import fenced
from storage.sql.rewriting import Rewriting
from storage.sql.segments import SEGMENT_COLUMNS, segment_row


class Sweeping(Deletions, Rewriting, SweepCatalog):
    def open_days(self, through: int) -> list[DayTotals]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT expires_on, sum(segment), sum(live_chunks), sum(size_bytes)"
                " FROM (SELECT expires_on, 1 AS segment, live_chunks, size_bytes FROM segments"
                "       WHERE state = 1 AND expires_on <= :day"
                "       UNION ALL SELECT expires_on, 0, 0, 0 FROM days WHERE expires_on <= :day) AS held"
                " GROUP BY expires_on ORDER BY expires_on",
                {"day": through},
            )
            return [DayTotals(*row) for row in rows]

    def close_day(self, day: int, *, fence: int, now_ms: int, delete_after_ms: int) -> DayTotals:
        if day > day_of_ms(now_ms):
            raise CallerError(f"day {day} has not come: its chunks are live", code="not_expired")
        # By itself, for it is all that commits have to wait for. From here on nothing of the day is served or added.
        self.advance_closed_through(day, fence=fence)
        totals = self._unindex_day(day, fence=fence, delete_after_ms=delete_after_ms)
        self.db.drop_unlisted()
        return totals

    @fenced
    def _unindex_day(
        self, connection: Connection, day: int, *, fence: int, delete_after_ms: int
    ) -> DayTotals:
        totals = connection.execute(
            "SELECT count(*), coalesce(sum(live_chunks), 0), coalesce(sum(size_bytes), 0) FROM segments"
            " WHERE state = ? AND expires_on = ?",
            (SegmentState.COMMITTED, day),
        ).fetchone()
        connection.execute(
            "UPDATE segments SET state = ?, live_chunks = 0, delete_after_ms = ?, retry_at_ms = 0, attempts = 0"
            " WHERE state = ? AND expires_on = ?",
            (SegmentState.DELETING, delete_after_ms, SegmentState.COMMITTED, day),
        )
        if day in chunk_days(connection):
            connection.execute("DELETE FROM days WHERE expires_on = ?", (day,))
            connection.drop_chunk_table(chunk_table(day))
        return DayTotals(day, *totals)

    @fenced
    def advance_closed_through(self, connection: Connection, day: int, *, fence: int) -> None:
        _grow_closed_through(connection, day)

    def stale_prepared(self, before_ms: int, *, limit: int) -> list[SegmentRow]:
        with self.db.read() as connection:
            rows = connection.execute(
                f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE state = ? AND prepared_ms < ?"
                " ORDER BY segment_id LIMIT ?",
                (SegmentState.PREPARED, before_ms, limit),
            )
            return [segment_row(row) for row in rows]

    @fenced
    def reclaim(self, connection: Connection, segment_ids: Sequence[int], *, fence: int, now_ms: int) -> int:
        return connection.executemany(
            "UPDATE segments SET state = ?, delete_after_ms = ?, reclaimed = 1"
            " WHERE segment_id = ? AND state = ?",
            [(SegmentState.DELETING, now_ms, i, SegmentState.PREPARED) for i in segment_ids],
        ).rowcount

    def due_tombstones(self, now_ms: int, *, after_id: int, limit: int) -> list[Tombstone]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT segment_id, key, size_bytes, attempts, reclaimed != 0 FROM segments"
                " WHERE state = 2 AND delete_after_ms <= ? AND retry_at_ms <= ? AND segment_id > ?"
                " ORDER BY segment_id LIMIT ?",  # a literal state, for its partial index
                (now_ms, now_ms, after_id, limit),
            )
            return [Tombstone(i, key, size, attempts, bool(r)) for i, key, size, attempts, r in rows]

    def due_totals(self, now_ms: int) -> Due:
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(size_bytes), 0) FROM segments"
                " WHERE state = 2 AND delete_after_ms <= ? AND retry_at_ms <= ?",
                (now_ms, now_ms),
            ).fetchone()
            return Due(*row)

    @fenced
    def deleted(
        self, connection: Connection, segment_ids: Sequence[int], *, fence: int, now_ms: int, again_at_ms: int
    ) -> int:
        due = [(i, now_ms) for i in segment_ids]
        forgotten = connection.executemany(
            "DELETE FROM segments WHERE segment_id = ? AND state = 2 AND delete_after_ms <= ?"
            " AND reclaimed != 1",
            due,
        ).rowcount
        connection.executemany(
            "UPDATE segments SET reclaimed = 2, delete_after_ms = ?, retry_at_ms = 0, attempts = 0,"
            " last_error = NULL"
            " WHERE segment_id = ? AND state = 2 AND delete_after_ms <= ? AND reclaimed = 1",
            [(again_at_ms, *values) for values in due],
        )
        return forgotten

    @fenced
    def delete_failed(
        self, connection: Connection, errors: dict[int, str], *, fence: int, retry_at_ms: int
    ) -> None:
        connection.executemany(
            "UPDATE segments SET attempts = attempts + 1, last_error = ?, retry_at_ms = ?"
            " WHERE segment_id = ? AND state = ?",
            [(error[:200], retry_at_ms, i, SegmentState.DELETING) for i, error in errors.items()],
        )


def _grow_closed_through(connection: Connection, day: int) -> None:
    connection.exclude_commits()
    connection.execute("UPDATE meta SET value = ? WHERE name = 'closed_through' AND value < ?", (day, day))
