"""Any life of a device: started, stacked, renewed, cancelled, suspended, terminated, in any order on any days.

The oracle is a dict: which plan each day was promised to when it was looked at, and how many months were paid for and
not given back, counted without the code under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from retention import cancelling
from retention.compile import compile_row
from retention.history import replay
from retention.plans import add_months, windows
from retention.row import PRESENT, RING_DAYS, SUSPENDED, TERMINATED
from storage.days import to_date, to_day
from storage.errors import CallerError
from tests.retention.life import ANNUAL, DAY, FREE, MONTHLY, TRIAL, Life, usd

STARTS = st.one_of(
    st.sampled_from([date(2024, 1, 31), date(2024, 2, 29), date(2099, 3, 1), date(2099, 12, 31)]),
    st.dates(date(2000, 1, 1), date(2120, 1, 1)),
)
WHAT = st.sampled_from(
    ["trial", "month", "month", "year", "year", "cancel", "cancel", "cancel", "credit", "grant", "suspend"]
)
ACTS = st.lists(
    st.tuples(WHAT, st.sampled_from([0, 0, 1, 3, 13, 14, 27, 30, 60, 200]), st.integers(0, 9)), max_size=14
)
REFUSALS = {
    "trial_used",
    "plan_overlaps",
    "plan_renews",
    "trial_cannot_be_cancelled",
    "plan_already_cancelled",
    "plan_ended",
}


@dataclass
class Story:
    """Args:
    granted: something was, so plans may begin on dates of their own.
    """

    life: Life
    granted: bool = False

    def act(self, what: str, number: int) -> None:
        life = self.life
        match what:
            case "trial":
                life.trial()
            case "month":
                life.buy(MONTHLY)
            case "year":
                life.buy(ANNUAL)
            case "grant":
                life.grant(
                    (MONTHLY, ANNUAL)[number % 2], life.today + number * 10 * DAY if number > 5 else None
                )
                self.granted = True
            case "suspend":
                life.suspended = not life.suspended
            case "credit" if life.subs:
                life.credit(1 + number % len(life.subs), number * 500)
            case "cancel" if life.subs:
                life.cancel(1 + number % len(life.subs))

    def tell(self, acts: list[tuple[str, int, int]]) -> None:
        """Act after act; what is refused changes nothing."""
        for what, days, number in acts:
            self.life.wait(days)
            before, refused = self.life.subs, ""
            try:
                self.act(what, number)
            except CallerError as error:
                refused = error.code
            assert not refused or (refused in REFUSALS and self.life.subs == before)
            self.check()

    def check(self) -> None:
        life = self.life
        plans = sorted((s.plan for s in life.subs if s.plan.has_days), key=lambda plan: plan.starts_on)
        for earlier, later in pairwise(plans):
            assert earlier.ends_on is not None
            assert earlier.ends_on < later.starts_on, "a day belongs to two plans"
        renewing = [sub for sub in life.subs if sub.renews]
        assert len(renewing) <= 1
        assert all(sub.plan == plans[-1] for sub in renewing), "something follows a plan that renews itself"
        for sub in life.subs:
            if sub.terms is not None:
                self.check_paid(sub.plan_id)
        coming = [plan for plan in plans if not plan.has_ended(life.today)]
        if not self.granted:
            for earlier, later in pairwise(coming):
                assert earlier.ends_on is not None
                assert later.starts_on == earlier.ends_on + DAY, "a gap between what was paid for"

    def check_paid(self, plan_id: int) -> None:
        """As many months as were paid for and not given back, a trial's first day aside; and no more money."""
        sub, months = self.life.sub(plan_id), self.life.months[plan_id]
        assert sub.terms is not None
        assert sub.plan.ends_on is not None
        assert sub.plan.ends_on + DAY == add_months(sub.plan.starts_on, months)
        kept = self.life.paid[plan_id]
        assert kept >= FREE
        if sub.plan.kind is MONTHLY:
            assert kept == sub.terms.fee * months
        else:
            assert kept <= sub.terms.fee
            assert kept >= min(sub.terms.fee, sub.terms.monthly_fee * months) - self.life.credits[plan_id]


