"""How money moves exactly once, whoever is killed on the way.

    1. a payment row, PENDING, with all that is needed to finish       one transaction
    2. the gateway, by the row's reference                             may be repeated
    3. what was paid for, and the row DONE                             one transaction

A run that dies leaves a PENDING row, and `settling.settle_pending` does steps 2 and 3 again. Several may do so at
once: the gateway charges once per reference, and of those that come to step 3 one finds the row PENDING.

A gateway that does not answer is asked again later and later: the row has how often it was asked, and when next. What
can't be had any more (a purchase that is too old, a month that has ended) is not charged: the gateway is asked to
*void* the charge, and what it took already is given back.

Step 3 asks the rules again. When the world changed meanwhile (a device terminated, an account suspended, a plan
cancelled), nothing is made and the same transaction leaves a PENDING refund of the whole charge: money is never kept
without what it was paid for. A refund is a row of its own with a reference of its own, and goes the same three steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from retention.money import Money
from retention.payments import counts, may_follow
from service.agreement.desk import SYSTEM, Desk
from service.agreement.details import (
    RENEWAL,
    Refusal,
    charge_reference,
    is_abandoned,
    method_of,
    page_of,
    purpose_of,
    refund_detail,
    refusal_of,
    refused,
    was_refused,
    with_page,
)
from service.agreement.errors import Conflict
from service.agreement.outbox import queue_to_operators, tell
from service.agreement.payments import (
    CustomerNeeded,
    PaymentDeclined,
    PaymentExpired,
    PaymentUnavailable,
    PurchaseAbandoned,
    Receipt,
)
from service.agreement.texts import moment
from storage.catalog.books import Books
from storage.errors import CallerError
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState

MAX_OF_ACCOUNT = 100_000
"""Payments of an account, read at once: a hundred devices, each charged monthly for eighty years."""
MAX_CHARGE_REFERENCE_CHARS = 100
"""Of a charge: leaves room for the references of its refunds."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a charge is for. All are called inside a transaction, with the payment's row.

    Args:
        over: whether its time is over: nothing is to be had for it, whatever the gateway says.
        decide: what is to be made, by the rules and the facts of now; writes nothing, raises CallerError when there
            is nothing to be had for the money any more.
        make: write what was decided; returns the row, DONE, with the plan that was paid for.
        declined: write what follows when the gateway said no.
        voided: write what follows when its time was over, and nothing was charged.
    """

    over: Callable[[Desk, Books, PaymentRow], bool]
    decide: Callable[[Desk, Books, PaymentRow], Any]
    make: Callable[[Desk, Books, PaymentRow, Any], PaymentRow]
    declined: Callable[[Desk, Books, PaymentRow], None]
    voided: Callable[[Desk, Books, PaymentRow], None]


def money_of(row: PaymentRow) -> Money:
    return Money(row.minor, row.currency)


def pay(desk: Desk, reference: str, purpose: Purpose) -> PaymentRow:
    """Steps 2 and 3 for the charge under this reference, and the refund when it comes to one. Safe to repeat.

    Returns:
        The row, DONE.

    Raises:
        PaymentDeclined: by the gateway, or (`PaymentExpired`) because its time was over; nothing was charged.
        Conflict: charged, and given back: with the code of what stands in the way.
        PaymentUnavailable: the row is still PENDING.
    """
    with desk.reading() as books:
        row = books.payment(reference)
        assert row is not None, "a charge is in the books before it is made"
        pending = row.state is PaymentState.PENDING
        over = pending and (purpose.over(desk, books, row) or page_is_over(desk, row))
    if pending:
        row = _ask(desk, row, purpose, over=over)
    return _answer(desk, row)


def _ask(desk: Desk, row: PaymentRow, purpose: Purpose, *, over: bool) -> PaymentRow:
    reference, money = row.reference, money_of(row)
    try:
        if over:
            receipt = desk.gateway.void(reference, money)
        else:
            # An answer that was lost is asked for, not guessed.
            receipt = desk.gateway.look_up(reference, "charge", money) if row.attempts else None
            receipt = receipt or desk.gateway.charge(reference, money, method_of(row), row.why)
    except CustomerNeeded as error:
        url, until_ms = error.url, error.until_ms
        desk.write(lambda books: note_page(desk, books, reference, url, until_ms))
        raise
    except PaymentUnavailable:
        _note_unanswered(desk, reference)
        raise
    except PaymentDeclined as error:
        refusal = Refusal(PaymentDeclined.code, error.detail)
        return desk.write(lambda books: fail(desk, books, reference, refusal, purpose.declined))
    if receipt is None:
        return desk.write(lambda books: fail(desk, books, reference, void_refusal(row), purpose.voided))
    return settle_charge(desk, receipt, purpose)


def void_refusal(row: PaymentRow) -> Refusal:
    """Why nothing was charged under a reference that the gateway has voided."""
    if is_abandoned(row):
        return Refusal(PurchaseAbandoned.code, "it was abandoned, and nothing was charged; buy it again")
    return Refusal(PaymentExpired.code, "it was not paid in time, and nothing was charged; ask for it anew")


def note_page(desk: Desk, books: Books, reference: str, url: str, until_ms: int) -> None:
    """Keep where whoever pays has to go, while the charge is PENDING; ask the gateway again later."""
    row = books.payment(reference)
    if row is not None and may_follow(row, PaymentState.DONE):
        again_ms = min(desk.now_ms() + pause_ms(desk, row), max(desk.now_ms(), until_ms) + 1)
        waits = replace(with_page(row, url, until_ms), attempts=row.attempts + 1, next_ms=again_ms)
        books.put_payment(waits)
        if page_of(row) is None and purpose_of(row) == RENEWAL:
            _tell_to_confirm(desk, books, row, url, until_ms)


def _tell_to_confirm(desk: Desk, books: Books, row: PaymentRow, url: str, until_ms: int) -> None:
    """Nobody was there when it was asked for."""
    tell(
        desk,
        books,
        books.account(row.account),
        "payment_page",
        device=row.device,
        money=money_of(row),
        order=row.why,
        until=moment(until_ms),
        url=url,
    )


def page_is_over(desk: Desk, row: PaymentRow) -> bool:
    """Whether whoever pays was to do something on a page that is gone by now."""
    page = page_of(row)
    return page is not None and desk.now_ms() > page.until_ms


def _note_unanswered(desk: Desk, reference: str) -> None:
    """Put the next attempt off: by `payment_retry_s`, then twice as long each time, up to `payment_max_retry_s`."""

    def note(books: Books) -> None:
        row = books.payment(reference)
        if row is not None and row.state is PaymentState.PENDING:
            books.put_payment(
                replace(row, attempts=row.attempts + 1, next_ms=desk.now_ms() + pause_ms(desk, row))
            )

    desk.write(note)


def _put_off(desk: Desk, books: Books, reference: str) -> None:
    """It was not asked for: nothing is known of it that was not known before."""
    row = books.payment(reference)
    if row is not None and row.state is PaymentState.PENDING:
        later_ms = desk.now_ms() + round(1000 * desk.settings.payment_max_retry_s)
        books.put_payment(replace(row, next_ms=later_ms))


def pause_ms(desk: Desk, row: PaymentRow) -> int:
    """How long a payment that was not answered again waits."""
    settings = desk.settings
    doubled_s = settings.payment_retry_s * (1 << min(row.attempts, 30))
    return round(1000 * min(doubled_s, settings.payment_max_retry_s))


def give_back(desk: Desk, reference: str) -> PaymentState | None:
    """Steps 2 and 3 for the refund under this reference. Safe to repeat.

    Returns:
        What became of it: PENDING when the gateway could not be reached; None when the account was erased.
    """
    with desk.reading() as books:
        row = books.payment(reference)
        waits = row is not None and disputed(related(books, row), charge_reference(row))
    if row is None or row.state is not PaymentState.PENDING:
        return None if row is None else row.state
    if waits:  # the bank may give the same money back
        desk.write(lambda books: _put_off(desk, books, reference))
        return PaymentState.PENDING
    of, money = charge_reference(row), money_of(row)
    try:
        receipt = desk.gateway.look_up(reference, "refund", money, of) if row.attempts else None
        receipt = receipt or desk.gateway.refund(reference, of, money)
    except PaymentUnavailable:
        _note_unanswered(desk, reference)
        return PaymentState.PENDING
    except PaymentDeclined as error:
        detail = error.detail
        return desk.write(lambda books: close_refund(desk, books, reference, "", detail))
    return desk.write(lambda books: close_refund(desk, books, reference, receipt.gateway_id, ""))


def owe(
    desk: Desk, books: Books, charge: PaymentRow, minor: int, why: str, *, plan_id: int | None
) -> PaymentRow:
    """Put a PENDING refund of a part of a charge into the books, in the transaction of its cause."""
    return books.add_payment(
        PaymentRow(
            payment_id=0,
            reference=refund_reference(books, charge),
            account=charge.account,
            plan_id=plan_id,
            device=charge.device,
            kind=PaymentKind.REFUND,
            currency=charge.currency,
            minor=minor,
            state=PaymentState.PENDING,
            why=why,
            at_ms=desk.now_ms(),
            detail=refund_detail(charge),
        )
    )


def refund_reference(books: Books, charge: PaymentRow) -> str:
    """That no refund of the charge has yet; `.r1` first."""
    return next(
        name
        for name in (f"{charge.reference}.r{number}" for number in count(1))
        if books.payment(name) is None
    )


def refunds_of(payments: list[PaymentRow], charge: PaymentRow) -> list[PaymentRow]:
    """Of a plan's payments the refunds of one charge that count as given."""
    refunds = (p for p in payments if p.kind is PaymentKind.REFUND and counts(p))
    return [p for p in refunds if charge_reference(p) == charge.reference]


