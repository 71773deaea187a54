"""Texts that are published in versions: the agreement, the privacy policy."""

from __future__ import annotations

import hashlib

from storage.account_keys import AccountKeys
from storage.errors import NotFound
from storage.rows.accounts import AgreementRow
from storage.sql.books.mapping import Table
from storage.sql.connection import Connection

Texts = Table[AgreementRow]


def published(table: Texts, connection: Connection, keys: AccountKeys) -> list[AgreementRow]:
    return table.select(connection, keys, "version > 0 ORDER BY version", ())


def publish(
    table: Texts, connection: Connection, keys: AccountKeys, text: str, *, now_ms: int
) -> AgreementRow:
    newest = table.select(connection, keys, "version > 0 ORDER BY version DESC LIMIT 1", ())
    if newest and newest[0].text == text:
        return newest[0]
    version = newest[0].version + 1 if newest else 1
    row = AgreementRow(version, now_ms, hashlib.sha256(text.encode()).hexdigest(), text)
    table.add(connection, keys, row)
    return row


def one(table: Texts, connection: Connection, keys: AccountKeys, version: int | None) -> AgreementRow:
    """A version, or the newest. Raises NotFound."""
    where = "version = coalesce(?, version) ORDER BY version DESC LIMIT 1"
    found = table.select(connection, keys, where, (version,))
    if not found:
        raise NotFound(
            f"no such {table.title}; `clipkeep {table.title.split()[0]} show` shows what there is",
            subject="" if version is None else f"version {version}",
        )
    return found[0]
