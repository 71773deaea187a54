"""The catalog as a rewrite uses it: which segments are worth it, and the one transaction in which rows move."""

from __future__ import annotations

import numpy as np

from storage.errors import CatalogCorrupt
from storage.rows.clips import KEPT_DAY
from storage.rows.recordings import SegmentCommit, SegmentRow, SegmentState, Verdict
from storage.sql.chunktables import chunk_table, closed_through
from storage.sql.commits import finish_segments
from storage.sql.connection import Connection, Move
from storage.sql.leases import Leases, fenced
from storage.sql.segments import SEGMENT_COLUMNS, segment_row


class Rewriting(Leases):
    def half_dead(self, *, after_day: int, now_ms: int, limit: int) -> list[SegmentRow]:
        with self.db.read() as connection:
            rows = connection.execute(
                # The first two terms are literal, for their partial index.
                f"SELECT {SEGMENT_COLUMNS} FROM segments WHERE state = 1 AND live_chunks * 2 <= chunks"
                " AND live_chunks > 0 AND expires_on > :day AND expires_on < :kept AND retry_at_ms <= :now"
                " ORDER BY (chunks - live_chunks) * size_bytes / chunks * (expires_on - :day) DESC, segment_id"
                " LIMIT :limit",
                {"day": after_day, "kept": KEPT_DAY, "now": now_ms, "limit": limit},
            )
            return [segment_row(row) for row in rows]

    @fenced
    def swap_segment(
        self,
        connection: Connection,
        old_id: int,
        new: SegmentCommit,
        ordinals: np.ndarray,
        *,
        fence: int,
        now_ms: int,
        delete_after_ms: int,
    ) -> bool:
        if _state(connection, new.segment_id)[0] != SegmentState.PREPARED:
            return False  # reclaimed: its tombstone takes care of the object
        state, live = _state(connection, old_id)
        verdicts = np.full(len(new.index), Verdict.DELETED, dtype=np.uint8)
        if state != SegmentState.COMMITTED or new.expires_on <= closed_through(connection):
            finish_segments(connection, [(new, verdicts)], now_ms)
            return False
        _move_rows(connection, old_id, new, ordinals, verdicts)
        moved = int((verdicts == Verdict.STORED).sum())
        if moved != live:
            raise CatalogCorrupt(
                f"{live} live chunks, {moved} of them where its index says; run `clipkeep check`",
                subject=f"segment {old_id}",
            )
        finish_segments(connection, [(new, verdicts)], now_ms)
        connection.execute(
            "UPDATE segments SET state = ?, live_chunks = 0, delete_after_ms = ?, retry_at_ms = 0, attempts = 0"
            " WHERE segment_id = ?",
            (SegmentState.DELETING, delete_after_ms, old_id),
        )
        return True

    @fenced
    def rewrite_failed(
        self, connection: Connection, segment_id: int, error: str, *, fence: int, retry_at_ms: int
    ) -> None:
        connection.execute(
            "UPDATE segments SET attempts = attempts + 1, last_error = ?, retry_at_ms = ?"
            " WHERE segment_id = ? AND state = ?",
            (error[:200], retry_at_ms, segment_id, SegmentState.COMMITTED),
        )


def _state(connection: Connection, segment_id: int) -> tuple[int | None, int]:
    row = connection.execute(
        f"SELECT state, live_chunks FROM segments WHERE segment_id = ?{connection.locking}", (segment_id,)
    ).fetchone()
    return (None, 0) if row is None else (row[0], row[1])


def _move_rows(
    connection: Connection,
    old_id: int,
    new: SegmentCommit,
    ordinals: np.ndarray,
    verdicts: np.ndarray,
) -> None:
    """Point rows that still are the old segment's at the new one; `verdicts` says which."""
    index = new.index
    moves = zip(
        index["device"].tolist(),
        index["capture_ms"].tolist(),
        ordinals.tolist(),
        range(len(index)),
        index["offset"].tolist(),
        strict=True,
    )
    table = chunk_table(new.expires_on)
    moved = connection.move_chunks(table, old_id, new.segment_id, list(map(Move._make, moves)))
    verdicts[list(moved)] = Verdict.STORED
