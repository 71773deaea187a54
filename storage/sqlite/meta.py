"""The numbers in `meta`: what there is one of."""

from __future__ import annotations

import sqlite3


def number(connection: sqlite3.Connection, name: str) -> int | None:
    """A number in `meta`."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def put_number(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
