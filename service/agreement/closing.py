"""The cancellation of an account, from the request to its taking effect (agreement 6.2 to 6.5; by an operator: 6.1).

It takes effect once every notice of it is delivered, in one transaction: the devices are terminated and marked for
erasure, the addresses reserved, everything else about the account cleared. Then the keys of its recordings are
destroyed. `settle` does both, and does what is left of either when it was killed anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retention.accounts import (
    approve_closing,
    order_closing,
    reject_closing,
    request_closing,
    reserved_until_day,
    withdraw_closing,
)
from retention.addresses import address_hash
from retention.destruction import note_destroyed
from retention.eligibility import ClosingFacts, Reason, cancellation_blocks
from retention.entries import subscriptions_of
from retention.erasure import mark_account_cancelled
from retention.history import account_facts
from service.agreement.desk import SYSTEM, Actor, Desk, account_of
from service.agreement.errors import Unprocessable
from service.agreement.outbox import addresses_of, tell
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.days import day_of_ms
from storage.rows.accounts import (
    AccountRow,
    AccountState,
    BlockKind,
    BlockRow,
    ClosingState,
    NoticeRow,
    NoticeState,
    PaymentState,
)
from storage.rows.devices import DeviceFacts, EraseState

PURPOSE = "closing"
"""Of the notices whose delivery makes the cancellation effective."""
ACCOUNT_CANCELLED = "account cancelled"
"""The reason in the erasure records: nothing personal."""
PAGE = 1000
MAX_ERASING = 10_000
"""Devices looked at for keys that are still to be destroyed, in one call of `settle`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the cancellation of an account has come.

    Args:
        state: `ClosingState`.
        waits_for: its notices that are not delivered; what a cancellation that was approved waits for.
    """

    state: ClosingState
    requested_ms: int | None
    reason: str
    by: str
    blocks: tuple[Reason, ...]
    waits_for: tuple[NoticeRow, ...]


def blocks(desk: Desk, account: int, *, actor: Actor = SYSTEM) -> list[Reason]:
    """All reasons for which the account can't be cancelled now (6.2, 6.3); empty: it can."""
    with desk.reading() as books:
        return _blocks(desk, books, account_of(books, actor, account))


def progress(desk: Desk, actor: Actor, account: int) -> Progress:
    """The state of the cancellation, and what stands in its way."""
    with desk.reading() as books:
        row = account_of(books, actor, account)
        return Progress(
            row.closing,
            row.closing_ms,
            row.closing_reason,
            row.closing_by,
            tuple(_blocks(desk, books, row)),
            tuple(n for n in _notices(books, row) if n.state is not NoticeState.DELIVERED),
        )


def under_way(
    desk: Desk, actor: Actor, state: ClosingState, *, after: int = 0, limit: int = 100
) -> list[AccountRow]:
    """Accounts whose cancellation is REQUESTED, and waits for an operator, or APPROVED, and waits for its notices."""
    actor.require_operator()
    with desk.reading() as books:
        if state is ClosingState.REQUESTED:
            return books.requested_closings(after=after, limit=limit)
        return books.approved_closings(after=after, limit=limit)


def request(desk: Desk, actor: Actor, account: int, reason: str) -> AccountRow:
    """Ask for the cancellation of the account.

    Raises:
        NotFound; Unprocessable: `cancellation_blocked`, with all its reasons; Conflict: `already_requested`.
    """
    reason = one_line(reason, "the reason", least=0)

    def work(books: Books) -> AccountRow:
        row = account_of(books, actor, account)
        asked = request_closing(row, now_ms=desk.now_ms(), reason=reason)
        _require_unblocked(desk, books, row)
        return _stored(desk, books, actor, asked, "closing_requested", reason)

    return desk.write(work)


def withdraw(desk: Desk, actor: Actor, account: int) -> AccountRow:
    """Take the request back, until it is approved. Raises NotFound; Conflict: `not_requested`, `already_approved`."""

    def work(books: Books) -> AccountRow:
        row = withdraw_closing(account_of(books, actor, account))
        return _stored(desk, books, actor, row, "closing_withdrawn", "")

    return desk.write(work)


def approve(desk: Desk, actor: Actor, account: int) -> AccountRow:
    """Consent to the cancellation: its notices go out, and it takes effect with their delivery (6.4).

    Raises:
        Forbidden: `operators_only`; NotFound; Conflict: `not_requested`, `already_approved`; Unprocessable:
        `cancellation_blocked`: something came up since it was requested.
    """
    actor.require_operator()

    def work(books: Books) -> AccountRow:
        row = approve_closing(account_of(books, actor, account))
        _require_unblocked(desk, books, row)
        return _approved(desk, books, actor, row, "")

    return desk.write(work)


