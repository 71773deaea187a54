"""Refunds by hand (agreement 8.2.1, "partial refunds issued"), and what is done about refunds that were refused.

A refund by hand goes the way of any other (`charging`): a PENDING row, the gateway, the row closed. Or it was paid by
other means, and is noted. It counts from the moment it is given, and a later cancellation gives back as much less.
"""

from __future__ import annotations

from dataclasses import replace

from retention.money import Money
from retention.payments import may_follow
from service.agreement.charging import (
    MAX_CHARGE_REFERENCE_CHARS,
    Account,
    give_back,
    money_of,
)
from service.agreement.desk import Actor, Desk
from service.agreement.details import ByHand, asked_again, by_hand, references_again, refund_detail
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.holdings import held
from service.agreement.outbox import tell
from service.agreement.payments import checked_reference
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState, SubscriptionRow

MAX_PLAN_ID = (1 << 63) - 1
"""What a database's whole numbers reach."""


def give(
    desk: Desk,
    actor: Actor,
    plan_id: int,
    money: Money,
    *,
    why: str,
    reference: str,
    otherwise: bool = False,
) -> list[PaymentRow]:
    """Give back a part of what was paid for a plan, or all of it: before it begins, while it runs, and after it. The
    plan goes on as it was. The same reference is the same refund.

    Args:
        otherwise: it was paid by other means, and is only noted; else it goes through the gateway.

    Returns:
        The refunds, one for each charge of which a part is given back, the newest charge first: PAID_OTHERWISE; or
        DONE, PENDING while the gateway can't be reached, FAILED when it refused.

    Raises:
        Forbidden: `operators_only`.
        NotFound: no such subscription.
        Conflict: `reference_taken`.
        Unprocessable: `wrong_currency`, `bad_amount`, `more_than_paid`, `bad_text`, `bad_reference`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")
    _require_short(reference)

    def decide(books: Books) -> list[PaymentRow]:
        row = subscription_of(books, plan_id)
        if (there := books.payment(reference)) is not None:
            return _given_before(books, there, reference, plan_id, money, otherwise)
        account = Account(books.payments_of_plan(plan_id), row.currency)
        _require_paid(money, account.paid)
        hand = ByHand(reference, money.minor, otherwise, is_cancelled(books, row), actor.role)
        rows = [
            books.add_payment(_row(desk, charge, minor, why, hand, part, plan_id))
            for part, (charge, minor) in enumerate(account.refundable(money), start=1)
        ]
        facts = facts_of(reference, money) | {"plan_id": plan_id, "otherwise": otherwise}
        desk.record(books, actor, row.account, "refund_given", why=why, device=row.device, facts=facts)
        _tell_given(desk, books, row, money, why, otherwise)
        return rows

    return _made(desk, desk.write(decide))


def paid_otherwise(desk: Desk, actor: Actor, reference: str, *, why: str) -> PaymentRow:
    """An operator says that a refund which the gateway refused was paid by other means. Safe to repeat.

    Raises:
        Forbidden: `operators_only`.
        NotFound: no such payment.
        Conflict: `not_refused`: it is no refund, or the gateway did not refuse it.
        Unprocessable: `bad_text`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")

    def note(books: Books) -> PaymentRow:
        row = payment_of(books, reference)
        if row.state is PaymentState.PAID_OTHERWISE:
            return row
        _require_refused(row, PaymentState.PAID_OTHERWISE)
        done = replace(row, state=PaymentState.PAID_OTHERWISE, settled_ms=desk.now_ms())
        books.put_payment(done)
        what, facts = "refund_paid_otherwise", facts_of(reference, money_of(row))
        desk.record(books, actor, row.account, what, why=why, device=row.device, facts=facts)
        fields = {"device": row.device, "money": money_of(row), "reason": why}
        tell(desk, books, books.account(row.account), "refund_paid-otherwise", **fields)
        return done

    return desk.write(note)


