"""A catalog's rows, from a file of SQLite into an empty database: table by table, each in one transaction, so that a
copy that was stopped goes on with the next table. Then every row is read back on both sides and compared.

Until `finish` the database is no catalog: it has no revision, so nobody opens it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from storage.account_keys import AccountKeys
from storage.errors import CallerError, CatalogCorrupt
from storage.postgres.connection import PostgresConnection, has_table
from storage.postgres.database import APPLICATION, PostgresDatabase
from storage.postgres.schema import COUNTED, create_schema, require_empty
from storage.sqlite.schema import REVISION

Progress = Callable[[str, int, int], None]

ROWS_AT_ONCE = 5000
_NOT_COPIED = {"alembic_version"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table to be copied: its columns, and whether it is a day's."""

    name: str
    columns: tuple[str, ...]

    @property
    def selected(self) -> str:
        return ", ".join(f'"{column}"' for column in self.columns)


def tables_of(source: sqlite3.Connection) -> list[Table]:
    """All tables, each after those that it refers to."""
    names = {
        row[0]
        for row in source.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
    } - _NOT_COPIED
    refers = {
        name: {row[2] for row in source.execute(f"PRAGMA foreign_key_list({name})")} - {name}
        for name in names
    }
    ordered: list[str] = []
    while len(ordered) < len(names):
        ready = sorted(name for name in names.difference(ordered) if refers[name].issubset(ordered))
        assert ready, "tables refer to each other in a circle"
        ordered += ready
    return [
        Table(name, tuple(row[1] for row in source.execute(f"PRAGMA table_info({name})"))) for name in ordered
    ]


def count_rows(source: sqlite3.Connection, tables: list[Table]) -> int:
    return sum(source.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0] for table in tables)


def begin(database: PostgresDatabase, home: int) -> None:
    """Make the tables, without a row, in an empty database; or find those of a copy that was stopped.

    Raises:
        CallerError: `exists`, there is a catalog already, or the copy of another home's; `not_empty`.
    """
    if is_begun(database, home):
        return
    create_schema(database, AccountKeys(None))
    with database.hold() as connection:
        assert isinstance(connection, PostgresConnection)
        made = [
            row[0]
            for row in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
            )
        ]
        emptied = [name for name in made if name not in ("numbers", "tries")]
        connection.run(f"TRUNCATE {', '.join(emptied)}")
        connection.run("CREATE TABLE copying (name TEXT PRIMARY KEY, rows BIGINT NOT NULL)")
        connection.execute("INSERT INTO copying VALUES ('', ?)", (home,))


def is_begun(database: PostgresDatabase, home: int) -> bool:
    """Whether there is a copy that was stopped.

    Raises:
        CallerError: `exists`, it is another home's.
    """
    with database.read() as connection:
        if not has_table(connection, "copying"):
            return False
        row = connection.execute("SELECT rows FROM copying WHERE name = ''").fetchone()
    if row is None or row[0] != home:
        raise CallerError(
            "another home's catalog is being copied into this database; choose an empty one",
            subject=database.subject,
            code="exists",
        )
    return True


def require_nothing(database: PostgresDatabase) -> None:
    """Raises CallerError `not_empty`."""
    with database.read() as connection:
        require_empty(connection, database.subject)


def is_whole(database: PostgresDatabase) -> bool:
    """Whether there is a catalog: one that was made here, or whose copy was finished."""
    with database.read() as connection:
        if not has_table(connection, "alembic_version"):
            return False
        return bool(connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0])


