"""The next period of one monthly subscription: charged ahead, taken up, or lapsed unpaid (agreement 7.2.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum

from retention.money import Money
from retention.renewals import due, extend, lapse_unpaid, next_period, retry_at_ms
from retention.subscriptions import Subscription
from service.agreement.charging import Purpose
from service.agreement.desk import SYSTEM, Desk, may_be_charged
from service.agreement.details import RENEWAL, RenewalDetail, purpose_of, renewal_of
from service.agreement.errors import Conflict
from service.agreement.fees import take_up
from service.agreement.holdings import held, keep
from service.agreement.outbox import tell
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import (
    AccountRow,
    PaymentKind,
    PaymentRow,
    PaymentState,
    SubscriptionRow,
)
from storage.rows.devices import DeviceFacts

_MS_PER_H = 3_600_000


class Step(StrEnum):
    """What is to be done about a subscription that came up for renewal."""

    NOTHING = "nothing"
    PAY = "pay"
    WAIT = "wait"  # the gateway was asked for it lately, and did not answer
    RENEWED = "renewed"  # it costs nothing
    LAPSED = "lapsed"


@dataclass(frozen=True, slots=True)
class _Found:
    row: SubscriptionRow
    facts: DeviceFacts
    subscriptions: tuple[Subscription, ...]
    sub: Subscription
    account: AccountRow

    def with_sub(self, sub: Subscription) -> list[Subscription]:
        return [sub if other is self.sub else other for other in self.subscriptions]


def begin(desk: Desk, books: Books, plan_id: int) -> tuple[Step, str]:
    """Step 1 of a renewal, and all of it where no money moves. Inside `Desk.change`.

    What is charged now is found by its period and by how many charges for that one were settled before: so two that
    renew at once use one reference, and a charge that was declined, or given back, is followed by a new one.

    Returns:
        (what is to be done, the payment's reference or "").
    """
    try:
        found = _find(books, plan_id)
    except NotFound:  # the account was erased since the list was read
        return Step.NOTHING, ""
    sub, today = found.sub, desk.date()
    if lapse_unpaid(sub, today) != sub:
        # A charge that is still pending stays so: it is void, or given back when it was made (`Purpose.over`).
        _lapse(desk, books, found)
        return Step.LAPSED, ""
    payments = books.payments_of_plan(plan_id)
    for payment in payments:
        if payment.kind is PaymentKind.CHARGE and payment.state is PaymentState.PENDING:
            return (Step.WAIT if payment.next_ms > desk.now_ms() else Step.PAY), payment.reference
    stopped = _stopped(found) or any(
        p.kind is PaymentKind.DISPUTE and p.state is PaymentState.OPEN for p in payments
    )
    if not due(sub, today, desk.settings.charge_ahead_days, suspended=stopped):
        return Step.NOTHING, ""
    if found.row.retry_at_ms > desk.now_ms():
        return Step.NOTHING, ""
    if take_up(desk, books, found.facts, found.subscriptions, plan_id):
        found = _find(books, plan_id)
    if not found.row.fee_minor:
        _extend(desk, books, found, "")
        return Step.RENEWED, ""
    row = books.add_payment(_charge(desk, found, payments))
    return Step.PAY, row.reference


def _charge(desk: Desk, found: _Found, payments: list[PaymentRow]) -> PaymentRow:
    row = found.row
    first, last = next_period(found.sub)
    renewals = [renewal_of(p) for p in payments if purpose_of(p) == RENEWAL]
    settled = sum(renewal.first == first for renewal in renewals)
    return PaymentRow(
        payment_id=0,
        reference=f"{RENEWAL}-{row.plan_id}-{row.bought_ms}-{first}-{settled}",
        account=row.account,
        plan_id=row.plan_id,
        device=row.device,
        kind=PaymentKind.CHARGE,
        currency=row.currency,
        minor=row.fee_minor,
        state=PaymentState.PENDING,
        why=f"monthly plan, device {row.device}, {first} to {last}",
        at_ms=desk.now_ms(),
        detail=RenewalDetail(SYSTEM.role, row.method, first, _paid_through(found.sub)).stored(),
    )


def _over(desk: Desk, books: Books, row: PaymentRow) -> bool:
    """Days of the new period have passed on which nothing could be recorded: it is not what was to be paid for."""
    try:
        return _find(books, _plan_of(row)).sub.plan.has_ended(desk.date())
    except NotFound:
        return True


def _decide(desk: Desk, books: Books, row: PaymentRow) -> _Found:
    """Raises CallerError: what was charged for can't be had any more."""
    found = _find(books, _plan_of(row))
    expected = renewal_of(row).expected_ends_on
    extend(found.sub, expected_ends_on=expected)
    if _stopped(found):
        raise Conflict("the account or the device is suspended or closed", code="not_due")
    if found.sub.plan.has_ended(desk.date()):
        raise Conflict(f"the paid period ended on {expected} before the charge was known", code="not_due")
    return found


def _make(desk: Desk, books: Books, row: PaymentRow, found: _Found) -> PaymentRow:
    _extend(desk, books, found, row.reference)
    return row


def _declined(desk: Desk, books: Books, row: PaymentRow) -> None:
    """Note when to try again, and tell the owner the first time."""
    found = _find(books, _plan_of(row))
    if not found.sub.renews or _paid_through(found.sub) != renewal_of(row).expected_ends_on:
        return
    retry_ms = round(desk.settings.charge_retry_h * _MS_PER_H)
    again_ms = retry_at_ms(found.sub, now_ms=desk.now_ms(), retry_ms=retry_ms)
    failed = found.row.failed_charges + 1
    books.put_subscription(replace(found.row, retry_at_ms=again_ms, failed_charges=failed))
    facts = {"plan_id": row.plan_id, "minor": row.minor, "currency": row.currency, "failed": failed}
    desk.record(books, SYSTEM, row.account, "renewal_declined", device=row.device, facts=facts)
    if failed == 1:
        money, last = Money(row.minor, row.currency), found.sub.plan.ends_on
        tell(
            desk,
            books,
            found.account,
            "payment_failed",
            device=row.device,
            money=money,
            last_day=last,
        )


def _voided(desk: Desk, books: Books, row: PaymentRow) -> None:
    """Nothing: the plan lapses, and its owner is told that."""


RENEWALS = Purpose(_over, _decide, _make, _declined, _voided)


def _extend(desk: Desk, books: Books, found: _Found, reference: str) -> None:
    before = _paid_through(found.sub)
    longer = extend(found.sub, expected_ends_on=before)
    more = {"plan_id": found.row.plan_id, "reference": reference}
    keep(desk, books, SYSTEM, found.facts, found.with_sub(longer), what="renewed", more=more)
    row = books.subscription(found.row.plan_id)
    books.put_subscription(replace(row, retry_at_ms=0, failed_charges=0))
    fee = Money(row.fee_minor, row.currency)
    last = _paid_through(longer)
    tell(
        desk,
        books,
        found.account,
        "receipt-renewed",
        device=row.device,
        plan=longer.plan.name,
        money=fee,
        first_day=next_period(found.sub)[0],
        last_day=last,
    )


def _lapse(desk: Desk, books: Books, found: _Found) -> None:
    lapsed = lapse_unpaid(found.sub, desk.date())
    more = {"plan_id": found.row.plan_id}
    keep(desk, books, SYSTEM, found.facts, found.with_sub(lapsed), what="lapsed", more=more)
    last = _paid_through(found.sub)
    tell(desk, books, found.account, "lapsed", device=found.row.device, last_day=last)


def _find(books: Books, plan_id: int) -> _Found:
    row = books.subscription(plan_id)
    facts = books.device(row.device)
    subscriptions = held(books, facts)
    [sub] = [sub for sub in subscriptions if sub.plan_id == plan_id]
    return _Found(row, facts, subscriptions, sub, books.account(row.account))


def _stopped(found: _Found) -> bool:
    """Whether it is not charged for now: what it would pay for could not be used, or is about to end."""
    return not may_be_charged(found.account, found.facts)


def _plan_of(row: PaymentRow) -> int:
    assert row.plan_id is not None, "a renewal knows its plan"
    return row.plan_id


def _paid_through(sub: Subscription) -> date:
    assert sub.plan.ends_on is not None, "what renews has a last paid day"
    return sub.plan.ends_on
