"""One device whose plans are tried, bought, renewed and cancelled, with the money that moves: what a desk does around
the rules, in memory. Beside the subscriptions it keeps books of its own, of months and amounts only, for tests to
compare with."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from retention import cancelling, renewals, subscriptions
from retention.cancelling import CancelKind, Cancellation
from retention.history import plan_facts
from retention.money import Money
from retention.plans import Offer, Plan, PlanKind, add_months, start_plan
from retention.subscriptions import Change, Subscription
from retention.terms import Terms
from storage.rows.accounts import EventRow

TRIAL, MONTHLY, ANNUAL, FULL = PlanKind.TRIAL, PlanKind.MONTHLY, PlanKind.ANNUAL, PlanKind.FULL
DAY = timedelta(days=1)
AHEAD_DAYS = 3


def usd(minor: int) -> Money:
    return Money(minor, "USD")


def offer(kind: PlanKind, retention_days: int | None = None) -> Offer:
    """As the packages of a new data folder offer it."""
    months, days = {TRIAL: (0, 14), ANNUAL: (12, 0), FULL: (6, 0)}.get(kind, (0, 0))
    kept = retention_days if retention_days is not None else 7 if kind is TRIAL else 30
    return Offer(kind, kept, months, days)


def started(kind: PlanKind, starts_on: date, retention_days: int | None = None) -> Plan:
    return start_plan(offer(kind, retention_days), starts_on)


@dataclass(frozen=True)
class Prices:
    monthly: Money
    annual: Money

    def terms(self, kind: PlanKind) -> Terms:
        return Terms(self.annual if kind.is_paid_in_full else self.monthly, self.monthly)


PRICES = Prices(usd(599), usd(5999))
FREE = usd(0)


@dataclass
class Life:
    """See the module docstring.

    Args:
        today: moved on by `go` and `wait`.
    """

    today: date
    prices: Prices = PRICES
    subs: tuple[Subscription, ...] = ()
    paid: dict[int, Money] = field(default_factory=lambda: defaultdict(lambda: FREE))
    credits: dict[int, Money] = field(default_factory=lambda: defaultdict(lambda: FREE))
    months: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Months that the owner has paid for and not got back, by plan."""
    trial_used: bool = False
    suspended: bool = False
    terminated: bool = False
    events: list[EventRow] = field(default_factory=list)

    # --- time -------------------------------------------------------------------------------------------------

    def go(self, to: date) -> None:
        self.today = to

    def wait(self, days: int) -> None:
        """Day by day, with the renewals of each."""
        for _ in range(days):
            self.today += DAY
            self.renew()

    # --- acts -------------------------------------------------------------------------------------------------

    def trial(self) -> Change:
        change = subscriptions.start_trial(
            self.subs, offer(TRIAL), today=self.today, account_trial_used=self.trial_used
        )
        self.trial_used = True
        return self.apply(change, "trial")

    def buy(self, kind: PlanKind, terms: Terms | None = None, retention_days: int | None = None) -> int:
        """Returns the plan's number."""
        terms = terms or self.prices.terms(kind)
        change = subscriptions.buy(self.subs, offer(kind, retention_days), terms, today=self.today)
        plan_id = self.apply(change, "bought").after[-1].plan_id
        self.paid[plan_id] += terms.fee
        self.months[plan_id] += {ANNUAL: 12, FULL: 6}.get(kind, 1)
        return plan_id

    def grant(self, kind: PlanKind, starts_on: date | None = None) -> int:
        change = subscriptions.grant(self.subs, offer(kind), today=self.today, starts_on=starts_on)
        return self.apply(change, "granted").after[-1].plan_id

    def cancel(self, plan_id: int) -> Cancellation:
        cancellation = cancelling.cancel(
            self.subs,
            plan_id,
            today=self.today,
            paid=self.paid[plan_id],
            credits=self.credits[plan_id],
        )
        self.apply(cancellation.change, "cancelled")
        self.paid[plan_id] -= cancellation.refund
        match cancellation.kind:
            case CancelKind.BEFORE_START:
                self.months[plan_id] = 0
            case CancelKind.ANNUAL | CancelKind.FULL if cancellation.refund:
                # By the calendar alone: how many months have begun.
                start = self.sub(plan_id).plan.starts_on
                self.months[plan_id] = sum(add_months(start, n) <= self.today for n in range(12))
            case CancelKind.MONTHLY:
                terms = self.sub(plan_id).terms
                assert terms is not None
                self.months[plan_id] -= cancellation.refund.minor // terms.fee.minor
        return cancellation

    def renew(self) -> None:
        """What the daily run does: charge what is due, let lapse what was not paid."""
        after = []
        for sub in self.subs:
            if renewals.due(sub, self.today, AHEAD_DAYS, suspended=self.suspended or self.terminated):
                assert sub.plan.ends_on is not None
                assert sub.terms is not None
                sub = renewals.extend(sub, expected_ends_on=sub.plan.ends_on)
                self.paid[sub.plan_id] += sub.terms.fee
                self.months[sub.plan_id] += 1
            after.append(renewals.lapse_unpaid(sub, self.today))
        if tuple(after) != self.subs:
            self.apply(Change(self.subs, tuple(after)), "renewed")

    def terminate(self) -> None:
        self.apply(subscriptions.end_all(self.subs, self.today), "terminated")
        self.terminated = True

    def credit(self, plan_id: int, minor: int) -> None:
        self.credits[plan_id] += usd(minor)

    # --- what is ------------------------------------------------------------------------------------------------

    def sub(self, plan_id: int) -> Subscription:
        [found] = [sub for sub in self.subs if sub.plan_id == plan_id]
        return found

    def days(self, plan_id: int) -> tuple[date, date | None]:
        plan = self.sub(plan_id).plan
        return plan.starts_on, plan.ends_on

    def owners(self, on: date) -> list[int]:
        """Numbers of the plans to which the day belongs."""
        return [sub.plan_id for sub in self.subs if sub.plan.runs(on)]

    def apply(self, change: Change, what: str) -> Change:
        """Store the after-image: a new one gets its number, and the history its event."""
        assert change.before == self.subs, "a change is told from what was there"
        self.subs = tuple(replace(sub, plan_id=number) for number, sub in enumerate(change.after, start=1))
        assert [sub.plan_id for sub in change.before] == [
            sub.plan_id for sub in self.subs[: len(change.before)]
        ]
        self.events.append(EventRow(len(self.events) + 1, 5, 7, what, "owner", "", plan_facts(self.subs), 0))
        return Change(change.before, self.subs, change.notes)
