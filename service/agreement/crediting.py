"""Credits, and what is taken back: credits and notes that were wrong, by a counter-entry (agreement 8.2.1).

A row of the books is never changed but in its state (`retention.payments`). What was noted wrongly is TAKEN_BACK, and a
row of its own says by whom and why. Money that left is not taken back.
"""

from __future__ import annotations

from dataclasses import replace

from retention.money import Money
from retention.payments import may_follow
from service.agreement.charging import money_of, refund_reference
from service.agreement.desk import Actor, Desk
from service.agreement.details import (
    by_hand,
    charge_reference,
    counter_detail,
    refund_detail,
    refusal_of,
    refused,
)
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.holdings import held
from service.agreement.payments import checked_reference
from service.agreement.refunding import (
    facts_of,
    is_cancelled,
    payment_of,
    reference_taken,
    subscription_of,
)
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState, SubscriptionRow


def credit(desk: Desk, actor: Actor, plan_id: int, money: Money, *, why: str, reference: str) -> PaymentRow:
    """Note a credit that an operator gave for a subscription: it lowers a later refund (8.2.1), and moves no money
    here. The same reference is the same credit.

    Raises:
        Forbidden: `operators_only`.
        NotFound.
        Conflict: `reference_taken`; `plan_already_cancelled`: its refund was counted without.
        Unprocessable: `wrong_currency`, `bad_amount`, `bad_text`, `plan_ended`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")
    checked_reference(reference)

    def note(books: Books) -> PaymentRow:
        row = subscription_of(books, plan_id)
        there = books.payment(reference)
        if there is not None:
            if (there.kind, there.plan_id, there.minor) == (PaymentKind.CREDIT, plan_id, money.minor):
                return there
            raise reference_taken(reference)
        _require_refundable(desk, books, row)
        if money.currency != row.currency:
            raise Unprocessable(f"this plan was paid in {row.currency}", code="wrong_currency")
        if not 0 < money.minor <= row.fee_minor:
            fee = Money(row.fee_minor, row.currency)
            raise Unprocessable(f"a credit is more than 0 and at most the fee, {fee}", code="bad_amount")
        facts = {"plan_id": plan_id, "minor": money.minor, "currency": money.currency}
        desk.record(books, actor, row.account, "credited", why=why, device=row.device, facts=facts)
        return books.add_payment(
            PaymentRow(
                payment_id=0,
                reference=reference,
                account=row.account,
                plan_id=plan_id,
                device=row.device,
                kind=PaymentKind.CREDIT,
                currency=money.currency,
                minor=money.minor,
                state=PaymentState.DONE,
                why=why,
                at_ms=desk.now_ms(),
                settled_ms=desk.now_ms(),
            )
        )

    return desk.write(note)


def take_back(desk: Desk, actor: Actor, reference: str, *, why: str) -> PaymentRow:
    """Take back a credit, or the note that a refund was paid by other means, by a counter-entry; or give up a refund by
    hand that the gateway refused. A refund that is owed by the rules is owed on, and stands as refused again.

    Returns:
        The entry as it is now: TAKEN_BACK, or VOID. Safe to repeat.

    Raises:
        Forbidden: `operators_only`.
        NotFound: no such payment.
        Conflict: `money_left`: it was paid; `not_an_entry`: a charge, or still under way; `plan_already_cancelled`: the
            refund of the cancellation was counted with it.
        Unprocessable: `bad_text`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")

    def note(books: Books) -> PaymentRow:
        row = payment_of(books, reference)
        if row.state in (PaymentState.TAKEN_BACK, PaymentState.VOID):
            return row
        _require_an_entry(row)
        _require_uncounted(books, row)
        given_up = row.state is PaymentState.FAILED
        after = replace(row, state=PaymentState.VOID if given_up else PaymentState.TAKEN_BACK)
        books.put_payment(after)
        if not given_up:
            books.add_payment(_counter(desk, actor, row, why))
        if row.kind is PaymentKind.REFUND and by_hand(row) is None:
            books.add_payment(_owed_on(desk, books, row))
        what, facts = "taken_back", facts_of(reference, money_of(row)) | {"kind": str(row.kind)}
        desk.record(books, actor, row.account, what, why=why, device=row.device, facts=facts)
        return after

    return desk.write(note)


