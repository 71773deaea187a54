"""Plans: who paid for which days. Pure: no clock, no database.

A plan is a catalog row; these functions say what the agreement makes of it. Names tell the unit: `on` and
`*_on` are UTC dates, `*_day` are day numbers (days since 1970-01-01 UTC), which the bitmap understands.

An entitlement is counted in whole UTC days. A plan's last day, `ends_on`, is an entitled day; the first
day denied is the one after.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum

from storage.days import ms_of_day, to_date, to_day
from storage.errors import Conflict, Unprocessable

MIN_RETENTION_DAYS = 1
MAX_RETENTION_DAYS = 255
"""The retention class is one byte of a bitmap row."""

EPOCH = to_date(0)
_DAY = timedelta(days=1)


class PlanKind(StrEnum):
    TRIAL = "trial"
    MONTHLY = "monthly"
    ANNUAL = (
        "annual"  # paid in full for 12 months: the word of rows, histories and answers of before packages
    )
    FULL = "full"  # paid in full for another number of months

    @property
    def is_paid_in_full(self) -> bool:
        return self in (PlanKind.ANNUAL, PlanKind.FULL)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a plan is to be that is started now: `retention.packages` makes them.

    Args:
        retention_days: 1..255.
        months: that a plan paid in full lasts.
        days: that a trial lasts.
        package, version: that it is of; "" and 0: of none.
        limit_class: of the package's limits on uploads; 0: none.
    """

    kind: PlanKind
    retention_days: int
    months: int = 0
    days: int = 0
    package: str = ""
    version: int = 0
    limit_class: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan of one device.

    Args:
        starts_on: first entitled day, 1970-01-01 or later.
        retention_days: 1..255, of the chunks written while it runs.
        ends_on: last entitled day; None for a monthly plan that renews itself. The day before `starts_on`
            says that the plan was cancelled before it began: it has no day.
        cancelled_on: the day it was cancelled, None when it was not.
        package, version: that it was started from; "" and 0: of none. The storage days stay those of the plan.
        limit_class: of that version's limits on uploads; 0: none.

    Raises:
        CallerError: `bad_retention_days` or `bad_plan_dates`.
    """

    kind: PlanKind
    starts_on: date
    retention_days: int
    ends_on: date | None = None
    cancelled_on: date | None = None
    package: str = ""
    version: int = 0
    limit_class: int = 0

    def __post_init__(self) -> None:
        if not MIN_RETENTION_DAYS <= self.retention_days <= MAX_RETENTION_DAYS:
            detail = (
                f"retention is {MIN_RETENTION_DAYS} to {MAX_RETENTION_DAYS} days, not {self.retention_days}"
            )
            raise Unprocessable(detail, code="bad_retention_days")
        if self.starts_on < EPOCH:
            raise Unprocessable(
                f"a plan starts on {EPOCH} or later, not {self.starts_on}", code="bad_plan_dates"
            )
        if self.ends_on is None and (self.kind is not PlanKind.MONTHLY or self.cancelled_on is not None):
            detail = "only a monthly plan that was not cancelled goes on without a last day"
            raise Unprocessable(detail, code="bad_plan_dates")
        if self.ends_on is not None and self.ends_on < self.starts_on - _DAY:
            detail = f"the plan would end on {self.ends_on}, before it starts on {self.starts_on}"
            raise Unprocessable(detail, code="bad_plan_dates")

    def has_ended(self, on: date) -> bool:
        """Whether the last entitled day lies before `on`."""
        return self.ends_on is not None and self.ends_on < on

    def runs(self, on: date) -> bool:
        """Whether `on` is one of its entitled days."""
        return self.starts_on <= on and not self.has_ended(on)

    @property
    def name(self) -> str:
        """What people are told that it is: its package, which is what was bought or granted."""
        return self.package or str(self.kind)

    @property
    def has_days(self) -> bool:
        """False when it was cancelled, or its trial cut, before it had any."""
        return self.ends_on is None or self.ends_on >= self.starts_on


def add_months(start: date, months: int) -> date:
    """Return the day `months` after `start`: same day of the month, clamped to the month's end. Counted from
    `start` each time, so that it comes back: 31 Jan, 28 Feb, 31 Mar.

    Raises:
        CallerError: `date_out_of_range`, outside the years 1 to 9999.
    """
    year, month0 = divmod(start.year * 12 + start.month - 1 + months, 12)
    if not date.min.year <= year <= date.max.year:
        detail = f"{months} months from {start} is no date the calendar has; choose an earlier start"
        raise Unprocessable(detail, code="date_out_of_range")
    day = min(start.day, calendar.monthrange(year, month0 + 1)[1])
    return date(year, month0 + 1, day)


def start_plan(offer: Offer, starts_on: date) -> Plan:
    """Return a new plan: the offer's days of trial, its months less a day, or monthly without an end.

    Raises:
        CallerError: `date_out_of_range`; and those of `Plan`.
    """
    ends_on = None
    if offer.kind is PlanKind.TRIAL:
        ends_on = plus_days(starts_on, offer.days - 1)
    elif offer.kind.is_paid_in_full:
        ends_on = add_months(starts_on, offer.months) - _DAY
    return Plan(
        offer.kind,
        starts_on,
        offer.retention_days,
        ends_on,
        package=offer.package,
        version=offer.version,
        limit_class=offer.limit_class,
    )


def period(plan: Plan, on: date) -> tuple[date, date]:
    """Return first and last day of the plan's month that contains `on`, cut at the plan's end. Plans paid
    in full have months too (a refund counts them); a trial is shorter than one.

    Raises:
        CallerError: `not_in_plan`, `on` is no day of the plan.
    """
    if not plan.runs(on):
        raise Unprocessable(
            f"the plan that starts on {plan.starts_on} does not run on {on}", code="not_in_plan"
        )
    months = months_started(plan, on)
    last = add_months(plan.starts_on, months) - _DAY
    return add_months(plan.starts_on, months - 1), last if plan.ends_on is None else min(last, plan.ends_on)


def months_started(plan: Plan, on: date) -> int:
    """Return how many months of the plan have begun by `on`, at the latest on that day itself (agreement 8.2.1: a
    month counts from its first day on). 0 before the plan starts; not bounded by its end."""
    if on < plan.starts_on:
        return 0
    months = _calendar_months(plan.starts_on, on)
    # The month that starts in the calendar month of `on` has either begun by then, or the one before runs.
    return months + 1 if add_months(plan.starts_on, months) <= on else months


def whole_months(plan: Plan) -> int | None:
    """Return how many months the plan lasts, counted from its start; None where it has no end or ends within a
    month (a trial)."""
    if plan.ends_on is None or plan.ends_on == date.max:
        return None
    behind = plan.ends_on + _DAY
    months = _calendar_months(plan.starts_on, behind)
    return months if add_months(plan.starts_on, months) == behind else None


def moved(plan: Plan, starts_on: date) -> Plan:
    """Return the plan with another first day and the same length: in months where it lasts whole months, else
    in days.

    Raises:
        CallerError: `date_out_of_range`, `bad_plan_dates`.
    """
    if plan.ends_on is None:
        return replace(plan, starts_on=starts_on)
    months = whole_months(plan)
    if months is None:
        return replace(
            plan, starts_on=starts_on, ends_on=plus_days(starts_on, (plan.ends_on - plan.starts_on).days)
        )
    return replace(plan, starts_on=starts_on, ends_on=add_months(starts_on, months) - _DAY)


def denied_from_ms(last_day: date) -> int:
    """Return the instant from which access is denied, in Unix milliseconds: 00:00 UTC after the last entitled
    day (agreement 8.1)."""
    return ms_of_day(to_day(last_day) + 1)


def cancel(plan: Plan, on: date) -> Plan:
    """Return the plan as cancelled on the day `on` (agreement 8.1). What is paid for goes on: a monthly plan
    ends with the period that contains `on`, or never begins when it has not yet; one paid in full keeps its
    last day.

    Raises:
        CallerError: `trial_cannot_be_cancelled` (7.1), `plan_already_cancelled`, `plan_ended`.
    """
    if plan.kind is PlanKind.TRIAL:
        detail = f"a trial ends by itself, on {plan.ends_on}"
        raise Unprocessable(detail, code="trial_cannot_be_cancelled")
    if plan.cancelled_on is not None:
        detail = f"it was cancelled on {plan.cancelled_on}; its last day is {plan.ends_on}"
        raise Conflict(detail, code="plan_already_cancelled")
    if plan.has_ended(on):
        raise Unprocessable(f"its last day was {plan.ends_on}; nothing is left to cancel", code="plan_ended")
    if plan.kind.is_paid_in_full:
        return replace(plan, cancelled_on=on)
    ends_on = plan.starts_on - _DAY if on < plan.starts_on else period(plan, on)[1]
    return replace(plan, ends_on=ends_on, cancelled_on=on)


def windows(plans: Iterable[Plan]) -> list[tuple[int, int | None]]:
    """Return the entitled days of all the plans as day numbers (first, last), both entitled, in order.
    Windows that touch or overlap are one; last is None when there is no end yet."""
    merged: list[tuple[int, int | None]] = []
    for plan in sorted(plans, key=lambda plan: plan.starts_on):
        first_day = to_day(plan.starts_on)
        last_day = None if plan.ends_on is None else to_day(plan.ends_on)
        if last_day is not None and last_day < first_day:
            continue
        if not merged:
            merged.append((first_day, last_day))
            continue
        first, last = merged[-1]
        if last is None:
            break
        if first_day > last + 1:
            merged.append((first_day, last_day))
        else:
            merged[-1] = (first, None if last_day is None else max(last, last_day))
    return merged


def plus_days(start: date, days: int) -> date:
    """Raises:
    CallerError: `date_out_of_range`, outside the years 1 to 9999.
    """
    try:
        return start + timedelta(days=days)
    except OverflowError as error:
        detail = f"{days} days from {start} is no date the calendar has; choose an earlier start"
        raise Unprocessable(detail, code="date_out_of_range") from error


def _calendar_months(start: date, on: date) -> int:
    return (on.year - start.year) * 12 + on.month - start.month
