"""Operators and their tokens."""

from __future__ import annotations

from dataclasses import replace

from storage.rows.operators import OperatorRow, OperatorTokenRow
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table

OPERATORS = Table("operators", OperatorRow, ("operator",), "operator", private=("name",))
TOKENS = Table("operator_tokens", OperatorTokenRow, ("token_id",), "operator's token")


class Operators(OnBooks):
    def add_operator(self, row: OperatorRow) -> OperatorRow:
        return replace(row, operator=OPERATORS.add(self._writer, self._keys, row, operator=None))

    def put_operator(self, row: OperatorRow) -> None:
        OPERATORS.put(self._writer, self._keys, row)

    def operator(self, operator: int) -> OperatorRow:
        return OPERATORS.get(self._reader, self._keys, operator)

    def operators(self, *, limit: int = 1000) -> list[OperatorRow]:
        return OPERATORS.select(self._reader, self._keys, "true ORDER BY operator LIMIT ?", (limit,))

    def add_operator_token(self, row: OperatorTokenRow) -> OperatorTokenRow:
        return replace(row, token_id=TOKENS.add(self._writer, self._keys, row, token_id=None))

    def operator_token(self, token_hash: bytes) -> OperatorTokenRow | None:
        found = TOKENS.select(self._reader, self._keys, "token_hash = ?", (token_hash,))
        return found[0] if found else None

    def operator_tokens(self, *, limit: int = 1000, good_ms: int = 0) -> list[OperatorTokenRow]:
        where = "expires_ms > ? ORDER BY token_id LIMIT ?"
        return TOKENS.select(self._reader, self._keys, where, (good_ms, limit))

    def end_operator_token(self, token_id: int) -> bool:
        cursor = self._writer.execute("DELETE FROM operator_tokens WHERE token_id = ?", (token_id,))
        return cursor.rowcount > 0
