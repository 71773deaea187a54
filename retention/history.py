"""The history of an account as data: what happened, and what it comes to. Pure.

Each event carries the after-image of what it changed, so the newest image of each thing is its state: replaying
all events of an account gives what the tables hold. Neither addresses nor names nor password hashes are in an
image: an event says that one changed, not from what to what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from retention.money import Money
from retention.plans import Plan, PlanKind
from retention.subscriptions import Subscription
from retention.terms import NextFee, Terms
from storage.errors import CallerError, Unprocessable
from storage.rows.accounts import AccountRow, AccountState, ClosingState, EventRow

ACCOUNT, PLANS = "account", "plans"
"""Names of the images in an event's facts; other facts may stand beside them."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How an account stands: what of its row is not personal."""

    state: AccountState
    activated_ms: int | None
    suspended_ms: int | None
    trial_ms: int | None
    closing: ClosingState
    closing_ms: int | None
    closing_by: str
    cancelled_on: int | None


@dataclass(frozen=True, slots=True)
class History:
    """What events come to.

    Args:
        standing: None when no event told.
        devices: subscriptions by device number.
    """

    standing: Standing | None = None
    devices: Mapping[int, tuple[Subscription, ...]] = field(default_factory=dict)


def standing_of(row: AccountRow) -> Standing:
    return Standing(
        row.state,
        row.activated_ms,
        row.suspended_ms,
        row.trial_ms,
        row.closing,
        row.closing_ms,
        row.closing_by,
        row.cancelled_on,
    )


def account_facts(row: AccountRow) -> dict[str, Any]:
    """Return the facts of an event that changed the account: JSON, for `EventRow.facts`."""
    standing = standing_of(row)
    image = {name: getattr(standing, name) for name in Standing.__slots__}
    return {ACCOUNT: {**image, "state": str(standing.state), "closing": str(standing.closing)}}


def plan_facts(subs: Sequence[Subscription]) -> dict[str, Any]:
    """Return the facts of an event that changed a device's subscriptions: all of them as they are now, stored, so
    with their numbers. The event's `device` says whose they are.

    Raises:
        CallerError: `bad_event`, one has no number yet.
    """
    if not all(sub.plan_id for sub in subs):
        raise Unprocessable("a plan is told about when it is stored and has its number", code="bad_event")
    return {PLANS: [_image(sub) for sub in subs]}


def replay(events: Iterable[EventRow]) -> History:
    """Return what the events of one account come to.

    Args:
        events: in the order of their numbers.

    Raises:
        CallerError: `bad_event`: out of order, of two accounts, or with facts that say nothing.
    """
    standing: Standing | None = None
    devices: dict[int, tuple[Subscription, ...]] = {}
    last: EventRow | None = None
    for event in events:
        if last and (event.event_id <= last.event_id or event.account != last.account):
            raise _bad(event, "it is out of order, or of another account")
        last = event
        try:
            if ACCOUNT in event.facts:
                standing = _standing(event.facts[ACCOUNT])
            if PLANS in event.facts:
                devices[_device(event)] = tuple(_subscription(image) for image in event.facts[PLANS])
        except (KeyError, TypeError, ValueError, CallerError) as error:
            raise _bad(event, f"its facts can't be read: {error!r}") from error
    return History(standing, devices)


def _device(event: EventRow) -> int:
    if event.device is None:
        raise ValueError("it does not say of which device")
    return event.device


def _image(sub: Subscription) -> dict[str, Any]:
    plan, terms, told = sub.plan, sub.terms, sub.next_fee
    return {
        "plan": sub.plan_id,
        "kind": str(plan.kind),
        "starts_on": plan.starts_on.isoformat(),
        "ends_on": None if plan.ends_on is None else plan.ends_on.isoformat(),
        "retention_days": plan.retention_days,
        "package": plan.package,
        "package_version": plan.version,
        "limit_class": plan.limit_class,
        "cancelled_on": None if plan.cancelled_on is None else plan.cancelled_on.isoformat(),
        "renews": sub.renews,
        "currency": None if terms is None else terms.currency,
        "fee_minor": None if terms is None else terms.fee.minor,
        "monthly_fee_minor": None if terms is None else terms.monthly_fee.minor,
        "fee_version": sub.fee_version,
        "next_fee": None if told is None else [told.fee.minor, told.version, told.on.isoformat()],
    }


def _subscription(image: Mapping[str, Any]) -> Subscription:
    plan = Plan(
        PlanKind(image["kind"]),
        date.fromisoformat(image["starts_on"]),
        image["retention_days"],
        None if image["ends_on"] is None else date.fromisoformat(image["ends_on"]),
        None if image["cancelled_on"] is None else date.fromisoformat(image["cancelled_on"]),
        image.get("package", ""),  # images of earlier releases have none
        image.get("package_version", 0),
        image.get("limit_class", 0),
    )
    currency = image["currency"]
    terms = (
        None
        if currency is None
        else Terms(Money(image["fee_minor"], currency), Money(image["monthly_fee_minor"], currency))
    )
    told = image.get("next_fee")
    next_fee = (
        None if told is None else NextFee(Money(told[0], currency), told[1], date.fromisoformat(told[2]))
    )
    return Subscription(image["plan"], plan, terms, image["renews"], image.get("fee_version", 0), next_fee)


def _standing(image: Mapping[str, Any]) -> Standing:
    values = {name: image[name] for name in Standing.__slots__}
    values["state"] = AccountState(values["state"])
    values["closing"] = ClosingState(values["closing"])
    return Standing(**values)


def _bad(event: EventRow, detail: str) -> CallerError:
    return Unprocessable(detail, subject=f"event {event.event_id}", code="bad_event")
