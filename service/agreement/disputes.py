"""Disputes: whoever paid asks a charge back from the bank, and the bank decides (agreement 6.2.2, 8.2).

A dispute is a payment of its own beside the charge: OPEN, then WON or LOST, and WON still when a loss is undone. What
it does is decided in the transaction that notes it:

- OPEN: nothing is taken from the plan. The next period is not charged, refunds of this charge wait, and the account
  can't be cancelled (`retention.eligibility`).
- LOST: what the bank took counts as given back. A charge that is gone as a whole ends the days that it was for
  (`retention.cancelling.charge_back`); of one that is gone in part the plan goes on, as after a partial refund. What
  was charged for later periods is given back; refunds of this charge that the bank's now covers are void. Nothing is
  claimed from the owner.
- WON: all goes on. Where a loss had ended the plan, the owner is paid what a cancellation on that day would have given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from hashlib import sha256

from retention.cancelling import cancel as cancel_rule
from retention.cancelling import charge_back
from retention.payments import may_follow
from retention.plans import PlanKind
from retention.subscriptions import Change, Subscription
from service.agreement.charging import Account, given_back_of, money_of, owe, refunds_of, related
from service.agreement.desk import SYSTEM, Desk
from service.agreement.details import RENEWAL, charge_reference, purpose_of, renewal_of
from service.agreement.holdings import held, keep
from service.agreement.outbox import tell
from service.agreement.payments import PaymentPending
from storage.catalog.books import Books
from storage.errors import CallerError
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState
from storage.rows.devices import DeviceFacts


@dataclass(frozen=True, slots=True)
class Dispute:
    """What a gateway says of one.

    Args:
        charge: its reference.
        number: the gateway's, of the dispute.
        state: OPEN, LOST or WON.
        minor, currency: that is asked back.
    """

    charge: str
    number: str
    state: PaymentState
    minor: int
    currency: str
    why: str


def reference_of(charge: str, number: str) -> str:
    """Of the dispute's row: the same for the same dispute, whatever characters a gateway's number has."""
    return "d-" + sha256(f"{charge}\n{number}".encode()).hexdigest()[:32]


def hear(desk: Desk, books: Books, told: Dispute) -> bool:
    """Note what is told of a dispute, and what follows. Inside `Desk.change`. Told again, or late, it changes nothing.

    Returns:
        Whether it fits a charge that is known.

    Raises:
        PaymentPending: the charge itself is not settled yet.
    """
    charge = books.payment(told.charge)
    if charge is None or charge.kind is not PaymentKind.CHARGE:
        return False
    if charge.state is PaymentState.PENDING:
        raise PaymentPending("the charge is not settled yet; send this again", subject=told.charge)
    if charge.state is not PaymentState.DONE:
        return False
    if told.currency != charge.currency or told.minor > charge.minor:
        return False
    row = books.payment(reference_of(told.charge, told.number))
    if row is None:
        row = _opened(desk, books, charge, told)
    if not may_follow(row, told.state):
        return True
    settled = replace(row, state=told.state, settled_ms=desk.now_ms())
    if told.state is PaymentState.LOST:
        _lost(desk, books, charge, settled)
    else:
        _won(desk, books, charge, settled, was=row.state)
    return True


def _opened(desk: Desk, books: Books, charge: PaymentRow, told: Dispute) -> PaymentRow:
    row = books.add_payment(
        PaymentRow(
            payment_id=0,
            reference=reference_of(told.charge, told.number),
            account=charge.account,
            plan_id=charge.plan_id,
            device=charge.device,
            kind=PaymentKind.DISPUTE,
            currency=charge.currency,
            minor=told.minor,
            state=PaymentState.OPEN,
            why=told.why or f"disputed: {charge.why}",
            at_ms=desk.now_ms(),
            gateway_id=told.number,
            detail={"of": charge.reference},
        )
    )
    _tell(desk, books, row, "charge_disputed", "dispute-open", order=charge.why)
    return row


def _lost(desk: Desk, books: Books, charge: PaymentRow, row: PaymentRow) -> None:
    before = _account(books, charge)
    books.put_payment(row)
    voided = _void_refunds(desk, books, charge)
    payments = _account(books, charge)
    due, ends = voided, None
    if charge.plan_id is not None and given_back_of(payments.payments, charge) >= charge.minor:
        facts = books.device(charge.device)
        change = charge_back(
            held(books, facts), charge.plan_id, first=_first(books, charge), today=desk.date()
        )
        if change.before != change.after:
            due += _as_if_cancelled(desk, before, change, charge)
            ends = _end(desk, books, facts, change, charge)
    books.put_payment(replace(row, detail={**row.detail, "due_if_won": due}))
    if ends is None:
        _tell(desk, books, row, "charged_back", "dispute-lost", order=charge.why)
    else:
        _tell(desk, books, row, "charged_back", "dispute-ended", order=charge.why, last_day=ends)


def _won(desk: Desk, books: Books, charge: PaymentRow, row: PaymentRow, *, was: PaymentState) -> None:
    books.put_payment(row)
    due = int(row.detail.get("due_if_won", 0)) if was is PaymentState.LOST else 0
    left = charge.minor - given_back_of(_account(books, charge).payments, charge)
    if min(due, left) > 0:
        owe(desk, books, charge, min(due, left), "the bank decided for us", plan_id=charge.plan_id)
    _go_on_with_refunds(desk, books, charge)
    _tell(desk, books, row, "dispute_won", "dispute-won", order=charge.why)


# --- what follows -----------------------------------------------------------------------------------------------------


def _end(desk: Desk, books: Books, facts: DeviceFacts, change: Change, charge: PaymentRow) -> date | None:
    """End the plan, and give back what was charged for periods behind its new end."""
    [ended] = [sub for sub in change.changed if sub.plan_id == charge.plan_id]
    more = {"plan_id": charge.plan_id, "reference": charge.reference}
    keep(desk, books, SYSTEM, facts, change.after, what="ended_by_chargeback", more=more)
    payments = _account(books, charge).payments
    for other in Account(payments, charge.currency).charges:
        left = other.minor - given_back_of(payments, other)
        if other.reference != charge.reference and left > 0 and _is_behind(books, other, ended):
            owe(desk, books, other, left, "the plan ended before this period", plan_id=charge.plan_id)
    return ended.plan.ends_on


def _is_behind(books: Books, charge: PaymentRow, sub: Subscription) -> bool:
    return sub.plan.ends_on is not None and _first(books, charge) > sub.plan.ends_on


def _first(books: Books, charge: PaymentRow) -> date:
    """The first of the days that a charge was for."""
    if purpose_of(charge) == RENEWAL:
        return renewal_of(charge).first
    facts = books.device(charge.device)
    [plan] = [sub.plan for sub in held(books, facts) if sub.plan_id == charge.plan_id]
    return plan.starts_on


def _as_if_cancelled(desk: Desk, before: Account, change: Change, charge: PaymentRow) -> int:
    """Of this charge, what a cancellation on this day would have given back: minor units."""
    [sub] = [sub for sub in change.before if sub.plan_id == charge.plan_id]
    if sub.plan.kind is PlanKind.MONTHLY:
        is_ahead = purpose_of(charge) == RENEWAL and renewal_of(charge).first > desk.date()
        return charge.minor if is_ahead or sub.plan.starts_on > desk.date() else 0
    try:
        done = cancel_rule(
            change.before, sub.plan_id, today=desk.date(), paid=before.paid, credits=before.credits
        )
    except CallerError:  # it was cancelled before, and refunded then
        return 0
    return done.refund.minor


def _void_refunds(desk: Desk, books: Books, charge: PaymentRow) -> int:
    """Refunds of this charge that were not sent, and that it has nothing left for, are void. Returns their sum."""
    voided = 0
    payments = _account(books, charge).payments
    for refund in refunds_of(payments, charge):
        too_much = given_back_of(_account(books, charge).payments, charge) > charge.minor
        asked = refund.state is PaymentState.PENDING and refund.attempts
        if too_much and not asked and may_follow(refund, PaymentState.VOID):
            books.put_payment(replace(refund, state=PaymentState.VOID, settled_ms=desk.now_ms()))
            voided += refund.minor
    left = charge.minor - given_back_of(_account(books, charge).payments, charge)
    if voided and left > 0:
        rest = min(voided, left)
        owe(desk, books, charge, rest, "what the bank did not give back", plan_id=charge.plan_id)
        voided -= rest
    return voided


def _go_on_with_refunds(desk: Desk, books: Books, charge: PaymentRow) -> None:
    for refund in refunds_of(_account(books, charge).payments, charge):
        if refund.state is PaymentState.PENDING:
            books.put_payment(replace(refund, next_ms=0))


def _account(books: Books, charge: PaymentRow) -> Account:
    return Account(related(books, charge), charge.currency)


def _tell(desk: Desk, books: Books, row: PaymentRow, what: str, template: str, /, **fields: object) -> None:
    facts = {"minor": row.minor, "currency": row.currency, "of": charge_reference(row)}
    desk.record(books, SYSTEM, row.account, what, why=row.why, device=row.device, facts=facts)
    tell(desk, books, books.account(row.account), template, device=row.device, money=money_of(row), **fields)
