"""Share links in the books."""

from __future__ import annotations

from dataclasses import replace

from storage.rows.shares import ShareRow
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table

SHARES = Table("shares", ShareRow, ("share_id",), "share link")


class SharesOfDevices(OnBooks):
    def add_share(self, row: ShareRow) -> ShareRow:
        return replace(row, share_id=SHARES.add(self._writer, self._keys, row, share_id=None))

    def shares_of(self, device: int, *, after: int = 0, limit: int = 100) -> list[ShareRow]:
        where = "device = ? AND share_id > ? ORDER BY share_id LIMIT ?"
        return SHARES.select(self._reader, self._keys, where, (device, after, limit))

    def drop_share(self, device: int, share_id: int) -> bool:
        cursor = self._writer.execute(
            "DELETE FROM shares WHERE device = ? AND share_id = ?", (device, share_id)
        )
        return cursor.rowcount > 0

    def drop_shares(self, *, before_ms: int, device: int | None = None) -> int:
        only, values = ("", ()) if device is None else (" AND device = ?", (device,))
        return self._writer.execute(
            f"DELETE FROM shares WHERE expires_ms <= ?{only}", (before_ms, *values)
        ).rowcount
