"""Purchases that the gateway has not answered: shown to their owner as open, and abandoned (agreement 7.2)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from retention.money import Money
from retention.orders import OrderState
from service.agreement.charging import pay
from service.agreement.desk import Actor, Desk, account_of, device_of
from service.agreement.details import PURCHASE, abandoned, page_of, purchase_of, purpose_of
from service.agreement.errors import Conflict
from service.agreement.ordering import PURCHASES, order_state, purchase_ttl_ms
from service.agreement.payments import CustomerNeeded, PaymentDeclined, PaymentUnavailable
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import PaymentRow, PaymentState


@dataclass(frozen=True, slots=True)
class OpenPurchase:
    """A purchase whose charge is not settled, or was when it was abandoned.

    Args:
        state: OPEN; EXPIRED or ABANDONED while the gateway has not confirmed that; VOID or GIVEN_BACK when it has.
        expires_ms: Unix ms after which it is not charged any more.
        url: a page of the gateway's on which whoever pays has to do something first; "" where there is none, and
            once it is not open.
    """

    payment_id: int
    device: int
    package: str
    fee: Money
    ordered_ms: int
    expires_ms: int
    state: OrderState
    url: str = ""


def of_account(desk: Desk, actor: Actor, account: int) -> list[OpenPurchase]:
    """Those of an account, the oldest first. Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        return [_shown(desk, row) for row in _purchases(books.open_charges(account=account))]


def abandon(desk: Desk, actor: Actor, device: int) -> list[OpenPurchase]:
    """Never charge what was ordered for a device and is not paid, and give back what was charged meanwhile. One
    transaction decides; the gateway follows, and `settling` where it can't be reached or this is killed.

    Returns:
        What was abandoned, as it stands now: VOID, GIVEN_BACK, or ABANDONED while the gateway has not answered.

    Raises:
        NotFound: the device; `no_open_purchase`.
    """

    def mark(books: Books) -> list[PaymentRow]:
        device_of(books, actor, device)
        rows = _purchases(books.open_charges(device=device))
        if not rows:
            raise NotFound(
                "no purchase of this device is open", subject=f"device {device}", code="no_open_purchase"
            )
        for row in rows:
            if order_state(desk, row) is OrderState.ABANDONED:
                continue
            books.put_payment(replace(abandoned(row, actor.role, desk.now_ms()), next_ms=0))
            facts = {"minor": row.minor, "currency": row.currency, "plan": purchase_of(row).package}
            desk.record(books, actor, row.account, "purchase_abandoned", device=device, facts=facts)
        return rows

    rows = desk.write(mark)
    return [_shown(desk, _voided(desk, row.reference) or row) for row in rows]


def _voided(desk: Desk, reference: str) -> PaymentRow | None:
    """Ask the gateway, and tell how the row stands then; None when its account was erased."""
    # Void, not answered, or given back: the row says which.
    with suppress(PaymentDeclined, PaymentUnavailable, CustomerNeeded, Conflict):
        pay(desk, reference, PURCHASES)
    with desk.reading() as books:
        return books.payment(reference)


def _purchases(rows: list[PaymentRow]) -> list[PaymentRow]:
    return [row for row in rows if purpose_of(row) == PURCHASE]


def _shown(desk: Desk, row: PaymentRow) -> OpenPurchase:
    states = {PaymentState.FAILED: OrderState.VOID, PaymentState.DONE: OrderState.GIVEN_BACK}
    state = states.get(row.state) or order_state(desk, row)
    page = page_of(row)
    return OpenPurchase(
        row.payment_id,
        row.device,
        purchase_of(row).package,
        Money(row.minor, row.currency),
        row.at_ms,
        row.at_ms + purchase_ttl_ms(desk),
        state,
        page.url if page is not None and state is OrderState.OPEN else "",
    )
