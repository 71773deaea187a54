"""What is sold."""

from __future__ import annotations

import json

from storage.rows.packages import PackageRow
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table

PACKAGES = Table("packages", PackageRow, ("package", "version"), "package", decode={"prices": json.loads})


class Packages(OnBooks):
    def add_package(self, row: PackageRow) -> None:
        PACKAGES.add(self._writer, self._keys, row)

    def put_package(self, row: PackageRow) -> None:
        PACKAGES.put(self._writer, self._keys, row)

    def packages(self, *, limit: int = 1000) -> list[PackageRow]:
        return PACKAGES.select(self._reader, self._keys, "true ORDER BY package, version LIMIT ?", (limit,))
