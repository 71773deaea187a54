"""The catalog as playback reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain

from storage.catalog.reading import ReadingCatalog
from storage.days import day_of_ms, expiry_day, ms_of_day, recorded_day
from storage.rows.recordings import (
    MAX_CAPTURE_MS,
    MAX_UNUSED_RANGES,
    NOTHING_STORED,
    ChunkRow,
    LiveListRow,
    SegmentMark,
    SegmentState,
)
from storage.sql.base import OnDatabase
from storage.sql.chunktables import chunk_table, open_days
from storage.sql.connection import Connection, writing

CHUNK_COLUMNS = (
    "c.device, c.capture_ms, c.duration_ms, s.expires_on, c.segment_id, s.key, c.ordinal, c.offset, c.length,"
    " c.crc32, c.nonce, c.media, c.epoch, c.facts"
)


def classes_of(connection: Connection, device: int) -> list[int]:
    """Every retention class that the device's chunks may have, empty for an unknown device."""
    row = connection.execute("SELECT classes FROM devices WHERE device = ?", (device,)).fetchone()
    return [] if row is None else json.loads(row[0])


def days_of_range(connection: Connection, classes: Sequence[int], from_ms: int, to_ms: int) -> list[int]:
    """Open expiry days, in order, that may hold chunks captured in [from_ms, to_ms) under these classes."""
    first, last = day_of_ms(from_ms), day_of_ms(to_ms - 1)
    # A capture just after midnight that was ahead of the server's clock expires as one of the day before.
    return sorted(
        day
        for day in open_days(connection)
        if any(expiry_day(first - 1, c) <= day <= expiry_day(last, c) for c in classes)
    )


class Reads(OnDatabase, ReadingCatalog):
    def chunk(self, device: int, capture_ms: int) -> ChunkRow | None:
        found = self.chunks(device, capture_ms, capture_ms + 1, limit=1)
        return found[0] if found else None

    def init(self, device: int, number: int, expires_on: int) -> ChunkRow | None:
        found = self.parts(device, -number, 1 - number, expires_on, limit=1)
        return found[0] if found else None

    def parts(self, device: int, from_ms: int, to_ms: int, expires_on: int, *, limit: int) -> list[ChunkRow]:
        with self.db.read() as connection:
            if expires_on not in open_days(connection):
                return []
            return _select(connection, expires_on, device, from_ms, to_ms, limit)

    def chunks(self, device: int, from_ms: int, to_ms: int, *, limit: int) -> list[ChunkRow]:
        return self.chunks_stored_after(device, NOTHING_STORED, from_ms, to_ms, limit=limit)

    def chunks_stored_after(
        self, device: int, mark: SegmentMark, from_ms: int, to_ms: int, *, limit: int
    ) -> list[ChunkRow]:
        found: list[ChunkRow] = []
        if to_ms <= from_ms or limit <= 0:
            return found
        with self.db.read() as connection:
            classes = classes_of(connection, device)
            for day in days_of_range(connection, classes, from_ms, to_ms):
                oldest_possible_ms = ms_of_day(recorded_day(day, max(classes)))
                if len(found) == limit and found[-1].capture_ms <= oldest_possible_ms:
                    continue
                found += _select(connection, day, device, from_ms, to_ms, limit, stored_after=mark)
                found.sort(key=lambda row: row.capture_ms)
                del found[limit:]
        return found

    def latest_chunks(self, device: int, *, limit: int, before_ms: int = MAX_CAPTURE_MS) -> list[ChunkRow]:
        found: list[ChunkRow] = []
        if limit <= 0:
            return found
        with self.db.read() as connection:
            classes = classes_of(connection, device)
            for day in sorted(open_days(connection), reverse=True):
                # The day after, too: a capture may have been ahead of the server's clock.
                newest_possible_ms = ms_of_day(recorded_day(day, min(classes, default=0)) + 2)
                if len(found) == limit and found[-1].capture_ms >= newest_possible_ms:
                    continue
                found += _select(connection, day, device, 0, before_ms, limit, newest_first=True)
                found.sort(key=lambda row: row.capture_ms, reverse=True)
                del found[limit:]
        found.reverse()
        return found

    def has_deletions(self, device: int, from_ms: int, to_ms: int) -> bool:
        with self.db.read() as connection:
            return bool(
                connection.execute(
                    "SELECT EXISTS (SELECT 1 FROM deletions WHERE device = ? AND from_ms < ? AND to_ms > ?)",
                    (device, to_ms, from_ms),
                ).fetchone()[0]
            )

    def deleted_ranges(self, device: int, from_ms: int, to_ms: int, *, limit: int) -> list[tuple[int, int]]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT from_ms, to_ms FROM deletions WHERE device = ? AND from_ms < ? AND to_ms > ?"
                " ORDER BY from_ms, deletion_id LIMIT ?",
                (device, to_ms, from_ms, limit),
            ).fetchall()
        found: list[tuple[int, int]] = []
        for begin, end in rows:
            first, last = max(begin, from_ms), min(end, to_ms)
            if found and first <= found[-1][1]:
                found[-1] = (found[-1][0], max(found[-1][1], last))
            else:
                found.append((first, last))
        return found

    def segment_mark(self) -> SegmentMark:
        with self.db.read() as connection:
            newest = connection.last_number("segments")
            prepared = connection.execute(
                "SELECT segment_id FROM segments WHERE state = ? AND segment_id <= ?",
                (int(SegmentState.PREPARED), newest),
            )
            unused = _ranges(sorted(segment_id for (segment_id,) in prepared))
        return SegmentMark(newest, tuple(unused[-MAX_UNUSED_RANGES:]))

    def live_list(self, device: int) -> LiveListRow | None:
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT version, epoch, state FROM live_lists WHERE device = ?", (device,)
            ).fetchone()
            return None if row is None else LiveListRow(*row)

    @writing()
    def put_live_list(self, connection: Connection, device: int, row: LiveListRow) -> bool:
        if row.version == 1:
            statement = (
                "INSERT INTO live_lists (version, epoch, state, device)"
                " SELECT :version, :epoch, :state, device FROM devices"
                " WHERE device = :device AND erase_epoch = :epoch ON CONFLICT DO NOTHING"
            )
        else:
            statement = (
                "UPDATE live_lists SET version = :version, epoch = :epoch, state = :state"
                " WHERE device = :device AND version = :version - 1"
                " AND EXISTS (SELECT 1 FROM devices d WHERE d.device = :device AND d.erase_epoch = :epoch)"
            )
        return connection.execute(statement, {**row._asdict(), "device": device}).rowcount == 1