def related(books: Books, row: PaymentRow) -> list[PaymentRow]:
    """The payments of the plan that one is of; of a charge that no plan was made of, those that are of it."""
    if row.plan_id is not None:
        return books.payments_of_plan(row.plan_id)
    charge = charge_reference(row) or row.reference
    found = books.payments_of(row.account, limit=MAX_OF_ACCOUNT)
    return [p for p in found if charge in (p.reference, charge_reference(p))]


def given_back_of(payments: list[PaymentRow], charge: PaymentRow) -> int:
    """Minor units of a charge that were given back, are owed, or were taken back by the bank."""
    return sum(p.minor for p in payments if _gives_back(p) and charge_reference(p) == charge.reference)


def _gives_back(row: PaymentRow) -> bool:
    if row.kind is PaymentKind.DISPUTE:
        return row.state is PaymentState.LOST
    return row.kind is PaymentKind.REFUND and counts(row)


def disputed(payments: list[PaymentRow], charge: str) -> bool:
    """Whether the bank has not decided yet who has the money of this charge."""
    return any(
        p.kind is PaymentKind.DISPUTE and p.state is PaymentState.OPEN and charge_reference(p) == charge
        for p in payments
    )


@dataclass(frozen=True, slots=True)
class Account:
    """What was paid for one plan and given back. A refund counts from the moment it is owed."""

    payments: list[PaymentRow]
    currency: str

    @property
    def charges(self) -> list[PaymentRow]:
        """Those that were made, the newest first."""
        made = [p for p in self.payments if p.kind is PaymentKind.CHARGE and p.state is PaymentState.DONE]
        return made[::-1]

    @property
    def paid(self) -> Money:
        """Less what was given back of it. Of a charge that was given back, and that the bank took back as well, nothing
        is left; what is gone beyond it is taken off no other charge."""
        left = sum(max(0, charge.minor - given_back_of(self.payments, charge)) for charge in self.charges)
        return Money(left, self.currency)

    @property
    def credits(self) -> Money:
        given = sum(p.minor for p in self.payments if p.kind is PaymentKind.CREDIT and counts(p))
        return Money(given, self.currency)

    def refundable(self, refund: Money) -> list[tuple[PaymentRow, int]]:
        """(charge, minor units) whose sum is the refund, from the newest charge on."""
        left, parts = refund.minor, []
        for charge in self.charges:
            part = min(left, charge.minor - given_back_of(self.payments, charge))
            if part > 0:
                parts.append((charge, part))
                left -= part
        assert left == 0, "a refund is never more than what was paid"
        return parts


