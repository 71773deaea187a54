"""The catalog as `clipkeep check` and `clipkeep catalog rebuild` use it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

import numpy as np

from storage.catalog import ChunkRow, SegmentRow, SegmentState, Totals
from storage.sqlite.commits import OnDatabase, insert_rows, row_values
from storage.sqlite.reads import CHUNK_COLUMNS
from storage.sqlite.schema import create_partition, partition, partition_days
from storage.sqlite.sweeping import SEGMENT_COLUMNS, closed_through, segment_row


class Checking(OnDatabase):
    def segments(self, *, after_id: int = 0, limit: int = 1000) -> list[SegmentRow]:
        with self._db.read() as connection:
            rows = connection.execute(
                f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE segment_id > ? ORDER BY segment_id LIMIT ?",
                (after_id, limit),
            )
            return [segment_row(row) for row in rows]

    def day_rows(self, day: int) -> Iterator[ChunkRow]:
        with self._db.read() as connection:
            if day not in partition_days(connection):
                return
            rows = connection.execute(
                f"SELECT {CHUNK_COLUMNS} FROM {partition(day)} c JOIN segments s USING (segment_id)"
                " ORDER BY c.segment_id, c.ordinal"
            )
            for row in rows:
                yield ChunkRow(*row)

    def broken_rows(self) -> Iterator[str]:
        with self._db.read() as connection:
            closed = closed_through(connection)
            for day in sorted(partition_days(connection)):
                if day <= closed:
                    yield f"day {day}: still has a partition though it was closed"
                rows = connection.execute(
                    "SELECT c.segment_id, count(*), s.state, s.expires_on, s.live_chunks"
                    f" FROM {partition(day)} c LEFT JOIN segments s USING (segment_id) GROUP BY c.segment_id"
                )
                for segment_id, count, state, expires_on, live in rows:
                    if state != SegmentState.COMMITTED:
                        word = "absent" if state is None else SegmentState(state).name.lower()
                        yield f"segment {segment_id}: {count} chunk rows point at it, but it is {word}"
                    elif expires_on != day:
                        yield f"segment {segment_id}: expires on day {expires_on}, has rows in day {day}"
                    elif live != count:
                        yield f"segment {segment_id}: says {live} live chunks, has {count} rows"
            yield from self._segments_without_rows(connection)

    @staticmethod
    def _segments_without_rows(connection: sqlite3.Connection) -> Iterator[str]:
        days = partition_days(connection)
        rows = connection.execute(
            "SELECT segment_id, expires_on, live_chunks FROM segments WHERE state = ?",
            (SegmentState.COMMITTED,),
        ).fetchall()
        with_rows: dict[int, set[int]] = {}
        for segment_id, day, live in rows:
            if day not in with_rows:
                found = (
                    connection.execute(f"SELECT DISTINCT segment_id FROM {partition(day)}")
                    if day in days
                    else ()
                )
                with_rows[day] = {row[0] for row in found}
            if segment_id not in with_rows[day]:
                yield f"segment {segment_id}: says {live} live chunks, has no rows"

    def rebuild_chunks(self, segments: Iterable[tuple[SegmentRow, np.ndarray]]) -> int:
        added = 0
        for segment, index in segments:
            with self._db.write() as connection:
                added += self._rebuild_one(connection, segment, index)
        return added

    @staticmethod
    def _rebuild_one(connection: sqlite3.Connection, segment: SegmentRow, index: np.ndarray) -> int:
        state = connection.execute(
            "SELECT state FROM segments WHERE segment_id = ?", (segment.segment_id,)
        ).fetchone()
        if state is None or state[0] != SegmentState.COMMITTED:
            return 0
        keep = np.ones(len(index), dtype=bool)
        keep[np.frombuffer(segment.refused, dtype="<u4")] = False
        epochs = dict(connection.execute("SELECT device, erase_epoch FROM devices"))
        current = [epochs.get(d, -1) for d in index["device"].tolist()]
        keep &= index["epoch"] == np.array(current, dtype=np.int64)
        ordinals = np.flatnonzero(keep)
        if segment.expires_on not in partition_days(connection):
            create_partition(connection, segment.expires_on)
        return insert_rows(connection, segment.expires_on, row_values(index, segment.segment_id, ordinals))

    def highest_segment_id(self) -> int:
        with self._db.read() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'segments'").fetchone()
            return 0 if row is None else int(row[0])

    def totals(self) -> Totals:
        with self._db.read() as connection:
            segments: dict[str, int] = {s.name.lower(): 0 for s in SegmentState}
            chunks = size_bytes = 0
            for state, count, live, size in connection.execute(
                "SELECT state, count(*), sum(live_chunks), sum(size_bytes) FROM segments GROUP BY state"
            ):
                segments[SegmentState(state).name.lower()] = count
                if state == SegmentState.COMMITTED:
                    chunks, size_bytes = live, size
            tombstones, oldest, failing = connection.execute(
                "SELECT count(*), min(delete_after_ms), coalesce(sum(attempts > 0), 0) FROM segments WHERE state = ?",
                (SegmentState.DELETING,),
            ).fetchone()
            devices = connection.execute("SELECT count(*) FROM devices").fetchone()[0]
            return Totals(
                devices=devices,
                chunks=chunks,
                segments=segments,
                segment_bytes=size_bytes,
                tombstones=tombstones,
                oldest_tombstone_ms=oldest,
                failing_tombstones=failing,
                closed_through=closed_through(connection),
            )
