"""The catalog as `clipkeep check` and `clipkeep catalog rebuild` use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from storage.catalog.check import CheckCatalog
from storage.errors import SegmentCorrupt
from storage.rows.clips import KEPT_DAY, clip_of_key
from storage.rows.recordings import ChunkRow, Orphan, SegmentRow, SegmentState, Verdict
from storage.sql.books.checking import broken_books
from storage.sql.chunktables import chunk_days, chunk_table, closed_through, create_chunk_table
from storage.sql.clips import broken_clips, rebuild_clip
from storage.sql.commits import Committing, mark_dead
from storage.sql.connection import Connection, writing
from storage.sql.leases import Leases, fenced
from storage.sql.newrows import NewRows
from storage.sql.reads import CHUNK_COLUMNS
from storage.sql.segments import SEGMENT_COLUMNS, segment_row

_REBUILD_BATCH = 64
"""Segments in one transaction of a rebuild: one durable write for many, and commits wait for tens of ms."""


class Checking(Leases, CheckCatalog):
    def segments(self, *, after_id: int = 0, limit: int = 1000) -> list[SegmentRow]:
        with self.db.read() as connection:
            rows = connection.execute(
                f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE segment_id > ? ORDER BY segment_id LIMIT ?",
                (after_id, limit),
            )
            return [segment_row(row) for row in rows]

    def segments_by_key(self, *, after_key: str = "", limit: int = 1000) -> list[SegmentRow]:
        with self.db.read() as connection:
            rows = connection.execute(
                f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE key > ? ORDER BY key LIMIT ?",
                (after_key, limit),
            )
            return [segment_row(row) for row in rows]

    def segment_with_key(self, key: str) -> SegmentRow | None:
        with self.db.read() as connection:
            row = connection.execute(f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE key = ?", (key,))
            found = row.fetchone()
            return None if found is None else segment_row(found)

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

    def day_rows(self, day: int) -> Iterator[ChunkRow]:
        with self.db.read() as connection:
            if day != KEPT_DAY and day not in chunk_days(connection):
                return
            connection.take_its_time()  # whoever takes the rows reads objects in between
            rows = connection.streamed(
                f"SELECT {CHUNK_COLUMNS} FROM {chunk_table(day)} c JOIN segments s USING (segment_id)"
                " ORDER BY c.segment_id, c.ordinal"
            )
            for row in rows:
                yield ChunkRow(*row)

    def damage(self) -> list[str]:
        return self.db.damage()

    def unlooked(self) -> list[str]:
        return self.db.unlooked()

    def broken_rows(self) -> Iterator[str]:
        with self.db.read() as connection:
            closed = closed_through(connection)
            listed = chunk_days(connection)
            tables = connection.chunk_tables()
            for name in sorted(tables - {chunk_table(day) for day in listed}):
                yield f"table {name}: not listed as a day, so nothing in it is served"
            committed = "SELECT DISTINCT expires_on FROM segments WHERE state = 1"
            for day in sorted({KEPT_DAY} | listed | {row[0] for row in connection.execute(committed)}):
                if day in listed and day <= closed:
                    yield f"day {day}: still has a partition though it was closed"
                if day in listed and chunk_table(day) not in tables:
                    yield f"day {day}: its table is missing; `clipkeep catalog rebuild` makes it anew"
                yield from _broken_in_day(
                    connection, day, has_table=day == KEPT_DAY or chunk_table(day) in tables
                )
            for row in connection.execute(
                "SELECT segment_id FROM segments WHERE state = 2 AND delete_after_ms IS NULL"
            ):
                yield f"segment {row[0]}: is deleting, but has no time to be deleted at"
            yield from broken_clips(connection)
            yield from broken_books(connection)

    def rebuild_chunks(self, segments: Iterable[tuple[SegmentRow, np.ndarray]]) -> int:
        self._make_missing_tables()
        added = 0
        rest = iter(segments)
        # The objects are read between transactions, so that commits are not held up by a slow store.
        while batch := list(islice(rest, _REBUILD_BATCH)):
            added += self._rebuild(batch)
        return added

    @writing()
    def _make_missing_tables(self, connection: Connection) -> None:
        """Of open days, also of those for which no segment has a chunk: they are made ahead."""
        tables = connection.chunk_tables()
        for day in sorted(chunk_days(connection)):
            if chunk_table(day) not in tables:
                connection.create_chunk_table(day)

    @writing()
    def _rebuild(self, connection: Connection, batch: list[tuple[SegmentRow, np.ndarray]]) -> int:
        connection.exclude_commits()
        committing = Committing(connection, indexes=(index for _, index in batch), careful=True, alone=True)
        return sum(_rebuild(connection, committing, segment.key, index) for segment, index in batch)


def _broken_in_day(connection: Connection, day: int, *, has_table: bool) -> Iterator[str]:
    """Yield what is wrong between one day's chunk rows and the segment rows."""
    with_rows = set()
    rows = (
        connection.execute(
            "SELECT c.segment_id, count(*), s.state, s.expires_on, s.live_chunks,"
            " count(*) FILTER (WHERE c.ordinal >= s.chunks OR c.offset + c.length > s.size_bytes)"
            f" FROM {chunk_table(day)} c LEFT JOIN segments s ON s.segment_id = c.segment_id"
            " GROUP BY c.segment_id, s.state, s.expires_on, s.live_chunks"
        )
        if has_table
        else ()
    )
    for segment_id, count, state, expires_on, live, outside in rows:
        with_rows.add(segment_id)
        if state != SegmentState.COMMITTED:
            word = "absent" if state is None else SegmentState(state).name.lower()
            yield f"segment {segment_id}: {count} chunk rows point at it, but it is {word}"
        elif expires_on != day:
            yield f"segment {segment_id}: expires on day {expires_on}, has rows in day {day}"
        elif live != count:
            yield f"segment {segment_id}: says {live} live chunks, has {count} rows"
        if outside:
            yield f"segment {segment_id}: {outside} chunk rows point outside of it"
    for segment_id, chunks, live, refused in connection.execute(
        "SELECT segment_id, chunks, live_chunks, refused FROM segments WHERE state = 1 AND expires_on = ?",
        (day,),
    ):
        if live and segment_id not in with_rows:
            yield f"segment {segment_id}: says {live} live chunks, has no rows"
        if live + len(refused) // 4 != chunks:
            yield f"segment {segment_id}: {live} live and {len(refused) // 4} refused are not its {chunks} chunks"
    if has_table:
        yield from _served_though_refused(connection, day)


