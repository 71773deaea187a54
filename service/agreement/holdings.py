"""What a device holds: its plans with what was agreed about them, read from and written to the books as one.

The rules of `retention` see `Subscription`s. The books keep them in two rows, since a plan is what the device may do
and a subscription what was paid: `PlanRow`, and for what was bought the `SubscriptionRow` of the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retention.entries import plan_rows, subscriptions_of, updated
from retention.erasure import mark_renewed
from retention.history import plan_facts
from retention.subscriptions import Subscription
from retention.terms import Terms
from service.agreement.desk import Actor, Desk
from storage.catalog.books import Books
from storage.rows.accounts import SubscriptionRow
from storage.rows.devices import DeviceFacts


@dataclass(frozen=True, slots=True)
class Bought:
    """What the books keep of a new subscription beside its terms."""

    method: str
    agreement_version: int


def held(books: Books, facts: DeviceFacts) -> tuple[Subscription, ...]:
    """All subscriptions of a device, in order of their plans' numbers."""
    if not facts.plans:
        return ()
    return subscriptions_of(facts.plans, books.subscriptions_of_device(facts.device))


def held_by_each(books: Books, found: Sequence[DeviceFacts]) -> list[tuple[Subscription, ...]]:
    """`held`, of several devices at once."""
    with_plans = [facts.device for facts in found if facts.plans]
    of_device: dict[int, list[SubscriptionRow]] = {}
    for row in books.subscriptions_of_device(*with_plans) if with_plans else ():
        of_device.setdefault(row.device, []).append(row)
    return [
        subscriptions_of(facts.plans, of_device.get(facts.device, [])) if facts.plans else ()
        for facts in found
    ]


def keep(
    desk: Desk,
    books: Books,
    actor: Actor,
    facts: DeviceFacts,
    after: Sequence[Subscription],
    *,
    what: str,
    why: str = "",
    bought: Bought | None = None,
    also: Callable[[DeviceFacts], DeviceFacts] = lambda facts: facts,
    more: Mapping[str, Any] | None = None,
) -> tuple[DeviceFacts, int]:
    """Write what the rules made of a device's subscriptions: plans, subscriptions, and the event with the after-image.
    Inside `Desk.change`.

    Args:
        facts: as read in this transaction.
        after: at most one is new (`plan_id` 0).
        what: the event's code.
        bought: for a new subscription that has terms.
        also: what else changes of the device.
        more: facts of the event, beside the after-image.

    Returns:
        The device's new facts, and the id of the new plan, 0 when there is none.
    """
    new = [sub for sub in after if not sub.plan_id]
    assert len(new) <= 1, "one decision makes one plan"

    def change(old: DeviceFacts) -> DeviceFacts:
        renewed = mark_renewed(old) if new else old
        return also(replace(renewed, plans=plan_rows(after)))

    stored = facts
    if change(facts) != facts:
        stored = books.change_device(facts.device, change, what=f"{actor.role}: {what}")
    there = {plan.plan_id for plan in facts.plans}
    new_id = next((plan.plan_id for plan in stored.plans if plan.plan_id not in there), 0)
    numbered = [sub if sub.plan_id else replace(sub, plan_id=new_id) for sub in after]
    rows = {row.plan_id: row for row in books.subscriptions_of_device(facts.device)}
    for sub in numbered:
        row = rows.get(sub.plan_id)
        if row is not None and (changed := updated(row, sub)) != row:
            books.put_subscription(changed)
        elif row is None and sub.terms is not None:
            assert bought is not None, "what has terms was bought"
            books.add_subscription(_row(desk, facts, sub, sub.terms, bought))
    image = {**plan_facts(numbered), **({"plan_id": new_id} if new_id else {}), **(more or {})}
    desk.record(books, actor, facts.account, what, why=why, device=facts.device, facts=image)
    return stored, new_id


def _row(desk: Desk, facts: DeviceFacts, sub: Subscription, terms: Terms, bought: Bought) -> SubscriptionRow:
    return SubscriptionRow(
        plan_id=sub.plan_id,
        account=facts.account,
        device=facts.device,
        currency=terms.currency,
        fee_minor=terms.fee.minor,
        monthly_fee_minor=terms.monthly_fee.minor,
        renews=sub.renews,
        method=bought.method,
        agreement_version=bought.agreement_version,
        bought_ms=desk.now_ms(),
    )
