"""What happens to a device's plans when one is tried, bought, granted, or all are ended. Pure.

A device has a row of subscriptions. At most one of them renews itself, it is the last, and no day belongs to two
(a trial aside that an operator granted beside something). Each function takes them as they are and returns a
`Change`: as they were, as they are to be, and what the owner should be told. Cancelling is in `cancelling.py`,
renewing in `renewals.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

from retention.plans import (
    Offer,
    Plan,
    PlanKind,
    add_months,
    cancel,
    period,
    plus_days,
    start_plan,
)
from retention.terms import NextFee, Terms
from storage.errors import Conflict, Unprocessable

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A plan with what was agreed about it.

    Args:
        plan_id: 0 for one that is not stored yet.
        terms: None when an operator granted it (a trial too): no fee.
        renews: a monthly plan that was paid for: the next period is charged before `plan.ends_on`, the last paid
            day.
        fee_version: of its package, whose price `terms` are by now; 0: that of its purchase.
        next_fee: that its owner was told of, and that did not take effect yet.

    Raises:
        CallerError: `bad_subscription`.
    """

    plan_id: int
    plan: Plan
    terms: Terms | None = None
    renews: bool = False
    fee_version: int = 0
    next_fee: NextFee | None = None

    def __post_init__(self) -> None:
        plan = self.plan
        if self.terms is not None and (plan.kind is PlanKind.TRIAL or plan.ends_on is None):
            raise Unprocessable(
                "what was paid for is a monthly plan or one paid in full, with a last paid day",
                code="bad_subscription",
            )
        if self.renews and (
            self.terms is None or plan.kind is not PlanKind.MONTHLY or plan.cancelled_on is not None
        ):
            raise Unprocessable(
                "only a monthly plan that was paid for and not cancelled renews itself",
                code="bad_subscription",
            )

    def is_ongoing(self, today: date) -> bool:
        """Whether it has a day, today or later."""
        return self.plan.has_days and not self.plan.has_ended(today)


