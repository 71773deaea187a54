"""Finishing payments that were left PENDING: by a process that died, or a gateway that could not be reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from service.agreement.charging import Purpose, give_back, pay
from service.agreement.desk import Desk
from service.agreement.monthly import RENEWAL, RENEWALS
from service.agreement.ordering import PURCHASE, PURCHASES
from service.agreement.payments import PaymentDeclined, PaymentUnavailable
from storage.books import PaymentKind, PaymentRow, PaymentState
from storage.errors import CallerError

SETTLE_AFTER_MS = 60_000
"""Younger ones are being worked on, most likely. To be wrong costs one more call of the gateway, nothing else."""
MAX_UNAVAILABLE = 3
"""In a row, after which a gateway is taken to be away and the run ends: each call may wait for a time-out."""
PURPOSES: Mapping[str, Purpose] = {PURCHASE: PURCHASES, RENEWAL: RENEWALS}


def settle_pending(desk: Desk, *, limit: int = 1000, older_than_ms: int = SETTLE_AFTER_MS) -> Counter[str]:
    """Finish what is pending, each under its own reference. Any number of processes may do so at once.

    Returns:
        How many ended how: "done", "declined", "given_back" (a charge for which nothing could be had any more),
        "refunded", "refund_failed", "waiting" (the gateway is away).
    """
    counts: Counter[str] = Counter()
    before_ms = desk.now_ms() - older_than_ms + 1
    unavailable = 0
    with desk.reading() as books:
        due = books.pending_payments(before_ms=before_ms, now_ms=desk.now_ms(), limit=limit)
    for row in due:
        outcome = settle(desk, row)
        counts[outcome] += 1
        unavailable = unavailable + 1 if outcome == "waiting" else 0
        if unavailable >= MAX_UNAVAILABLE:
            break
    return counts


def settle(desk: Desk, row: PaymentRow) -> str:
    """Finish one, whatever it is for; see `settle_pending`."""
    if row.kind is PaymentKind.REFUND:
        state = give_back(desk, row.reference)
        if state is PaymentState.PENDING:
            return "waiting"
        return "refund_failed" if state is PaymentState.FAILED else "refunded"
    try:
        pay(desk, row.reference, PURPOSES[row.detail["for"]])
    except PaymentDeclined:
        return "declined"
    except PaymentUnavailable:
        return "waiting"
    except CallerError:
        return "given_back"
    return "done"
