"""What the cancellation of an account will do, told before it is done (agreement 6.4, 6.5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from retention.accounts import order_closing, reserved_until_day
from retention.subscriptions import ongoing
from service.agreement.desk import Actor, Desk, account_of
from service.agreement.holdings import held
from service.agreement.outbox import addresses_of
from storage.catalog.books import Books
from storage.days import to_date
from storage.rows.accounts import AccountRow
from storage.rows.devices import DeviceFacts

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Consequences:
    """Of a cancellation that takes effect today.

    Args:
        channels: "email", "mobile": where notices go; it takes effect when the last of them is delivered.
        devices: that are denied for good.
        plans: that end, without a refund (6.5.5).
        free_on: from when on its addresses can be used for another account (6.5.2).
    """

    account: AccountRow
    channels: tuple[str, ...]
    devices: int
    plans: int
    free_on: date


def of_closing(desk: Desk, actor: Actor, account: int) -> Consequences:
    """What `closing.close_by_operator` would come to now. Changes nothing.

    Raises:
        As `close_by_operator`.
    """
    actor.require_operator()
    with desk.reading() as books:
        row = account_of(books, actor, account)
        order_closing(row, now_ms=desk.now_ms(), reason="")
        going_on = [facts for facts in _devices(books, account) if facts.terminated_ms is None]
        plans = sum(len(ongoing(held(books, facts), desk.date())) for facts in going_on)
    return Consequences(
        row,
        tuple(channel for channel, _ in addresses_of(row)),
        len(going_on),
        plans,
        to_date(reserved_until_day(desk.today(), desk.settings.reserve_days) + 1),
    )


def _devices(books: Books, account: int) -> list[DeviceFacts]:
    found: list[DeviceFacts] = []
    while page := books.devices_of(account, after=found[-1].device if found else 0, limit=_PAGE):
        found += page
    return found
