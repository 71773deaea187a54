"""The catalog as the sweep uses it. Every change is fenced: a sweeper that lost its lease changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from storage.catalog import (
    DayTotals,
    DeviceFacts,
    Due,
    EraseState,
    Orphan,
    SegmentRow,
    SegmentState,
    Tombstone,
    Unindexed,
)
from storage.days import day_of_ms
from storage.errors import CallerError
from storage.records import MAX_SWEEP_REPORTS
from storage.sqlite.deletions import add_unindexed, unindex_rows
from storage.sqlite.devices import facts_where, no_such_device
from storage.sqlite.erasures import note_all_unindexed, note_unindexed
from storage.sqlite.leases import Leases
from storage.sqlite.schema import closed_through, partition, partition_days

SEGMENT_COLUMNS = (
    "segment_id, key, class_days, expires_on, state, prepared_ms, size_bytes, chunks, live_chunks, crc32,"
    " refused"
)


def segment_row(row: tuple[Any, ...]) -> SegmentRow:
    segment_id, key, class_days, expires_on, state, *rest = row
    return SegmentRow(segment_id, key, class_days, expires_on, SegmentState(state), *rest)


class Sweeping(Leases):
    def open_days(self, through: int) -> list[DayTotals]:
        with self._db.read() as connection:
            rows = connection.execute(
                "SELECT expires_on, sum(state = 1), sum((state = 1) * live_chunks), sum((state = 1) * size_bytes)"
                " FROM (SELECT expires_on, state, live_chunks, size_bytes FROM segments"
                "       WHERE state = 1 AND expires_on <= :day"
                "       UNION ALL SELECT expires_on, 0, 0, 0 FROM days WHERE expires_on <= :day)"
                " GROUP BY expires_on ORDER BY expires_on",
                {"day": through},
            )
            return [DayTotals(*row) for row in rows]

    def close_day(self, day: int, *, fence: int, now_ms: int, delete_after_ms: int) -> DayTotals:
        if day > day_of_ms(now_ms):
            raise CallerError(f"day {day} has not come: its chunks are live", code="not_expired")
        with self._fenced(fence) as connection:
            _grow_closed_through(connection, day)
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
            if day in partition_days(connection):
                connection.execute(f"DROP TABLE {partition(day)}")
                connection.execute("DELETE FROM days WHERE expires_on = ?", (day,))
            return DayTotals(day, *totals)

    @property
    def closed_through(self) -> int:
        with self._db.read() as connection:
            return closed_through(connection)

    def advance_closed_through(self, day: int, *, fence: int) -> None:
        with self._fenced(fence) as connection:
            _grow_closed_through(connection, day)

    def stale_prepared(self, before_ms: int, *, limit: int) -> list[SegmentRow]:
        with self._db.read() as connection:
            rows = connection.execute(
                f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE state = ? AND prepared_ms < ?"
                " ORDER BY segment_id LIMIT ?",
                (SegmentState.PREPARED, before_ms, limit),
            )
            return [segment_row(row) for row in rows]

    def reclaim(self, segment_ids: Sequence[int], *, fence: int, now_ms: int) -> int:
        with self._fenced(fence) as connection:
            before = connection.total_changes
            connection.executemany(
                "UPDATE segments SET state = ?, delete_after_ms = ?, reclaimed = 1"
                " WHERE segment_id = ? AND state = ?",
                [(SegmentState.DELETING, now_ms, i, SegmentState.PREPARED) for i in segment_ids],
            )
            return connection.total_changes - before

    def adopt_orphans(
        self, orphans: Sequence[Orphan], *, fence: int, now_ms: int, delete_after_ms: int
    ) -> int:
        with self._fenced(fence) as connection:
            before = connection.total_changes
            connection.executemany(
                "INSERT INTO segments (key, class_days, expires_on, state, prepared_ms, size_bytes, delete_after_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                [
                    (
                        *(orphan.key, orphan.class_days, orphan.expires_on, SegmentState.DELETING),
                        *(now_ms, orphan.size_bytes, delete_after_ms),
                    )
                    for orphan in orphans
                ],
            )
            return connection.total_changes - before

    def due_tombstones(self, now_ms: int, *, after_id: int, limit: int) -> list[Tombstone]:
        with self._db.read() as connection:
            rows = connection.execute(
                "SELECT segment_id, key, size_bytes, attempts, reclaimed != 0 FROM segments"
                " WHERE state = 2 AND delete_after_ms <= ? AND retry_at_ms <= ? AND segment_id > ?"
                " ORDER BY segment_id LIMIT ?",  # a literal state, for its partial index
                (now_ms, now_ms, after_id, limit),
            )
            return [Tombstone(i, key, size, attempts, bool(r)) for i, key, size, attempts, r in rows]

    def due_totals(self, now_ms: int) -> Due:
        with self._db.read() as connection:
            row = connection.execute(
                "SELECT count(*), coalesce(sum(size_bytes), 0) FROM segments"
                " WHERE state = 2 AND delete_after_ms <= ? AND retry_at_ms <= ?",
                (now_ms, now_ms),
            ).fetchone()
            return Due(*row)

    def deleted(self, segment_ids: Sequence[int], *, fence: int, now_ms: int, again_at_ms: int) -> int:
        due = [(i, now_ms) for i in segment_ids]
        with self._fenced(fence) as connection:
            before = connection.total_changes
            connection.executemany(
                "DELETE FROM segments WHERE segment_id = ? AND state = 2 AND delete_after_ms <= ?"
                " AND reclaimed != 1",
                due,
            )
            forgotten = connection.total_changes - before
            connection.executemany(
                "UPDATE segments SET reclaimed = 2, delete_after_ms = ?, retry_at_ms = 0, attempts = 0,"
                " last_error = NULL"
                " WHERE segment_id = ? AND state = 2 AND delete_after_ms <= ? AND reclaimed = 1",
                [(again_at_ms, *values) for values in due],
            )
            return forgotten

    def delete_failed(self, errors: dict[int, str], *, fence: int, retry_at_ms: int) -> None:
        with self._fenced(fence) as connection:
            connection.executemany(
                "UPDATE segments SET attempts = attempts + 1, last_error = ?, retry_at_ms = ?"
                " WHERE segment_id = ? AND state = ?",
                [(error[:200], retry_at_ms, i, SegmentState.DELETING) for i, error in errors.items()],
            )

    def erasing_devices(self, *, limit: int = -1) -> list[DeviceFacts]:
        with self._db.read() as connection:
            where = "erase_state != 0 AND (erase_state = ? OR stale_rows) ORDER BY device LIMIT ?"
            return facts_where(connection, where, (EraseState.ERASING, limit))

    def unindex_device(self, device: int, *, fence: int, now_ms: int, delete_after_ms: int) -> Unindexed:
        total = Unindexed()
        with self._fenced(fence) as connection:
            row = connection.execute("SELECT erase_epoch FROM devices WHERE device = ?", (device,)).fetchone()
            days = sorted(partition_days(connection))
        if row is None:
            raise no_such_device(device)
        epoch = row[0]
        # From here on no commit adds a row of an earlier epoch. A transaction a day: a device with months of
        # rows does not hold up the commits.
        for day in days:
            with self._fenced(fence) as connection:
                if day in partition_days(connection):
                    where = "device = ? AND epoch < ?"
                    part = unindex_rows(connection, day, where, (device, epoch), delete_after_ms)
                    total = add_unindexed(total, part)
                    note_unindexed(connection, device, epoch, part.chunks)
        with self._fenced(fence) as connection:
            note_all_unindexed(connection, device, epoch, now_ms=now_ms)
            connection.execute(
                "UPDATE devices SET stale_rows = 0 WHERE device = ? AND erase_epoch = ?", (device, epoch)
            )
        return total

    def record_sweep(self, report: dict[str, Any], *, now_ms: int) -> None:
        with self._db.write() as connection:
            connection.execute(
                "INSERT INTO sweeps (at_ms, report) VALUES (?, ?)", (now_ms, json.dumps(report))
            )
            connection.execute(
                "DELETE FROM sweeps WHERE sweep_id <="
                " (SELECT sweep_id FROM sweeps ORDER BY sweep_id DESC LIMIT 1 OFFSET ?)",
                (MAX_SWEEP_REPORTS,),
            )

    def last_sweep(self) -> dict[str, Any] | None:
        with self._db.read() as connection:
            row = connection.execute("SELECT report FROM sweeps ORDER BY sweep_id DESC LIMIT 1").fetchone()
            return None if row is None else json.loads(row[0])


def _grow_closed_through(connection: sqlite3.Connection, day: int) -> None:
    connection.execute("UPDATE meta SET value = max(value, ?) WHERE name = 'closed_through'", (day,))
