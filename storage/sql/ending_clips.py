"""The end of kept clips, inside the transactions of what ends them."""

from __future__ import annotations

from collections.abc import Collection

from storage.rows.clips import key_owner
from storage.rows.recordings import SegmentState
from storage.sql.connection import Connection
from storage.sql.sealing import end_key


def end_clips(connection: Connection, clips: Collection[int], *, now_ms: int) -> None:
    """End these: nothing of them is served, their objects are deleted by the next sweep, and their keys are to be
    destroyed (`retention.account_keys`)."""
    for clip in sorted(clips):
        connection.execute(
            "UPDATE segments SET state = ?, live_chunks = 0, delete_after_ms = ?, retry_at_ms = 0, attempts = 0"
            " WHERE state = ? AND segment_id IN (SELECT segment_id FROM kept_chunks WHERE clip_id = ?)",
            (SegmentState.DELETING, now_ms, SegmentState.COMMITTED, clip),
        )
        connection.execute("DELETE FROM kept_chunks WHERE clip_id = ? AND capture_ms >= 0", (clip,))
        connection.execute("DELETE FROM kept_clips WHERE clip_id = ?", (clip,))
        end_key(connection, key_owner(clip))


def end_clips_of_epoch(connection: Connection, device: int, *, below_epoch: int, now_ms: int) -> None:
    """The device is being erased."""
    rows = connection.execute(
        "SELECT clip_id FROM kept_clips WHERE device = ? AND epoch < ?", (device, below_epoch)
    ).fetchall()
    end_clips(connection, [row[0] for row in rows], now_ms=now_ms)


def end_clips_in(connection: Connection, device: int, from_ms: int, to_ms: int, *, now_ms: int) -> int:
    """A range is being deleted. Returns how many clips had something of it."""
    rows = connection.execute(
        "SELECT clip_id FROM kept_clips WHERE device = ? AND first_ms < ? AND to_ms > ?",
        (device, to_ms, from_ms),
    ).fetchall()
    end_clips(connection, [row[0] for row in rows], now_ms=now_ms)
    return len(rows)
