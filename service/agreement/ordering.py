"""The steps of a purchase: what was ordered, the pending charge, the plan that is made of it (agreement 7.2).

`purchases` is the door; `charging` does the part with the gateway in between, and `settling` all of it again for an
order that a killed process left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from retention.money import Money
from retention.plans import Plan, PlanKind
from retention.subscriptions import Change, Note, Subscription
from retention.subscriptions import buy as buy_rule
from retention.terms import PriceList, Terms
from service.agreement.charging import Purpose, actor_of
from service.agreement.desk import Actor, Desk, account_of, device_of, require_open
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.holdings import Bought, held, keep
from service.agreement.outbox import queue
from storage.books import (
    OPERATOR_ACCOUNT,
    AcceptanceRow,
    Books,
    PaymentKind,
    PaymentRow,
    PaymentState,
)
from storage.catalog import DeviceFacts
from storage.errors import NotFound

PURCHASE = "purchase"
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Started:
    """A plan that was started, as it is stored; `fee` None when nothing was paid."""

    device: int
    subscription: Subscription
    fee: Money | None
    notes: tuple[Note, ...] = ()


def prices(desk: Desk) -> PriceList:
    """Today's fees."""
    settings = desk.settings
    return PriceList(
        Money(settings.monthly_fee_minor, settings.currency),
        Money(settings.annual_fee_minor, settings.currency),
    )


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, checked for its form. `reference` is the payment's, and the purchase's."""

    actor: Actor
    device: int
    kind: PlanKind
    retention_days: int | None
    method: str
    reference: str
    amount: Money | None


def open_order(desk: Desk, books: Books, order: Order) -> Started | None:
    """Step 1: the PENDING row. What costs nothing has no payment, and is started here and now."""
    there = books.payment(order.reference)
    if there is not None:
        _require_same(books, order, there)
        return None
    facts = ready(books, order.actor, order.device)
    terms = prices(desk).terms(order.kind)
    if facts.account == OPERATOR_ACCOUNT:
        raise Unprocessable(
            "the operators' own account is not charged; use `clipkeep plan start`",
            subject=f"device {order.device}",
            code="operator_account",
        )
    _require_price(order.amount, terms.fee)
    change = buying(desk, books, facts, order.kind, terms, order.retention_days)
    if not terms.fee:
        started = _free_before(books, facts, order)
        return started or _free(desk, books, facts, order, change)
    books.add_payment(
        PaymentRow(
            payment_id=0,
            reference=order.reference,
            account=facts.account,
            plan_id=None,
            device=order.device,
            kind=PaymentKind.CHARGE,
            currency=terms.currency,
            minor=terms.fee.minor,
            state=PaymentState.PENDING,
            why=f"{order.kind} plan, device {order.device}",
            at_ms=desk.now_ms(),
            detail={
                "for": PURCHASE,
                "who": order.actor.role,
                "method": order.method,
                "plan": str(order.kind),
                "retention_days": order.retention_days,
                "monthly_fee_minor": terms.monthly_fee.minor,
                "agreement_version": agreement_version(books),
            },
        )
    )
    return None


def _decide(desk: Desk, books: Books, row: PaymentRow) -> tuple[DeviceFacts, Change]:
    """By the fees of the day of purchase, and by today's calendar: it takes effect on payment (7.2.1)."""
    facts = not_terminated(books.device(row.device))
    require_open(books.account(facts.account))
    terms = Terms(Money(row.minor, row.currency), Money(row.detail["monthly_fee_minor"], row.currency))
    return facts, buying(
        desk, books, facts, PlanKind(row.detail["plan"]), terms, row.detail["retention_days"]
    )


def _make(desk: Desk, books: Books, row: PaymentRow, decided: tuple[DeviceFacts, Change]) -> PaymentRow:
    facts, change = decided
    bought = Bought(row.detail["method"], row.detail["agreement_version"])
    plan_id = _subscribe(desk, books, actor_of(row), facts, change, bought, row.reference)
    notes = [[note.code, note.text] for note in change.notes]
    return replace(row, plan_id=plan_id, detail={**row.detail, "notes": notes})


def _declined(desk: Desk, books: Books, row: PaymentRow) -> None:
    facts = {"minor": row.minor, "currency": row.currency, "plan": row.detail["plan"]}
    desk.record(books, actor_of(row), row.account, "purchase_declined", device=row.device, facts=facts)


PURCHASES = Purpose(_decide, _make, _declined)


