"""What is on file: accounts, their history and their payments, for who may see it."""

from __future__ import annotations

from service.agreement.desk import Actor, Desk, account_of
from storage.rows.accounts import (
    AcceptanceRow,
    AccountRow,
    AccountState,
    BlockRow,
    EventRow,
    PaymentKind,
    PaymentRow,
    PaymentState,
)


def account(desk: Desk, actor: Actor, account: int) -> AccountRow:
    """Raises NotFound, also for somebody else's."""
    with desk.reading() as books:
        return account_of(books, actor, account)


def acceptances(desk: Desk, actor: Actor, account: int) -> list[AcceptanceRow]:
    """The versions of the agreement that an account accepted, how and when. Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        return books.acceptances_of(account)


def accounts(
    desk: Desk, actor: Actor, *, state: AccountState | None = None, after: int = 0, limit: int = 100
) -> list[AccountRow]:
    """All accounts by number. Raises Forbidden `operators_only`."""
    actor.require_operator()
    with desk.reading() as books:
        return books.accounts(after=after, limit=limit, state=state)


def events(
    desk: Desk, actor: Actor, account: int, *, after: int = 0, limit: int = 100, newest_first: bool = False
) -> list[EventRow]:
    """An account's history, the oldest first unless asked otherwise. Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        return books.events_of(account, after=after, limit=limit, newest_first=newest_first)


def payments(
    desk: Desk, actor: Actor, account: int, *, after: int = 0, limit: int = 100, newest_first: bool = False
) -> list[PaymentRow]:
    """An account's charges, refunds and credits, the oldest first unless asked otherwise. Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        return books.payments_of(account, after=after, limit=limit, newest_first=newest_first)


def all_payments(
    desk: Desk,
    actor: Actor,
    *,
    kind: PaymentKind | None = None,
    state: PaymentState | None = None,
    older_than_ms: int | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[PaymentRow]:
    """Payments of all accounts, by number. Raises Forbidden `operators_only`."""
    actor.require_operator()
    before_ms = None if older_than_ms is None else desk.now_ms() - older_than_ms + 1
    with desk.reading() as books:
        return books.payments(kind=kind, state=state, before_ms=before_ms, after=after, limit=limit)


def blocks(desk: Desk, actor: Actor, account: int) -> list[BlockRow]:
    """What operators have put in the way of an account's cancellation, lifted ones included.

    Raises:
        Forbidden: `operators_only`; NotFound.
    """
    actor.require_operator()
    with desk.reading() as books:
        account_of(books, actor, account)
        return books.blocks_of(account)
