"""Which account key is whose, as `storage.catalog.account_keys` says."""

from __future__ import annotations

from collections.abc import Collection

from storage.catalog.account_keys import AccountKeyRow, AccountKeysCatalog
from storage.sql.base import OnDatabase
from storage.sql.connection import Connection, writing

IDS_AT_ONCE = 500
_ROW = "key_id, account, destroyed"
_ENDED = "account IS NULL AND destroyed = 0"


class AccountKeyRows(OnDatabase, AccountKeysCatalog):
    def account_keys(self, *, after: bytes = b"", limit: int = 1000) -> list[AccountKeyRow]:
        with self.db.read() as connection:
            rows = connection.execute(
                f"SELECT {_ROW} FROM account_keys WHERE key_id > ? ORDER BY key_id LIMIT ?", (after, limit)
            ).fetchall()
        return [_row(*row) for row in rows]

    def account_keys_of(self, ids: Collection[bytes]) -> dict[bytes, AccountKeyRow]:
        with self.db.read() as connection:
            return _rows_of(connection, ids)

    def ended_account_keys(self, *, limit: int = 1000) -> list[bytes]:
        with self.db.read() as connection:
            rows = connection.execute(f"SELECT key_id FROM account_keys WHERE {_ENDED} LIMIT ?", (limit,))
            return [bytes(row[0]) for row in rows]

    @writing()
    def end_account_keys(self, connection: Connection, ids: Collection[bytes]) -> list[bytes]:
        connection.executemany(
            "INSERT INTO account_keys (key_id) VALUES (?) ON CONFLICT (key_id) DO NOTHING",
            [(id_,) for id_ in sorted(ids)],
        )
        found = _rows_of(connection, ids)
        return [row.key_id for row in found.values() if row.account is None]

    @writing()
    def note_account_keys_destroyed(self, connection: Connection, ids: Collection[bytes]) -> None:
        connection.executemany(
            "UPDATE account_keys SET destroyed = 1 WHERE key_id = ? AND account IS NULL",
            [(id_,) for id_ in sorted(ids)],
        )


def _rows_of(connection: Connection, ids: Collection[bytes]) -> dict[bytes, AccountKeyRow]:
    wanted = sorted(ids)
    found: dict[bytes, AccountKeyRow] = {}
    for start in range(0, len(wanted), IDS_AT_ONCE):
        page = wanted[start : start + IDS_AT_ONCE]
        rows = connection.execute(
            f"SELECT {_ROW} FROM account_keys WHERE key_id IN ({', '.join('?' * len(page))})", page
        )
        found |= {row.key_id: row for row in (_row(*values) for values in rows.fetchall())}
    return found


def _row(key_id: bytes, account: int | None, destroyed: int) -> AccountKeyRow:
    return AccountKeyRow(bytes(key_id), account, bool(destroyed))
