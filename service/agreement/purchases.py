"""Trials, purchases and grants: how a device comes to a plan (agreement 7.1, 7.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from retention.history import account_facts
from retention.money import Money
from retention.plans import Plan, PlanKind, denied_from_ms
from retention.subscriptions import Change, Note, Subscription
from retention.subscriptions import buy as buy_rule
from retention.subscriptions import grant as grant_rule
from retention.subscriptions import start_trial as trial_rule
from retention.terms import PriceList, Terms
from service.agreement.charging import MAX_CHARGE_REFERENCE_CHARS, Purpose, actor_of, pay
from service.agreement.desk import Actor, Desk, account_of, device_of, require_open
from service.agreement.errors import Conflict, Unprocessable, refusals
from service.agreement.holdings import Bought, held, keep
from service.agreement.outbox import queue
from service.agreement.payments import checked_method, checked_reference
from storage.books import (
    OPERATOR_ACCOUNT,
    AcceptanceRow,
    AccountRow,
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
class Quote:
    """What a purchase now would come to.

    Args:
        ends_on: the last paid day.
        denied_from_ms: 00:00 UTC after it: the instant at which access ends unless the plan renews.
        agreement_version: that a purchase accepts; 0 when none is published.
    """

    device: int
    plan: PlanKind
    fee: Money
    starts_on: date
    ends_on: date
    denied_from_ms: int
    renews: bool
    retention_days: int
    notes: tuple[Note, ...]
    agreement_version: int


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


def quote(
    desk: Desk, actor: Actor, device: int, kind: PlanKind, *, retention_days: int | None = None
) -> Quote:
    """What would happen if this plan were bought now. Nothing is changed.

    Raises:
        NotFound, Forbidden, Conflict, Unprocessable: as `buy` would.
    """
    with desk.reading() as books, refusals():
        facts = _ready(books, actor, device)
        terms = prices(desk).terms(kind)
        change = _bought(desk, books, facts, kind, terms, retention_days)
        new = _new(change)
        last = _last_day(new.plan)
        return Quote(
            device,
            kind,
            terms.fee,
            new.plan.starts_on,
            last,
            denied_from_ms(last),
            new.renews,
            new.plan.retention_days,
            change.notes,
            _agreement_version(books),
        )


def start_trial(desk: Desk, actor: Actor, device: int) -> Started:
    """The account's one trial, on this device, from today on (7.1). One transaction: of any number at once, one wins.

    Raises:
        NotFound, Forbidden; Conflict: `trial_used`, `terminated`, `account_closing`; Unprocessable: `plan_overlaps`.
    """

    def start(books: Books) -> Started:
        facts = _ready(books, actor, device)
        account = books.account(facts.account)
        used = account.trial_ms is not None
        change = trial_rule(held(books, facts), today=desk.date(), account_trial_used=used)
        image = _use_trial(desk, books, account)
        stored, plan_id = keep(desk, books, actor, facts, change.after, what="trial_started", more=image)
        return Started(device, _stored(books, stored, plan_id), None, change.notes)

    return desk.change(start)


def grant(
    desk: Desk,
    actor: Actor,
    device: int,
    kind: PlanKind,
    *,
    retention_days: int | None = None,
    starts_on: date | None = None,
) -> Started:
    """A plan without a fee, from an operator; a past date imports one that runs already. A trial on an owner's device
    is the account's one trial; the operators' own account has as many as it has devices.

    Raises:
        Forbidden: `operators_only`.
        NotFound; Conflict: `terminated`, `trial_used`; Unprocessable: `plan_overlaps`, `plan_renews`,
            `bad_retention_days`, `trial_retention_fixed`, `date_out_of_range`, `bad_plan_dates`.
    """
    return desk.change(
        lambda books: grant_in(
            desk, books, actor, device, kind, retention_days=retention_days, starts_on=starts_on
        )
    )


def grant_in(
    desk: Desk,
    books: Books,
    actor: Actor,
    device: int,
    kind: PlanKind,
    *,
    retention_days: int | None,
    starts_on: date | None,
) -> Started:
    """`grant`, inside `Desk.change`."""
    actor.require_operator()
    facts = _not_terminated(device_of(books, actor, device))
    account = books.account(facts.account)
    trial = kind is PlanKind.TRIAL and account.account != OPERATOR_ACCOUNT
    if trial and account.trial_ms is not None:
        raise Conflict(
            "the account of this device had its one trial; start another plan",
            subject=f"account {account.account}",
            code="trial_used",
        )
    change = grant_rule(
        held(books, facts),
        kind,
        today=desk.date(),
        starts_on=starts_on,
        retention_days=retention_days,
        default_retention_days=desk.default_retention_days,
    )
    image = _use_trial(desk, books, account) if trial else None
    stored, plan_id = keep(desk, books, actor, facts, change.after, what="plan_granted", more=image)
    return Started(device, _stored(books, stored, plan_id), None, change.notes)


def buy(
    desk: Desk,
    actor: Actor,
    device: int,
    kind: PlanKind,
    *,
    method: str,
    reference: str,
    retention_days: int | None = None,
    amount: Money | None = None,
) -> Started:
    """Buy a plan: charge its fee, and start it on payment (7.2). The steps are those of `charging`; when this is
    killed, `settling.settle_pending` ends with the plan or with a refund, and so does the same call again.

    Args:
        method: the payment gateway's name for what is charged.
        reference: new for each purchase; the same one is the same purchase, and has the same outcome.
        amount: refused unless it is the price; None takes today's.

    Raises:
        NotFound, Forbidden: the device or the account.
        PaymentDeclined: nothing was charged.
        PaymentUnavailable: not known yet; the same call again, or `settling`, ends it.
        Conflict: `terminated`, `account_closing`, `reference_taken`; or what came up while the gateway worked, and then
            the charge is given back.
        Unprocessable: `not_for_sale`, `wrong_currency`, `wrong_amount`, `operator_account`, `bad_retention_days`, …
    """
    if len(checked_reference(reference)) > MAX_CHARGE_REFERENCE_CHARS:
        raise Unprocessable(
            f"the reference of a purchase has at most {MAX_CHARGE_REFERENCE_CHARS} characters",
            code="bad_reference",
        )
    order = _Order(actor, device, kind, retention_days, checked_method(method), reference, amount)
    free = desk.change(lambda books: _open(desk, books, order))
    if free is not None:
        return free
    paid = pay(desk, reference, PURCHASES)
    with desk.reading() as books:
        assert paid.plan_id is not None, "a purchase that was done has its plan"
        stored = _stored(books, books.device(device), paid.plan_id)
    notes = tuple(Note(code, text) for code, text in paid.detail.get("notes", ()))
    return Started(device, stored, Money(paid.minor, paid.currency), notes)


def _use_trial(desk: Desk, books: Books, account: AccountRow) -> dict[str, Any]:
    """The account has had its trial from now on. Returns its image, for the event."""
    used = replace(account, trial_ms=desk.now_ms())
    books.put_account(used)
    return account_facts(used)


# --- the steps of a purchase ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Order:
    actor: Actor
    device: int
    kind: PlanKind
    retention_days: int | None
    method: str
    reference: str
    amount: Money | None


def _open(desk: Desk, books: Books, order: _Order) -> Started | None:
    """Step 1: the PENDING row. What costs nothing has no payment, and is started here and now."""
    there = books.payment(order.reference)
    if there is not None:
        _require_same(books, order, there)
        return None
    facts = _ready(books, order.actor, order.device)
    terms = prices(desk).terms(order.kind)
    if facts.account == OPERATOR_ACCOUNT:
        raise Unprocessable(
            "the operators' own account is not charged; use `clipkeep plan start`",
            subject=f"device {order.device}",
            code="operator_account",
        )
    _require_price(order.amount, terms.fee)
    change = _bought(desk, books, facts, order.kind, terms, order.retention_days)
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
                "agreement_version": _agreement_version(books),
            },
        )
    )
    return None


def _decide(desk: Desk, books: Books, row: PaymentRow) -> tuple[DeviceFacts, Change]:
    """By the fees of the day of purchase, and by today's calendar: it takes effect on payment (7.2.1)."""
    facts = _not_terminated(books.device(row.device))
    require_open(books.account(facts.account))
    terms = Terms(Money(row.minor, row.currency), Money(row.detail["monthly_fee_minor"], row.currency))
    return facts, _bought(
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
    new = _new(change)
    assert new.terms is not None, "what is bought has terms"
    subject = f"Device {facts.device}: {new.plan.kind} plan, {new.terms.fee}"
    queue(desk, books, books.account(facts.account), "receipt", subject, _receipt_text(new, change.notes))
    return plan_id


def _receipt_text(new: Subscription, notes: tuple[Note, ...]) -> str:
    last = _last_day(new.plan)
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


def _free(desk: Desk, books: Books, facts: DeviceFacts, order: _Order, change: Change) -> Started:
    bought = Bought(order.method, _agreement_version(books))
    plan_id = _subscribe(desk, books, order.actor, facts, change, bought, order.reference)
    stored = _stored(books, books.device(order.device), plan_id)
    return Started(order.device, stored, prices(desk).annual.zero, change.notes)


def _free_before(books: Books, facts: DeviceFacts, order: _Order) -> Started | None:
    """What was started under this reference already: without a payment, the history is what remembers it."""
    after = 0
    while events := books.events_of(facts.account, after=after, limit=_PAGE):
        for event in events:
            if event.what == "subscribed" and event.facts.get("reference") == order.reference:
                stored = _stored(books, facts, event.facts["plan_id"])
                return Started(order.device, stored, None)
        after = events[-1].event_id
    return None


# --- shared -----------------------------------------------------------------------------------------------------------


def _ready(books: Books, actor: Actor, device: int) -> DeviceFacts:
    """A device that may get a plan."""
    facts = device_of(books, actor, device)
    require_open(account_of(books, actor, facts.account))
    return _not_terminated(facts)


def _not_terminated(facts: DeviceFacts) -> DeviceFacts:
    if facts.terminated_ms is not None:
        raise Conflict(
            "this device was terminated; add a new one", subject=f"device {facts.device}", code="terminated"
        )
    return facts


def _bought(
    desk: Desk,
    books: Books,
    facts: DeviceFacts,
    kind: PlanKind,
    terms: Terms,
    retention_days: int | None,
) -> Change:
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


def _require_same(books: Books, order: _Order, there: PaymentRow) -> None:
    facts = device_of(books, order.actor, order.device)
    had = (there.account, there.device, there.detail.get("plan"), there.detail.get("retention_days"))
    asked = (facts.account, order.device, str(order.kind), order.retention_days)
    if had != asked or there.detail.get("for") != PURCHASE:
        raise Conflict(
            "another payment has this reference; choose a new one for each purchase",
            subject=order.reference,
            code="reference_taken",
        )


def _agreement_version(books: Books) -> int:
    try:
        return books.agreement().version
    except NotFound:
        return 0


def _new(change: Change) -> Subscription:
    assert change.new is not None, "a purchase makes a plan"
    return change.new


def _stored(books: Books, facts: DeviceFacts, plan_id: int) -> Subscription:
    [found] = [sub for sub in held(books, facts) if sub.plan_id == plan_id]
    return found


def _last_day(plan: Plan) -> date:
    assert plan.ends_on is not None, "what is paid for has a last day"
    return plan.ends_on


def _day_after(day: date) -> date:
    return date.fromordinal(day.toordinal() + 1)
