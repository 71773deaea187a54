"""Sums of what is kept of a device."""

from __future__ import annotations

import json
from collections.abc import Sequence

from storage.catalog.kept import KeptCatalog
from storage.days import MS_PER_DAY
from storage.rows.kept import KeptDay, KeptState
from storage.sql.base import OnDatabase
from storage.sql.chunktables import chunk_table, open_days


class Kept(OnDatabase, KeptCatalog):
    def kept_states(self, devices: Sequence[int]) -> dict[int, KeptState]:
        with self.db.read() as connection:
            days = tuple(sorted(open_days(connection), reverse=True))
            rows = connection.execute(
                "SELECT d.device, d.erase_epoch, coalesce(max(x.deletion_id), 0),"
                " coalesce(sum(CASE WHEN x.deletion_id IS NOT NULL AND x.done_ms IS NULL THEN 1 ELSE 0 END), 0)"
                " FROM devices d LEFT JOIN deletions x ON x.device = d.device"
                f" WHERE {connection.among('d.device', '?')} GROUP BY d.device, d.erase_epoch",
                (json.dumps(sorted(set(devices))),),
            ).fetchall()
        return {
            device: KeptState(epoch, deletions, unfinished, days)
            for device, epoch, deletions, unfinished in rows
        }

    def kept(self, device: int, expiry_days: Sequence[int]) -> dict[int, list[KeptDay]]:
        with self.db.read() as connection:
            days = sorted(open_days(connection).intersection(expiry_days))
            found: dict[int, list[KeptDay]] = {day: [] for day in days}
            row = connection.execute(
                "SELECT erase_epoch, EXISTS"
                " (SELECT 1 FROM deletions x WHERE x.device = devices.device AND x.done_ms IS NULL)"
                " FROM devices WHERE device = ?",
                (device,),
            ).fetchone()
            if not days or row is None:
                return found
            epoch, is_deleting = row
            undeleted = (
                " AND NOT EXISTS (SELECT 1 FROM deletions d WHERE d.device = :device AND d.done_ms IS NULL"
                " AND c.capture_ms >= d.from_ms AND c.capture_ms < d.to_ms)"
            )
            each = [
                f"SELECT {day}, c.capture_ms / {MS_PER_DAY}, count(*), sum(c.length), sum(c.duration_ms)"
                f" FROM {chunk_table(day)} c WHERE c.device = :device AND c.capture_ms >= 0 AND c.epoch = :epoch"
                f"{undeleted if is_deleting else ''} GROUP BY 2"
                for day in days
            ]
            for expires_on, *sums in connection.execute(
                f"{' UNION ALL '.join(each)} ORDER BY 1, 2", {"device": device, "epoch": epoch}
            ).fetchall():
                found[expires_on].append(KeptDay(*map(int, sums)))
        return found
