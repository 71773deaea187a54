"""Whether the books balance: payments against what the gateway did, against what the plans are worth, against the
bitmap. Counted here from the stored rows alone, without the code that made them."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from itertools import pairwise, takewhile
from typing import Any

from retention.compile import PAST_DAYS
from retention.entitlements import bitmap_row
from retention.history import replay
from retention.plans import PlanKind, add_months
from retention.subscriptions import Subscription
from service.agreement.auditing import check_books
from storage.rows.accounts import AccountRow, PaymentKind, PaymentRow, PaymentState
from storage.rows.devices import DeviceFacts
from tests.service.agreement.money_world import MoneyWorld

IN_FULL = {"annual": 12, "half-year": 6, "large": 6}
"""Months of the packages that tests pay in full."""
_DAY = timedelta(days=1)


def check(world: MoneyWorld) -> None:
    """Assert that nothing is pending and all of it adds up."""
    accounts = _owners(world)
    payments = {account.account: world.payments(account.account) for account in accounts}
    _gateway_did_what_the_books_say(world, [p for rows in payments.values() for p in rows])
    for account in accounts:
        mine = payments[account.account]
        _nothing_is_kept_without_a_plan(mine)
        fee_changes = _fee_changes(world, account.account)
        for facts in _devices(world, account):
            _plans_are_worth_what_was_paid(facts, _as_paid_for(world, facts), mine, fee_changes)
    consistent(world)
    audit = check_books(world.desk, world.bitmap, days=36_500)
    assert (audit.findings, audit.unanswered) == ([], 0), "`books check` says so too"


def consistent(world: MoneyWorld) -> None:
    """Assert what holds at any moment, payments under way or not."""
    for account in _owners(world):
        devices = _devices(world, account)
        _history_replays(world, account, [facts.device for facts in devices])
        trials = 0
        for facts in devices:
            subscriptions = world.plans(facts.device)
            trials += sum(sub.plan.kind is PlanKind.TRIAL for sub in subscriptions)
            _no_day_is_sold_twice(subscriptions)
            _bitmap_is_the_catalog(world, facts)
        assert trials == (account.trial_ms is not None), "one trial per account, ever"
    assert world.bitmap.unfinished == 0


def _owners(world: MoneyWorld) -> list[AccountRow]:
    with world.desk.reading() as books:
        return [row for row in books.accounts(limit=1000) if row.kind == "owner"]


def _devices(world: MoneyWorld, account: AccountRow) -> list[DeviceFacts]:
    with world.desk.reading() as books:
        return books.devices_of(account.account)


def _history_replays(world: MoneyWorld, account: AccountRow, devices: list[int]) -> None:
    with world.desk.reading() as books:
        history = replay(books.events_of(account.account, limit=100_000))
    for device in devices:
        assert history.devices.get(device, ()) == tuple(world.plans(device))
    if history.standing is not None:
        assert history.standing.trial_ms == account.trial_ms


def _gateway_did_what_the_books_say(world: MoneyWorld, payments: list[PaymentRow]) -> None:
    assert not [p for p in payments if p.state is PaymentState.PENDING], "all is settled"
    kinds = (PaymentKind.CHARGE, PaymentKind.REFUND)
    done = [p for p in payments if p.state is PaymentState.DONE and p.kind in kinds and p.minor]
    booked = {(p.reference, str(p.kind), p.minor, p.currency, p.detail.get("of", "")) for p in done}
    receipts = {
        (r.reference, r.kind, r.money.minor, r.money.currency, r.of_reference)
        for r in world.gateway.receipts()
    }
    assert booked == receipts, "each charge and refund once, here and there"
    given = defaultdict(int)
    for payment in done:
        if payment.kind is PaymentKind.REFUND:
            given[payment.detail["of"]] += payment.minor
    charged = {p.reference: p.minor for p in done if p.kind is PaymentKind.CHARGE}
    assert all(given[reference] <= charged[reference] for reference in given), "no refund above its charge"
    never_more_than_paid(payments)


def never_more_than_paid(payments: list[PaymentRow]) -> None:
    """Assert that of no charge more was given back than it was, by the gateway, by other means, or still owed; and that
    what was taken back is what it was, once, with money that did not leave."""
    charged = {
        p.reference: p.minor
        for p in payments
        if p.kind is PaymentKind.CHARGE and p.state is PaymentState.DONE
    }
    given: dict[str, int] = defaultdict(int)
    for payment in payments:
        if payment.kind is PaymentKind.REFUND and _stands(payment):
            given[payment.detail["of"]] += payment.minor
    assert all(given[reference] <= charged[reference] for reference in given), "no more than was paid"
    taken = {p.reference: p.minor for p in payments if p.state is PaymentState.TAKEN_BACK}
    counters = [(p.detail["of"], p.minor) for p in payments if p.kind is PaymentKind.COUNTER]
    assert sorted(counters) == sorted(taken.items()), "each once, and all of it"


def _stands(payment: PaymentRow) -> bool:
    return payment.state not in (PaymentState.TAKEN_BACK, PaymentState.VOID)


def _nothing_is_kept_without_a_plan(payments: list[PaymentRow]) -> None:
    for payment in payments:
        if payment.kind is PaymentKind.CHARGE and payment.state is PaymentState.DONE:
            refunded = sum(
                p.minor for p in payments if p.detail.get("of") == payment.reference and _stands(p)
            )
            if payment.plan_id is None or "refused" in payment.detail:
                assert refunded == payment.minor, payment


def _plans_are_worth_what_was_paid(
    facts: DeviceFacts,
    subscriptions: list[Subscription],
    payments: list[PaymentRow],
    fee_changes: list[dict[str, Any]],
) -> None:
    ids = {sub.plan_id for sub in subscriptions if sub.terms is not None}
    assert {p.plan_id for p in payments if p.device == facts.device and p.plan_id is not None} <= ids
    for sub in subscriptions:
        mine = [p for p in payments if p.plan_id == sub.plan_id and _stands(p)]
        made = [p for p in mine if p.kind is not PaymentKind.CHARGE or p.state is PaymentState.DONE]
        by_kind = {kind: sum(p.minor for p in made if p.kind is kind) for kind in PaymentKind}
        kept = by_kind[PaymentKind.CHARGE] - by_kind[PaymentKind.REFUND]
        worth = (
            0
            if sub.terms is None
            else _worth(sub, by_kind[PaymentKind.CREDIT], *_given_by_hand(made), fee_changes)
        )
        assert kept == worth, sub


def _given_by_hand(payments: list[PaymentRow]) -> tuple[int, int]:
    """What of one plan was given by hand before its cancellation gave anything back, and since, in minor units."""
    refunds = [p for p in payments if p.kind is PaymentKind.REFUND]
    cancelled = min((p.payment_id for p in refunds if p.why.startswith("cancelled: plan")), default=1 << 63)
    hand = [p for p in refunds if "by_hand" in p.detail]
    before = sum(p.minor for p in hand if p.payment_id < cancelled)
    return before, sum(p.minor for p in hand) - before


def _as_paid_for(world: MoneyWorld, facts: DeviceFacts) -> list[Subscription]:
    """A device's plans, with the days that were paid for. Terminating it cuts them and moves no money (agreement 3.3),
    so the days are those from before, as the history has them: of an annual plan that was cancelled by then, the months
    that had begun, and not the year."""
    plans = world.plans(facts.device)
    if facts.terminated_ms is None:
        return plans
    with world.desk.reading() as books:
        events = books.events_of(facts.account, limit=100_000)
    before = takewhile(lambda event: (event.what, event.device) != ("terminated", facts.device), events)
    as_paid_for = list(replay(before).devices.get(facts.device, ()))
    assert [sub.plan_id for sub in as_paid_for] == [sub.plan_id for sub in plans], "none begins after the end"
    return as_paid_for


def _fee_changes(world: MoneyWorld, account: int) -> list[dict[str, Any]]:
    """Facts of the events that gave a plan another fee, in their order."""
    with world.desk.reading() as books:
        return [e.facts for e in books.events_of(account, limit=100_000) if e.what == "fee_changed"]


def _worth(
    sub: Subscription,
    credits_minor: int,
    before_minor: int,
    since_minor: int,
    fee_changes: list[dict[str, Any]],
) -> int:
    """What is kept for the days of a paid plan, in minor units: less what was given by hand. What was given before a
    cancellation has lowered what that gave back."""
    plan, terms = sub.plan, sub.terms
    assert plan.ends_on is not None
    assert terms is not None
    months = 0
    while add_months(plan.starts_on, months) <= plan.ends_on:
        months += 1
    assert add_months(plan.starts_on, months) == plan.ends_on + _DAY, "whole months were paid"
    if plan.kind is PlanKind.MONTHLY:
        mine = [facts for facts in fee_changes if facts["plan_id"] == sub.plan_id]
        worth = 0
        for month in range(months):
            first = add_months(plan.starts_on, month).isoformat()
            later = [facts["before_minor"] for facts in mine if first < facts["first"]]
            worth += later[0] if later else terms.fee.minor
        return max(0, worth - before_minor) - since_minor
    if months == IN_FULL[plan.package]:
        return terms.fee.minor - before_minor - since_minor
    return (months and months * terms.monthly_fee.minor + credits_minor) - since_minor


def _bitmap_is_the_catalog(world: MoneyWorld, facts: DeviceFacts) -> None:
    row = world.bitmap.read(facts.device)
    assert row is not None
    compiled_on = row.first_day + PAST_DAYS  # rows are compiled anew when they change, or by the daily roll
    assert row == bitmap_row(facts, compiled_on)


def _no_day_is_sold_twice(subscriptions: list[Subscription]) -> None:
    there = sorted(
        (sub.plan.starts_on, sub.plan.ends_on)
        for sub in subscriptions
        if sub.plan.has_days and sub.plan.ends_on
    )
    for (_, last), (first, _) in pairwise(there):
        assert last < first, there
