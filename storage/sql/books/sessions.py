"""Log-ins, one-time codes, counted attempts, and answers kept for requests that are sent again."""

from __future__ import annotations

from dataclasses import replace

from storage.rows.accounts import AnswerRow, AttemptsRow, CodeRow, SessionRow
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table
from storage.sql.sealing import keyed_hash

SESSIONS = Table("sessions", SessionRow, ("token_hash",), "session")
CODES = Table("codes", CodeRow, ("account", "purpose"), "code", private=("address",))
ANSWERS = Table("answers", AnswerRow, ("account", "key"), "answer", private=("body",))
KEY_HASH_BYTES = 16
"""Of the hash that stands for an idempotency key."""
SUBJECT_BYTES = 16
"""Of the hash that stands for a subject of attempts: it may be a client's address."""


class Sessions(OnBooks):
    def add_session(self, row: SessionRow) -> None:
        SESSIONS.add(self._writer, self._keys, row)

    def session(self, token_hash: bytes) -> SessionRow | None:
        return SESSIONS.one(self._reader, self._keys, token_hash)

    def sessions_of(self, account: int, *, limit: int = 1000) -> list[SessionRow]:
        where = "account = ? ORDER BY created_ms DESC, token_hash LIMIT ?"
        return SESSIONS.select(self._reader, self._keys, where, (account, limit))

    def end_session(self, token_hash: bytes) -> bool:
        cursor = self._writer.execute("DELETE FROM sessions WHERE token_hash = ?", (token_hash,))
        return cursor.rowcount > 0

    def end_sessions(self, account: int) -> int:
        return self._writer.execute("DELETE FROM sessions WHERE account = ?", (account,)).rowcount

    def put_code(self, row: CodeRow) -> None:
        CODES.store(self._writer, self._keys, row)

    def code(self, account: int, purpose: str) -> CodeRow | None:
        return CODES.one(self._reader, self._keys, account, purpose)

    def codes(self, account: int) -> list[CodeRow]:
        return CODES.select(self._reader, self._keys, "account = ? ORDER BY purpose", (account,))

    def drop_code(self, account: int, purpose: str) -> None:
        self._writer.execute("DELETE FROM codes WHERE account = ? AND purpose = ?", (account, purpose))

    def attempts(self, subject: str) -> AttemptsRow | None:
        row = self._reader.execute(
            "SELECT count, first_ms, last_ms, locked_until_ms FROM attempts WHERE subject_hash = ?",
            (self._subject_hash(subject),),
        ).fetchone()
        return None if row is None else AttemptsRow(subject, *row)

    def put_attempts(self, row: AttemptsRow) -> None:
        self._writer.execute(
            "INSERT INTO attempts VALUES (?, ?, ?, ?, ?) ON CONFLICT (subject_hash) DO UPDATE SET"
            " count = excluded.count, first_ms = excluded.first_ms, last_ms = excluded.last_ms,"
            " locked_until_ms = excluded.locked_until_ms",
            (
                self._subject_hash(row.subject),
                row.count,
                row.first_ms,
                row.last_ms,
                row.locked_until_ms,
            ),
        )

    def drop_attempts(self, subject: str) -> None:
        self._writer.execute("DELETE FROM attempts WHERE subject_hash = ?", (self._subject_hash(subject),))

    def _subject_hash(self, subject: str) -> bytes:
        return keyed_hash(self._reader, self._keys, "attempts", subject, SUBJECT_BYTES)

    def drop_stale(self, *, before_ms: int) -> int:
        stale = (
            "sessions WHERE expires_ms < :ms",
            "operator_tokens WHERE expires_ms < :ms",
            "codes WHERE expires_ms < :ms",
            "attempts WHERE last_ms < :ms AND locked_until_ms < :ms",
            "answers WHERE at_ms < :ms",
        )
        return sum(self._writer.execute(f"DELETE FROM {rows}", {"ms": before_ms}).rowcount for rows in stale)

    def answer(self, account: int, key: str) -> AnswerRow | None:
        row = ANSWERS.one(self._reader, self._keys, account, self._standing_for(account, key))
        return None if row is None else replace(row, key=key)

    def put_answer(self, row: AnswerRow) -> None:
        ANSWERS.store(self._writer, self._keys, replace(row, key=self._standing_for(row.account, row.key)))

    def _standing_for(self, account: int, key: str) -> str:
        """What is kept of an idempotency key: a client may have put anything into it."""
        return keyed_hash(self._reader, self._keys, "answer", f"{account}\n{key}", KEY_HASH_BYTES).hex()
