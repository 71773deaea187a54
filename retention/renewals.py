"""Monthly plans that renew themselves: what is due, which days it pays for, and when it lapses (agreement 7.2.2).
Pure.

The next period is charged some days before the paid one ends, so that there is time to try again. A period's
dates are counted from the plan's first day each time: 31 Jan, 28 Feb, 31 Mar. A plan whose period ends
unpaid lapses for good; nothing is charged for it afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

from retention.plans import PlanKind, add_months, denied_from_ms, whole_months
from retention.subscriptions import Subscription
from storage.errors import CallerError, Unprocessable

LAST_TRY_MS = 3_600_000
"""How long before the end of the paid period a last try is made, where the schedule would be too late."""
_DAY = timedelta(days=1)


def next_period(sub: Subscription) -> tuple[date, date]:
    """Return first and last day of the period behind the last paid day.

    Raises:
        CallerError: `not_renewable`, no monthly plan with a last paid day; `date_out_of_range`.
    """
    plan = sub.plan
    months = whole_months(plan)
    if plan.kind is not PlanKind.MONTHLY or plan.ends_on is None or not months:
        raise Unprocessable(
            "only a monthly plan with a last paid day has a next period",
            subject=f"plan {sub.plan_id}",
            code="not_renewable",
        )
    return plan.ends_on + _DAY, add_months(plan.starts_on, months + 1) - _DAY


def due(sub: Subscription, today: date, charge_ahead_days: int, *, suspended: bool = False) -> bool:
    """Whether the next period is to be charged today: the paid one runs, and ends in `charge_ahead_days` or less.

    Args:
        charge_ahead_days: 0..27, less than any month has, so that at most one period is charged ahead.
        suspended: the account or the device is: it is not charged, since it can't use what it would pay for.
    """
    plan = sub.plan
    if not sub.renews or suspended or plan.ends_on is None or not plan.runs(today):
        return False
    return (plan.ends_on - today).days <= charge_ahead_days and _can_go_on(sub)


def extend(sub: Subscription, *, expected_ends_on: date) -> Subscription:
    """Return the subscription with the next period paid.

    Args:
        expected_ends_on: the last paid day when the charge was begun.

    Raises:
        CallerError: `not_due`: it was extended, cancelled or replaced meanwhile, and the charge must be given back;
            and those of `next_period`.
    """
    if not sub.renews or sub.plan.ends_on != expected_ends_on:
        raise Unprocessable(
            f"the plan does not renew after {expected_ends_on} any more; refund the charge",
            subject=f"plan {sub.plan_id}",
            code="not_due",
        )
    return replace(sub, plan=replace(sub.plan, ends_on=next_period(sub)[1]))


def lapse_unpaid(sub: Subscription, today: date) -> Subscription:
    """Return the subscription without renewal when its period has ended unpaid; else itself."""
    return replace(sub, renews=False) if sub.renews and sub.plan.has_ended(today) else sub


def retry_at_ms(sub: Subscription, *, now_ms: int, retry_ms: int) -> int:
    """Return when the plan is looked at again after a charge that failed now: after `retry_ms`, but once more in the
    last hour of the paid period where that would be too late, and where that is too late too, at the period's end,
    when it lapses."""
    wanted = now_ms + retry_ms
    if sub.plan.ends_on is None:
        return wanted
    end = denied_from_ms(sub.plan.ends_on)
    last_try = end - LAST_TRY_MS
    return next((at for at in (last_try, end) if now_ms < at < wanted), wanted)


def _can_go_on(sub: Subscription) -> bool:
    """False in the last month that the calendar has."""
    try:
        next_period(sub)
    except CallerError:
        return False
    return True
