"""How money moves exactly once, whoever is killed on the way.

    1. a payment row, PENDING, with all that is needed to finish       one transaction
    2. the gateway, by the row's reference                             may be repeated
    3. what was paid for, and the row DONE                             one transaction

A run that dies leaves a PENDING row, and `settling.settle_pending` does steps 2 and 3 again. Several may do so at
once: the gateway charges once per reference, and of those that come to step 3 one finds the row PENDING.

Step 3 asks the rules again. When the world changed meanwhile (a device terminated, an account suspended, a plan
cancelled), nothing is made and the same transaction leaves a PENDING refund of the whole charge: money is never kept
without what it was paid for. A refund is a row of its own with a reference of its own, and goes the same three steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from retention.money import Money
from service.agreement.desk import SYSTEM, Actor, Desk
from service.agreement.errors import Conflict
from service.agreement.outbox import queue
from service.agreement.payments import PaymentDeclined, PaymentUnavailable, Receipt
from storage.books import Books, PaymentKind, PaymentRow, PaymentState
from storage.errors import CallerError

MAX_CHARGE_REFERENCE_CHARS = 100
"""Of a charge: leaves room for the references of its refunds."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a charge is for. All three are called inside a transaction, with the payment's row.

    Args:
        decide: what is to be made, by the rules and the facts of now; writes nothing, raises CallerError when there
            is nothing to be had for the money any more.
        make: write what was decided; returns the row, DONE, with the plan that was paid for.
        declined: write what follows when the gateway said no.
    """

    decide: Callable[[Desk, Books, PaymentRow], Any]
    make: Callable[[Desk, Books, PaymentRow, Any], PaymentRow]
    declined: Callable[[Desk, Books, PaymentRow], None]


def money_of(row: PaymentRow) -> Money:
    return Money(row.minor, row.currency)


def pay(desk: Desk, reference: str, purpose: Purpose) -> PaymentRow:
    """Steps 2 and 3 for the charge under this reference, and the refund when it comes to one. Safe to repeat.

    Returns:
        The row, DONE.

    Raises:
        PaymentDeclined: by the gateway; nothing was charged.
        Conflict: charged, and given back: with the code of what stands in the way.
        PaymentUnavailable: the row is still PENDING.
    """
    with desk.reading() as books:
        row = books.payment(reference)
    assert row is not None, "a charge is in the books before it is made"
    if row.state is PaymentState.PENDING:
        try:
            receipt = desk.gateway.charge(reference, money_of(row), row.detail["method"], row.why)
        except PaymentDeclined as error:
            detail = error.detail
            row = desk.write(lambda books: _decline(desk, books, reference, detail, purpose))
        else:
            row = _settle(desk, receipt, purpose)
    return _answer(desk, row)


def give_back(desk: Desk, reference: str) -> PaymentState | None:
    """Steps 2 and 3 for the refund under this reference. Safe to repeat.

    Returns:
        What became of it: PENDING when the gateway could not be reached; None when the account was erased.
    """
    with desk.reading() as books:
        row = books.payment(reference)
    if row is None or row.state is not PaymentState.PENDING:
        return None if row is None else row.state
    try:
        receipt = desk.gateway.refund(reference, row.detail["of"], money_of(row))
    except PaymentUnavailable:
        return PaymentState.PENDING
    except PaymentDeclined as error:
        detail = error.detail
        return desk.write(lambda books: _close_refund(desk, books, reference, "", detail))
    return desk.write(lambda books: _close_refund(desk, books, reference, receipt.gateway_id, ""))


def owe(
    desk: Desk, books: Books, charge: PaymentRow, minor: int, why: str, *, plan_id: int | None
) -> PaymentRow:
    """Put a PENDING refund of a part of a charge into the books, in the transaction of its cause."""
    earlier = [] if plan_id is None else refunds_of(books.payments_of_plan(plan_id), charge)
    return books.add_payment(
        PaymentRow(
            payment_id=0,
            reference=f"{charge.reference}.r{len(earlier) + 1}",
            account=charge.account,
            plan_id=plan_id,
            device=charge.device,
            kind=PaymentKind.REFUND,
            currency=charge.currency,
            minor=minor,
            state=PaymentState.PENDING,
            why=why,
            at_ms=desk.now_ms(),
            detail={"of": charge.reference},
        )
    )


def refunds_of(payments: list[PaymentRow], charge: PaymentRow) -> list[PaymentRow]:
    """Of a plan's payments the refunds of one charge, whatever became of them: what is owed counts as given."""
    return [p for p in payments if p.kind is PaymentKind.REFUND and p.detail["of"] == charge.reference]


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
        charged = sum(p.minor for p in self.charges)
        return Money(
            charged - sum(p.minor for p in self.payments if p.kind is PaymentKind.REFUND), self.currency
        )

    @property
    def credits(self) -> Money:
        return Money(sum(p.minor for p in self.payments if p.kind is PaymentKind.CREDIT), self.currency)

    def refundable(self, refund: Money) -> list[tuple[PaymentRow, int]]:
        """(charge, minor units) whose sum is the refund, from the newest charge on."""
        left, parts = refund.minor, []
        for charge in self.charges:
            part = min(left, charge.minor - sum(p.minor for p in refunds_of(self.payments, charge)))
            if part > 0:
                parts.append((charge, part))
                left -= part
        assert left == 0, "a refund is never more than what was paid"
        return parts