# --- step 3 -------------------------------------------------------------------------------------------------------


def settle_charge(desk: Desk, receipt: Receipt, purpose: Purpose) -> PaymentRow:
    row = desk.change(lambda books: _finish(desk, books, receipt, purpose))
    if row is None:
        # The account was erased while the gateway worked: there are no books left to owe it in.
        desk.gateway.refund(f"{receipt.reference}.r1", receipt.reference, receipt.money)
        raise Conflict(
            "the account was cancelled; what was charged was given back",
            subject=receipt.reference,
            code="account_cancelled",
        )
    return row


def _finish(desk: Desk, books: Books, receipt: Receipt, purpose: Purpose) -> PaymentRow | None:
    row = books.payment(receipt.reference)
    if row is None or not may_follow(row, PaymentState.DONE):
        return row
    charged = replace(row, state=PaymentState.DONE, settled_ms=desk.now_ms(), gateway_id=receipt.gateway_id)
    try:
        decided = purpose.decide(desk, books, row)
    except CallerError as error:
        return _refuse(desk, books, charged, error)
    done = purpose.make(desk, books, charged, decided)
    books.put_payment(done)
    return done


def _refuse(desk: Desk, books: Books, charged: PaymentRow, error: CallerError) -> PaymentRow:
    charged = refused(charged, Refusal(error.code, error.detail))
    books.put_payment(charged)
    owe(desk, books, charged, charged.minor, error.detail, plan_id=charged.plan_id)
    facts = {"minor": charged.minor, "currency": charged.currency, "code": error.code}
    desk.record(books, SYSTEM, charged.account, "charge_undone", device=charged.device, facts=facts)
    tell(
        desk,
        books,
        books.account(charged.account),
        "receipt-undone",
        device=charged.device,
        money=money_of(charged),
        order=charged.why,
        reason=error.detail,
    )
    return charged


