"""What workers saw of devices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from storage.catalog.sightings import SightingsCatalog
from storage.rows.sightings import Refused, Sighting
from storage.sql.base import OnDatabase
from storage.sql.connection import Connection, Excludes, writing

_AT_ONCE = 500
"""Rows of one statement: 2000 values, far below what either engine takes."""
_OF_THE_LIVING = (
    " JOIN devices d ON d.device = v.column1 JOIN accounts a ON a.account = d.account"
    " WHERE a.state != 'cancelled' ORDER BY 1, 2"  # who writes the same rows waits one way
)
_OF_THE_ENDED = (
    "device IN (SELECT d.device FROM devices d JOIN accounts a ON a.account = d.account"
    " WHERE a.state = 'cancelled')"
)


class Sightings(OnDatabase, SightingsCatalog):
    @writing(Excludes.NOTHING)
    def note_sightings(
        self,
        connection: Connection,
        seen: Mapping[int, int],
        refused: Mapping[tuple[int, str], tuple[int, int]],
    ) -> None:
        newest = connection.larger("sightings.seen_ms", "excluded.seen_ms")
        times = sorted(seen.items())
        for start in range(0, len(times), _AT_ONCE):
            page = times[start : start + _AT_ONCE]
            connection.execute(
                "INSERT INTO sightings (device, seen_ms) SELECT v.column1, v.column2"
                f" FROM (VALUES {', '.join(['(?, ?)'] * len(page))}) AS v{_OF_THE_LIVING}"
                f" ON CONFLICT (device) DO UPDATE SET seen_ms = {newest}",
                [value for row in page for value in row],
            )
        newest = connection.larger("refusals.last_ms", "excluded.last_ms")
        counts = sorted(refused.items())
        for start in range(0, len(counts), _AT_ONCE):
            some = counts[start : start + _AT_ONCE]
            connection.execute(
                "INSERT INTO refusals (device, code, count, last_ms)"
                " SELECT v.column1, v.column2, v.column3, v.column4"
                f" FROM (VALUES {', '.join(['(?, ?, ?, ?)'] * len(some))}) AS v{_OF_THE_LIVING}"
                " ON CONFLICT (device, code) DO UPDATE SET count = refusals.count + excluded.count,"
                f" last_ms = {newest}",
                [value for key, counted in some for value in (*key, *counted)],
            )

    def sightings(self, devices: Sequence[int]) -> dict[int, Sighting]:
        these = (json.dumps(sorted(set(devices))),)
        with self.db.read() as connection:
            among = connection.among("device", "?")
            seen = dict(
                connection.execute(f"SELECT device, seen_ms FROM sightings WHERE {among}", these).fetchall()
            )
            refused: dict[int, list[Refused]] = {}
            for device, code, count, last_ms in connection.execute(
                f"SELECT device, code, count, last_ms FROM refusals WHERE {among}"
                " ORDER BY last_ms DESC, code",
                these,
            ).fetchall():
                refused.setdefault(device, []).append(Refused(code, count, last_ms))
        return {
            device: Sighting(device, seen.get(device), tuple(refused.get(device, ())))
            for device in set(devices)
        }

    def silent(
        self, *, day: int, before_ms: int, after: int = 0, limit: int = 100
    ) -> list[tuple[int, int | None]]:
        with self.db.read() as connection:
            rows = connection.execute(
                "SELECT d.device, s.seen_ms FROM devices d JOIN accounts a ON a.account = d.account"
                " LEFT JOIN sightings s ON s.device = d.device"
                " WHERE d.device > :after AND d.terminated_ms IS NULL AND d.suspended = 0"
                " AND a.suspended_ms IS NULL AND a.state != 'cancelled' AND coalesce(s.seen_ms, 0) < :before_ms"
                " AND EXISTS (SELECT 1 FROM plans p WHERE p.device = d.device AND p.starts_on <= :day"
                " AND (p.ends_on IS NULL OR p.ends_on >= :day)) ORDER BY d.device LIMIT :limit",
                {"after": after, "before_ms": before_ms, "day": day, "limit": limit},
            ).fetchall()
        return [(device, seen_ms) for device, seen_ms in rows]

    @writing(Excludes.NOTHING)
    def drop_sightings(self, connection: Connection, *, limit: int = 1000) -> int:
        return sum(
            connection.execute(
                f"DELETE FROM {table} WHERE device IN"
                f" (SELECT device FROM {table} WHERE {_OF_THE_ENDED} ORDER BY device LIMIT ?)",
                (limit,),
            ).rowcount
            for table in ("sightings", "refusals")
        )
