"""Damage to the catalogs of test worlds: changes that no code of the product makes, on either engine."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import psycopg

from storage.postgres.connection import translated
from storage.postgres.packed_rows import COLUMNS, packed_row
from tests.servers.catalogs import address_of, on_postgres

CHUNK_COLUMNS = (
    *("device", "capture_ms", "segment_id", "ordinal", '"offset"', "length", "duration_ms"),
    *("crc32", "crc64", "nonce", "media", "epoch", "facts"),
)
"""Of a chunk row, in the order that `packed_row` takes."""


def run_raw(folder: Path, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement on a folder's catalog, whatever foreign keys say. Returns its rows, if it has any."""
    if on_postgres():
        with psycopg.connect(address_of(folder), autocommit=True) as server:
            server.execute("SET session_replication_role = replica")  # triggers of foreign keys are off
            cursor = server.execute(cast(Any, translated(statement)), values)
            return cursor.fetchall() if cursor.description else []
    with closing(sqlite3.connect(folder / "catalog.db", isolation_level=None)) as file:
        file.execute("PRAGMA foreign_keys=OFF")
        return file.execute(statement, values).fetchall()


def drop_day(folder: Path, day: int) -> None:
    """Remove an expiry day's chunk table, and leave the day in `days`."""
    run_raw(folder, f"DROP TABLE packed_{day} CASCADE" if on_postgres() else f"DROP TABLE chunks_{day}")


def change_chunk(folder: Path, day: int, device: int, capture_ms: int, changes: dict[str, Any]) -> None:
    """Give columns of one chunk row other values. One that is callable is given the old value."""
    where = "WHERE device = ? AND capture_ms = ?"
    [found] = run_raw(
        folder, f"SELECT {', '.join(CHUNK_COLUMNS)} FROM chunks_{day} {where}", device, capture_ms
    )
    row = dict(zip((name.strip('"') for name in CHUNK_COLUMNS), found, strict=True))
    row |= {name: value(row[name]) if callable(value) else value for name, value in changes.items()}
    names, values, table = CHUNK_COLUMNS, tuple(row.values()), f"chunks_{day}"
    if on_postgres():
        names, values, table = COLUMNS, packed_row(*row.values()), f"packed_{day}"
    run_raw(
        folder,
        f"UPDATE {table} SET {', '.join(f'{n} = ?' for n in names)} {where}",
        *values,
        device,
        capture_ms,
    )


def forget_segment_ids(folder: Path, last: int) -> None:
    """Let a catalog give segment ids from `last` + 1 on, as one that was restored from a backup does."""
    if on_postgres():
        run_raw(folder, "SELECT setval(pg_get_serial_sequence('segments', 'segment_id'), ?)", last)
    else:
        run_raw(folder, "UPDATE sqlite_sequence SET seq = ? WHERE name = 'segments'", last)
