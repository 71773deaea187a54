"""Trials, purchases and grants: how a device comes to a plan (agreement 7.1, 7.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from retention.history import account_facts
from retention.money import Money
from retention.packages import newest, trial_on_sale
from retention.plans import PlanKind, denied_from_ms
from retention.subscriptions import Note
from retention.subscriptions import grant as grant_rule
from retention.subscriptions import start_trial as trial_rule
from service.agreement import packages, serials
from service.agreement.charging import MAX_CHARGE_REFERENCE_CHARS, pay
from service.agreement.desk import Actor, Desk, Told, device_of, unheard
from service.agreement.details import purchase_of
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.holdings import held, keep
from service.agreement.ordering import (
    PURCHASES,
    Order,
    Started,
    agreement_version,
    buying,
    last_day,
    new_of,
    not_terminated,
    open_order,
    ready,
    require_offered,
    require_room,
    stored_plan,
)
from service.agreement.payments import checked_method, checked_reference
from storage.catalog.books import Books
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow
from storage.rows.devices import DeviceFacts

__all__ = ["Quote", "Started", "buy", "grant", "quote", "start_trial"]


@dataclass(frozen=True, slots=True)
class Quote:
    """What a purchase now would come to.

    Args:
        package, version: that it would be of.
        ends_on: the last paid day.
        denied_from_ms: 00:00 UTC after it: the instant at which access ends unless the plan renews.
        agreement_version: that a purchase accepts; 0 when none is published.
    """

    device: int
    plan: PlanKind
    package: str
    version: int
    fee: Money
    starts_on: date
    ends_on: date
    denied_from_ms: int
    renews: bool
    retention_days: int
    notes: tuple[Note, ...]
    agreement_version: int


def quote(
    desk: Desk,
    actor: Actor,
    device: int,
    package: str,
    *,
    retention_days: int | None = None,
    currency: str | None = None,
) -> Quote:
    """What would happen if a plan of this package were bought now. Nothing is changed.

    Args:
        currency: None takes the one that config.toml names.

    Raises:
        NotFound, Forbidden, Conflict, Unprocessable: as `buy` would.
    """
    with desk.reading() as books:
        facts = ready(books, actor, device)
        found = packages.on_sale(desk, books, package)
        require_offered(found, actor, retention_days)
        terms = found.terms(currency or desk.settings.currency)
        change = buying(desk, books, facts, found, terms, retention_days)
        new = new_of(change)
        last = last_day(new.plan)
        return Quote(
            device,
            found.plan_kind,
            found.name,
            found.version,
            terms.fee,
            new.plan.starts_on,
            last,
            denied_from_ms(last),
            new.renews,
            new.plan.retention_days,
            change.notes,
            agreement_version(books),
        )


def start_trial(desk: Desk, actor: Actor, device: int, *, told: Told[Started] = unheard) -> Started:
    """The account's one trial, on this device, from today on (7.1). One transaction: of any number at once, one wins.

    Args:
        told: called in that transaction with what was done.

    Raises:
        NotFound, Forbidden; Conflict: `trial_used`, `serial_trial_used`, `no_serial`, `terminated`, `account_closing`;
            Unprocessable: `plan_overlaps`, `not_for_sale`.
    """

    def start(books: Books) -> Started:
        facts = ready(books, actor, device)
        account = books.account(facts.account)
        used = account.trial_ms is not None
        trial = trial_on_sale(packages.all_of(books), desk.date())
        require_room(desk, books, facts, trial)
        change = trial_rule(held(books, facts), trial.offer(), today=desk.date(), account_trial_used=used)
        image = _use_trial(desk, books, account, facts)
        stored, plan_id = keep(desk, books, actor, facts, change.after, what="trial_started", more=image)
        started = Started(device, stored_plan(books, stored, plan_id), None, change.notes)
        told(books, started)
        return started

    return desk.change(start)


def grant(
    desk: Desk,
    actor: Actor,
    device: int,
    package: str,
    *,
    retention_days: int | None = None,
    starts_on: date | None = None,
    told: Told[Started] = unheard,
) -> Started:
    """A plan without a fee, from an operator; a past date imports one that runs already. A trial on an owner's device
    is the account's one trial; the operators' own account has as many as it has devices. The package may be one that
    is not sold, and its limit of devices is the operator's to go past.

    Raises:
        Forbidden: `operators_only`.
        NotFound; Conflict: `terminated`, `trial_used`; Unprocessable: `plan_overlaps`, `plan_renews`,
            `bad_retention_days`, `trial_retention_fixed`, `date_out_of_range`, `bad_plan_dates`.
    """

    def start(books: Books) -> Started:
        started = grant_in(
            desk, books, actor, device, package, retention_days=retention_days, starts_on=starts_on
        )
        told(books, started)
        return started

    return desk.change(start)


def grant_in(
    desk: Desk,
    books: Books,
    actor: Actor,
    device: int,
    package: str,
    *,
    retention_days: int | None,
    starts_on: date | None,
) -> Started:
    """`grant`, inside `Desk.change`."""
    actor.require_operator()
    facts = not_terminated(device_of(books, actor, device))
    account = books.account(facts.account)
    offer = newest(packages.all_of(books), package).offer(retention_days)
    trial = offer.kind is PlanKind.TRIAL and account.account != OPERATOR_ACCOUNT
    if trial and account.trial_ms is not None:
        raise Conflict(
            "the account of this device had its one trial; start another plan",
            subject=f"account {account.account}",
            code="trial_used",
        )
    change = grant_rule(held(books, facts), offer, today=desk.date(), starts_on=starts_on)
    image = _use_trial(desk, books, account, facts) if trial else None
    stored, plan_id = keep(desk, books, actor, facts, change.after, what="plan_granted", more=image)
    return Started(device, stored_plan(books, stored, plan_id), None, change.notes)


def buy(
    desk: Desk,
    actor: Actor,
    device: int,
    package: str,
    *,
    method: str,
    reference: str,
    retention_days: int | None = None,
    amount: Money | None = None,
) -> Started:
    """Buy a plan of a package: charge its fee, and start it on payment (7.2). The steps are those of `charging`; when
    this is killed, `settling.settle_pending` ends with the plan or with a refund, and so does the same call again.

    Args:
        method: the payment gateway's name for what is charged.
        reference: new for each purchase; the same one is the same purchase, and has the same outcome.
        amount: refused unless it is the price; None takes today's.

    Raises:
        NotFound, Forbidden: the device or the account; `operators_only`: another storage time than the package's.
        PaymentDeclined: nothing was charged.
        PaymentUnavailable: not known yet; the same call again, or `settling`, ends it.
        Conflict: `terminated`, `account_closing`, `reference_taken`, `package_devices`; or what came up
            while the gateway worked, and then the charge is given back.
        Unprocessable: `not_for_sale`, `wrong_currency`, `wrong_amount`, `operator_account`, `bad_retention_days`, …
    """
    if len(checked_reference(reference)) > MAX_CHARGE_REFERENCE_CHARS:
        raise Unprocessable(
            f"the reference of a purchase has at most {MAX_CHARGE_REFERENCE_CHARS} characters",
            code="bad_reference",
        )
    order = Order(actor, device, package, retention_days, checked_method(method), reference, amount)
    desk.change(lambda books: open_order(desk, books, order))
    paid = pay(desk, reference, PURCHASES)
    with desk.reading() as books:
        assert paid.plan_id is not None, "a purchase that was done has its plan"
        stored = stored_plan(books, books.device(device), paid.plan_id)
    return Started(device, stored, Money(paid.minor, paid.currency), purchase_of(paid).notes or ())


def _use_trial(desk: Desk, books: Books, account: AccountRow, facts: DeviceFacts) -> dict[str, Any]:
    """The account, and the device's serial, have had their trial from now on. Returns the account's image, for the
    event. Raises Conflict `serial_trial_used`, `no_serial`."""
    serials.use_trial(desk, books, facts)
    used = replace(account, trial_ms=desk.now_ms())
    books.put_account(used)
    return account_facts(used)
