"""`books check`: gateway, payments, plans and bitmap, compared both ways. Changes nothing, also beside a service.

Rows are read before the gateway is asked about them, and the gateway's list before the rows that it should have: a row
is in the books before the gateway acts, and done after it. So what moves meanwhile is no finding. What an account's
plans and payments say of each other is read in one transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from retention.balance import Entry, Finding, of_charges, of_plan
from retention.bitmap import EntitlementBitmap
from retention.compile import PAST_DAYS
from retention.entitlements import bitmap_row
from retention.entries import subscriptions_of
from service.agreement.charging import disputed, money_of, related
from service.agreement.desk import Desk
from service.agreement.details import by_hand, charge_reference, refusal_of
from service.agreement.payments import CustomerNeeded, PaymentDeclined, PaymentUnavailable, Receipt
from storage.catalog.books import Books
from storage.days import MS_PER_DAY
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState, SubscriptionRow
from storage.rows.devices import DeviceFacts

PAGE = 500
TOGETHER = 50
"""Accounts whose plans and payments are read in one transaction."""
MAX_LISTED = 1000
MAX_UNANSWERED = 5
"""Calls in a row without an answer, after which the gateway is not asked any more."""
STUCK_MS = 2 * MS_PER_DAY
"""For which nothing is pending while the gateway answers: purchases expire before, and months end."""
_READS = 3
"""A device's facts and row are read again so often: they may change in between."""


@dataclass(slots=True)
class Audit:
    """What was compared, and what disagrees. `findings` has the first MAX_LISTED of `finding_count`."""

    accounts: int = 0
    devices: int = 0
    payments: int = 0
    asked: int = 0
    unanswered: int = 0
    listed: int | None = None
    """Receipts of the gateway's own list; None where it has none."""
    finding_count: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, found: Iterator[Finding]) -> None:
        for finding in found:
            self.finding_count += 1
            if len(self.findings) < MAX_LISTED:
                self.findings.append(finding)


def check_books(
    desk: Desk,
    bitmap: EntitlementBitmap,
    *,
    days: int,
    progress: Callable[[Audit], object] = lambda audit: None,
) -> Audit:
    """Compare all of it.

    Args:
        days: payments made in so many last days are asked for at the gateway, each with a call; all else is compared
            whatever its age.
        progress: called now and then with what was done so far.
    """
    audit = Audit()
    receipts = desk.gateway.receipts()
    for accounts in _accounts(desk):
        for held in _held_by(desk, accounts):
            audit.accounts += 1
            audit.devices += len(held.devices)
            audit.add(_of_account(desk, bitmap, held))
            progress(audit)
    asking = _Asking(desk, audit)
    for row in _payments(desk):
        audit.payments += 1
        audit.add(_of_row(desk, row))
        if row.at_ms > desk.now_ms() - days * MS_PER_DAY:
            audit.add(asking.about(row))
        progress(audit)
    if receipts is not None:
        audit.listed = 0
        for receipt in receipts:
            audit.listed += 1
            audit.add(_of_receipt(desk, receipt))
            progress(audit)
    return audit


# --- payments, plans and bitmap ---------------------------------------------------------------------------------------


def _accounts(desk: Desk) -> Iterator[list[int]]:
    """TOGETHER of them at a time."""
    after = 0
    while True:
        with desk.reading() as books:
            page = [row.account for row in books.accounts(after=after, limit=PAGE)]
        for first in range(0, len(page), TOGETHER):
            yield page[first : first + TOGETHER]
        if len(page) < PAGE:
            return
        after = page[-1]


@dataclass(slots=True)
class _Held:
    """What an account has, as one transaction saw it."""

    account: int
    entries: list[Entry] = field(default_factory=list)
    devices: list[DeviceFacts] = field(default_factory=list)
    bought: dict[int, list[SubscriptionRow]] = field(default_factory=lambda: defaultdict(list))
    """By device."""


