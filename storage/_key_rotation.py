"""Rotating the wrapping key: every key is wrapped anew, then the old wrapping key is destroyed.

    1 begin    master.key gets a second, new entry; then keys.db names it as current. From here on new keys take it
    2 re-wrap  rows of the old one, in bounded batches, overwritten where they are
    3 retire   nothing is wrapped with the old one any more: master.key is replaced by one without it, and the bytes
               of the old file are overwritten

Each step is one transaction, and what is left to do can be seen in master.key and keys.db: a rotation that was
killed goes on where it stood, and two at once do the work of one. A process that runs meanwhile reads
master.key again when it meets an id that is new to it.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from storage._key_accounts import has_account_keys
from storage._key_database import KeyDatabase, whole_number
from storage._key_files import (
    MASTER_MAGIC,
    corrupt,
    read_key_file,
    replace_key_file,
    shred_leftovers,
    unavailable,
)
from storage._key_tables import ZEROS, current_wrapping_key, months_of
from storage._key_wrapping import Name, WrappingKeys, new_wrapping_key
from storage.errors import CorruptError
from storage.vault import KeyId, Progress, Rotation

REWRAP_BATCH_ROWS = 2000
"""Rows of one transaction. Measured: 10 to 20 ms, for which others wait; 5.5 s for a million keys in all."""


def rotate(database: KeyDatabase, master: Path, wrapping_keys: WrappingKeys, progress: Progress) -> Rotation:
    """Carry out a rotation, or the rest of one.

    Raises:
        CorruptError: rows that master.key does not unwrap. All others are re-wrapped and the old key stays.
        WorldError, CallerError: as `KeyStore`. Call again to go on.
    """
    try:
        current, resumed = _begin(database, master)
        wrapping_keys.forget()  # what is in memory may be of before
        rewrapped, unreadable = _rewrap_all(database, current, wrapping_keys, progress)
        if unreadable is not None:
            raise unreadable
        retired = _retire(database, master, current)
    except OSError as error:
        raise unavailable(master, error) from error
    wrapping_keys.forget()
    return Rotation(current, resumed, rewrapped, retired)


def _begin(database: KeyDatabase, master: Path) -> tuple[int, bool]:
    """The wrapping key to rotate to, and whether it was there already."""
    with database.transaction("IMMEDIATE") as connection:
        unfinished = shred_leftovers(master)  # the last step of the last rotation, when that was killed in it
        entries = read_key_file(master, MASTER_MAGIC)
        resumed = unfinished or len(entries) > 1
        if not resumed:
            entries.append(new_wrapping_key())
            replace_key_file(master, MASTER_MAGIC, entries)
        newest = entries[-1][0]
        connection.execute("UPDATE state SET wrapping_key_id = ?", (newest,))
        return newest, resumed


def _rewrap_all(
    database: KeyDatabase, current: int, wrapping_keys: WrappingKeys, progress: Progress
) -> tuple[int, CorruptError | None]:
    with database.transaction("DEFERRED") as connection:
        # No row of another id appears from here on: new keys take what `state` says, in the same transaction.
        todo = {table: _wrapped_otherwise(connection, table, current) for table in _tables(connection)}
    of, done, unreadable = sum(todo.values()), 0, None
    for table, count in todo.items():
        after_slot: int | None = -1 if count else None
        while after_slot is not None:
            with database.transaction("IMMEDIATE") as connection:
                after_slot, rewrapped, error = _rewrap_batch(
                    connection, table, current, after_slot, wrapping_keys
                )
            done += rewrapped
            unreadable = unreadable or error
            progress("rewrap", done, max(of, done))
    return done, unreadable


def _tables(connection: sqlite3.Connection) -> list[str]:
    """The tables with wrapped keys."""
    return [f"month_{month}" for month in months_of(connection)] + (
        ["account_keys"] if has_account_keys(connection) else []
    )


def _wrapped_otherwise(connection: sqlite3.Connection, table: str, current: int) -> int:
    """How many keys of a table are wrapped with another key than the current one."""
    query = f"SELECT count(*) FROM {table} WHERE wrapping_key_id <> ? AND wrapped <> {ZEROS}"
    return whole_number(connection, query, (current,))


def _rewrap_batch(
    connection: sqlite3.Connection, table: str, current: int, after_slot: int, wrapping_keys: WrappingKeys
) -> tuple[int | None, int, CorruptError | None]:
    """Re-wrap rows behind `after_slot`. Returns the last slot looked at (None: no more), how many were
    re-wrapped, and the first error."""
    if table not in _tables(connection):  # it was destroyed meanwhile
        return None, 0, None
    name = "id, 0" if table == "account_keys" else "device, epoch"
    rows = connection.execute(
        f"SELECT slot, {name}, wrapping_key_id, wrapped FROM {table} WHERE slot > ?"
        f" AND wrapping_key_id <> ? AND wrapped <> {ZEROS} ORDER BY slot LIMIT ?",
        (after_slot, current, REWRAP_BATCH_ROWS),
    ).fetchall()
    first_error = None
    fresh = []
    for slot, first, second, wrapping_key_id, wrapped in rows:
        named: Name = first if isinstance(first, bytes) else KeyId(first, second, int(table[6:]))
        try:
            key = wrapping_keys.unwrap(wrapping_key_id, named, wrapped)
        except CorruptError as error:
            first_error = first_error or error
            continue
        fresh.append((current, wrapping_keys.wrap(current, named, key), slot))
    connection.executemany(
        # Values of the same lengths, so that SQLite overwrites in place instead of moving the row.
        f"UPDATE {table} SET wrapping_key_id = ?, wrapped = ? WHERE slot = ?",
        fresh,
    )
    return (rows[-1][0] if len(rows) == REWRAP_BATCH_ROWS else None), len(fresh), first_error


def _retire(database: KeyDatabase, master: Path, current: int) -> tuple[int, ...]:
    """Destroy all wrapping keys but the current one, once nothing is wrapped with them."""
    with database.transaction("DEFERRED") as connection:
        left = sum(_wrapped_otherwise(connection, table, current) for table in _tables(connection))
    with database.transaction("IMMEDIATE") as connection:
        if current_wrapping_key(connection) != current:  # another process went on to the next rotation
            return ()
        if left:
            raise corrupt(master, f"{left} keys are still wrapped with an earlier wrapping key")
        entries = read_key_file(master, MASTER_MAGIC)
        if len(entries) == 1:
            return ()
        keep = [entry for entry in entries if entry[0] == current]
        replace_key_file(master, MASTER_MAGIC, keep)
        return tuple(number for number, _ in entries if number != current)
