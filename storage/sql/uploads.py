"""Sums of what devices upload in a day."""

from __future__ import annotations

from collections.abc import Mapping

from storage.catalog.uploads import UploadsCatalog
from storage.sql.base import OnDatabase
from storage.sql.connection import Connection, Excludes, writing

_AT_ONCE = 500
"""Rows of one statement: 2000 values, far below what either engine takes."""


class Uploads(OnDatabase, UploadsCatalog):
    @writing(Excludes.NOTHING)
    def add_uploads(
        self, connection: Connection, day: int, uploads: Mapping[int, tuple[int, int]]
    ) -> dict[int, tuple[int, int]]:
        sums: dict[int, tuple[int, int]] = {}
        numbers = sorted(uploads)  # who adds to the same rows waits one way
        for start in range(0, len(numbers), _AT_ONCE):
            page = numbers[start : start + _AT_ONCE]
            for device, size, chunks in connection.execute(
                "INSERT INTO daily_uploads (day, device, bytes, chunks) VALUES"
                f" {', '.join(['(?, ?, ?, ?)'] * len(page))}"
                " ON CONFLICT (day, device) DO UPDATE SET bytes = daily_uploads.bytes + excluded.bytes,"
                " chunks = daily_uploads.chunks + excluded.chunks RETURNING device, bytes, chunks",
                [value for number in page for value in (day, number, *uploads[number])],
            ).fetchall():
                sums[int(device)] = (int(size), int(chunks))
        return sums

    @writing(Excludes.NOTHING)
    def drop_uploads(self, connection: Connection, *, before_day: int, limit: int) -> int:
        return connection.execute(
            "DELETE FROM daily_uploads WHERE (day, device) IN"
            " (SELECT day, device FROM daily_uploads WHERE day < ? ORDER BY day, device LIMIT ?)",
            (before_day, limit),
        ).rowcount