def _held_by(desk: Desk, accounts: list[int]) -> Iterable[_Held]:
    held = {account: _Held(account) for account in accounts}
    with desk.reading() as books:
        for payment in _payments_of(books, accounts):
            held[payment.account].entries.append(_entry(payment))
        for facts in _devices_of(books, accounts):
            held[facts.account].devices.append(facts)
        for row in books.subscriptions_of(*accounts):
            held[row.account].bought[row.device].append(row)
    return held.values()


def _of_account(desk: Desk, bitmap: EntitlementBitmap, held: _Held) -> Iterator[Finding]:
    yield from of_charges(held.entries)
    of_plans: dict[int, list[Entry]] = defaultdict(list)
    for entry in held.entries:
        if entry.row.plan_id is not None:
            of_plans[entry.row.plan_id].append(entry)
    for facts in held.devices:
        for sub in subscriptions_of(facts.plans, held.bought[facts.device]):
            mine = of_plans.pop(sub.plan_id, [])
            yield from of_plan(sub, mine, terminated=facts.terminated_ms is not None)
        yield from _of_bitmap(desk, bitmap, facts)
    for entry in chain.from_iterable(of_plans.values()):
        yield Finding(
            "payment_of_no_plan",
            entry.row.reference,
            f"it is of plan {entry.row.plan_id}, which account {held.account} does not have",
            "look for a backup that was put back since, and give back what was charged",
        )


def _payments_of(books: Books, accounts: list[int]) -> Iterator[PaymentRow]:
    after = 0
    while True:
        page = books.payments_of(*accounts, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].payment_id


def _devices_of(books: Books, accounts: list[int]) -> Iterator[DeviceFacts]:
    after = 0
    while True:
        page = books.devices_of(*accounts, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].device


def _entry(row: PaymentRow) -> Entry:
    of = charge_reference(row) if row.kind in (PaymentKind.REFUND, PaymentKind.DISPUTE) else ""
    refused = row.kind is PaymentKind.CHARGE and refusal_of(row) is not None
    return Entry(row, of, by_hand(row) is not None, refused)


def _of_bitmap(desk: Desk, bitmap: EntitlementBitmap, facts: DeviceFacts) -> Iterator[Finding]:
    for _ in range(_READS):
        row = bitmap.read(facts.device)
        compiled_on = desk.today() if row is None else row.first_day + PAST_DAYS
        expected = bitmap_row(facts, compiled_on)
        if row == expected or (row is None and not expected.days):
            return
        with desk.reading() as books:
            facts = books.device(facts.device)
    yield Finding(
        "bitmap_differs",
        f"device {facts.device}",
        "what the entitlement bitmap lets it do is not what its plans say",
        "stop the service, remove entitlements.bitmap and start it: it is made anew of the catalog",
    )


# --- payments and gateway ---------------------------------------------------------------------------------------------


def _payments(desk: Desk) -> Iterator[PaymentRow]:
    after = 0
    while True:
        with desk.reading() as books:
            page = books.payments(after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].payment_id


def _of_row(desk: Desk, row: PaymentRow) -> Iterator[Finding]:
    """What somebody has to see to, whatever the gateway says."""
    if row.kind is PaymentKind.REFUND and row.state is PaymentState.FAILED:
        yield Finding(
            "refund_refused",
            row.reference,
            f"the gateway refused to give back {money_of(row)} to account {row.account}",
            "`clipkeep refund retry`, or pay it by other means and note that with `clipkeep refund paid`",
        )
    age_ms = desk.now_ms() - row.at_ms
    if row.state is PaymentState.PENDING and age_ms > STUCK_MS and not _waits_for_the_bank(desk, row):
        yield Finding(
            "pending_for_long",
            row.reference,
            f"this {row.kind} of account {row.account} has been pending for {age_ms // 3_600_000} hours",
            "run `clipkeep renew`, and look whether the payment gateway answers",
        )


