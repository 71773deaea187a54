"""Records to rows and back: a table whose columns are named as the fields of a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

from storage.account_keys import AccountKeys
from storage.errors import Conflict, NotFound
from storage.sql.connection import Connection, Refers, Taken
from storage.sql.sealing import key_id_of, seal, unseal

R = TypeVar("R")


def of_accounts(connection: Connection, accounts: Sequence[int]) -> tuple[str, object]:
    """SQL for whether `account` is one of these, with one placeholder, and what belongs there."""
    if len(accounts) == 1:
        return "account = ?", accounts[0]
    return connection.among("account", "?"), json.dumps(accounts)


@dataclass(slots=True)
class Table(Generic[R]):
    """A table of records of one kind. SQL is written out where it is used; this only spares the lists of columns.

    Args:
        record: the dataclass; its fields are the columns.
        key: the columns of the primary key.
        title: what a row is, for people.
        decode: for the columns that are not stored as Python has them: from stored to field. What is a dict is
            stored as JSON.
        private: the columns that are sealed with the key of the row's `account`.
        taken: code of the error for a unique value that another row has.
    """

    name: str
    record: type[R]
    key: tuple[str, ...]
    title: str
    decode: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    private: tuple[str, ...] = ()
    taken: str = "exists"
    columns: tuple[str, ...] = field(init=False)
    _sealed: list[tuple[int, str]] = field(init=False)
    """Place of each private column, and its name in associated data."""
    _decoded: list[tuple[int, Callable[[Any], Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self.columns = tuple(f.name for f in fields(self.record))  # type: ignore[arg-type]
        self._sealed = [(self.columns.index(column), f"{self.name}.{column}") for column in self.private]
        self._decoded = [(self.columns.index(column), decode) for column, decode in self.decode.items()]

    def select(
        self,
        connection: Connection,
        keys: AccountKeys,
        where: str,
        values: tuple[object, ...] | Mapping[str, object],
    ) -> list[R]:
        """Rows for which the SQL after WHERE holds; it may go on with ORDER BY and LIMIT.

        A row with a text whose key the vault has destroyed is left out: its account has ended since this transaction
        began, or since the backup that this catalog was restored from.
        """
        names = [f"{self.name}.{column}" for column in self.columns]
        if not self.private:
            found = connection.execute(f"SELECT {', '.join(names)} FROM {self.name} WHERE {where}", values)
            return [self._record(row, None) for row in found]
        names.append(f"(SELECT k.key_id FROM account_keys k WHERE k.account = {self.name}.account)")
        rows = connection.execute(
            f"SELECT {', '.join(names)} FROM {self.name} WHERE {where}", values
        ).fetchall()
        places = [place for place, _ in self._sealed]
        ids = [
            bytes(row[-1]) if row[-1] is not None and any(row[p] for p in places) else None for row in rows
        ]
        known = keys.of({id_ for id_ in ids if id_ is not None})
        return [
            self._record(row, None if id_ is None else known[id_])
            for row, id_ in zip(rows, ids, strict=True)
            if id_ is None or id_ in known
        ]

    def one(self, connection: Connection, keys: AccountKeys, *key: object) -> R | None:
        """The row of a primary key."""
        found = self.select(connection, keys, self._is_key(), key)
        return found[0] if found else None

    def get(self, connection: Connection, keys: AccountKeys, *key: object) -> R:
        """The row of a primary key. Raises NotFound."""
        found = self.one(connection, keys, *key)
        if found is None:
            raise self._missing(key)
        return found

    def add(self, connection: Connection, keys: AccountKeys, row: R, **more: object) -> int:
        """Insert. `more`: columns that are not in the record, or another value than the record has. Returns the
        row's number, where the primary key is one: a new one for None.

        Raises:
            CallerError: `taken`, another row has a value that is unique.
            NotFound: what the row refers to does not exist.
        """
        return self._insert(connection, {**self._cells(connection, keys, row), **more})

    def store(self, connection: Connection, keys: AccountKeys, row: R) -> None:
        """Insert, or replace the row of the same key. Raises as `add`."""
        cells = self._cells(connection, keys, row)
        setting = ", ".join(f"{name} = excluded.{name}" for name in cells if name not in self.key)
        self._insert(connection, cells, f" ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {setting}")

    def put(self, connection: Connection, keys: AccountKeys, row: R, **more: object) -> None:
        """Replace the row of the same key. `more`: as for `add`.

        Raises:
            NotFound: there is none, or what the new one refers to does not exist.
            CallerError: `taken`.
        """
        cells = {**self._cells(connection, keys, row), **more}
        key = [cells.pop(name) for name in self.key]
        setting = ", ".join(f"{name} = ?" for name in cells)
        try:
            cursor = connection.try_execute(
                f"UPDATE {self.name} SET {setting} WHERE {self._is_key()}", (*cells.values(), *key)
            )
        except (Taken, Refers) as error:
            raise self._translated(error) from error
        if cursor.rowcount == 0:
            raise self._missing(key)

    def _record(self, row: tuple[Any, ...], key: bytes | None) -> R:
        """Of the first cells of a row. Lists of thousands are read."""
        cells = list(row[: len(self.columns)])
        for place, name in self._sealed:
            if cells[place]:
                cells[place] = unseal(key, name, cells[place])
            elif cells[place] is not None:
                cells[place] = ""
        for place, decode in self._decoded:
            cells[place] = decode(cells[place])
        return self.record(*cells)

    def _cells(self, connection: Connection, keys: AccountKeys, row: R) -> dict[str, Any]:
        cells = {column: getattr(row, column) for column in self.columns}
        for column, cell in cells.items():
            if isinstance(cell, dict):
                cells[column] = json.dumps(cell, ensure_ascii=False, sort_keys=True)
        if "account" in cells:
            key_id = key_id_of(connection, cells["account"])
            if key_id is None:
                raise self._refers_to_nothing()
            texts = [column for column in self.private if cells[column] is not None]
            key = keys.of([key_id]).get(key_id) if any(cells[column] for column in texts) else b""
            if key is None:  # the account has ended, and this catalog is an older one
                raise self._refers_to_nothing()
            for column in texts:
                cells[column] = seal(key, f"{self.name}.{column}", cells[column])
        return cells

    def _insert(self, connection: Connection, cells: dict[str, Any], on_conflict: str = "") -> int:
        """Insert a row, the database giving the number when it is None. Returns the first column of its key, where
        that is a number."""
        cells = {name: cell for name, cell in cells.items() if name not in self.key or cell is not None}
        names, places = ", ".join(cells), ", ".join("?" * len(cells))
        try:
            [first] = connection.try_execute(
                f"INSERT INTO {self.name} ({names}) VALUES ({places}){on_conflict} RETURNING {self.key[0]}",
                tuple(cells.values()),
            ).fetchone()
        except (Taken, Refers) as error:
            raise self._translated(error) from error
        return first if isinstance(first, int) else 0

    def _is_key(self) -> str:
        return " AND ".join(f"{name} = ?" for name in self.key)

    def _missing(self, key: tuple[object, ...] | list[object]) -> NotFound:
        # A key that is bytes is a secret's hash; nobody could do anything with it.
        told = " ".join(str(part) for part in key if not isinstance(part, bytes))
        return NotFound(f"no such {self.title}", subject=f"{self.title} {told}".strip())

    def _refers_to_nothing(self) -> NotFound:
        return NotFound(f"this {self.title} refers to an account, a device or a plan that does not exist")

    def _translated(self, error: Taken | Refers) -> Conflict | NotFound:
        if isinstance(error, Taken):
            return Conflict(f"there is a {self.title} of this key already", code=self.taken)
        return self._refers_to_nothing()
