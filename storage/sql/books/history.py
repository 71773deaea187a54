"""The history of accounts, what blocks their cancellation, and the versions of the agreement."""

from __future__ import annotations

import json
from dataclasses import replace

from storage.rows.accounts import AcceptanceRow, AgreementRow, BlockKind, BlockRow, EventRow
from storage.sql.books import texts
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table

EVENTS = Table(
    "events",
    EventRow,
    ("event_id",),
    "event",
    decode={"facts": json.loads},
    private=("why", "facts", "operator"),
)
BLOCKS = Table(
    "blocks", BlockRow, ("block_id",), "block", decode={"kind": BlockKind}, private=("detail", "who")
)
AGREEMENTS = Table("agreements", AgreementRow, ("version",), "agreement")
ACCEPTANCES = Table("acceptances", AcceptanceRow, ("account", "version"), "acceptance")


class History(OnBooks):
    def add_event(self, row: EventRow) -> EventRow:
        return replace(row, event_id=EVENTS.add(self._writer, self._keys, row, event_id=None))

    def events_of(
        self, account: int, *, after: int = 0, limit: int = 100, newest_first: bool = False
    ) -> list[EventRow]:
        order = "DESC" if newest_first else "ASC"
        where = f"account = ? AND event_id > ? ORDER BY event_id {order} LIMIT ?"
        return EVENTS.select(self._reader, self._keys, where, (account, after, limit))

    def add_block(self, row: BlockRow) -> BlockRow:
        return replace(row, block_id=BLOCKS.add(self._writer, self._keys, row, block_id=None))

    def lift_block(self, block_id: int, *, now_ms: int) -> BlockRow:
        self._writer.execute(
            "UPDATE blocks SET lifted_ms = ? WHERE block_id = ? AND lifted_ms IS NULL", (now_ms, block_id)
        )
        return BLOCKS.get(self._reader, self._keys, block_id)

    def blocks_of(self, account: int) -> list[BlockRow]:
        return BLOCKS.select(self._reader, self._keys, "account = ? ORDER BY block_id", (account,))

    def publish_agreement(self, text: str, *, now_ms: int) -> AgreementRow:
        return texts.publish(AGREEMENTS, self._writer, self._keys, text, now_ms=now_ms)

    def agreement(self, version: int | None = None) -> AgreementRow:
        return texts.one(AGREEMENTS, self._reader, self._keys, version)

    def agreements(self) -> list[AgreementRow]:
        return texts.published(AGREEMENTS, self._reader, self._keys)

    def accept_agreement(self, row: AcceptanceRow) -> None:
        if ACCEPTANCES.one(self._writer, self._keys, row.account, row.version) is None:
            ACCEPTANCES.add(self._writer, self._keys, row)

    def unaccepted(self, version: int, *, first: int, last: int) -> list[int]:
        rows = self._reader.execute(
            "SELECT account FROM accounts a WHERE account BETWEEN :first AND :last AND kind = 'owner'"
            " AND state = 'active' AND (used_version >= :version OR EXISTS"
            " (SELECT 1 FROM devices d WHERE d.account = a.account AND d.used_version >= :version))"
            " AND NOT EXISTS (SELECT 1 FROM acceptances c WHERE c.account = a.account AND c.version = :version)"
            " ORDER BY account",
            {"first": first, "last": last, "version": version},
        )
        return [row[0] for row in rows]

    def acceptances_of(self, account: int) -> list[AcceptanceRow]:
        return ACCEPTANCES.select(self._reader, self._keys, "account = ? ORDER BY version", (account,))
