"""What happens when a plan is bought: when it begins, beside or behind those that are there. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from retention.plans import Plan, PlanKind, start_plan
from storage.errors import CallerError


def begin(
    plans: Sequence[Plan],
    kind: PlanKind,
    *,
    today: date,
    starts_on: date | None,
    retention_days: int | None,
    default_retention_days: int,
) -> Plan:
    """The new plan of a device.

    Without a date it starts today; behind a paid plan that runs or is to come, on the day after that one's last
    (agreement 7.2.1); during a trial at once (7.1). A plan cancelled before it began has no day, and counts for
    nothing.

    Raises:
        CallerError: `plan_overlaps`: it would run on a day of another paid plan (a trial: of any other), even one
            that ended; the text says which.
            `plan_renews`: the running plan renews itself and has no last day; cancel it first.
            And those of `start_plan`.
    """
    there = [plan for plan in plans if plan.ends_on is None or plan.ends_on >= plan.starts_on]
    paid = [plan for plan in there if plan.kind is not PlanKind.TRIAL]
    if starts_on is None:
        starts_on = today
        for plan in paid:
            if plan.ends_on is None:
                raise CallerError(
                    f"the monthly plan since {plan.starts_on} renews itself; cancel it, and the new one follows it",
                    code="plan_renews",
                )
            starts_on = max(starts_on, plan.ends_on + timedelta(days=1))
    begun = start_plan(kind, starts_on, retention_days, default_retention_days)
    for plan in there if kind is PlanKind.TRIAL else paid:
        if _overlap(plan, begun):
            raise CallerError(_overlaps(plan), code="plan_overlaps")
    return begun


def _overlap(a: Plan, b: Plan) -> bool:
    return (a.ends_on is None or b.starts_on <= a.ends_on) and (b.ends_on is None or a.starts_on <= b.ends_on)


def _overlaps(plan: Plan) -> str:
    if plan.ends_on is None:
        return f"the monthly plan since {plan.starts_on} renews itself; cancel it first, and start this one behind it"
    return f"it would share days with the {plan.kind} plan from {plan.starts_on} to {plan.ends_on}; choose others"
