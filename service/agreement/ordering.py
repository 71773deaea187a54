"""The steps of a purchase: what was ordered, the pending charge, the plan that is made of it (agreement 7.2).

`purchases` is the door; `charging` does the part with the gateway in between, and `settling` all of it again for an
order that a killed process left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from retention import packages as package_rules
from retention.money import Money
from retention.orders import OrderState, may_be_paid, while_pending
from retention.packages import Package
from retention.plans import Plan
from retention.subscriptions import Change, Note, Subscription
from retention.subscriptions import buy as buy_rule
from retention.terms import Terms
from service.agreement import packages
from service.agreement.charging import Purpose
from service.agreement.desk import Actor, Desk, account_of, device_of, require_open
from service.agreement.details import (
    PURCHASE,
    PurchaseDetail,
    actor_of,
    is_abandoned,
    purchase_of,
    purpose_of,
)
from service.agreement.errors import Conflict, Forbidden, Unprocessable
from service.agreement.holdings import Bought, held, keep
from service.agreement.methods import charged_to
from service.agreement.outbox import tell
from service.agreement.payments import PaymentExpired, PurchaseAbandoned
from service.agreement.texts import moment
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import (
    OPERATOR_ACCOUNT,
    AcceptanceRow,
    AccountRow,
    PaymentKind,
    PaymentRow,
    PaymentState,
)
from storage.rows.devices import DeviceFacts, PlanRow

_MS_PER_H = 3_600_000


@dataclass(frozen=True, slots=True)
class Started:
    """A plan that was started, as it is stored; `fee` None when nothing was paid."""

    device: int
    subscription: Subscription
    fee: Money | None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for, checked for form. `package` is a name; `reference` is the payment's, and the purchase's."""

    actor: Actor
    device: int
    package: str
    retention_days: int | None
    method: str
    reference: str
    amount: Money | None


def open_order(desk: Desk, books: Books, order: Order) -> None:
    """Step 1: the PENDING row. A plan that costs nothing is made here and now, of a payment of nothing that is DONE."""
    there = books.payment(order.reference)
    if there is not None:
        _require_same(books, order, there)
        return
    facts = ready(books, order.actor, order.device)
    _require_none_open(desk, books, order.device)
    package = packages.on_sale(desk, books, order.package)
    terms = package.terms(order.amount.currency if order.amount else desk.settings.currency)
    if facts.account == OPERATOR_ACCOUNT:
        raise Unprocessable(
            "the operators' own account is not charged; use `clipkeep plan start`",
            subject=f"device {order.device}",
            code="operator_account",
        )
    _require_price(order.amount, terms.fee)
    require_offered(package, order.actor, order.retention_days)
    change = buying(desk, books, facts, package, terms, order.retention_days)
    method = charged_to(desk, books, facts.account, order.method)
    row = books.add_payment(
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
            why=f"{package.name} plan, device {order.device}",
            at_ms=desk.now_ms(),
            detail=PurchaseDetail(
                order.actor.role,
                method,
                package.plan_kind,
                order.retention_days,
                terms.monthly_fee.minor,
                agreement_version(books),
                package.name,
                package.version,
                operator=order.actor.operator,
                reason=order.actor.reason,
            ).stored(),
        )
    )
    if not terms.fee:
        done = replace(row, state=PaymentState.DONE, settled_ms=desk.now_ms())
        books.put_payment(_make(desk, books, done, (facts, change)))


def order_state(desk: Desk, row: PaymentRow) -> OrderState:
    """How a purchase stands whose charge is PENDING."""
    return while_pending(
        ordered_ms=row.at_ms,
        now_ms=desk.now_ms(),
        ttl_ms=purchase_ttl_ms(desk),
        abandoned=is_abandoned(row),
    )


def purchase_ttl_ms(desk: Desk) -> int:
    return round(desk.settings.purchase_ttl_h * _MS_PER_H)


def _over(desk: Desk, books: Books, row: PaymentRow) -> bool:
    """Who ordered it does not want it any more, or has long gone: a plan that starts out of the blue is not what was
    asked for."""
    return not may_be_paid(order_state(desk, row))


def _require_none_open(desk: Desk, books: Books, device: int) -> None:
    """Raises Conflict `purchase_open`: another one may still be paid."""
    for row in books.open_charges(device=device):
        if purpose_of(row) == PURCHASE and may_be_paid(order_state(desk, row)):
            until = moment(row.at_ms + purchase_ttl_ms(desk))
            raise Conflict(
                f"a purchase for this device is not paid yet ({row.why}, payment {row.payment_id}): wait for it,"
                f" abandon it, or buy again when it has expired, after {until}",
                subject=f"device {device}",
                code="purchase_open",
            )