@settings(max_examples=150, deadline=None)
@given(STARTS, ACTS)
@example(date(2024, 1, 31), [("month", 0, 0), ("year", 25, 0), ("cancel", 0, 0), ("cancel", 40, 1)])
@example(
    date(2024, 2, 29), [("year", 0, 0), ("year", 0, 0), ("month", 0, 0), ("cancel", 30, 0), ("cancel", 0, 1)]
)
def test_no_day_belongs_to_two_plans_and_none_that_was_paid_for_is_missing(
    start: date, acts: list[tuple[str, int, int]]
) -> None:
    Story(Life(start)).tell(acts)


@settings(max_examples=100, deadline=None)
@given(STARTS, ACTS, st.booleans(), st.integers(-30, 100))
def test_compiled_bits_equal_the_windows(
    start: date, acts: list[tuple[str, int, int]], terminated: bool, later: int
) -> None:
    """Whatever happened: a day is open exactly when a plan has it, and nothing is while a flag denies it."""
    story = Story(Life(start))
    story.tell(acts)
    life = story.life
    if terminated:
        life.terminate()
    today = to_day(life.today) + later
    flags = PRESENT | SUSPENDED * life.suspended | TERMINATED * life.terminated
    row = compile_row(
        [sub.plan for sub in life.subs], today=today, flags=flags, token_generation=0, erase_epoch=0
    )
    merged = windows(sub.plan for sub in life.subs)
    for day in range(row.first_day, row.first_day + RING_DAYS):
        owned = bool(life.owners(to_date(day)))
        assert row.allows(day) == owned
        assert owned == any(first <= day and (last is None or day <= last) for first, last in merged)
        assert not (terminated and owned and day >= to_day(life.today))
    assert row.flags == flags


@settings(max_examples=100, deadline=None)
@given(STARTS, ACTS)
def test_replaying_the_history_gives_the_same_subscriptions(
    start: date, acts: list[tuple[str, int, int]]
) -> None:
    story = Story(Life(start))
    story.tell(acts)
    life = story.life
    assert replay(life.events).devices.get(7, ()) == life.subs
    life.terminate()
    assert replay(life.events).devices[7] == life.subs


@settings(max_examples=60, deadline=None)
@given(STARTS, ACTS, st.integers(0, 9))
def test_a_refund_never_grows_with_time_and_is_never_above_what_was_paid(
    start: date, acts: list[tuple[str, int, int]], number: int
) -> None:
    """Asked every day for a year and a half, without anything else happening."""
    story = Story(Life(start))
    story.tell(acts)
    life = story.life
    for sub in life.subs:
        refunds = []
        for later in range(0, 550, 1 + number):
            try:
                done = cancelling.cancel(
                    life.subs,
                    sub.plan_id,
                    today=life.today + later * DAY,
                    paid=life.paid[sub.plan_id],
                    credits=life.credits[sub.plan_id],
                )
            except CallerError:  # it ended, or is one that can't be cancelled
                break
            refunds.append(done.refund)
        assert all(FREE <= refund <= life.paid[sub.plan_id] for refund in refunds)
        assert refunds == sorted(refunds, reverse=True)


def test_a_customers_story() -> None:
    """Trial, monthly, renewed twice, annual bought over it, cancelled in month 5, refund, access to the month's end."""
    life = Life(date(2025, 1, 1))
    life.trial()
    life.wait(9)
    monthly = life.buy(MONTHLY)
    life.wait(65)  # 16 March: renewed on 6 February and 6 March
    assert life.days(monthly) == (date(2025, 1, 10), date(2025, 4, 9))
    assert life.paid[monthly] == usd(3 * 599)
    annual = life.buy(ANNUAL)
    assert life.days(annual) == (date(2025, 4, 10), date(2026, 4, 9))
    life.go(date(2025, 8, 10))
    done = life.cancel(annual)
    assert (done.refund, done.last_day) == (usd(5999 - 5 * 599), date(2025, 9, 9))
    owners = [life.owners(date(2025, 1, 1) + n * DAY) for n in range(400)]
    assert owners == [[1]] * 9 + [[monthly]] * 90 + [[annual]] * 153 + [[]] * 148
    assert life.sub(1).plan.kind is TRIAL
