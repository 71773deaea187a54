"""The catalog as the sweep uses it. Every change is fenced: a sweeper that lost its lease changes nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from storage.catalog.reports import MAX_SWEEP_REPORTS
from storage.days import day_of_ms
from storage.errors import CallerError
from storage.rows.devices import DeviceFacts, EraseState
from storage.rows.recordings import DayTotals, Due, Orphan, SegmentRow, SegmentState, Tombstone, Unindexed
from storage.sql.chunktables import chunk_days, chunk_table, closed_through
from storage.sql.connection import Connection, bounded, writing
from storage.sql.deletions import add_unindexed, unindex_rows
from storage.sql.devices import facts_where, no_such_device
from storage.sql.erasures import note_all_unindexed, note_unindexed
from storage.sql.leases import Leases, fenced

SEGMENT_COLUMNS = (
    "segment_id, key, class_days, expires_on, state, prepared_ms, size_bytes, chunks, live_chunks, crc32,"
    " refused"
)


def segment_row(row: tuple[Any, ...]) -> SegmentRow:
    segment_id, key, class_days, expires_on, state, *rest = row
    return SegmentRow(segment_id, key, class_days, expires_on, SegmentState(state), *rest)


class Sweeping(Leases):
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

    @property
    def closed_through(self) -> int:
        with self.db.read() as connection:
            return closed_through(connection)

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

    @fenced
    def adopt_orphans(
        self,
        connection: Connection,
        orphans: Sequence[Orphan],
        *,
        fence: int,
        now_ms: int,
        delete_after_ms: int,
    ) -> int:
        return connection.executemany(
            "INSERT INTO segments (key, class_days, expires_on, state, prepared_ms, size_bytes, delete_after_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (
                    *(orphan.key, orphan.class_days, orphan.expires_on, SegmentState.DELETING),
                    *(now_ms, orphan.size_bytes, delete_after_ms),
                )
                for orphan in orphans
            ],
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

    def erasing_devices(self, *, limit: int = -1) -> list[DeviceFacts]:
        with self.db.read() as connection:
            where = "erase_state != 0 AND (erase_state = ? OR stale_rows != 0) ORDER BY device LIMIT ?"
            return facts_where(connection, where, (EraseState.ERASING, bounded(limit)))

    def unindex_device(self, device: int, *, fence: int, now_ms: int, delete_after_ms: int) -> Unindexed:
        total = Unindexed()
        epoch, days = self._begin_unindexing(device, fence=fence)
        # From here on no commit adds a row of an earlier epoch. A transaction a day: a device with months of
        # rows does not hold up the commits.
        for day in days:
            part = self._unindex_device_day(device, epoch, day, fence=fence, delete_after_ms=delete_after_ms)
            total = add_unindexed(total, part)
        self._end_unindexing(device, epoch, fence=fence, now_ms=now_ms)
        return total

    @fenced
    def _begin_unindexing(self, connection: Connection, device: int, *, fence: int) -> tuple[int, list[int]]:
        row = connection.execute("SELECT erase_epoch FROM devices WHERE device = ?", (device,)).fetchone()
        if row is None:
            raise no_such_device(device)
        return row[0], sorted(chunk_days(connection))

    @fenced
    def _unindex_device_day(
        self, connection: Connection, device: int, epoch: int, day: int, *, fence: int, delete_after_ms: int
    ) -> Unindexed:
        if day not in chunk_days(connection):
            return Unindexed()
        where = "device = ? AND epoch < ?"
        part = unindex_rows(connection, day, where, (device, epoch), delete_after_ms)
        note_unindexed(connection, device, epoch, part.chunks)
        return part

    @fenced
    def _end_unindexing(
        self, connection: Connection, device: int, epoch: int, *, fence: int, now_ms: int
    ) -> None:
        note_all_unindexed(connection, device, epoch, now_ms=now_ms)
        connection.execute(
            "UPDATE devices SET stale_rows = 0 WHERE device = ? AND erase_epoch = ?", (device, epoch)
        )

    def record_sweep(self, report: dict[str, Any], *, now_ms: int) -> None:
        self._record_sweep(report, now_ms=now_ms)
        self.db.drop_unlisted()  # what had readers when its day was closed

    @writing()
    def _record_sweep(self, connection: Connection, report: dict[str, Any], *, now_ms: int) -> None:
        connection.execute("INSERT INTO sweeps (at_ms, report) VALUES (?, ?)", (now_ms, json.dumps(report)))
        connection.execute(
            "DELETE FROM sweeps WHERE sweep_id <="
            " (SELECT sweep_id FROM sweeps ORDER BY sweep_id DESC LIMIT 1 OFFSET ?)",
            (MAX_SWEEP_REPORTS,),
        )

    def last_sweep(self) -> dict[str, Any] | None:
        with self.db.read() as connection:
            row = connection.execute("SELECT report FROM sweeps ORDER BY sweep_id DESC LIMIT 1").fetchone()
            return None if row is None else json.loads(row[0])


def _grow_closed_through(connection: Connection, day: int) -> None:
    connection.exclude_commits()
    connection.execute("UPDATE meta SET value = ? WHERE name = 'closed_through' AND value < ?", (day, day))
