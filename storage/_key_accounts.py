"""Account keys in keys.db.

    account_keys   slot, id (16 bytes), made_ms, free (1: destroyed), wrapping_key_id, wrapped

Nothing wrapped ever moves here either: rows are appended, or overwritten by values of the same lengths. A destroyed key
is zeros, and its place is taken by a later one, so the table is as long as the most keys that there were at a time.
Index pages may leave copies of ids behind, which are random and name nobody.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping

from storage._key_database import ACCOUNT_KEYS_VERSION, KeyDatabase
from storage._key_tables import ZEROS, current_wrapping_key
from storage._key_wrapping import WrappingKeys
from storage.vault import AccountKeyFacts


def has_account_keys(connection: sqlite3.Connection) -> bool:
    """Whether the table is there."""
    row = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'account_keys'")
    return row.fetchone() is not None


def read_account_keys(
    connection: sqlite3.Connection, ids: Iterable[bytes], wrapping_keys: WrappingKeys
) -> dict[bytes, bytes]:
    """See `Vault.account_keys`."""
    if not has_account_keys(connection):
        return {}
    found: dict[bytes, bytes] = {}
    for id_ in ids:
        row = connection.execute(
            "SELECT wrapping_key_id, wrapped FROM account_keys WHERE id = ? AND NOT free", (id_,)
        ).fetchone()
        if row is not None:
            found[id_] = wrapping_keys.unwrap(row[0], id_, row[1])
    return found


def keep_account_keys(
    database: KeyDatabase, fresh: Mapping[bytes, bytes], wrapping_keys: WrappingKeys, now_ms: int
) -> dict[bytes, bytes]:
    """See `Vault.keep_account_keys`."""
    with database.transaction("IMMEDIATE") as connection:
        if not has_account_keys(connection):
            connection.execute(
                "CREATE TABLE account_keys (slot INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE,"
                " made_ms INTEGER NOT NULL, free INTEGER NOT NULL, wrapping_key_id INTEGER NOT NULL,"
                " wrapped BLOB NOT NULL)"
            )
            connection.execute("CREATE INDEX free_account_keys ON account_keys (slot) WHERE free")
            connection.execute(f"PRAGMA user_version = {ACCOUNT_KEYS_VERSION}")
        keys = read_account_keys(connection, fresh, wrapping_keys)
        current = current_wrapping_key(connection)  # as for data keys: in the transaction that uses it
        for id_, key in fresh.items():
            if id_ in keys:
                continue
            keys[id_] = key
            row = (id_, now_ms, current, wrapping_keys.wrap(current, id_, key))
            slot = connection.execute("SELECT slot FROM account_keys WHERE free LIMIT 1").fetchone()
            if slot is None:
                connection.execute(
                    "INSERT INTO account_keys (id, made_ms, free, wrapping_key_id, wrapped) VALUES (?, ?, 0, ?, ?)",
                    row,
                )
            else:
                connection.execute(
                    "UPDATE account_keys SET id = ?, made_ms = ?, free = 0, wrapping_key_id = ?, wrapped = ?"
                    " WHERE slot = ?",
                    (*row, slot[0]),
                )
        return keys


def destroy_account_keys(database: KeyDatabase, ids: Collection[bytes]) -> int:
    """See `Vault.destroy_account_keys`."""
    if not ids:
        return 0
    with database.transaction("IMMEDIATE") as connection:
        if not has_account_keys(connection):
            return 0
        done = connection.executemany(
            f"UPDATE account_keys SET free = 1, wrapped = {ZEROS} WHERE id = ? AND NOT free",
            [(id_,) for id_ in ids],
        ).rowcount
    database.scrub_log()  # also when another call, which was killed before this, had destroyed them
    return done


def account_keys_made(connection: sqlite3.Connection, after: bytes, limit: int) -> list[AccountKeyFacts]:
    """See `Vault.account_keys_made`."""
    if not has_account_keys(connection):
        return []
    rows = connection.execute(
        "SELECT id, made_ms FROM account_keys WHERE id > ? AND NOT free ORDER BY id LIMIT ?", (after, limit)
    )
    return [AccountKeyFacts(*row) for row in rows]
