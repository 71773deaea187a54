"""Segment rows, as they are read."""

from __future__ import annotations

from typing import Any

from storage.rows.recordings import SegmentRow, SegmentState

SEGMENT_COLUMNS = (
    "segment_id, key, class_days, expires_on, state, prepared_ms, size_bytes, chunks, live_chunks, crc32,"
    " refused"
)


def segment_row(row: tuple[Any, ...]) -> SegmentRow:
    segment_id, key, class_days, expires_on, state, *rest = row
    return SegmentRow(segment_id, key, class_days, expires_on, SegmentState(state), *rest)
