"""Cancelling a subscription: its last day, what is refunded, what moves up behind it (agreement 7.2, 8). Pure.

A plan that has not begun is refunded in full and gets no day (7.2.1). A plan paid in full from which something is
refunded ends with the last month that was charged; where nothing is due it runs to its end (8.1, 8.2.1). A
monthly plan ends with the period that runs (8.1, 8.2.2); one charged ahead of it is refunded in full. What was to
follow moves up, so that the owner has neither a gap nor fewer months than were paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum

from retention import refunds
from retention.money import Money, required
from retention.plans import Plan, PlanKind, add_months, denied_from_ms, months_started, moved, period
from retention.plans import cancel as cancel_plan
from retention.subscriptions import Change, Note, Subscription, ongoing
from storage.errors import NotFound

_DAY = timedelta(days=1)


class CancelKind(StrEnum):
    BEFORE_START = "before_start"
    ANNUAL = "annual"  # paid in full for 12 months
    FULL = "full"  # paid in full for another number of months
    MONTHLY = "monthly"
    GRANTED = "granted"  # by an operator: nothing was paid


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a subscription goes on.

    Args:
        last_day: its last entitled day as things stand; None: it gets no day, or was granted without an end.
        denied_from_ms: 00:00 UTC after it, where nothing follows at once; else None.
        renews: the next period is charged, and `last_day` then moves on.
        refund: what is paid back; 0 when there is nothing.
    """

    last_day: date | None
    denied_from_ms: int | None
    renews: bool
    refund: Money


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What cancelling does.

    Args:
        change: all subscriptions of the device, before and after.
        refund: to be paid back, 0 or more.
        last_day: of the cancelled plan; None: it gets none.
        denied_from_ms: 00:00 UTC after the last day; None when there is none, or another plan follows at once.
        moved: the subscriptions behind it that now begin earlier, as they are to be.
    """

    change: Change
    refund: Money
    last_day: date | None
    denied_from_ms: int | None
    kind: CancelKind
    moved: tuple[Subscription, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Both ways, for the owner to see before confirming (8.1 against 8.2)."""

    keep: Outcome
    cancel: Outcome
    cancellation: Cancellation


def cancel(
    subs: Sequence[Subscription], plan_id: int, *, today: date, paid: Money, credits: Money
) -> Cancellation:
    """Cancel one of a device's subscriptions on the day `today`.

    Args:
        paid: charges done for this plan less refunds of it; 0 for a granted one.
        credits: given for this plan; they lower the refund of a plan paid in full that runs.

    Raises:
        NotFound: no such plan.
        CallerError: `trial_cannot_be_cancelled` (7.1), `plan_already_cancelled`, `plan_ended`; `wrong_currency`,
            `bad_amount`.
    """
    sub = _find(subs, plan_id)
    kind, plan, refund = _cancelled(sub, today, paid, credits)
    cancelled = replace(sub, plan=plan, renews=False)
    after, moves = _move_up(
        [cancelled if other is sub else other for other in subs], sub.plan, plan, _notes(sub.plan, plan)
    )
    last_day = plan.ends_on if plan.has_days else None
    return Cancellation(
        Change(tuple(subs), after, moves.notes),
        refund,
        last_day,
        _denied_from(after, last_day),
        kind,
        moves.subs,
    )


def charge_back(subs: Sequence[Subscription], plan_id: int, *, first: date, today: date) -> Change:
    """The bank has taken back what was paid for a plan, or for one period of it. Days that are over can't be taken
    back; of those paid for, today is the last one, and none that is to come is left. It does not renew itself.

    Args:
        first: of the days that the charge was for: of the period, or of the plan.

    Raises:
        NotFound: no such plan.
    """
    sub = _find(subs, plan_id)
    plan = sub.plan
    last = plan.ends_on
    if plan.kind is PlanKind.MONTHLY and plan.runs(first):
        last = period(plan, first)[1]
    if last is None or last < today or not plan.has_days:
        return Change(tuple(subs), tuple(subs))
    ends_on = max(min(today, last), plan.starts_on - _DAY) if first <= today else first - _DAY
    cut = replace(plan, ends_on=min(ends_on, _end(plan)), cancelled_on=plan.cancelled_on or today)
    ended = replace(sub, plan=cut, renews=False)
    after, moves = _move_up(
        [ended if other is sub else other for other in subs], plan, cut, _notes(plan, cut)
    )
    return Change(tuple(subs), after, moves.notes)


