"""The tables of chunk rows: one per expiry day, so that a day goes in one step."""

from __future__ import annotations

from storage.rows.clips import KEPT_DAY
from storage.sql.connection import Connection


def chunk_table(day: int) -> str:
    """The name of the chunk table of one expiry day. What is kept has one of its own, which is no day's: it is not in
    `days`."""
    if day == KEPT_DAY:
        return "kept_chunks"
    return f"chunks_{int(day)}"


def create_chunk_table(connection: Connection, day: int) -> None:
    """Make a day's chunk table, where it is missing, and note it in `days`."""
    connection.create_chunk_table(day)
    connection.execute("INSERT INTO days VALUES (?) ON CONFLICT DO NOTHING", (day,))


def chunk_days(connection: Connection) -> set[int]:
    """Expiry days that have a chunk table."""
    return {row[0] for row in connection.execute("SELECT expires_on FROM days")}


def closed_through(connection: Connection) -> int:
    """The last expiry day already swept."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'closed_through'").fetchone()
    return int(row[0])


def open_days(connection: Connection) -> set[int]:
    """Expiry days whose chunk table is served: what is closed is gone, even where its table still is there."""
    closed = closed_through(connection)
    return {day for day in chunk_days(connection) if day > closed}
