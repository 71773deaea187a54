"""Finishing payments that were left PENDING: by a process that died, or a gateway that did not answer."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from service.agreement.charging import Purpose, give_back, pay
from service.agreement.desk import Desk
from service.agreement.details import PURCHASE, RENEWAL, purpose_of
from service.agreement.monthly import RENEWALS
from service.agreement.ordering import PURCHASES
from service.agreement.patience import YieldingGateway
from service.agreement.payments import (
    CustomerNeeded,
    PaymentDeclined,
    PaymentExpired,
    PaymentUnavailable,
    PurchaseAbandoned,
)
from storage.errors import CallerError
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState

SETTLE_AFTER_MS = 60_000
"""Younger ones are being worked on, most likely. To be wrong costs one more call of the gateway, nothing else."""
PURPOSES: Mapping[str, Purpose] = {PURCHASE: PURCHASES, RENEWAL: RENEWALS}
UNREACHED = "unreached"


class Turn:
    """How long one run may ask the gateway: `payment_run_s` from now on. A call under way then is waited for."""

    def __init__(self, desk: Desk, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._ends_s = monotonic() + desk.settings.payment_run_s

    @property
    def is_over(self) -> bool:
        return self._monotonic() >= self._ends_s


def settle_pending(
    desk: Desk, *, limit: int = 1000, older_than_ms: int = SETTLE_AFTER_MS, turn: Turn | None = None
) -> Counter[str]:
    """Finish what is pending and due, each under its own reference. Any number of processes may do so at once.

    Each that is due is asked for once, the new ones first, then those that wait longest: so what a run does not come to
    is among the first of the next. One that is not answered again waits longer than the time before.

    Returns:
        How many ended how: "done", "declined", "expired", "abandoned", "given_back" (a charge for which nothing could
        be had any more), "refunded", "refund_failed", "waiting" (not answered), "unreached" (the turn was over).
    """
    with desk.reading() as books:
        due = books.pending_payments(
            before_ms=desk.now_ms() - older_than_ms + 1, now_ms=desk.now_ms(), limit=limit
        )
    with desk.together() as desk:
        return settle_all(desk, [row.reference for row in due], turn or Turn(desk))


def settle_all(desk: Desk, references: Sequence[str], turn: Turn) -> Counter[str]:
    """Finish these, `payment_threads` at once. Those that wait for the gateway count apart, up to `payment_calls`: many
    that are never answered hold up nobody else's. See `settle_pending`."""
    settings = desk.settings
    turns = threading.Semaphore(settings.payment_threads)
    working = replace(desk, gateway=YieldingGateway(desk.gateway, turns))

    def one(reference: str) -> str:
        with turns:
            return UNREACHED if turn.is_over else settle(working, reference)

    if len(references) < 2 or settings.payment_threads < 2:
        return Counter(map(one, references))
    with ThreadPoolExecutor(max(settings.payment_threads, settings.payment_calls)) as threads:
        calls = [threads.submit(one, reference) for reference in references]
        try:
            return Counter(call.result() for call in calls)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def settle(desk: Desk, reference: str) -> str:
    """Finish one, whatever it is for; see `settle_pending`. One whose account was erased is "given_back"."""
    with desk.reading() as books:
        row = books.payment(reference)
    if row is None:
        return "given_back"
    if row.kind is PaymentKind.REFUND:
        return _settle_refund(desk, row)
    try:
        pay(desk, row.reference, PURPOSES[purpose_of(row)])
    except PaymentExpired:
        return "expired"
    except PurchaseAbandoned:
        return "abandoned"
    except PaymentDeclined:
        return "declined"
    except (PaymentUnavailable, CustomerNeeded):
        return "waiting"
    except CallerError:
        return "given_back"
    return "done"


def _settle_refund(desk: Desk, row: PaymentRow) -> str:
    state = give_back(desk, row.reference)
    if state is PaymentState.PENDING:
        return "waiting"
    return "refund_failed" if state is PaymentState.FAILED else "refunded"
