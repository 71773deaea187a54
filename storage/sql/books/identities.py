"""Who accounts are at providers of log-in. Found as accounts are by address: under 16 bits of a keyed hash."""

from __future__ import annotations

from storage.errors import Conflict
from storage.rows.identities import IdentityRow
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table
from storage.sql.sealing import bucket

IDENTITIES = Table(
    "identities",
    IdentityRow,
    ("account", "provider"),
    "identity",
    private=("subject",),
    taken="identity_exists",
)


class Identities(OnBooks):
    def add_identity(self, row: IdentityRow) -> None:
        there = self.identity_at(row.subject)
        if there is not None:
            raise Conflict(
                "another account has this log-in from elsewhere; unlink it there first",
                code="identity_taken",
            )
        place = bucket(self._reader, self._keys, "identity", row.subject)
        IDENTITIES.add(self._writer, self._keys, row, subject_bucket=place)

    def identity_at(self, subject: str) -> IdentityRow | None:
        place = bucket(self._reader, self._keys, "identity", subject)
        for row in IDENTITIES.select(self._reader, self._keys, "subject_bucket = ?", (place,)):
            if row.subject == subject:
                return row
        return None

    def identities_of(self, account: int) -> list[IdentityRow]:
        return IDENTITIES.select(self._reader, self._keys, "account = ? ORDER BY provider", (account,))

    def drop_identity(self, account: int, provider: str) -> bool:
        cursor = self._writer.execute(
            "DELETE FROM identities WHERE account = ? AND provider = ?", (account, provider)
        )
        return cursor.rowcount > 0
