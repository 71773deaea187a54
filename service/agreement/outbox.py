"""The outbox: notices are queued in the transaction of what causes them, and sent later (`notices`), at least once."""

from __future__ import annotations

from service.agreement.desk import Desk
from storage.catalog.books import Books
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, NoticeRow


def addresses_of(row: AccountRow) -> list[tuple[str, str]]:
    """(channel, address) of all that the account has: mail and mobile, or the one there is (agreement 6.4)."""
    pairs = [("email", row.email), ("mobile", row.mobile)]
    return [(channel, address) for channel, address in pairs if address is not None]


def tell(desk: Desk, books: Books, row: AccountRow, template: str, /, **fields: object) -> list[NoticeRow]:
    """Put a notice to each of the account's addresses into the outbox.

    Args:
        template: its name.
        fields: what the template needs, and nothing else; a test compares the two.
    """
    written = desk.templates.write(template, fields)
    return queue(desk, books, row, written.purpose, written.subject, written.body)


def tell_at(
    desk: Desk, books: Books, account: int, channel: str, address: str, template: str, /, **fields: object
) -> NoticeRow:
    """As `tell`, to one address, which may be one that is not the account's yet."""
    written = desk.templates.write(template, fields)
    return queue_to(desk, books, account, channel, address, written.purpose, written.subject, written.body)


def queue(
    desk: Desk,
    books: Books,
    row: AccountRow,
    purpose: str,
    subject: str,
    body: str,
    *,
    bulk: bool = False,
) -> list[NoticeRow]:
    """As `tell`, with a text that somebody wrote. `bulk`: the same goes to many accounts."""
    return [
        queue_to(desk, books, row.account, channel, address, purpose, subject, body, bulk=bulk)
        for channel, address in [*addresses_of(row), *_pushed(desk, row, purpose)]
    ]


def _pushed(desk: Desk, row: AccountRow, purpose: str) -> list[tuple[str, str]]:
    """Push, where there is a hook: it knows which phones an account has. A cancellation waits for mail and text
    messages alone (agreement 6.4), so no notice of it is pushed."""
    return [("push", str(row.account))] if desk.notices.push and purpose != "closing" else []


def queue_to(
    desk: Desk,
    books: Books,
    account: int,
    channel: str,
    address: str,
    purpose: str,
    subject: str,
    body: str,
    *,
    bulk: bool = False,
) -> NoticeRow:
    """Put one notice into the outbox; `address` may be one that is not the account's yet."""
    now_ms = desk.now_ms()
    return books.add_notice(
        NoticeRow(
            0, account, channel, address, purpose, subject, body, now_ms, next_ms=now_ms, bulk=int(bulk)
        )
    )


def queue_to_operators(desk: Desk, books: Books, purpose: str, subject: str, body: str) -> NoticeRow | None:
    """Put a notice to `[notices] operators` into the outbox; None where nobody is named."""
    if not desk.notices.operators:
        return None
    return queue_to(desk, books, OPERATOR_ACCOUNT, "email", desk.notices.operators, purpose, subject, body)