def _select(
    connection: Connection,
    day: int,
    device: int,
    from_ms: int,
    to_ms: int,
    limit: int,
    *,
    newest_first: bool = False,
    stored_after: SegmentMark = NOTHING_STORED,
) -> list[ChunkRow]:
    """Rows of one day, less those of an earlier erase epoch, whose key is going or gone, and those of a deletion
    that is not finished (invariant 2). What is the same for all rows is asked once: a day of a camera has 20,000."""
    facts = connection.execute(
        "SELECT erase_epoch, EXISTS (SELECT 1 FROM deletions d WHERE d.device = :device AND d.done_ms IS NULL)"
        " FROM devices WHERE device = :device",
        {"device": device},
    ).fetchone()
    if facts is None:
        return []
    epoch, is_deleting = facts
    undeleted = (
        " AND NOT EXISTS (SELECT 1 FROM deletions d WHERE d.device = c.device AND d.done_ms IS NULL"
        "                 AND c.capture_ms >= d.from_ms AND c.capture_ms < d.to_ms)"
    )
    since, numbers = _stored_after(stored_after)
    order = "DESC" if newest_first else "ASC"
    rows = connection.execute(
        f"SELECT {CHUNK_COLUMNS} FROM {chunk_table(day)} c JOIN segments s USING (segment_id)"
        " WHERE c.device = ? AND c.capture_ms >= ? AND c.capture_ms < ? AND c.epoch = ?"
        f"{since}"
        f"{undeleted if is_deleting else ''} ORDER BY c.capture_ms {order} LIMIT ?",
        (device, from_ms, to_ms, epoch, *numbers, limit),
    )
    return list(map(ChunkRow._make, rows))


def _ranges(ascending: Iterable[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of consecutive numbers."""
    found: list[tuple[int, int]] = []
    for number in ascending:
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def _stored_after(mark: SegmentMark) -> tuple[str, list[int]]:
    """The condition, and its parameters, that a segment was committed after `mark` was taken."""
    if mark == NOTHING_STORED:
        return "", []
    unused = " OR c.segment_id BETWEEN ? AND ?" * len(mark.unused)
    return f" AND (c.segment_id > ?{unused})", [mark.newest, *chain.from_iterable(mark.unused)]
