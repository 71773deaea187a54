"""What has to be so at midnight: the bank's journal, the books, the test's ledger, the plans and the bitmap say the
same, to the cent."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

from retention.entries import subscriptions_of
from service.agreement.auditing import check_books
from storage.days import to_day
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState, SubscriptionRow
from tests.service.shop.ledger import day_of

if TYPE_CHECKING:
    from tests.service.shop.year import Year

AHEAD_DAYS, BACK_DAYS = 70, 20
"""Of a device's row that are looked at."""


def check(year: Year) -> None:
    """Raises AssertionError."""
    year.world.clock.ms = year.now_ms
    rows = _rows(year)
    _books_are_the_ledger(year, rows)
    _all_that_is_owed_is_under_way(year, rows)
    _plans_are_what_was_paid_for(year)
    if not year.away:
        _nothing_is_unexplained(year)


def _rows(year: Year) -> list[PaymentRow]:
    found: list[PaymentRow] = []
    with year.world.desk.reading() as books:
        while page := books.payments(after=found[-1].payment_id if found else 0, limit=5000):
            found += page
            if len(page) < 5000:
                break
    return found


def _books_are_the_ledger(year: Year, rows: list[PaymentRow]) -> None:
    """Each charge and refund that the bank made is in the books, once, and nothing else is."""
    ledger = year.ledger
    settled = {line["reference"] for line in ledger.unsettled}
    done = [row for row in rows if row.state is PaymentState.DONE]
    charged = {row.reference: (row.minor, row.currency) for row in done if row.kind is PaymentKind.CHARGE}
    expected = {each.reference: (each.minor, each.currency) for each in ledger.charges.values()}
    unlike = {
        name: (charged.get(name), expected.get(name))
        for name in charged.keys() | expected.keys()
        if charged.get(name) != expected.get(name) and name not in settled
    }
    assert not unlike, f"charges, books against ledger: {unlike}"
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        if row.kind is PaymentKind.CHARGE and row.state is PaymentState.DONE and row.reference not in settled:
            sums[row.currency][0] += row.minor
        elif row.kind is PaymentKind.REFUND and row.state is PaymentState.DONE:
            sums[row.currency][1] += row.minor
        elif row.kind is PaymentKind.DISPUTE and row.state is PaymentState.LOST:
            sums[row.currency][2] += row.minor
    unheard = ledger.unheard_refunds(rows_done={row.reference for row in done})
    for currency, (charges, refunds, lost) in ledger.totals().items():
        books = sums[currency]
        assert (charges, lost) == (books[0], books[2]), (currency, charges, lost, books)
        assert refunds == books[1] + unheard.get(currency, 0), (currency, refunds, books, unheard)


def _all_that_is_owed_is_under_way(year: Year, rows: list[PaymentRow]) -> None:
    """Of each charge: what is owed of it and not given back yet is in the books, and waits for something."""
    pending: dict[str, int] = defaultdict(int)
    for row in rows:
        waits = row.kind is PaymentKind.REFUND and row.state in (PaymentState.PENDING, PaymentState.FAILED)
        if waits and row.reference not in year.ledger.refunds_done:
            pending[row.detail["of"]] += row.minor
    for charge in year.ledger.charges.values():
        owed = year.ledger.outstanding(charge)
        assert owed == pending.pop(charge.reference, 0), (charge, owed)
        waits = charge.open_disputes or year.away or year.ledger.waits(charge.reference)
        if owed and not waits:
            states = [
                (r.reference, str(r.state), r.attempts)
                for r in rows
                if r.detail.get("of") == charge.reference
            ]
            late = year.late.setdefault(charge.reference, year.now_ms)
            assert year.now_ms - late < 86_400_000, f"owed, and nothing is done about it: {charge} {states}"
        else:
            year.late.pop(charge.reference, None)
    assert not pending, f"it is about to be given back, and not owed: {dict(pending)}"


def _plans_are_what_was_paid_for(year: Year) -> None:
    """Days, renewal and package of each plan, and the bits of today and around it."""
    world, ledger, today = year.world, year.ledger, day_of(year.now_ms)
    around = [today + timedelta(days=n) for n in range(-BACK_DAYS, AHEAD_DAYS)]
    accounts = tuple(ledger.of_account)
    with world.desk.reading() as books:
        on_file = books.devices_of(*accounts, limit=100_000)
        bought: dict[int, list[SubscriptionRow]] = defaultdict(list)
        for row in books.subscriptions_of(*accounts):
            bought[row.device].append(row)
    plans = {facts.device: subscriptions_of(facts.plans, bought[facts.device]) for facts in on_file}
    for device, deals in ledger.deals.items():
        had = sorted(
            (str(sub.plan.starts_on), str(sub.plan.ends_on), sub.renews, sub.plan.package)
            for sub in plans[device]
        )
        right = sorted((str(deal.start), str(deal.end), deal.renews, deal.package) for deal in deals)
        assert had == right, f"device {device} has {had}, and is to have {right}"
        row = world.bitmap.read(device)
        assert row is not None
        days = ledger.days(device)
        for day in around:
            offset = to_day(day) - row.first_day
            lets_in = offset >= 0 and bool(row.days >> offset & 1)
            assert lets_in == (day in days), f"device {device} on {day}: {lets_in}"


def _nothing_is_unexplained(year: Year) -> None:
    audit = check_books(year.world.desk, year.world.bitmap, days=1)
    assert not audit.unanswered
    left = [
        f for f in audit.findings if not (f.code == "refund_refused" and f.subject in year.ledger.refused)
    ]
    assert not left, left