def fail(
    desk: Desk,
    books: Books,
    reference: str,
    refusal: Refusal,
    follow: Callable[[Desk, Books, PaymentRow], None],
) -> PaymentRow:
    row = books.payment(reference)
    if row is None:
        raise PaymentDeclined(refusal.detail, subject=reference, code=refusal.code)
    if row.state is not PaymentState.PENDING:
        return row
    failed = refused(replace(row, state=PaymentState.FAILED, settled_ms=desk.now_ms()), refusal)
    books.put_payment(failed)
    follow(desk, books, failed)
    return failed


def close_refund(
    desk: Desk, books: Books, reference: str, gateway_id: str, declined: str
) -> PaymentState | None:
    row = books.payment(reference)
    if row is None or row.state is not PaymentState.PENDING:
        return None if row is None else row.state
    state = PaymentState.FAILED if declined else PaymentState.DONE
    closed = replace(row, state=state, settled_ms=desk.now_ms(), gateway_id=gateway_id)
    books.put_payment(refused(closed, Refusal(PaymentDeclined.code, declined)) if declined else closed)
    facts = {"minor": row.minor, "currency": row.currency, "reference": reference}
    what = "refund_failed" if declined else "refunded"
    desk.record(books, SYSTEM, row.account, what, why=declined, device=row.device, facts=facts)
    if declined:
        _tell_refused(desk, books, row, declined)
    elif was_refused(row):
        tell(desk, books, books.account(row.account), "refund_paid", device=row.device, money=money_of(row))
    return state


def _tell_refused(desk: Desk, books: Books, row: PaymentRow, why: str) -> None:
    """The owner, who waits for the money, and the operators, who have to see to it."""
    account = books.account(row.account)
    tell(desk, books, account, "refund_failed", device=row.device, money=money_of(row))
    queue_to_operators(
        desk,
        books,
        "refund_failed",
        f"Refund {row.reference} was refused: {money_of(row)}",
        f"Account {row.account}, device {row.device}: the payment gateway refused the refund {row.reference} of"
        f" {money_of(row)}: {why}. Ask again with `clipkeep refund retry --reference {row.reference} --reason ...`, or"
        f" pay it by other means and note that with `clipkeep refund paid --reference {row.reference} --reason ...`.",
    )


def _answer(desk: Desk, row: PaymentRow) -> PaymentRow:
    refusal = refusal_of(row)
    if refusal is None:
        return row
    if row.state is PaymentState.FAILED:
        kinds = {kind.code: kind for kind in (PaymentExpired, PurchaseAbandoned)}
        raise kinds.get(refusal.code, PaymentDeclined)(refusal.detail, subject=f"device {row.device}")
    give_back(desk, f"{row.reference}.r1")
    raise Conflict(
        f"{refusal.detail}. The charge of {money_of(row)} is given back",
        subject=f"device {row.device}",
        code=refusal.code,
    )
