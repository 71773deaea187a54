"""Whether what was paid for a plan, given back and kept is what the plan is worth (agreement 7.2, 8.2). Pure.

The other way round than the rules that move money: from the days that a plan has to what they cost. So a row that was
lost, made twice or changed by hand shows, whatever made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from retention.money import Money
from retention.payments import counts
from retention.plans import PlanKind, add_months, months_started
from retention.subscriptions import Subscription
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState


@dataclass(frozen=True, slots=True)
class Entry:
    """A payment, and what its detail says.

    Args:
        of: the reference of the charge that a refund or a dispute is of; "" else.
        by_hand: a refund that an operator gave.
        refused: a charge for which nothing could be had, so that all of it is given back.
    """

    row: PaymentRow
    of: str = ""
    by_hand: bool = False
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A disagreement. `code` is stable; `what_to_do` is for the operator."""

    code: str
    subject: str
    detail: str
    what_to_do: str


def of_charges(entries: Sequence[Entry]) -> Iterator[Finding]:
    """What was given back of each charge: never more than it was, and all of it where nothing was had for it.

    Args:
        entries: all of one account.
    """
    given: dict[str, int] = {}
    for entry in entries:
        if _given(entry):
            given[entry.of] = given.get(entry.of, 0) + entry.row.minor
    for entry in entries:
        row = entry.row
        if row.kind is not PaymentKind.CHARGE or row.state is not PaymentState.DONE:
            continue
        back, money = Money(given.get(row.reference, 0), row.currency), Money(row.minor, row.currency)
        if back > money:
            yield Finding(
                "given_back_above_charge",
                row.reference,
                f"{back} is given back of a charge of {money}",
                "stop what is pending of it, and ask the payment gateway what it paid",
            )
        if (row.plan_id is None or entry.refused) and back < money:
            yield Finding(
                "kept_for_nothing",
                row.reference,
                f"{money} was charged, {back} is given back, and there is no plan for it",
                "give the rest back by other means, and look for a backup that was put back since",
            )


def of_plan(sub: Subscription, entries: Sequence[Entry], *, terminated: bool) -> Iterator[Finding]:
    """What is kept for a plan against what its days cost.

    Args:
        entries: of this plan.
        terminated: the device was ended with it: its days were cut, and nothing was refunded (3.3).
    """
    if sub.terms is None:
        for entry in entries[:1]:
            yield Finding(
                "payment_of_a_grant",
                entry.row.reference,
                f"it is of plan {sub.plan_id}, which was granted and costs nothing",
                "look for a backup that was put back since",
            )
        return
    charged = sum(e.row.minor for e in entries if _is_charge(e))
    back = sum(e.row.minor for e in entries if _given(e))
    kept, fee = charged - back, sub.terms.fee
    subject, currency = f"plan {sub.plan_id}", fee.currency
    if fee and not charged:
        yield Finding(
            "plan_not_paid",
            subject,
            f"it costs {fee}, and no charge for it is in the books",
            "look whether the payment gateway has one; else cancel the plan, or grant it instead",
        )
        return
    worth = None if terminated else _worth(sub, entries)
    if worth is None or worth == kept:
        return
    more = kept > worth
    yield Finding(
        "kept_too_much" if more else "kept_too_little",
        subject,
        f"{Money(kept, currency)} is kept for it, and its days cost {Money(worth, currency)}",
        "give the difference back: `clipkeep refund give`"
        if more
        else "a month was not charged, or too much was given back; look into the account's history",
    )


def _is_charge(entry: Entry) -> bool:
    return entry.row.kind is PaymentKind.CHARGE and entry.row.state is PaymentState.DONE


def _given(entry: Entry) -> bool:
    """Whether it is money that was given back: by a refund, or by the bank. A refund is void where the bank has given
    that money; then the dispute counts, or what is owed anew once the bank undoes it."""
    row = entry.row
    if row.kind is PaymentKind.DISPUTE:
        return row.state is PaymentState.LOST
    return row.kind is PaymentKind.REFUND and counts(row)


def _worth(sub: Subscription, entries: Sequence[Entry]) -> int | None:
    """In minor units. None where the days tell nothing: no whole months, which the rules never make; a bank that took
    money back, which ends days; months that cost nothing, of which there are no rows."""
    plan, terms = sub.plan, sub.terms
    assert terms is not None, "what was granted is worth nothing"
    assert plan.ends_on is not None, "what was paid for has a last day"
    months = months_started(plan, plan.ends_on) if plan.has_days else 0
    if months and add_months(plan.starts_on, months).toordinal() != plan.ends_on.toordinal() + 1:
        return None
    if any(e.row.kind is PaymentKind.DISPUTE and e.row.state is not PaymentState.OPEN for e in entries):
        return None
    undone = {e.row.reference for e in entries if e.refused}
    refunds = [e for e in entries if _given(e) and e.of not in undone]
    cancelled = min((e.row.payment_id for e in refunds if not e.by_hand), default=1 << 63)
    before = sum(e.row.minor for e in refunds if e.by_hand and e.row.payment_id < cancelled)
    since = sum(e.row.minor for e in refunds if e.by_hand) - before
    if plan.kind is PlanKind.MONTHLY:
        paid = [e.row.minor for e in entries if _is_charge(e) and not e.refused]
        if not terms.fee or 0 in paid:
            return None
        missing = max(0, months - len(paid)) * terms.fee.minor
        return max(0, sum(paid[:months]) + missing - before) - since
    if cancelled == 1 << 63:
        return terms.fee.minor - before - since
    credits = sum(e.row.minor for e in entries if e.row.kind is PaymentKind.CREDIT and counts(e.row))
    return (months and months * terms.monthly_fee.minor + credits) - since