def _waits_for_the_bank(desk: Desk, row: PaymentRow) -> bool:
    """A refund of a charge that is disputed is sent when the bank has decided, after weeks."""
    if row.kind is not PaymentKind.REFUND:
        return False
    with desk.reading() as books:
        return disputed(related(books, row), charge_reference(row))


class _Asking:
    """Looks payments up at the gateway, until it has not answered MAX_UNANSWERED times in a row."""

    def __init__(self, desk: Desk, audit: Audit) -> None:
        self._desk = desk
        self._audit = audit
        self._in_a_row = 0

    def about(self, row: PaymentRow) -> Iterator[Finding]:
        kinds, states = (PaymentKind.CHARGE, PaymentKind.REFUND), (PaymentState.DONE, PaymentState.FAILED)
        if row.kind not in kinds or row.state not in states or not row.minor:
            return
        if self._in_a_row >= MAX_UNANSWERED:
            self._audit.unanswered += 1
            return
        self._audit.asked += 1
        receipt, code = None, ""
        try:
            receipt = self._desk.gateway.look_up(
                row.reference, str(row.kind), money_of(row), charge_reference(row)
            )
        except (PaymentDeclined, CustomerNeeded) as error:
            code = error.code
        except PaymentUnavailable:
            self._audit.unanswered += 1
            self._in_a_row += 1
            return
        self._in_a_row = 0
        yield from _compared(row, receipt, code)


def _compared(row: PaymentRow, receipt: Receipt | None, code: str) -> Iterator[Finding]:
    moved = receipt is not None
    if code == "reference_taken":
        yield Finding(
            "gateway_differs",
            row.reference,
            f"the gateway has another payment than this {row.kind} of {money_of(row)} under its reference",
            "compare amount and currency with the gateway's record, and settle the difference with its owner",
        )
    elif row.state is PaymentState.DONE and not moved:
        what = "give the plan up, or charge it again" if row.kind is PaymentKind.CHARGE else "pay it back"
        yield Finding(
            "not_at_gateway",
            row.reference,
            f"the books say that this {row.kind} of {money_of(row)} was made, and the gateway "
            + ("refused it" if code else "has never heard of it"),
            f"ask the gateway's operator; when it is so, {what}",
        )
    elif row.state is PaymentState.FAILED and moved:
        what = (
            "have the gateway give it back: nothing was had for it"
            if row.kind is PaymentKind.CHARGE
            else "note it with `clipkeep refund paid`, so that it is not paid twice"
        )
        yield Finding(
            "made_at_gateway",
            row.reference,
            f"the books say that this {row.kind} of {money_of(row)} was refused, and the gateway has made it",
            what,
        )


def _of_receipt(desk: Desk, receipt: Receipt) -> Iterator[Finding]:
    with desk.reading() as books:
        row = books.payment(receipt.reference)
        if row is None and books.is_of_closed(receipt.reference):
            return
    if row is None:
        yield Finding(
            "not_in_books",
            receipt.reference,
            f"the gateway made a {receipt.kind} of {receipt.money} that is not in the books",
            "look for a backup that was put back since; give a charge back at the gateway, for nothing was had for it",
        )
    elif (str(row.kind), money_of(row)) != (receipt.kind, receipt.money):
        yield Finding(
            "gateway_differs",
            receipt.reference,
            f"the gateway made a {receipt.kind} of {receipt.money}, the books say {row.kind} of {money_of(row)}",
            "settle the difference with its owner",
        )


def as_dict(audit: Audit) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "accounts": audit.accounts,
        "devices": audit.devices,
        "payments": audit.payments,
        "asked": audit.asked,
        "unanswered": audit.unanswered,
        "listed": audit.listed,
        "finding_count": audit.finding_count,
        "findings": [
            {"code": f.code, "subject": f.subject, "detail": f.detail, "what_to_do": f.what_to_do}
            for f in audit.findings
        ],
    }