@dataclass(frozen=True, slots=True)
class Note:
    """Something the owner should be told.

    Args:
        code: stable: `trial_cut`, `follows`, `renewal_stopped`, `moved_up`, `ends_early`.
        text: one or two sentences.
    """

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of the subscriptions of one device.

    Args:
        before, after: all of them, in one order; a new one is the last of `after`, with plan_id 0.
    """

    before: tuple[Subscription, ...]
    after: tuple[Subscription, ...]
    notes: tuple[Note, ...] = ()

    @property
    def new(self) -> Subscription | None:
        """The subscription that was not there before."""
        return self.after[-1] if len(self.after) > len(self.before) else None

    @property
    def changed(self) -> tuple[Subscription, ...]:
        """Those that were there before and are not what they were, as they are to be."""
        return tuple(
            new for old, new in zip(self.before, self.after[: len(self.before)], strict=True) if old != new
        )


def start_trial(
    subs: Sequence[Subscription], offer: Offer, *, today: date, account_trial_used: bool
) -> Change:
    """The account's one trial, from today on (agreement 7.1).

    Raises:
        CallerError: `trial_used`, the account had its trial, on whatever device; `plan_overlaps`, another plan of
            this device has one of its days; `date_out_of_range`, `bad_plan_dates`.
    """
    if account_trial_used:
        raise Conflict("each account has one trial, and yours was used; buy a plan", code="trial_used")
    plan = begin([sub.plan for sub in subs], offer, today=today, starts_on=today)
    return Change(tuple(subs), (*subs, Subscription(0, plan)))


def buy(subs: Sequence[Subscription], offer: Offer, terms: Terms, *, today: date) -> Change:
    """A plan, paid for now.

    It starts today (7.2.1, 7.2.2), also during a trial, which is then cut to end yesterday: no day is missing and
    none counted twice. While other plans of the device run or are to come, it starts the day after the last one's
    last paid day (7.2.1); one that renews itself, or was granted without an end, stops with the period that is
    paid for. Another package for the same device is no exception: it follows, and nothing is converted in between.

    Raises:
        CallerError: `not_for_sale`, a trial; `bad_retention_days`, `date_out_of_range`, `bad_plan_dates`.
    """
    if offer.kind is PlanKind.TRIAL:
        raise Unprocessable("a trial can't be bought; choose a package that is sold", code="not_for_sale")
    notes: list[Note] = []
    stopped = [_stopped(sub, today, notes) for sub in subs]
    starts_on = today
    for sub in stopped:
        last = sub.plan.ends_on
        if sub.plan.kind is not PlanKind.TRIAL and sub.is_ongoing(today) and last is not None:
            starts_on = max(starts_on, plus_days(last, 1))
    plan = start_plan(offer, starts_on)
    if plan.ends_on is None:  # monthly: the first period is what is paid for
        plan = replace(plan, ends_on=add_months(starts_on, 1) - _DAY)
    new = Subscription(0, plan, terms, renews=offer.kind is PlanKind.MONTHLY)
    after = [_cut_trial(sub, plan, notes) for sub in stopped]
    if starts_on > today:
        notes.append(
            Note(
                "follows",
                f"It starts on {starts_on}, the day after the plan before it ends. Until then it can be cancelled"
                " and is refunded in full.",
            )
        )
    return Change(tuple(subs), (*after, new), tuple(notes))


def grant(subs: Sequence[Subscription], offer: Offer, *, today: date, starts_on: date | None) -> Change:
    """A plan that an operator gives, without a fee: `begin`, and a trial in its way is cut as by `buy`.

    Raises:
        CallerError: `plan_renews`, also for a paid plan that renews itself; and those of `begin`.
    """
    for sub in subs:
        if sub.renews and sub.is_ongoing(today):
            raise Unprocessable(_renews(sub.plan), code="plan_renews")
    plan = begin([sub.plan for sub in subs], offer, today=today, starts_on=starts_on)
    notes: list[Note] = []
    after = [_cut_trial(sub, plan, notes) if sub.is_ongoing(today) else sub for sub in subs]
    return Change(tuple(subs), (*after, Subscription(0, plan)), tuple(notes))


def end_all(subs: Sequence[Subscription], today: date) -> Change:
    """Everything ends at once: the account's cancellation takes effect, or the device is terminated. Yesterday
    was the last day; nothing is refunded (agreement 6.5.5)."""
    after = [_ended(sub, today) if sub.is_ongoing(today) else replace(sub, renews=False) for sub in subs]
    return Change(tuple(subs), tuple(after))


def begin(plans: Sequence[Plan], offer: Offer, *, today: date, starts_on: date | None) -> Plan:
    """The new plan of a device, as an operator grants it.

    Without a date it starts today; behind a paid plan that runs or is to come, on the day after that one's last
    (agreement 7.2.1); during a trial at once (7.1). A plan cancelled before it began has no day, and counts for
    nothing.

    Raises:
        CallerError: `plan_overlaps`: it would run on a day of another paid plan (a trial: of any other), even one
            that ended; the text says which.
            `plan_renews`: the running plan renews itself and has no last day; cancel it first.
            And those of `start_plan`.
    """
    there = [plan for plan in plans if plan.has_days]
    paid = [plan for plan in there if plan.kind is not PlanKind.TRIAL]
    if starts_on is None:
        starts_on = today
        for plan in paid:
            if plan.ends_on is None:
                raise Unprocessable(_renews(plan), code="plan_renews")
            starts_on = max(starts_on, plus_days(plan.ends_on, 1))
    begun = start_plan(offer, starts_on)
    for plan in there if offer.kind is PlanKind.TRIAL else paid:
        if _overlap(plan, begun):
            raise Unprocessable(_overlaps(plan), code="plan_overlaps")
    return begun


def ongoing(subs: Iterable[Subscription], today: date) -> list[Subscription]:
    """Those that run or are to come, in order of their first day."""
    return sorted((sub for sub in subs if sub.is_ongoing(today)), key=lambda sub: sub.plan.starts_on)


def _stopped(sub: Subscription, today: date, notes: list[Note]) -> Subscription:
    """Without renewal: it ends with what is paid for, so that something can follow it."""
    plan = sub.plan
    if sub.renews:
        sub = replace(sub, renews=False)
    elif plan.ends_on is None:  # granted
        if today < plan.starts_on:
            last = period(plan, plan.starts_on)[1]
            sub = replace(sub, plan=replace(plan, ends_on=last, cancelled_on=today))
        else:
            sub = replace(sub, plan=cancel(plan, today))
    else:
        return sub
    if sub.is_ongoing(today):
        text = f"The monthly plan since {plan.starts_on} does not renew any more; its last day is {sub.plan.ends_on}."
        notes.append(Note("renewal_stopped", text))
    return sub


def _cut_trial(sub: Subscription, new: Plan, notes: list[Note]) -> Subscription:
    """A trial that would share days with the new plan ends the day before that begins (7.1)."""
    trial = sub.plan
    if trial.kind is not PlanKind.TRIAL or not trial.has_days or not _overlap(trial, new):
        return sub
    last = max(new.starts_on, trial.starts_on) - _DAY
    kept = last >= trial.starts_on
    text = f"The trial's last day is {last}" if kept else "The plan takes the place of the trial"
    notes.append(
        Note(
            "trial_cut",
            f"{text}: the plan begins on {new.starts_on}. What was recorded during the trial keeps its"
            f" {trial.retention_days} days; what is recorded from then on is kept for {new.retention_days} days.",
        )
    )
    return replace(sub, plan=replace(trial, ends_on=last))


def _ended(sub: Subscription, today: date) -> Subscription:
    plan = sub.plan
    last = max(today, plan.starts_on) - _DAY
    cancelled_on = today if plan.cancelled_on is None else plan.cancelled_on
    return replace(sub, plan=replace(plan, ends_on=last, cancelled_on=cancelled_on), renews=False)


def _overlap(a: Plan, b: Plan) -> bool:
    return (a.ends_on is None or b.starts_on <= a.ends_on) and (b.ends_on is None or a.starts_on <= b.ends_on)


def _renews(plan: Plan) -> str:
    return f"the monthly plan since {plan.starts_on} renews itself; cancel it, and the new one follows it"


def _overlaps(plan: Plan) -> str:
    if plan.ends_on is None:
        return f"the monthly plan since {plan.starts_on} renews itself; cancel it first, and start this one behind it"
    return f"it would share days with the {plan.name} plan from {plan.starts_on} to {plan.ends_on}; choose others"
