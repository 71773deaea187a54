"""The fee of monthly plans that run, when their package is sold at another price (agreement 7.2.2, 11.2, 3.1). Pure.

A plan keeps the fee of its purchase until an operator *applies* a newer version of its package to the plans that run.
Then its owner is told, and the new fee is that of the first period that begins when the notice has run out; a lower fee
is that of the next period. Until then the owner may leave, and pays the old fee.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from enum import StrEnum

from retention.packages import Package
from retention.plans import add_months
from retention.renewals import next_period
from retention.subscriptions import Subscription
from retention.terms import NextFee, Terms


class Outcome(StrEnum):
    """What is to be said of a subscription whose package has another price."""

    NOTHING = "nothing"
    TOLD = "told"
    WITHDRAWN = "withdrawn"  # what its owner was told of does not come
    WITHOUT_PRICE = "without_price"  # in its currency: it keeps its fee


def applied(packages: Iterable[Package], name: str) -> Package | None:
    """The version of a package whose price is to be that of running plans too: the newest that was applied."""
    found = [package for package in packages if package.name == name and package.is_applied]
    return max(found, key=lambda package: package.version, default=None)


def paid_version(sub: Subscription) -> int:
    """The version of its package whose fee it pays."""
    return sub.fee_version or sub.plan.version


def changed(
    sub: Subscription, target: Package | None, *, today: date, notice_days: int, is_charging: bool = False
) -> tuple[Subscription, Outcome]:
    """What becomes of one subscription. Asked again, it changes nothing more. No plan that runs has a price before the
    package is sold at it.

    Args:
        target: `applied`. None, or one that the subscription pays already: what was told and did not take effect is
            withdrawn.
        notice_days: 1 or more: a higher fee is that of a period that begins later than so many days after today.
        is_charging: the next period is being charged, at the fee of before.
    """
    if not sub.renews or sub.terms is None:
        return sub, Outcome.NOTHING
    if target is None or target.version <= paid_version(sub):
        return _without_next(sub)
    terms = target.prices.get(sub.terms.currency)
    if terms is None:
        kept, outcome = _without_next(sub)
        return kept, Outcome.WITHOUT_PRICE if outcome is Outcome.NOTHING else outcome
    if terms.fee == sub.terms.fee:
        return _without_next(replace(sub, fee_version=target.version))
    if sub.next_fee is not None and sub.next_fee.version == target.version:
        return sub, Outcome.NOTHING
    is_raise = terms.fee.minor > sub.terms.fee.minor
    wait_days = notice_days + 1 if is_raise else 0
    on = max(today + timedelta(days=wait_days), target.sold_from)
    if is_charging:
        on = max(on, next_period(sub)[0] + timedelta(days=1))
    return replace(sub, next_fee=NextFee(terms.fee, target.version, on)), Outcome.TOLD


def taken_up(sub: Subscription, target: Package | None) -> Subscription:
    """The subscription as its next period is charged: at the new fee, when the notice has run out before that period
    begins, and what was told was not withdrawn or replaced meanwhile.

    Raises:
        CallerError: those of `next_period`.
    """
    told = sub.next_fee
    if told is None or target is None or told.version != target.version or next_period(sub)[0] < told.on:
        return sub
    return replace(sub, terms=Terms(told.fee, told.fee), fee_version=told.version, next_fee=None)


def first_day(sub: Subscription) -> date | None:
    """First day of the first period that costs the new fee; None when none was told.

    Raises:
        CallerError: those of `next_period`.
    """
    if sub.next_fee is None or not sub.renews:
        return None
    begins = next_period(sub)[0]
    months = 0
    while add_months(sub.plan.starts_on, months) < max(begins, sub.next_fee.on):
        months += 1
    return add_months(sub.plan.starts_on, months)


def _without_next(sub: Subscription) -> tuple[Subscription, Outcome]:
    if sub.next_fee is None:
        return sub, Outcome.NOTHING
    return replace(sub, next_fee=None), Outcome.WITHDRAWN