def outcomes(
    subs: Sequence[Subscription], plan_id: int, *, today: date, paid: Money, credits: Money
) -> Outcomes:
    """What keeping the plan means and what cancelling it on the day `today` would.

    Raises:
        As `cancel`: what can't be cancelled has one outcome only.
    """
    cancellation = cancel(subs, plan_id, today=today, paid=paid, credits=credits)
    sub = _find(subs, plan_id)
    keep = Outcome(
        sub.plan.ends_on,
        _denied_from(subs, sub.plan.ends_on),
        sub.renews or sub.plan.ends_on is None,
        paid.zero,
    )
    return Outcomes(
        keep,
        Outcome(cancellation.last_day, cancellation.denied_from_ms, False, cancellation.refund),
        cancellation,
    )


def _find(subs: Sequence[Subscription], plan_id: int) -> Subscription:
    for sub in subs:
        if sub.plan_id == plan_id and plan_id:
            return sub
    raise NotFound("no such plan; list the device's plans for their numbers", subject=f"plan {plan_id}")


def _cancelled(sub: Subscription, today: date, paid: Money, credits: Money) -> tuple[CancelKind, Plan, Money]:
    """Kind, the plan as it is to be, and the refund."""
    plan, terms = sub.plan, sub.terms
    _ = required(paid, "what was paid") + required(credits, "the credit")  # one currency
    kept = cancel_plan(plan, today)  # refuses; and what a plan becomes that nothing is refunded of
    if today < plan.starts_on:
        never = replace(plan, ends_on=plan.starts_on - _DAY, cancelled_on=today)
        if terms is None:
            return CancelKind.BEFORE_START, never, paid.zero
        return CancelKind.BEFORE_START, never, refunds.before_start(paid + terms.fee.zero)
    if terms is None:
        return CancelKind.GRANTED, kept, paid.zero
    started = months_started(plan, today)
    if plan.kind.is_paid_in_full:
        refund = refunds.of_paid_in_full(terms, months_started=started, paid=paid, credits=credits)
        if refund:
            kept = replace(kept, ends_on=min(add_months(plan.starts_on, started) - _DAY, _end(plan)))
        return _in_full(plan), kept, refund
    ahead = months_started(plan, _end(plan)) - started
    return CancelKind.MONTHLY, kept, refunds.of_months_ahead(terms, months=ahead, paid=paid)


def _in_full(plan: Plan) -> CancelKind:
    return CancelKind.ANNUAL if plan.kind is PlanKind.ANNUAL else CancelKind.FULL


def _end(plan: Plan) -> date:
    assert plan.ends_on is not None, "what was paid for has a last day"
    return plan.ends_on


@dataclass(frozen=True, slots=True)
class _Moves:
    subs: tuple[Subscription, ...]
    notes: tuple[Note, ...]


def _notes(old: Plan, new: Plan) -> list[Note]:
    if not new.has_days:
        return [Note("ends_early", f"The plan that was to begin on {old.starts_on} does not begin.")]
    if new.ends_on != old.ends_on:
        return [Note("ends_early", f"The plan's last day is {new.ends_on}.")]
    return []


def _move_up(
    subs: Sequence[Subscription], old: Plan, new: Plan, notes: list[Note]
) -> tuple[tuple[Subscription, ...], _Moves]:
    """Let what followed the old plan without a gap follow the new one (7.2.1). What an operator granted for a
    later date stays there."""
    old_last, new_last = old.ends_on, new.ends_on
    changed: dict[int, Subscription] = {}
    for sub in sorted(subs, key=lambda sub: sub.plan.starts_on):
        if old_last is None or new_last is None or old_last == new_last or old_last == date.max:
            break
        if not sub.plan.has_days or sub.plan.starts_on != old_last + _DAY:
            continue
        earlier = replace(sub, plan=moved(sub.plan, new_last + _DAY))
        changed[id(sub)] = earlier
        old_last, new_last = sub.plan.ends_on, earlier.plan.ends_on
        notes.append(
            Note("moved_up", f"The {sub.plan.kind} plan behind it begins on {earlier.plan.starts_on}.")
        )
    after = tuple(changed.get(id(sub), sub) for sub in subs)
    return after, _Moves(tuple(changed.values()), tuple(notes))


def _denied_from(subs: Sequence[Subscription], last_day: date | None) -> int | None:
    if last_day is None:
        return None
    for sub in ongoing(subs, last_day):
        if last_day < date.max and sub.plan.starts_on == last_day + _DAY:
            return None
    return denied_from_ms(last_day)
