"""`clipkeep renew`: charges what is due, once, however often and from however many processes it is run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from service.agreement.desk import Desk
from service.agreement.monthly import Step, begin
from service.agreement.settling import MAX_UNAVAILABLE, settle, settle_pending
from storage.books import SubscriptionRow

DEFAULT_LIMIT = 10_000
_PAGE = 100


@dataclass(frozen=True, slots=True)
class RenewReport:
    """What a run did.

    Args:
        renewed: periods paid, or without a fee, and taken up.
        declined: charges that the gateway refused; tried again on their schedule.
        given_back: charged, and refunded, because the plan was cancelled or its account suspended meanwhile.
        lapsed: plans whose period had ended unpaid.
        refunded: refunds of earlier runs, of cancellations too, that went through now.
        refund_failed: refunds that the gateway refused for good: an operator must see to them.
        waiting: the gateway could not be reached; the next run asks again.
        finished: purchases that a killed process had left, and that have their plan now.
        complete: False when there was more than `limit`, or the gateway is away: run again.
    """

    renewed: int = 0
    declined: int = 0
    given_back: int = 0
    lapsed: int = 0
    refunded: int = 0
    refund_failed: int = 0
    waiting: int = 0
    finished: int = 0
    complete: bool = True


def renew(desk: Desk, *, limit: int = DEFAULT_LIMIT) -> RenewReport:
    """Finish what is pending, charge the periods that are due, and let lapse what ended unpaid. Idempotent, and safe in
    several processes at once: each step is a transaction, each charge has one reference.

    Args:
        limit: subscriptions looked at, and pending payments settled, at most.
    """
    pending = settle_pending(desk, limit=limit)
    counts: Counter[str] = Counter()
    after = seen = unavailable = 0
    ends_by = desk.today() + desk.settings.charge_ahead_days
    while seen < limit and unavailable < MAX_UNAVAILABLE:
        page = _due(desk, ends_by, after, min(_PAGE, limit - seen))
        if not page:
            break
        for row in page:
            outcome = _renew_one(desk, row.plan_id)
            counts[outcome] += 1
            unavailable = unavailable + 1 if outcome == "waiting" else 0
            if unavailable >= MAX_UNAVAILABLE:
                break
        after = page[-1].plan_id
        seen += len(page)
    all_counts = counts + pending
    return RenewReport(
        renewed=counts["done"] + counts["renewed"],
        declined=all_counts["declined"],
        given_back=all_counts["given_back"],
        lapsed=counts["lapsed"],
        refunded=all_counts["refunded"],
        refund_failed=all_counts["refund_failed"],
        waiting=all_counts["waiting"],
        finished=pending["done"],
        complete=seen < limit and not all_counts["waiting"],
    )


def _due(desk: Desk, ends_by: int, after: int, limit: int) -> list[SubscriptionRow]:
    with desk.reading() as books:
        return books.renewals_due(ends_by=ends_by, now_ms=desk.now_ms(), after=after, limit=limit)


def _renew_one(desk: Desk, plan_id: int) -> str:
    step, reference = desk.change(lambda books: begin(desk, books, plan_id))
    if step is not Step.PAY:
        return str(step)
    with desk.reading() as books:
        payment = books.payment(reference)
    return str(Step.NOTHING) if payment is None else settle(desk, payment)