def _served_though_refused(connection: Connection, day: int) -> Iterator[str]:
    refused: dict[int, set[int]] = {}
    for segment_id, ordinal, blob in connection.streamed(
        "SELECT c.segment_id, c.ordinal, s.refused"
        f" FROM {chunk_table(day)} c JOIN segments s USING (segment_id) WHERE length(s.refused) > 0"
    ):
        if segment_id not in refused:
            refused[segment_id] = set(np.frombuffer(blob, dtype="<u4").tolist())
        if ordinal in refused[segment_id]:
            yield f"segment {segment_id}: ordinal {ordinal} was refused or deleted, but has a row"


def _rebuild(connection: Connection, committing: Committing, key: str, index: np.ndarray) -> int:
    """Re-create the rows of one segment. What the catalog says now counts, not what its row said when the
    object was read: a range may have been deleted since."""
    row = connection.execute(
        "SELECT segment_id, state, expires_on, chunks, refused FROM segments WHERE key = ?", (key,)
    ).fetchone()
    if row is None or row[1] != SegmentState.COMMITTED or row[2] <= committing.closed_through:
        return 0
    segment_id, _, expires_on, chunks, refused = row
    if len(index) != chunks:
        raise SegmentCorrupt(f"its index has {len(index)} chunks, the catalog says {chunks}", subject=key)
    if expires_on == KEPT_DAY:
        return rebuild_clip(connection, clip_of_key(key) or 0, segment_id, index, bytes(refused))
    verdicts = np.zeros(len(index), dtype=np.uint8)
    committing.refuse_lost(index, verdicts)
    served = np.ones(len(index), dtype=bool)
    served[np.frombuffer(refused, dtype="<u4")] = False
    create_chunk_table(connection, expires_on)
    # Erased, or deleted while there were no rows to note it by: they stay refused for good.
    lost = np.flatnonzero(served & (verdicts != Verdict.STORED)).tolist()
    if lost:
        connection.executemany(
            f"DELETE FROM {chunk_table(expires_on)}"
            " WHERE device = ? AND capture_ms = ? AND segment_id = ? AND ordinal = ?",
            [(int(index[i]["device"]), int(index[i]["capture_ms"]), segment_id, i) for i in lost],
        )
        mark_dead(connection, segment_id, lost, None)
    verdicts[~served] = Verdict.DELETED
    for ordinal in committing.not_plain(index, expires_on, verdicts):
        committing.known_days(index[ordinal], expires_on)
    ordinals = np.flatnonzero(verdicts == Verdict.STORED)
    return len(ordinals) - len(committing.insert(expires_on, NewRows.of(index, segment_id, ordinals)))
