"""Between the rows of the catalog and what the rules speak of. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from retention.entitlements import plan_of, row_of
from retention.money import Money
from retention.subscriptions import Subscription
from retention.terms import NextFee, Terms
from storage.days import to_date, to_day
from storage.rows.accounts import SubscriptionRow
from storage.rows.devices import PlanRow


def subscriptions_of(plans: Iterable[PlanRow], rows: Iterable[SubscriptionRow]) -> tuple[Subscription, ...]:
    """The subscriptions of one device: its plans in their order, each with what was agreed about it; a plan
    without a row was granted."""
    by_plan = {row.plan_id: row for row in rows}
    return tuple(_subscription(plan, by_plan.get(plan.plan_id)) for plan in plans)


def plan_rows(subs: Sequence[Subscription]) -> tuple[PlanRow, ...]:
    """The plans to store: the after-image of a `Change` as `DeviceFacts.plans`; a new one has number 0."""
    return tuple(row_of(sub.plan, sub.plan_id) for sub in subs)


def updated(row: SubscriptionRow, sub: Subscription) -> SubscriptionRow:
    """The row with what a rule may change about it."""
    if sub.terms is None:
        return replace(row, renews=sub.renews)
    told = sub.next_fee
    return replace(
        row,
        renews=sub.renews,
        fee_minor=sub.terms.fee.minor,
        monthly_fee_minor=sub.terms.monthly_fee.minor,
        fee_version=sub.fee_version,
        next_fee_version=0 if told is None else told.version,
        next_fee_minor=0 if told is None else told.fee.minor,
        next_fee_on=0 if told is None else to_day(told.on),
    )


def _subscription(plan: PlanRow, row: SubscriptionRow | None) -> Subscription:
    if row is None:
        return Subscription(plan.plan_id, plan_of(plan))
    terms = Terms(Money(row.fee_minor, row.currency), Money(row.monthly_fee_minor, row.currency))
    told = None
    if row.next_fee_version:
        fee = Money(row.next_fee_minor, row.currency)
        told = NextFee(fee, row.next_fee_version, to_date(row.next_fee_on))
    return Subscription(plan.plan_id, plan_of(plan), terms, row.renews, row.fee_version, told)