# --- shared steps -----------------------------------------------------------------------------------------------------


def _counter(desk: Desk, actor: Actor, entry: PaymentRow, why: str) -> PaymentRow:
    now_ms = desk.now_ms()
    return replace(
        entry,
        payment_id=0,
        reference=f"{entry.reference}.c",
        kind=PaymentKind.COUNTER,
        state=PaymentState.DONE,
        why=why,
        at_ms=now_ms,
        settled_ms=now_ms,
        gateway_id="",
        detail=counter_detail(entry, actor.role),
    )


def _owed_on(desk: Desk, books: Books, refund: PaymentRow) -> PaymentRow:
    """What is owed though the note that it was paid was wrong: refused by the gateway, as before the note."""
    charge = books.payment(charge_reference(refund))
    refusal = refusal_of(refund)
    assert charge is not None, "a refund is of a charge"
    assert refusal is not None, "a refund that the rules owe is noted as paid when the gateway refused it"
    owed = replace(
        refund,
        payment_id=0,
        reference=refund_reference(books, charge),
        state=PaymentState.FAILED,
        at_ms=desk.now_ms(),
        settled_ms=desk.now_ms(),
        detail=refund_detail(charge),
    )
    return refused(owed, refusal)


def _require_an_entry(row: PaymentRow) -> None:
    given_up = row.state is PaymentState.FAILED and by_hand(row) is not None
    if may_follow(row, PaymentState.TAKEN_BACK) or (given_up and may_follow(row, PaymentState.VOID)):
        return
    if row.kind is PaymentKind.REFUND and row.state is PaymentState.DONE:
        raise Conflict(
            "this refund was paid, and money that left can't be taken back",
            subject=row.reference,
            code="money_left",
        )
    raise Conflict(
        f"this {row.kind} is {row.state}; taken back are credits, notes of refunds that were paid by other means, and"
        " refunds by hand that the gateway refused",
        subject=row.reference,
        code="not_an_entry",
    )


def _require_uncounted(books: Books, row: PaymentRow) -> None:
    """By the rules a refund that a cancellation owes stays owed, and nothing was counted with it."""
    hand = by_hand(row)
    if row.kind is PaymentKind.REFUND and (hand is None or hand.after_cancellation):
        return
    assert row.plan_id is not None, "credits and refunds by hand are of a plan"
    if is_cancelled(books, subscription_of(books, row.plan_id)):
        instead = (
            "give the owner as much by `clipkeep refund give`"
            if row.kind is PaymentKind.CREDIT
            else "see that it is paid, and the books are right"
        )
        raise Conflict(
            f"the plan was cancelled since, and what that gave back was counted with this {row.kind}: {instead}",
            subject=row.reference,
            code="plan_already_cancelled",
        )


def _require_refundable(desk: Desk, books: Books, row: SubscriptionRow) -> None:
    """A credit lowers a refund that is still to come, or nothing."""
    facts = books.device(row.device)
    [plan] = [sub.plan for sub in held(books, facts) if sub.plan_id == row.plan_id]
    if plan.cancelled_on is not None:
        raise Conflict(
            f"it was cancelled on {plan.cancelled_on}, and its refund is counted; give a refund by hand instead",
            subject=f"plan {row.plan_id}",
            code="plan_already_cancelled",
        )
    if plan.has_ended(desk.date()):
        raise Unprocessable(
            f"its last day was {plan.ends_on}; give a refund by hand instead",
            subject=f"plan {row.plan_id}",
            code="plan_ended",
        )
