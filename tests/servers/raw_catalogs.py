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
_ONE_CHUNK = "WHERE device = ? AND capture_ms = ?"


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


def drop_all_days(folder: Path) -> int:
    """Remove the chunk tables of all expiry days, and the list of these days. Returns how many there were."""
    days = [day for (day,) in run_raw(folder, "SELECT expires_on FROM days")]
    for day in days:
        drop_day(folder, day)
    run_raw(folder, "DELETE FROM days")
    return len(days)


def damage_while_open(folder: Path) -> None:
    """Damage a folder's catalog so that who has it open finds out: no statement about segments works any more."""
    if on_postgres():
        run_raw(folder, "DROP TABLE segments CASCADE")
        return
    with (folder / "catalog.db").open("r+b") as file:
        first = bytes(byte ^ 0xFF for byte in file.read(64))
        file.seek(0)
        file.write(first)


def files_of_catalog(folder: Path) -> list[Path]:
    """The files in which a folder's catalog keeps its rows, as they are on the disk now."""
    if not on_postgres():
        return [path for name in ("catalog.db", "catalog.db-wal") if (path := folder / name).exists()]
    run_raw(folder, "CHECKPOINT")
    [(place,)] = run_raw(
        folder,
        "SELECT current_setting('data_directory') || '/base/' || oid FROM pg_database"
        " WHERE datname = current_database()",
    )
    return [path for path in Path(place).iterdir() if path.is_file()]


def read_chunk(folder: Path, day: int, device: int, capture_ms: int) -> dict[str, Any]:
    """The columns of one chunk row by name, in the order of `CHUNK_COLUMNS`."""
    columns = ", ".join(CHUNK_COLUMNS)
    [found] = run_raw(folder, f"SELECT {columns} FROM chunks_{day} {_ONE_CHUNK}", device, capture_ms)
    return dict(zip((name.strip('"') for name in CHUNK_COLUMNS), found, strict=True))


def change_chunk(folder: Path, day: int, device: int, capture_ms: int, changes: dict[str, Any]) -> None:
    """Give columns of one chunk row other values. One that is callable is given the old value."""
    row = read_chunk(folder, day, device, capture_ms)
    row |= {name: value(row[name]) if callable(value) else value for name, value in changes.items()}
    names, values, table = CHUNK_COLUMNS, tuple(row.values()), f"chunks_{day}"
    if on_postgres():
        names, values, table = COLUMNS, packed_row(*row.values()), f"packed_{day}"
    run_raw(
        folder,
        f"UPDATE {table} SET {', '.join(f'{n} = ?' for n in names)} {_ONE_CHUNK}",
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
