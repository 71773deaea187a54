"""The catalog's memory of the end of recordings; see `storage.catalog.erasures`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from storage.catalog.reports import MAX_SWEEP_REPORTS
from storage.rows.devices import ErasureRecord
from storage.sql.connection import Connection, writing
from storage.sql.leases import fenced, require_lease
from storage.sql.sweeping import Sweeping

_COLUMNS = (
    "erasure_id, device, epoch, why, who, marked_ms, keys_destroyed_ms, keys_destroyed, unindexed_ms,"
    " unindexed_chunks, cleared_ms, verified_ms, verified"
)
MAX_TOLD_CHARS = 500


class Recording(Sweeping):
    @writing()
    def note_keys_destroyed(
        self,
        connection: Connection,
        destroyed: Mapping[int, tuple[int, int]],
        *,
        fence: int | None,
        now_ms: int,
    ) -> None:
        if fence is not None:
            require_lease(connection, fence)
        connection.executemany(
            "UPDATE erasures SET keys_destroyed_ms = ?, keys_destroyed = ?"
            " WHERE device = ? AND epoch = ? AND keys_destroyed_ms IS NULL",
            [(now_ms, count, device, epoch) for device, (epoch, count) in destroyed.items()],
        )

    @fenced
    def clear_erasures(
        self, connection: Connection, *, destroyed_before_ms: int, fence: int, now_ms: int
    ) -> int:
        return connection.execute(
            "UPDATE erasures SET cleared_ms = ? WHERE cleared_ms IS NULL AND keys_destroyed_ms <= ?"
            " AND unindexed_ms IS NOT NULL",
            (now_ms, destroyed_before_ms),
        ).rowcount

    @writing()
    def reopen_erasures(self, connection: Connection, devices: Collection[int], *, now_ms: int) -> int:
        return connection.execute(
            "UPDATE erasures SET keys_destroyed_ms = ?, cleared_ms = NULL, verified_ms = NULL, verified = ''"
            f" WHERE device IN {connection.numbers('?')} AND keys_destroyed_ms IS NOT NULL",
            (now_ms, json.dumps(sorted(devices))),
        ).rowcount

    @writing()
    def note_verified(self, connection: Connection, erasure_id: int, how: str, *, now_ms: int) -> None:
        connection.execute(
            "UPDATE erasures SET verified_ms = ?, verified = ? WHERE erasure_id = ?",
            (now_ms, how, erasure_id),
        )

    def erasures(
        self, *, device: int | None = None, after_id: int = 0, limit: int = 1000
    ) -> list[ErasureRecord]:
        where, values = ("", ()) if device is None else ("device = ? AND ", (device,))
        with self.db.read() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM erasures WHERE {where} erasure_id > ? ORDER BY erasure_id LIMIT ?",
                (*values, after_id, limit),
            )
            return [ErasureRecord(*row) for row in rows]

    def erased_epochs(self, *, after: int = 0, limit: int = 1000) -> dict[int, int]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT device, max(epoch) FROM erasures WHERE device > ? AND keys_destroyed_ms IS NOT NULL"
                " GROUP BY device ORDER BY device LIMIT ?",
                (after, limit),
            )
            return dict(rows.fetchall())

    def erasure_counts(self) -> dict[str, int]:
        with self.db.read() as connection:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE keys_destroyed_ms IS NULL),"
                " count(*) FILTER (WHERE keys_destroyed_ms IS NOT NULL AND unindexed_ms IS NULL),"
                " count(*) FILTER (WHERE keys_destroyed_ms IS NOT NULL AND unindexed_ms IS NOT NULL)"
                " FROM erasures WHERE cleared_ms IS NULL"
            ).fetchone()
        return dict(zip(("marked", "keys destroyed", "unindexed"), row, strict=True))

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