def reject(desk: Desk, actor: Actor, account: int, why: str) -> AccountRow:
    """Refuse the request, and tell the owner why (6.3).

    Raises:
        Forbidden: `operators_only`; NotFound; Conflict: `not_requested`, `already_approved`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")

    def work(books: Books) -> AccountRow:
        row = reject_closing(account_of(books, actor, account))
        tell(desk, books, row, "closing_rejected", account=account, reason=why)
        return _stored(desk, books, actor, row, "closing_rejected", why)

    return desk.write(work)


def close_by_operator(desk: Desk, actor: Actor, account: int, reason: str) -> AccountRow:
    """Cancel the account without its owner's request and without the conditions of 6.2 and 6.3 (6.1): false data,
    dormancy, an owner too young, an authority's demand. With notice; it takes effect as any other.

    Raises:
        Forbidden: `operators_only`; NotFound; Conflict: `already_approved`; Unprocessable: `operator_account`.
    """
    actor.require_operator()
    reason = one_line(reason, "the reason")

    return desk.write(lambda books: order_in(desk, books, actor, account, reason))


def order_in(desk: Desk, books: Books, actor: Actor, account: int, reason: str) -> AccountRow:
    """`close_by_operator`, inside a transaction."""
    row = order_closing(account_of(books, actor, account), now_ms=desk.now_ms(), reason=reason)
    return _approved(desk, books, actor, row, reason)


def add_block(desk: Desk, actor: Actor, account: int, kind: BlockKind, detail: str) -> BlockRow:
    """Keep the account from being cancelled by its owner until it is lifted (6.2.2, 6.2.3, 6.3)."""
    actor.require_operator()
    detail = one_line(detail, "the detail", least=0)

    def work(books: Books) -> BlockRow:
        account_of(books, actor, account)
        block = books.add_block(BlockRow(0, account, kind, detail, actor.role, desk.now_ms()))
        facts = {"block": block.block_id, "kind": str(kind)}
        desk.record(books, actor, account, "blocked", why=detail, facts=facts)
        return block

    return desk.write(work)


def lift_block(desk: Desk, actor: Actor, block_id: int) -> BlockRow:
    """Lift it; one that was lifted stays as it was. Raises NotFound."""
    actor.require_operator()

    def work(books: Books) -> BlockRow:
        block = books.lift_block(block_id, now_ms=desk.now_ms())
        desk.record(books, actor, block.account, "unblocked", facts={"block": block_id})
        return block

    return desk.write(work)


def settle(desk: Desk) -> list[int]:
    """Let every cancellation take effect whose notices are delivered, destroy the keys of what is to be erased, and
    overwrite what the catalog's log may still hold of it.

    Idempotent; several may do it at once, and any may be killed.

    Returns:
        The accounts that were cancelled by this call.
    """
    with desk.together() as together:
        cancelled = [account for account in _approved_accounts(desk) if _take_effect(together, account)]
    # What a run that was killed left of the rest; a read each when there is nothing.
    desk.entitlements.replay()
    _destroy_keys(desk)
    desk.catalog.overwrite_erased()
    return cancelled


# --- taking effect ------------------------------------------------------------------------------------------------


def _approved_accounts(desk: Desk) -> Iterator[int]:
    after = 0
    while True:
        with desk.reading() as books:
            rows = books.approved_closings(after=after, limit=PAGE)
            ready = [row.account for row in rows if _effective_on(desk, books, row) is not None]
        yield from ready
        if len(rows) < PAGE:
            return
        after = rows[-1].account


def _effective_on(desk: Desk, books: Books, row: AccountRow) -> int | None:
    """The day of the delivery of the last notice; None while one is not delivered, or money is under way."""
    notices = _notices(books, row)
    if not all(notice.state is NoticeState.DELIVERED for notice in notices):
        return None
    # The gateway may have taken money for a purchase that is to be given back now: that comes first. So does what is
    # owed to an owner who asked for the end; an operator's cancellation waives it (6.5.5).
    if _payments_in(books, row.account)[PaymentState.PENDING]:
        return None
    if row.closing_by == "owner" and books.failed_refunds(account=row.account, limit=1):
        return None
    settled = [notice.settled_ms for notice in notices if notice.settled_ms is not None]
    return day_of_ms(max(settled)) if settled else desk.today()


def _take_effect(desk: Desk, account: int) -> bool:
    def work(books: Books) -> bool:
        row = books.account(account)
        if row.closing is not ClosingState.APPROVED:
            return False  # another run was faster
        on = _effective_on(desk, books, row)
        if on is None:
            return False
        for facts in _devices(books, account):
            books.change_device(facts.device, _cancelled(desk), what=ACCOUNT_CANCELLED)
        until_day = reserved_until_day(on, desk.settings.reserve_days)
        for kind, address in addresses_of(row):
            key = address_hash(desk.address_secret, kind, address)
            books.reserve_address(key, until_day=until_day)
        books.erase_account(account, cancelled_on=on)
        return True

    return desk.change(work)


def _cancelled(desk: Desk) -> Callable[[DeviceFacts], DeviceFacts]:
    now_ms = desk.now_ms()
    return lambda facts: mark_account_cancelled(facts, now_ms=now_ms, reason=ACCOUNT_CANCELLED)


def _destroy_keys(desk: Desk) -> None:
    """Of all devices whose erasure was decided, whoever was killed before: the sweep does the rest. One page at a time
    is enough: what is done is behind the key store's floors, and the sweep takes it off the list."""
    going = [
        facts
        for facts in desk.catalog.erasing_devices(limit=MAX_ERASING)
        if facts.erase_state is EraseState.ERASING
    ]
    if not going:
        return
    behind = desk.vault.behind({facts.device: facts.erase_epoch for facts in going})
    desk.vault.destroy_devices(behind)
    if behind or desk.catalog.erasure_counts()["marked"]:
        note_destroyed(desk.catalog, desk.vault, going, fence=None, now_ms=desk.now_ms())


