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

    Without a date it starts today; behind a plan that runs or is to come, on the day after that one's last
    (agreement 7.2.1); during a trial at once (7.1).

    Raises:
        CallerError: `plan_overlaps`: it would run at the same time as another paid plan; the text says which.
            `plan_renews`: the running plan renews itself and has no last day; cancel it first.
            And those of `start_plan`.
    """
    others = [plan for plan in plans if plan.kind is not PlanKind.TRIAL and not plan.has_ended(today)]
    if starts_on is None:
        starts_on = today
        for plan in others:
            if plan.ends_on is None:
                raise CallerError(
                    f"the monthly plan since {plan.starts_on} renews itself; cancel it, and the new one follows it",
                    code="plan_renews",
                )
            starts_on = max(starts_on, plan.ends_on + timedelta(days=1))
    begun = start_plan(kind, starts_on, retention_days, default_retention_days)
    for plan in plans if kind is PlanKind.TRIAL else others:
        if _overlap(plan, begun):
            until = "further notice" if plan.ends_on is None else str(plan.ends_on)
            raise CallerError(
                f"the {plan.kind} plan from {plan.starts_on} runs until {until}; start this one after it",
                code="plan_overlaps",
            )
    return begun


def _overlap(a: Plan, b: Plan) -> bool:
    return (a.ends_on is None or b.starts_on <= a.ends_on) and (b.ends_on is None or a.starts_on <= b.ends_on)