def _decide(desk: Desk, books: Books, row: PaymentRow) -> tuple[DeviceFacts, Change]:
    """By the fees of the day of purchase, and by today's calendar: it takes effect on payment (7.2.1)."""
    facts = not_terminated(books.device(row.device))
    require_open(books.account(facts.account))
    asked = purchase_of(row)
    terms = Terms(Money(row.minor, row.currency), Money(asked.monthly_fee_minor, row.currency))
    package = package_rules.of_version(packages.all_of(books), asked.package, asked.version)
    change = buying(desk, books, facts, package, terms, asked.retention_days)
    if is_abandoned(row):
        raise Conflict("it was abandoned; buy it again", code=PurchaseAbandoned.code)
    if _over(desk, books, row):
        raise Conflict("it was not paid in time; buy it again", code=PaymentExpired.code)
    return facts, change


def _make(desk: Desk, books: Books, row: PaymentRow, decided: tuple[DeviceFacts, Change]) -> PaymentRow:
    facts, change = decided
    asked = purchase_of(row)
    bought = Bought(asked.method, asked.agreement_version)
    plan_id = _subscribe(desk, books, actor_of(row), facts, change, bought, row.reference)
    return replace(row, plan_id=plan_id, detail=replace(asked, notes=change.notes).stored())


def _declined(desk: Desk, books: Books, row: PaymentRow) -> None:
    _record(desk, books, row, "purchase_declined")


def _voided(desk: Desk, books: Books, row: PaymentRow) -> None:
    left = is_abandoned(row)
    _record(desk, books, row, "purchase_void" if left else "purchase_expired")
    tell(
        desk,
        books,
        books.account(row.account),
        "purchase_abandoned" if left else "purchase_expired",
        device=row.device,
        money=Money(row.minor, row.currency),
        order=row.why,
    )


def _record(desk: Desk, books: Books, row: PaymentRow, what: str) -> None:
    facts = {"minor": row.minor, "currency": row.currency, "plan": purchase_of(row).package}
    desk.record(books, actor_of(row), row.account, what, device=row.device, facts=facts)


PURCHASES = Purpose(_over, _decide, _make, _declined, _voided)


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
    _send_receipt(desk, books, books.account(facts.account), facts.device, change)
    return plan_id


def _send_receipt(desk: Desk, books: Books, row: AccountRow, device: int, change: Change) -> None:
    new = new_of(change)
    assert new.terms is not None, "what is bought has terms"
    last = last_day(new.plan)
    tell(
        desk,
        books,
        row,
        "receipt-renewing" if new.renews else "receipt",
        device=device,
        plan=new.plan.name,
        money=new.terms.fee,
        storage_days=new.plan.retention_days,
        first_day=new.plan.starts_on,
        last_day=last,
        ends_on=_day_after(last),
        notes="\n".join(note.text for note in change.notes),
    )


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
    package: Package,
    terms: Terms,
    retention_days: int | None,
) -> Change:
    """What buying does to the device's plans, by the rules and today's calendar."""
    require_room(desk, books, facts, package)
    return buy_rule(held(books, facts), package.offer(retention_days), terms, today=desk.date())


def require_room(desk: Desk, books: Books, facts: DeviceFacts, package: Package) -> None:
    """Raises Conflict `package_devices`: as many other devices of the account have a plan of it as it is for."""
    today = desk.today()
    if not package.max_devices:
        return
    others = [
        other.device
        for other in books.devices_of(facts.account)
        if other.device != facts.device
        and other.terminated_ms is None
        and any(_goes_on(plan, package.name, today) for plan in other.plans)
    ]
    if len(others) >= package.max_devices:
        named = ", ".join(str(device) for device in others[:10])
        raise Conflict(
            f"{package.name} is for so many devices of an account: {package.max_devices}. These have it: {named}."
            " Choose another package for this one",
            subject=f"device {facts.device}",
            code="package_devices",
        )


def _goes_on(plan: PlanRow, package: str, today: int) -> bool:
    return plan.package == package and (plan.ends_on is None or plan.ends_on >= max(today, plan.starts_on))


def require_offered(package: Package, actor: Actor, retention_days: int | None) -> None:
    """The fee is for the package's own days of storage."""
    days = package.retention_days
    if retention_days not in (None, days) and not actor.may_see_all:
        raise Forbidden(
            f"{package.name} comes with {days} days of storage; only operators may give another number of days",
            code="operators_only",
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
    had = None
    if purpose_of(there) == PURCHASE:
        ordered = purchase_of(there)
        had = (there.account, there.device, ordered.package, ordered.retention_days)
    if had != (facts.account, order.device, order.package, order.retention_days):
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
