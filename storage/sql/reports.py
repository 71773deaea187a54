"""What metrics and the operator's lists ask; see `storage.catalog.reports`."""

from __future__ import annotations

import json
from typing import Any

from storage.catalog.reports import MAX_SWEEP_REPORTS, ReportsCatalog
from storage.rows.recordings import SegmentState, Totals
from storage.sql.base import OnDatabase
from storage.sql.chunktables import closed_through
from storage.sql.connection import Connection, writing

MAX_TOLD_CHARS = 500


class Reports(OnDatabase, ReportsCatalog):
    def totals(self) -> Totals:
        with self.db.read() as connection:
            segments: dict[str, int] = {s.name.lower(): 0 for s in SegmentState}
            chunks = size_bytes = 0
            for state, count, live, size in connection.execute(
                "SELECT state, count(*), sum(live_chunks), sum(size_bytes) FROM segments GROUP BY state"
            ):
                segments[SegmentState(state).name.lower()] = count
                if state == SegmentState.COMMITTED:
                    chunks, size_bytes = live, size
            tombstones, oldest, failing = connection.execute(
                "SELECT count(*), min(delete_after_ms), count(*) FILTER (WHERE attempts > 0)"
                " FROM segments WHERE state = ?",
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

    def retention_classes(self) -> list[int]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT retention_days FROM plans UNION SELECT class_days FROM segments ORDER BY 1"
            )
            return [row[0] for row in rows]

    def sweep_reports(self, *, limit: int) -> list[dict[str, Any]]:
        with self.db.read() as connection:
            rows = connection.execute("SELECT report FROM sweeps ORDER BY sweep_id DESC LIMIT ?", (limit,))
            return [json.loads(row[0]) for row in rows]

    @writing()
    def note_failed_sweep(self, connection: Connection, code: str, detail: str, *, now_ms: int) -> None:
        connection.execute(
            "INSERT INTO failed_sweeps (at_ms, code, detail, after_sweep)"
            " VALUES (?, ?, ?, (SELECT coalesce(max(sweep_id), 0) FROM sweeps))",
            (now_ms, code, detail[:MAX_TOLD_CHARS]),
        )
        connection.execute(
            "DELETE FROM failed_sweeps WHERE failure_id <="
            " (SELECT failure_id FROM failed_sweeps ORDER BY failure_id DESC LIMIT 1 OFFSET ?)",
            (MAX_SWEEP_REPORTS,),
        )

    def failed_sweeps(self, *, limit: int) -> list[dict[str, Any]]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT at_ms, code, detail FROM failed_sweeps ORDER BY failure_id DESC LIMIT ?", (limit,)
            )
            return [dict(zip(("at_ms", "code", "detail"), row, strict=True)) for row in rows]

    def failures_since_success(self) -> int:
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM failed_sweeps"
                " WHERE after_sweep = (SELECT coalesce(max(sweep_id), 0) FROM sweeps)"
            ).fetchone()
            return int(row[0])
