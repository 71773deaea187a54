"""Runs of the schedule."""

from __future__ import annotations

from storage.catalog.schedule import ScheduleCatalog
from storage.rows.schedule import RunRow
from storage.sql.connection import Connection, Excludes, writing
from storage.sql.leases import Leases


class Schedule(Leases, ScheduleCatalog):
    def scheduled_runs(self) -> dict[str, RunRow]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT job, host, began_ms, ended_ms, outcome, detail FROM scheduled_runs"
            ).fetchall()
        return {row[0]: RunRow(*row) for row in rows}

    @writing(Excludes.NOTHING)
    def note_run(self, connection: Connection, run: RunRow) -> None:
        connection.execute(
            "INSERT INTO scheduled_runs (job, host, began_ms, ended_ms, outcome, detail) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (job) DO UPDATE SET host = excluded.host, began_ms = excluded.began_ms,"
            " ended_ms = excluded.ended_ms, outcome = excluded.outcome, detail = excluded.detail",
            tuple(run),
        )
