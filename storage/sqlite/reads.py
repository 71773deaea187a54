"""The catalog as playback reads it."""

from __future__ import annotations

import json
import sqlite3

from storage.catalog import ChunkRow
from storage.days import MS_PER_DAY, day_of_ms
from storage.sqlite.commits import OnDatabase, candidate_days
from storage.sqlite.schema import partition, partition_days

CHUNK_COLUMNS = (
    "c.device, c.capture_ms, c.duration_ms, s.expires_on, c.segment_id, s.key, c.ordinal, c.offset, c.length,"
    " c.crc32, c.nonce, c.media, c.epoch"
)


def classes_of(connection: sqlite3.Connection, device: int) -> list[int]:
    """Every retention class that the device's chunks may have, empty for an unknown device."""
    row = connection.execute("SELECT classes FROM devices WHERE device = ?", (device,)).fetchone()
    return [] if row is None else json.loads(row[0])


def days_of_range(connection: sqlite3.Connection, device: int, from_ms: int, to_ms: int) -> list[int]:
    """Existing expiry days that may hold chunks of the device captured in [from_ms, to_ms)."""
    first, last = day_of_ms(from_ms), day_of_ms(to_ms - 1)
    classes = classes_of(connection, device)
    return sorted(
        day for day in partition_days(connection) if any(first + c <= day <= last + c + 1 for c in classes)
    )


class Reads(OnDatabase):
    def chunk(self, device: int, capture_ms: int) -> ChunkRow | None:
        with self._db.read() as connection:
            days = partition_days(connection)
            for day in candidate_days(capture_ms, classes_of(connection, device)):
                if day in days:
                    rows = _select(connection, day, device, capture_ms, capture_ms + 1, 1)
                    if rows:
                        return rows[0]
        return None

    def chunks(self, device: int, from_ms: int, to_ms: int, *, limit: int) -> list[ChunkRow]:
        if to_ms <= from_ms:
            return []
        found: list[ChunkRow] = []
        with self._db.read() as connection:
            for day in days_of_range(connection, device, from_ms, to_ms):
                found += _select(connection, day, device, from_ms, to_ms, limit)
        found.sort(key=lambda row: row.capture_ms)
        return found[:limit]

    def latest_chunks(self, device: int, *, limit: int) -> list[ChunkRow]:
        found: list[ChunkRow] = []
        with self._db.read() as connection:
            classes = classes_of(connection, device)
            for day in sorted(partition_days(connection), reverse=True):
                oldest_wanted = found[limit - 1].capture_ms if len(found) >= limit else None
                newest_possible = max((day - c + 1 for c in classes), default=0) * MS_PER_DAY
                if oldest_wanted is not None and newest_possible <= oldest_wanted:
                    continue
                found += _select(connection, day, device, 0, 1 << 62, limit, newest_first=True)
                found.sort(key=lambda row: row.capture_ms, reverse=True)
                del found[limit:]
        found.reverse()
        return found


def _select(
    connection: sqlite3.Connection,
    day: int,
    device: int,
    from_ms: int,
    to_ms: int,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[ChunkRow]:
    order = "DESC" if newest_first else "ASC"
    rows = connection.execute(
        f"SELECT {CHUNK_COLUMNS} FROM {partition(day)} c JOIN segments s USING (segment_id)"
        " WHERE c.device = ? AND c.capture_ms >= ? AND c.capture_ms < ?"
        f" ORDER BY c.capture_ms {order} LIMIT ?",
        (device, from_ms, to_ms, limit),
    )
    return [ChunkRow(*row) for row in rows]
