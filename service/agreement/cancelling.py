"""Cancelling a subscription, and what it gives back (agreement 7.2.1, 8.1, 8.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from retention.cancelling import Cancellation, Outcomes, outcomes
from retention.cancelling import cancel as cancel_rule
from retention.plans import Plan, PlanKind
from retention.subscriptions import Subscription
from service.agreement.charging import Account, give_back, owe
from service.agreement.desk import Actor, Desk, Told, device_of, unheard
from service.agreement.errors import Unprocessable
from service.agreement.holdings import held, keep
from service.agreement.outbox import tell
from service.agreement.refunding import MAX_PLAN_ID
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import PaymentRow
from storage.rows.devices import DeviceFacts


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What was done.

    Args:
        subscription: as it is stored now.
        refunds: the payments that give back `cancellation.refund`; DONE, or PENDING while the gateway can't be reached,
            or FAILED when it refused, which an operator must see to.
    """

    device: int
    subscription: Subscription
    cancellation: Cancellation
    refunds: tuple[PaymentRow, ...]


def quote(desk: Desk, actor: Actor, plan_id: int) -> tuple[int, Outcomes]:
    """(device, both outcomes): of keeping the plan to its end, and of cancelling it now. Nothing is changed.

    Raises:
        NotFound: no such subscription, or somebody else's.
        Conflict, Unprocessable: it can't be cancelled, as `cancel` says.
    """
    with desk.reading() as books:
        facts = _device_of_plan(books, actor, plan_id)
        subscriptions = held(books, facts)
        account = _account(desk, books, plan_id, subscriptions)
        found = outcomes(
            subscriptions, plan_id, today=desk.date(), paid=account.paid, credits=account.credits
        )
        return facts.device, found


def cancel(
    desk: Desk, actor: Actor, plan_id: int, *, why: str = "", told: Told[Cancelled] = unheard
) -> Cancelled:
    """Cancel a subscription, bought or granted, and give back what is due. One transaction decides and owes the refund;
    the gateway follows, and `settling` where it can't be reached or this is killed.

    Args:
        told: called in that transaction with what was done; the refunds are PENDING then.

    Raises:
        NotFound: no such subscription, or somebody else's.
        Conflict: `plan_already_cancelled`.
        Unprocessable: `trial_cannot_be_cancelled`, `plan_ended`, `bad_text`.
    """
    return _cancel(desk, actor, why, lambda books: (_device_of_plan(books, actor, plan_id), plan_id), told)


def cancel_of_device(
    desk: Desk, actor: Actor, device: int, *, plan_id: int | None = None, why: str = ""
) -> Cancelled:
    """Cancel a plan of a device, bought or granted.

    Args:
        plan_id: None takes the one that ends last of those that go on: what is to follow before what runs.

    Raises:
        NotFound: the device, or the plan.
        Conflict: `plan_already_cancelled`.
        Unprocessable: `no_running_plan`, `trial_cannot_be_cancelled`, `plan_ended`, `bad_text`.
    """

    def choose(books: Books) -> tuple[DeviceFacts, int]:
        facts = device_of(books, actor, device)
        if plan_id is not None:
            return facts, plan_id
        open_plans = [
            sub
            for sub in held(books, facts)
            if sub.plan.cancelled_on is None and sub.plan.has_days and not sub.plan.has_ended(desk.date())
        ]
        if not open_plans:
            raise Unprocessable(
                "no plan of this device can be cancelled: none runs, or it is cancelled already",
                subject=f"device {device}",
                code="no_running_plan",
            )
        chosen = max(open_plans, key=lambda sub: (sub.plan.kind is not PlanKind.TRIAL, sub.plan.starts_on))
        return facts, chosen.plan_id

    return _cancel(desk, actor, why, choose, unheard)


# --- the decision -----------------------------------------------------------------------------------------------------


def _cancel(
    desk: Desk,
    actor: Actor,
    why: str,
    choose: Callable[[Books], tuple[DeviceFacts, int]],
    told: Told[Cancelled],
) -> Cancelled:
    why = one_line(why, "the reason", least=0)

    def decide(books: Books) -> Cancelled:
        facts, plan_id = choose(books)
        done = _decide(desk, books, actor, facts, plan_id, why)
        told(books, done)
        return done

    done = desk.change(decide)
    for refund in done.refunds:
        give_back(desk, refund.reference)
    with desk.reading() as books:
        refunds = (books.payment(refund.reference) for refund in done.refunds)
        return replace(done, refunds=tuple(row for row in refunds if row is not None))


def _decide(desk: Desk, books: Books, actor: Actor, facts: DeviceFacts, plan_id: int, why: str) -> Cancelled:
    subscriptions = held(books, facts)
    account = _account(desk, books, plan_id, subscriptions)
    done = cancel_rule(subscriptions, plan_id, today=desk.date(), paid=account.paid, credits=account.credits)
    keep(
        desk,
        books,
        actor,
        facts,
        done.change.after,
        what="plan_cancelled",
        why=why,
        more={
            "plan_id": plan_id,
            "refund_minor": done.refund.minor,
            "currency": done.refund.currency,
        },
    )
    reason = f"cancelled: plan {plan_id}"
    parts = account.refundable(done.refund)
    owed = tuple(owe(desk, books, charge, minor, reason, plan_id=plan_id) for charge, minor in parts)
    [plan] = [sub.plan for sub in subscriptions if sub.plan_id == plan_id]
    _tell(desk, books, facts, plan, done)
    [stored] = [sub for sub in held(books, books.device(facts.device)) if sub.plan_id == plan_id]
    return Cancelled(facts.device, stored, done, owed)


def _tell(desk: Desk, books: Books, facts: DeviceFacts, plan: Plan, done: Cancellation) -> None:
    fields = {
        "device": facts.device,
        "plan": plan.name,
        "refund": done.refund,
        "notes": "\n".join(note.text for note in done.change.notes),
    }
    account = books.account(facts.account)
    if done.last_day is None:
        tell(desk, books, account, "cancelled-unbegun", **fields)
    elif done.denied_from_ms is None:
        tell(desk, books, account, "cancelled-followed", **fields, last_day=done.last_day)
    else:
        instant = datetime.fromtimestamp(done.denied_from_ms / 1000, UTC)
        ends_at = f"{instant:%Y-%m-%d %H:%M}"
        tell(desk, books, account, "cancelled", **fields, last_day=done.last_day, ends_at=ends_at)


def _device_of_plan(books: Books, actor: Actor, plan_id: int) -> DeviceFacts:
    """Of any plan: one that was granted is cancelled too, and that a trial can't be is for the rules to say (7.1)."""
    if not 0 < plan_id <= MAX_PLAN_ID:
        raise _missing(plan_id)
    try:
        return device_of(books, actor, books.device_of_plan(plan_id).device)
    except NotFound:
        raise _missing(plan_id) from None


def _missing(plan_id: int) -> NotFound:
    return NotFound("there is no such subscription", subject=f"plan {plan_id}")


def _account(desk: Desk, books: Books, plan_id: int, subscriptions: tuple[Subscription, ...]) -> Account:
    """What was paid for a plan; nothing, in today's currency, for one that was granted."""
    terms = [sub.terms for sub in subscriptions if sub.plan_id == plan_id and sub.terms is not None]
    if not terms:
        return Account([], desk.settings.currency)
    return Account(books.payments_of_plan(plan_id), terms[0].currency)
