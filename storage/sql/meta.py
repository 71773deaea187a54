"""The numbers in `meta`: what there is one of."""

from __future__ import annotations

from storage.sql.connection import Connection


def number(connection: Connection, name: str) -> int | None:
    """A number in `meta`."""
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def put_number(connection: Connection, name: str, value: int) -> None:
    connection.execute(
        "INSERT INTO meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
