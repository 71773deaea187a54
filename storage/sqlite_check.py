"""What SQLite's own check finds in a database: for the catalog and the key store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

MAX_FINDINGS = 1000


@contextmanager
def errors_with_text() -> Iterator[None]:
    """Raise an error of SQLite that Python can't read, for it quotes damaged table definitions, as one that it can. To
    be put around the first statements of a connection, which read the definitions.

    Raises:
        sqlite3.DatabaseError: with SQLITE_CORRUPT.
    """
    try:
        yield
    except UnicodeDecodeError as unreadable:
        error = sqlite3.DatabaseError("malformed database schema")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
        raise error from unreadable


def found_by_sqlite(name: str, connection: sqlite3.Connection) -> list[str]:
    """Everything that `PRAGMA integrity_check` reports (the structure of all pages, each index against its table in
    both directions, all constraints) and the rows that refer to none, as sentences.

    Args:
        name: of the file, what each sentence begins with.
        connection: one that has read nothing yet, so that pages come from the disk.

    Raises:
        sqlite3.Error: it could not be asked.
    """
    found: list[str] = []
    connection.text_factory = lambda text: text.decode("utf-8", "replace")  # it may quote what is damaged
    try:
        connection.execute("PRAGMA cell_size_check = ON")
        for (line,) in connection.execute(f"PRAGMA integrity_check({MAX_FINDINGS})"):
            if line != "ok":
                found += [f"{name}: {part}" for part in str(line).splitlines() if part.strip()]
        for table, row_id, parent, _ in connection.execute("PRAGMA foreign_key_check").fetchmany(
            MAX_FINDINGS
        ):
            found.append(f"{name}: row {row_id} of {table} refers to a row of {parent} that is not there")
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        primary = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if primary not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise
        found.append(f"{name}: SQLite can't read it ({error})")
    return found
