"""The outbox."""

from __future__ import annotations

from dataclasses import replace

from storage.rows.accounts import CODE_PURPOSES, NoticeLane, NoticeRow, NoticeState
from storage.sql.books.base import OnBooks
from storage.sql.books.mapping import Table
from storage.sql.numbers import require_room

NOTICES = Table(
    "notices",
    NoticeRow,
    ("notice_id",),
    "notice",
    decode={"state": NoticeState},
    private=("address", "subject", "body", "error"),
)


# Written as the partial indexes have them: with parameters SQLite would not use those.
_LANES = {
    NoticeLane.ALL: "",
    NoticeLane.CODES: f" AND purpose IN {CODE_PURPOSES!r}",
    NoticeLane.OWN: " AND bulk = 0",
    NoticeLane.BULK: " AND bulk = 1",
}


class Notices(OnBooks):
    def add_notice(self, row: NoticeRow) -> NoticeRow:
        added = replace(row, notice_id=NOTICES.add(self._writer, self._keys, row, notice_id=None))
        require_room(self._writer, "notice", added.notice_id)
        return added

    def put_notice(self, row: NoticeRow) -> None:
        NOTICES.put(self._writer, self._keys, row)

    def notice(self, notice_id: int) -> NoticeRow:
        return NOTICES.get(self._reader, self._keys, notice_id)

    def due_notices(
        self, *, now_ms: int, limit: int = 100, lane: NoticeLane = NoticeLane.ALL
    ) -> list[NoticeRow]:
        where = f"state = 'queued'{_LANES[lane]} AND next_ms <= ? ORDER BY next_ms, notice_id LIMIT ?"
        return NOTICES.select(self._reader, self._keys, where, (now_ms, limit))

    def notices(
        self,
        *,
        account: int | None = None,
        state: NoticeState | None = None,
        purpose: str | None = None,
        after: int = 0,
        limit: int = 100,
        newest_first: bool = False,
    ) -> list[NoticeRow]:
        asked = {"account": account, "state": state, "purpose": purpose}
        named = {name: value for name, value in asked.items() if value is not None}
        where = " AND ".join(["notice_id > :after", *(f"{name} = :{name}" for name in named)])
        return NOTICES.select(
            self._reader,
            self._keys,
            f"{where} ORDER BY notice_id {'DESC' if newest_first else 'ASC'} LIMIT :limit",
            {**named, "after": after, "limit": limit},
        )
