"""Share links, as playback asks for them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from storage.account_keys import AccountKeys
from storage.catalog.shares import SharesCatalog
from storage.rows.shares import ShareRow
from storage.sql.base import OnDatabase
from storage.sql.books.shares import SHARES
from storage.sql.connection import Connection, Excludes, writing


class Shares(OnDatabase, SharesCatalog):
    keys: AccountKeys

    def shares_by_number(self, numbers: Collection[int]) -> list[ShareRow]:
        with self.db.read() as connection:
            where = f"{connection.among('share_id', '?')} ORDER BY share_id"
            return SHARES.select(connection, self.keys, where, (json.dumps(sorted(numbers)),))

    @writing(Excludes.NOTHING)
    def count_opens(self, connection: Connection, opens: Mapping[int, int], *, now_ms: int) -> None:
        # In order: two processes at it never wait for each other.
        connection.executemany(
            "UPDATE shares SET opens = opens + ?, opened_ms = ? WHERE share_id = ?",
            [(opens[number], now_ms, number) for number in sorted(opens)],
        )
