"""What is sold."""

from __future__ import annotations

import json

from storage.rows.packages import PackageRow
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table
from storage.sql.meta import number, put_number

PACKAGES = Table("packages", PackageRow, ("package", "version"), "package", decode={"prices": json.loads})


_CHANGE = "packages_change"


class Packages(OnBooks):
    def add_package(self, row: PackageRow) -> None:
        PACKAGES.add(self._writer, self._keys, row)
        self._note_change()

    def put_package(self, row: PackageRow) -> None:
        PACKAGES.put(self._writer, self._keys, row)
        self._note_change()

    def packages_change(self) -> int:
        return number(self._reader, _CHANGE) or 0

    def packages(self, *, limit: int = 1000) -> list[PackageRow]:
        return PACKAGES.select(self._reader, self._keys, "true ORDER BY package, version LIMIT ?", (limit,))

    def _note_change(self) -> None:
        put_number(self._writer, _CHANGE, self.packages_change() + 1)