def retry(desk: Desk, actor: Actor, reference: str, *, why: str) -> PaymentRow:
    """Ask the gateway again for a refund that it refused, under a new reference: under the old one it always refuses.

    Returns:
        The refund with its new reference: DONE, PENDING, or FAILED again.

    Raises:
        As `paid_otherwise`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")

    def ask(books: Books) -> PaymentRow:
        row = payment_of(books, reference)
        _require_refused(row, PaymentState.PENDING)
        again = asked_again(row)
        books.put_payment(again)
        facts = facts_of(again.reference, money_of(row)) | {"before": reference}
        desk.record(books, actor, row.account, "refund_retried", why=why, device=row.device, facts=facts)
        return again

    [done] = _made(desk, [desk.write(ask)])
    return done


# --- rows -------------------------------------------------------------------------------------------------------------


def _row(
    desk: Desk, charge: PaymentRow, minor: int, why: str, hand: ByHand, part: int, plan_id: int
) -> PaymentRow:
    now_ms = desk.now_ms()
    return PaymentRow(
        payment_id=0,
        reference=hand.name if part == 1 else f"{hand.name}.{part}",
        account=charge.account,
        plan_id=plan_id,
        device=charge.device,
        kind=PaymentKind.REFUND,
        currency=charge.currency,
        minor=minor,
        state=PaymentState.PAID_OTHERWISE if hand.otherwise else PaymentState.PENDING,
        why=why,
        at_ms=now_ms,
        settled_ms=now_ms if hand.otherwise else None,
        detail=refund_detail(charge, hand),
    )


def _made(desk: Desk, rows: list[PaymentRow]) -> list[PaymentRow]:
    """Have the gateway make those that are PENDING. Returns them as they are then."""
    for row in rows:
        give_back(desk, row.reference)
    with desk.reading() as books:
        found = [books.payment(row.reference) for row in rows]
    return [row for row in found if row is not None]


def _given_before(
    books: Books, there: PaymentRow, reference: str, plan_id: int, money: Money, otherwise: bool
) -> list[PaymentRow]:
    """All parts of it. Raises Conflict `reference_taken`."""
    hand = by_hand(there)
    asked = (plan_id, money.minor, money.currency, otherwise)
    if hand is None or (there.plan_id, hand.total_minor, there.currency, hand.otherwise) != asked:
        raise reference_taken(reference)
    found = [(row, by_hand(row)) for row in books.payments_of_plan(plan_id)]
    return [row for row, part in found if part is not None and part.name == reference]


def _tell_given(
    desk: Desk, books: Books, row: SubscriptionRow, money: Money, why: str, otherwise: bool
) -> None:
    account = books.account(row.account)
    if otherwise:
        tell(desk, books, account, "receipt-given_otherwise", device=row.device, money=money, reason=why)
    else:
        tell(desk, books, account, "receipt-given", device=row.device, money=money, reason=why)


def facts_of(reference: str, money: Money) -> dict[str, object]:
    """Of an event about a payment."""
    return {"reference": reference, "minor": money.minor, "currency": money.currency}


# --- what may be done -------------------------------------------------------------------------------------------------


def subscription_of(books: Books, plan_id: int) -> SubscriptionRow:
    """What was bought with a plan. Raises NotFound, also for one that was granted."""
    try:
        if 0 < plan_id <= MAX_PLAN_ID:
            return books.subscription(plan_id)
    except NotFound:
        pass
    raise NotFound("there is no such subscription", subject=f"plan {plan_id}")


def payment_of(books: Books, reference: str) -> PaymentRow:
    """Raises NotFound."""
    row = books.payment(reference)
    if row is not None:
        return row
    for name in references_again(reference):
        later = books.payment(name)
        if later is not None:
            raise NotFound(
                f"it was asked for again since, as {name}, which is {later.state}", subject=reference
            )
    raise NotFound("there is no such payment", subject=reference)


def _require_short(reference: str) -> None:
    if len(checked_reference(reference)) > MAX_CHARGE_REFERENCE_CHARS:
        raise Unprocessable(
            f"the reference of a refund has at most {MAX_CHARGE_REFERENCE_CHARS} characters",
            code="bad_reference",
        )


def _require_paid(money: Money, paid: Money) -> None:
    if money.currency != paid.currency:
        raise Unprocessable(f"this plan was paid in {paid.currency}", code="wrong_currency")
    if money.minor <= 0:
        raise Unprocessable("a refund is more than nothing", code="bad_amount")
    if money > paid:
        raise Unprocessable(
            f"{paid} is left of what was paid for this plan, after all that was given back; give that or less",
            code="more_than_paid",
        )


def _require_refused(row: PaymentRow, state: PaymentState) -> None:
    if (
        row.kind is not PaymentKind.REFUND
        or row.state is not PaymentState.FAILED
        or not may_follow(row, state)
    ):
        raise Conflict(
            f"this {row.kind} is {row.state}; only a refund that the gateway refused is asked for again, or paid by"
            " other means",
            subject=row.reference,
            code="not_refused",
        )


def is_cancelled(books: Books, row: SubscriptionRow) -> bool:
    """Whether its plan was cancelled, and what that gives back is counted."""
    [plan] = [sub.plan for sub in held(books, books.device(row.device)) if sub.plan_id == row.plan_id]
    return plan.cancelled_on is not None


def reference_taken(reference: str) -> Conflict:
    return Conflict(
        "another payment has this reference; choose a new one for each",
        subject=reference,
        code="reference_taken",
    )