# --- step 3 -------------------------------------------------------------------------------------------------------


def _settle(desk: Desk, receipt: Receipt, purpose: Purpose) -> PaymentRow:
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
    if row is None or row.state is not PaymentState.PENDING:
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
    refused = {"code": error.code, "detail": error.detail}
    charged = replace(charged, detail={**charged.detail, "refused": refused})
    books.put_payment(charged)
    owe(desk, books, charged, charged.minor, error.detail, plan_id=charged.plan_id)
    facts = {"minor": charged.minor, "currency": charged.currency, "code": error.code}
    desk.record(books, SYSTEM, charged.account, "charge_undone", device=charged.device, facts=facts)
    queue(
        desk,
        books,
        books.account(charged.account),
        "receipt",
        f"Device {charged.device}: {money_of(charged)} will be given back",
        f"{money_of(charged)} was charged for: {charged.why}. That can't be had any more: {error.detail}."
        " The whole amount is on its way back to you.",
    )
    return charged


def _decline(desk: Desk, books: Books, reference: str, detail: str, purpose: Purpose) -> PaymentRow:
    row = books.payment(reference)
    if row is None:
        raise PaymentDeclined(detail, subject=reference)
    if row.state is not PaymentState.PENDING:
        return row
    failed = replace(
        row,
        state=PaymentState.FAILED,
        settled_ms=desk.now_ms(),
        detail={**row.detail, "refused": {"code": PaymentDeclined.code, "detail": detail}},
    )
    books.put_payment(failed)
    purpose.declined(desk, books, failed)
    return failed


def _close_refund(
    desk: Desk, books: Books, reference: str, gateway_id: str, declined: str
) -> PaymentState | None:
    row = books.payment(reference)
    if row is None or row.state is not PaymentState.PENDING:
        return None if row is None else row.state
    state = PaymentState.FAILED if declined else PaymentState.DONE
    detail = (
        {**row.detail, "refused": {"code": PaymentDeclined.code, "detail": declined}}
        if declined
        else row.detail
    )
    books.put_payment(
        replace(row, state=state, settled_ms=desk.now_ms(), gateway_id=gateway_id, detail=detail)
    )
    facts = {"minor": row.minor, "currency": row.currency, "reference": reference}
    what = "refund_failed" if declined else "refunded"
    desk.record(books, SYSTEM, row.account, what, why=declined, device=row.device, facts=facts)
    return state


def _answer(desk: Desk, row: PaymentRow) -> PaymentRow:
    refused = row.detail.get("refused")
    if refused is None:
        return row
    if row.state is PaymentState.FAILED:
        raise PaymentDeclined(refused["detail"], subject=f"device {row.device}")
    give_back(desk, f"{row.reference}.r1")
    raise Conflict(
        f"{refused['detail']}. The charge of {money_of(row)} is given back",
        subject=f"device {row.device}",
        code=refused["code"],
    )


def actor_of(row: PaymentRow) -> Actor:
    """Who asked for what is being paid."""
    role = row.detail["who"]
    return Actor("owner", row.account) if role == "owner" else Actor(role)
