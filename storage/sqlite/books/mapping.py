"""Records to rows and back: a table whose columns are named as the fields of a record."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from storage.errors import CallerError, NotFound

R = TypeVar("R")


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """A table of records of one kind. SQL is written out where it is used; this only spares the lists of columns.

    Args:
        record: the dataclass; its fields are the columns.
        key: the columns of the primary key.
        decode: for the columns that are not stored as Python has them: from stored to field. What is a dict is
            stored as JSON.
        taken: code of the error for a unique value that another row has.
    """

    name: str
    record: type[R]
    key: tuple[str, ...]
    decode: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    taken: str = "exists"

    @property
    def columns(self) -> list[str]:
        return [f.name for f in fields(self.record)]  # type: ignore[arg-type]

    def select(
        self, connection: sqlite3.Connection, where: str, values: tuple[object, ...] | Mapping[str, object]
    ) -> list[R]:
        """Rows for which the SQL after WHERE holds; it may go on with ORDER BY and LIMIT."""
        names = self.columns
        decoders = [(names.index(name), decode) for name, decode in self.decode.items()]
        found = []
        for row in connection.execute(
            f"SELECT {', '.join(f'{self.name}.{n}' for n in names)} FROM {self.name} WHERE {where}", values
        ):
            cells = list(row)
            for place, decode in decoders:
                cells[place] = decode(cells[place])
            found.append(self.record(*cells))
        return found

    def one(self, connection: sqlite3.Connection, *key: object) -> R | None:
        """The row of a primary key."""
        found = self.select(connection, self._is_key(), key)
        return found[0] if found else None

    def get(self, connection: sqlite3.Connection, *key: object) -> R:
        """The row of a primary key. Raises NotFound."""
        found = self.one(connection, *key)
        if found is None:
            raise self._missing(key)
        return found

    def add(self, connection: sqlite3.Connection, row: R, *, numbered: bool = False) -> int:
        """Insert; with `numbered` under a number that SQLite gives. Returns it.

        Raises:
            CallerError: `taken`, another row has a value that is unique.
            NotFound: what the row refers to does not exist.
        """
        cells = self._cells(row)
        if numbered:
            cells[self.key[0]] = None
        return self._execute(connection, "INSERT", cells)

    def store(self, connection: sqlite3.Connection, row: R) -> None:
        """Insert, or replace the row of the same key. Raises as `add`."""
        self._execute(connection, "INSERT OR REPLACE", self._cells(row))

    def put(self, connection: sqlite3.Connection, row: R) -> None:
        """Replace the row of the same key.

        Raises:
            NotFound: there is none, or what the new one refers to does not exist.
            CallerError: `taken`.
        """
        cells = self._cells(row)
        key = [cells.pop(name) for name in self.key]
        setting = ", ".join(f"{name} = ?" for name in cells)
        try:
            cursor = connection.execute(
                f"UPDATE {self.name} SET {setting} WHERE {self._is_key()}", (*cells.values(), *key)
            )
        except sqlite3.IntegrityError as error:
            raise self._translated(error) from error
        if cursor.rowcount == 0:
            raise self._missing(key)

    def _cells(self, row: R) -> dict[str, Any]:
        cells = {name: getattr(row, name) for name in self.columns}
        return {name: to_json(cell) if isinstance(cell, dict) else cell for name, cell in cells.items()}

    def _execute(self, connection: sqlite3.Connection, verb: str, cells: dict[str, Any]) -> int:
        names, places = ", ".join(cells), ", ".join("?" * len(cells))
        try:
            cursor = connection.execute(
                f"{verb} INTO {self.name} ({names}) VALUES ({places})", tuple(cells.values())
            )
        except sqlite3.IntegrityError as error:
            raise self._translated(error) from error
        return cursor.lastrowid or 0

    def _is_key(self) -> str:
        return " AND ".join(f"{name} = ?" for name in self.key)

    def _missing(self, key: object) -> NotFound:
        told = " ".join(str(part) for part in key) if isinstance(key, (list, tuple)) else str(key)
        return NotFound(f"no such row in {self.name}", subject=told)

    def _translated(self, error: sqlite3.IntegrityError) -> Exception:
        if error.sqlite_errorname in ("SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"):
            # Which column, not which value: it may be an address.
            return CallerError(f"{str(error).rpartition(': ')[2]}: another row has it", code=self.taken)
        if error.sqlite_errorname == "SQLITE_CONSTRAINT_FOREIGNKEY":
            return NotFound(
                f"a row of {self.name} refers to an account, a device or a plan that does not exist"
            )
        return error
