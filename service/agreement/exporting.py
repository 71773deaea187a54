"""Payments of a period as CSV, for spreadsheets: streamed, and no cell is ever taken for a formula.

One line for each payment of the period, by the time at which it was made, then what stays of those of closed accounts
(agreement 6.5.4). A payment is in the period in which it was made, whenever it was settled: so periods that follow each
other have each once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime

from retention.money import EXPONENTS
from service.agreement.desk import Actor, Desk
from service.agreement.details import by_hand, charge_reference, refusal_of
from service.agreement.errors import Unprocessable
from service.agreement.texts import cell
from storage.days import MS_PER_DAY, to_date, to_day
from storage.rows.accounts import ClosedPayment, PaymentKind, PaymentRow, PaymentState

PAGE = 1000
COLUMNS = (
    *("payment", "day", "kind", "state", "currency", "minor", "amount", "moved_minor"),
    *("account", "device", "plan", "reference", "of", "by_hand", "settled", "why", "refused"),
)
"""`moved_minor`: what moved, from the owner where it is positive; 0 for what did not. Its sum is what is kept."""
_SIGNS = {PaymentKind.CHARGE: 1, PaymentKind.REFUND: -1, PaymentKind.DISPUTE: -1}
_MOVED = (PaymentState.DONE, PaymentState.PAID_OTHERWISE, PaymentState.LOST)


def lines(desk: Desk, actor: Actor, first: date, last: date) -> Iterator[str]:
    """Yield a header and a line for each payment made on the days `first..last` (UTC), each with its line end.

    Raises:
        Forbidden: `operators_only`; Unprocessable: `bad_period`, the last day is before the first.
    """
    actor.require_operator()
    if last < first:
        raise Unprocessable(f"the period ends on {last}, before it begins on {first}", code="bad_period")
    return _lines(desk, first, last)


def _lines(desk: Desk, first: date, last: date) -> Iterator[str]:
    yield _line(COLUMNS)
    for row in _payments(desk, to_day(first) * MS_PER_DAY, (to_day(last) + 1) * MS_PER_DAY):
        yield _line(_cells(row))
    for closed in _closed(desk, to_day(first), to_day(last)):
        yield _line(_closed_cells(closed))


def _payments(desk: Desk, from_ms: int, until_ms: int) -> Iterator[PaymentRow]:
    after = 0
    while True:
        with desk.reading() as books:
            page = books.payments_between(from_ms=from_ms, until_ms=until_ms, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        from_ms, after = page[-1].at_ms, page[-1].payment_id


def _closed(desk: Desk, first: int, last: int) -> Iterator[ClosedPayment]:
    after = 0
    while True:
        with desk.reading() as books:
            page = books.closed_payments(first=first, last=last, after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            return
        first, after = page[-1].day, page[-1].payment_id


def _cells(row: PaymentRow) -> list[object]:
    refusal = refusal_of(row)
    return [
        row.payment_id,
        _day(row.at_ms),
        str(row.kind),
        str(row.state),
        row.currency,
        row.minor,
        _amount(row.minor, row.currency),
        _moved(row.kind, row.state, row.minor),
        row.account,
        row.device,
        "" if row.plan_id is None else row.plan_id,
        row.reference,
        charge_reference(row),
        "yes" if by_hand(row) else "",
        "" if row.settled_ms is None else _day(row.settled_ms),
        row.why,
        "" if refusal is None else refusal.detail,
    ]


def _closed_cells(row: ClosedPayment) -> list[object]:
    """Nothing of whose it was."""
    return [
        row.payment_id,
        to_date(row.day).isoformat(),
        str(row.kind),
        str(row.state),
        row.currency,
        row.minor,
        _amount(row.minor, row.currency),
        _moved(row.kind, row.state, row.minor),
        *[""] * (len(COLUMNS) - 8),
    ]


def _moved(kind: PaymentKind, state: PaymentState, minor: int) -> int:
    return _SIGNS.get(kind, 0) * minor if state in _MOVED else 0


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


def _amount(minor: int, currency: str) -> str:
    """`59.99`: never below zero, so never taken for a formula."""
    digits = EXPONENTS.get(currency, 2)
    whole, part = divmod(minor, 10**digits)
    return f"{whole}.{part:0{digits}}" if digits else str(whole)


def _line(cells: Iterable[object]) -> str:
    out = io.StringIO()
    row = [cell(value) if isinstance(value, str) else value for value in cells]  # numbers stay numbers
    csv.writer(out, lineterminator="\r\n").writerow(row)
    return out.getvalue()