def copy_rows(source: sqlite3.Connection, database: PostgresDatabase, progress: Progress) -> int:
    """Copy every table that is not yet there. Returns how many rows there are in all."""
    tables = tables_of(source)
    total, done = count_rows(source, tables), 0
    with database.read() as connection:
        there = dict(connection.execute("SELECT name, rows FROM copying").fetchall())
    for table in tables:
        if table.name in there:
            done += there[table.name]
            progress("rows copied", done, total)
            continue
        with database.hold() as connection:
            assert isinstance(connection, PostgresConnection)
            connection.take_its_time()
            if table.name.startswith("chunks_"):
                connection.create_chunk_table(int(table.name.removeprefix("chunks_")))
            count = 0
            with connection.copying_in(table.name, table.columns) as put:
                for row in source.execute(f"SELECT {table.selected} FROM {table.name}"):
                    put(row)
                    count += 1
                    if count % ROWS_AT_ONCE == 0:
                        progress("rows copied", done + count, total)
            connection.execute("INSERT INTO copying VALUES (?, ?)", (table.name, count))
        done += count
        progress("rows copied", done, total)
    return total


def copy_numbers(source: sqlite3.Connection, database: PostgresDatabase) -> None:
    """Numbers that were given, also to rows that are gone, are not given again."""
    given = dict(source.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    with database.hold() as connection:
        for table, column in {"devices": "device", "segments": "segment_id", **COUNTED}.items():
            highest = connection.execute(f"SELECT coalesce(max({column}), 0) FROM {table}").fetchone()[0]
            last = max(int(highest), int(given.get(table, 0)))
            if table != "segments":
                connection.gave_numbers(table, last)
            elif last:
                connection.execute("SELECT setval(pg_get_serial_sequence(?, ?), ?)", (table, column, last))


def differences(source: sqlite3.Connection, database: PostgresDatabase, progress: Progress) -> list[str]:
    """What is not alike, by table: the count of rows, or the sum of their checksums. Reads all of both sides."""
    tables = tables_of(source)
    total, done = count_rows(source, tables), 0
    found = []

    def counting(rows: Iterator[tuple[Any, ...]], step: int) -> Iterator[tuple[Any, ...]]:
        nonlocal done
        for number, row in enumerate(rows, 1):
            if number % ROWS_AT_ONCE == 0:
                done += step * ROWS_AT_ONCE
                progress("rows compared", min(done, total), total)
            yield row

    with database.read() as connection:
        assert isinstance(connection, PostgresConnection)
        connection.take_its_time()
        for table in tables:
            if not has_table(connection, table.name):
                found.append(f"{table.name} is missing")
                continue
            here = summed(counting(source.execute(f"SELECT {table.selected} FROM {table.name}"), 1))
            there = summed(iter(connection.streamed(f"SELECT {table.selected} FROM {table.name}")))
            if here != there:
                found.append(f"{table.name} has {there[0]} rows of {here[0]}, with another checksum")
        extra = connection.chunk_tables() - {table.name for table in tables}
        found += [f"{name} is new" for name in sorted(extra)]
    progress("rows compared", total, total)
    return found


def summed(rows: Iterator[tuple[Any, ...]]) -> tuple[int, int]:
    """How many rows, and the sum of their hashes: the same in whatever order they come."""
    count = total = 0
    for row in rows:
        count += 1
        total += int.from_bytes(blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=8).digest())
    return count, total & ((1 << 64) - 1)


def finish(database: PostgresDatabase) -> None:
    """From here on the database is a catalog."""
    with database.hold() as connection:
        assert isinstance(connection, PostgresConnection)
        connection.take_its_time()
        connection.execute("ANALYZE")
        connection.execute("DROP TABLE copying")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (REVISION,))


def others_at_work(database: PostgresDatabase) -> int:
    """How many connections of Clipkeep's there are beside this one."""
    with database.read() as connection:
        return int(
            connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                f" AND application_name LIKE '{APPLICATION}%' AND pid <> pg_backend_pid()"
            ).fetchone()[0]
        )


def require_alike(source: sqlite3.Connection, database: PostgresDatabase, progress: Progress) -> None:
    """Raises CatalogCorrupt when the copy is not the source."""
    if found := differences(source, database, progress):
        raise CatalogCorrupt(
            f"the copy is not what was copied: {'; '.join(found[:5])}. Nothing was changed: take this back with"
            " `clipkeep catalog copy --back`, and look at the server",
            subject=database.subject,
        )