# --- shared steps -------------------------------------------------------------------------------------------------


def _approved(desk: Desk, books: Books, actor: Actor, row: AccountRow, reason: str) -> AccountRow:
    days = desk.settings.reserve_days
    if row.closing_by == "operator":
        tell(desk, books, row, "closing-ordered", account=row.account, days=days, reason=row.closing_reason)
    else:
        tell(desk, books, row, "closing-asked", account=row.account, days=days)
    return _stored(desk, books, actor, row, "closing_approved", reason)


def _stored(desk: Desk, books: Books, actor: Actor, row: AccountRow, what: str, why: str) -> AccountRow:
    books.put_account(row)
    desk.record(books, actor, row.account, what, why=why, facts=account_facts(row))
    return row


def _require_unblocked(desk: Desk, books: Books, row: AccountRow) -> None:
    reasons = _blocks(desk, books, row)
    if reasons:
        raise Unprocessable(
            "the account can't be cancelled for now: "
            + " ".join(f"{r.detail} {r.what_to_do}" for r in reasons),
            subject=f"account {row.account}",
            code="cancellation_blocked",
            reasons=reasons,
        )


def _blocks(desk: Desk, books: Books, row: AccountRow) -> list[Reason]:
    payments = _payments_in(books, row.account)
    return cancellation_blocks(
        ClosingFacts(
            row,
            desk.now_ms(),
            desk.settings.min_account_age_days,
            {
                facts.device: subscriptions_of(facts.plans, books.subscriptions_of_device(facts.device))
                for facts in _devices(books, row.account)
                if facts.terminated_ms is None
            },
            payments[PaymentState.PENDING],
            len(books.failed_refunds(account=row.account)),
            payments[PaymentState.OPEN],
            books.blocks_of(row.account),
            # Those of a new account are for its activation: no change of an address that it has.
            [] if row.state is AccountState.NEW else books.codes(row.account),
        )
    )


def _notices(books: Books, row: AccountRow) -> list[NoticeRow]:
    """Of the cancellation that is under way; one that was withdrawn or rejected before may have left others."""
    if row.closing is not ClosingState.APPROVED or row.closing_ms is None:
        return []
    rows = books.notices(account=row.account, purpose=PURPOSE, limit=PAGE)
    return [notice for notice in rows if notice.created_ms >= row.closing_ms]


def _devices(books: Books, account: int) -> Iterator[DeviceFacts]:
    after = 0
    while page := books.devices_of(account, after=after, limit=PAGE):
        yield from page
        after = page[-1].device


def _payments_in(books: Books, account: int) -> Counter[PaymentState]:
    """How many payments of an account are in which state."""
    counts: Counter[PaymentState] = Counter()
    after = 0
    while page := books.payments_of(account, after=after, limit=PAGE):
        counts += Counter(payment.state for payment in page)
        after = page[-1].payment_id
    return counts
