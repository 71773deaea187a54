"""Erasures: rows that go, and what is remembered of it. See `storage.catalog.erasures`."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from storage.catalog.erasures import ErasuresCatalog
from storage.rows.devices import DeviceFacts, EraseState, ErasureRecord
from storage.rows.recordings import Unindexed
from storage.sql.chunktables import chunk_days
from storage.sql.connection import Connection, bounded, writing
from storage.sql.deletions import add_unindexed, unindex_rows
from storage.sql.devices import facts_where, no_such_device
from storage.sql.erasure_records import note_all_unindexed, note_unindexed
from storage.sql.leases import Leases, fenced, require_lease

_COLUMNS = (
    "erasure_id, device, epoch, why, who, marked_ms, keys_destroyed_ms, keys_destroyed, unindexed_ms,"
    " unindexed_chunks, cleared_ms, verified_ms, verified"
)


class Erasures(Leases, ErasuresCatalog):
    def erasing_devices(self, *, limit: int = -1) -> list[DeviceFacts]:
        with self.db.read() as connection:
            where = "erase_state != 0 AND (erase_state = ? OR stale_rows != 0) ORDER BY device LIMIT ?"
            return facts_where(connection, where, (EraseState.ERASING, bounded(limit)))

    def unindex_device(self, device: int, *, fence: int, now_ms: int, delete_after_ms: int) -> Unindexed:
        total = Unindexed()
        epoch, days = self._begin_unindexing(device, fence=fence)
        # From here on no commit adds a row of an earlier epoch. A transaction a day: a device with months of
        # rows does not hold up the commits.
        for day in days:
            part = self._unindex_device_day(device, epoch, day, fence=fence, delete_after_ms=delete_after_ms)
            total = add_unindexed(total, part)
        self._end_unindexing(device, epoch, fence=fence, now_ms=now_ms)
        return total

    @fenced
    def _begin_unindexing(self, connection: Connection, device: int, *, fence: int) -> tuple[int, list[int]]:
        row = connection.execute("SELECT erase_epoch FROM devices WHERE device = ?", (device,)).fetchone()
        if row is None:
            raise no_such_device(device)
        return row[0], sorted(chunk_days(connection))

    @fenced
    def _unindex_device_day(
        self, connection: Connection, device: int, epoch: int, day: int, *, fence: int, delete_after_ms: int
    ) -> Unindexed:
        if day not in chunk_days(connection):
            return Unindexed()
        where = "device = ? AND epoch < ?"
        part = unindex_rows(connection, day, where, (device, epoch), delete_after_ms)
        note_unindexed(connection, device, epoch, part.chunks)
        return part

    @fenced
    def _end_unindexing(
        self, connection: Connection, device: int, epoch: int, *, fence: int, now_ms: int
    ) -> None:
        note_all_unindexed(connection, device, epoch, now_ms=now_ms)
        connection.execute(
            "UPDATE devices SET stale_rows = 0 WHERE device = ? AND erase_epoch = ?", (device, epoch)
        )

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
            f" WHERE {connection.among('device', '?')} AND keys_destroyed_ms IS NOT NULL",
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

    def oldest_waiting_erasure_ms(self) -> int | None:
        with self.db.read() as connection:
            (marked_ms,) = connection.execute(
                "SELECT min(marked_ms) FROM erasures WHERE cleared_ms IS NULL"
                " AND (keys_destroyed_ms IS NULL OR unindexed_ms IS NULL)"
            ).fetchone()
        return None if marked_ms is None else int(marked_ms)
