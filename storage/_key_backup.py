"""A consistent copy of a key store that is in use."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from storage._key_accounts import has_account_keys
from storage._key_database import KeyDatabase, translated_errors
from storage._key_files import (
    MASTER_MAGIC,
    TOKENS_MAGIC,
    fsync,
    read_key_file,
    unavailable,
    write_key_file,
)
from storage._key_tables import ZEROS, current_wrapping_key, months_of

MAX_COPIES = 10
"""Of a database that is rotated each time: a rotation takes longer than a copy."""


def copy_key_store(database: KeyDatabase, source: Path, target: Path) -> None:
    """Copy `source` into the empty folder `target`, mode 0600 each, durably.

    The database is copied as of one moment, while others go on writing. A rotation may go on too: wrapping keys are
    read before and after, and those that the copy needs are kept. When one that it needs is not among them, for it came
    and went meanwhile, all of it is copied again.

    Raises:
        WorldError: that happened MAX_COPIES times.
    """
    master = source / "master.key"
    for _ in range(MAX_COPIES):
        before = read_key_file(master, MASTER_MAGIC)
        used = _copy_database(database, target / "keys.db")
        entries = dict(before) | dict(read_key_file(master, MASTER_MAGIC))
        if used <= entries.keys():
            break
        (target / "keys.db").unlink()
    else:
        raise unavailable(master, f"it was rotated during each of {MAX_COPIES} copies")
    write_key_file(target / "master.key", MASTER_MAGIC, [(n, key) for n, key in entries.items() if n in used])
    tokens = read_key_file(source / "tokens.key", TOKENS_MAGIC)
    write_key_file(target / "tokens.key", TOKENS_MAGIC, tokens)
    fsync(target)


def _copy_database(database: KeyDatabase, copied: Path) -> set[int]:
    """Returns the ids of the wrapping keys that the copy needs."""
    os.close(os.open(copied, os.O_CREAT | os.O_EXCL, 0o600))
    with translated_errors(copied), closing(sqlite3.connect(copied, isolation_level=None)) as connection:
        database.copy_to(connection)
        used = {current_wrapping_key(connection)}
        tables = [f"month_{month}" for month in months_of(connection)]
        for table in tables + ["account_keys"] * has_account_keys(connection):
            used.update(
                number
                for (number,) in connection.execute(
                    f"SELECT DISTINCT wrapping_key_id FROM {table} WHERE wrapped <> {ZEROS}"
                )
            )
    fsync(copied)
    return used