def _subscribe(
    desk: Desk,
    books: Books,
    actor: Actor,
    facts: DeviceFacts,
    change: Change,
    bought: Bought,
    reference: str,
) -> int:
    _, plan_id = keep(
        desk,
        books,
        actor,
        facts,
        change.after,
        what="subscribed",
        bought=bought,
        more={"reference": reference},
    )
    if bought.agreement_version:
        books.accept_agreement(
            AcceptanceRow(facts.account, bought.agreement_version, PURCHASE, desk.now_ms())
        )
    new = new_of(change)
    assert new.terms is not None, "what is bought has terms"
    subject = f"Device {facts.device}: {new.plan.kind} plan, {new.terms.fee}"
    queue(desk, books, books.account(facts.account), "receipt", subject, _receipt_text(new, change.notes))
    return plan_id


def _receipt_text(new: Subscription, notes: tuple[Note, ...]) -> str:
    last = last_day(new.plan)
    assert new.terms is not None, "what is bought has terms"
    ends = (
        f"It is paid through {last} and renews itself every month; cancel it before that day is over, and it ends"
        f" then, at 00:00 UTC on {_day_after(last)}."
        if new.renews
        else f"Its last day is {last}: access ends at 00:00 UTC on {_day_after(last)}."
    )
    lines = [
        f"You have paid {new.terms.fee} for a plan of type {new.plan.kind}, storage of"
        f" {new.plan.retention_days} days. It starts on {new.plan.starts_on} (days are UTC).",
        ends,
        *(note.text for note in notes),
    ]
    return "\n".join(lines)


# --- what costs nothing -----------------------------------------------------------------------------------------------


def _free(desk: Desk, books: Books, facts: DeviceFacts, order: Order, change: Change) -> Started:
    bought = Bought(order.method, agreement_version(books))
    plan_id = _subscribe(desk, books, order.actor, facts, change, bought, order.reference)
    stored = stored_plan(books, books.device(order.device), plan_id)
    return Started(order.device, stored, prices(desk).annual.zero, change.notes)


def _free_before(books: Books, facts: DeviceFacts, order: Order) -> Started | None:
    """What was started under this reference already: without a payment, the history is what remembers it."""
    after = 0
    while events := books.events_of(facts.account, after=after, limit=_PAGE):
        for event in events:
            if event.what == "subscribed" and event.facts.get("reference") == order.reference:
                stored = stored_plan(books, facts, event.facts["plan_id"])
                return Started(order.device, stored, None)
        after = events[-1].event_id
    return None


# --- shared -----------------------------------------------------------------------------------------------------------


def ready(books: Books, actor: Actor, device: int) -> DeviceFacts:
    """A device that may get a plan."""
    facts = device_of(books, actor, device)
    require_open(account_of(books, actor, facts.account))
    return not_terminated(facts)


def not_terminated(facts: DeviceFacts) -> DeviceFacts:
    """The facts. Raises Conflict `terminated`."""
    if facts.terminated_ms is not None:
        raise Conflict(
            "this device was terminated; add a new one", subject=f"device {facts.device}", code="terminated"
        )
    return facts


def buying(
    desk: Desk,
    books: Books,
    facts: DeviceFacts,
    kind: PlanKind,
    terms: Terms,
    retention_days: int | None,
) -> Change:
    """What buying does to the device's plans, by the rules and today's calendar."""
    return buy_rule(
        held(books, facts),
        kind,
        terms,
        today=desk.date(),
        retention_days=retention_days,
        default_retention_days=desk.default_retention_days,
    )


def _require_price(amount: Money | None, price: Money) -> None:
    if amount is None:
        return
    if amount.currency != price.currency:
        raise Unprocessable(f"the price is {price}; pay in {price.currency}", code="wrong_currency")
    if amount != price:
        raise Unprocessable(f"the price is {price}, not {amount}; ask for a quote first", code="wrong_amount")


def _require_same(books: Books, order: Order, there: PaymentRow) -> None:
    facts = device_of(books, order.actor, order.device)
    had = (there.account, there.device, there.detail.get("plan"), there.detail.get("retention_days"))
    asked = (facts.account, order.device, str(order.kind), order.retention_days)
    if had != asked or there.detail.get("for") != PURCHASE:
        raise Conflict(
            "another payment has this reference; choose a new one for each purchase",
            subject=order.reference,
            code="reference_taken",
        )


def agreement_version(books: Books) -> int:
    """The newest; 0 when none is published."""
    try:
        return books.agreement().version
    except NotFound:
        return 0


def new_of(change: Change) -> Subscription:
    assert change.new is not None, "a purchase makes a plan"
    return change.new


def stored_plan(books: Books, facts: DeviceFacts, plan_id: int) -> Subscription:
    [found] = [sub for sub in held(books, facts) if sub.plan_id == plan_id]
    return found


def last_day(plan: Plan) -> date:
    assert plan.ends_on is not None, "what is paid for has a last day"
    return plan.ends_on


def _day_after(day: date) -> date:
    return date.fromordinal(day.toordinal() + 1)
