"""`clipkeep renew`: charges what is due, once, however often and from however many processes it is run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial

from service.agreement import fees
from service.agreement.desk import Desk
from service.agreement.monthly import Step, begin
from service.agreement.settling import UNREACHED, Turn, settle_all, settle_pending
from storage.catalog.books import Books
from storage.rows.accounts import SubscriptionRow

DEFAULT_LIMIT = 10_000
_PAGE = 100


@dataclass(frozen=True, slots=True)
class RenewReport:
    """What a run did, and what is left.

    Args:
        renewed: periods paid, or without a fee, and taken up.
        declined: charges that the gateway refused; tried again on their schedule.
        given_back: charged, and refunded, because the plan was cancelled or its account suspended meanwhile.
        lapsed: plans whose period had ended unpaid.
        expired: charges that were never answered, and are void since there is nothing to be had for them any more.
        refunded: refunds of earlier runs, of cancellations too, that went through now.
        finished: purchases that a killed process had left, and that have their plan now.
        waiting: payments that the gateway has not answered, or that this run did not come to; later runs ask again.
        refund_failed: refunds that the gateway refused for good, now or before: an operator must see to them.
        fees_told: owners who were told of another fee, or that it does not come: what `package apply` has left.
        complete: False when there was more than `limit`, or payments wait: run again.
    """

    renewed: int = 0
    declined: int = 0
    given_back: int = 0
    lapsed: int = 0
    expired: int = 0
    refunded: int = 0
    finished: int = 0
    waiting: int = 0
    refund_failed: int = 0
    fees_told: int = 0
    complete: bool = True


def renew(desk: Desk, *, limit: int = DEFAULT_LIMIT, turn: Turn | None = None) -> RenewReport:
    """Finish what is pending, charge the periods that are due, and let lapse what ended unpaid. Idempotent, and safe in
    several processes at once: each step is a transaction, each charge has one reference.

    Each subscription that is due gets its turn, whatever becomes of the others'. A charge that is not asked for any
    more in this run is in the books by then, and among the first of the next.

    Args:
        limit: subscriptions looked at, and pending payments settled, at most.
        turn: how long the gateway may be asked.
    """
    with desk.together() as desk:
        return _renew(desk, limit, turn or Turn(desk))


def _renew(desk: Desk, limit: int, turn: Turn) -> RenewReport:
    told = fees.tell_all(desk, limit=limit)
    pending = settle_pending(desk, limit=limit, turn=turn)
    counts: Counter[str] = Counter()
    after = seen = 0
    ends_by = desk.today() + desk.settings.charge_ahead_days
    while seen < limit and (page := _due(desk, ends_by, after, min(_PAGE, limit - seen))):
        counts += _renew_page(desk, page, turn)
        after = page[-1].plan_id
        seen += len(page)
    with desk.reading() as books:
        left = books.backlog(on=desk.today())
    total = counts + pending
    waiting = left.unanswered_payments + total[UNREACHED]
    return RenewReport(
        renewed=counts["done"] + counts["renewed"],
        declined=total["declined"],
        given_back=total["given_back"],
        lapsed=counts["lapsed"],
        expired=total["expired"],
        refunded=total["refunded"],
        finished=pending["done"],
        waiting=waiting,
        refund_failed=left.failed_refunds,
        fees_told=told.told + told.withdrawn,
        complete=seen < limit and not waiting,
    )


def _due(desk: Desk, ends_by: int, after: int, limit: int) -> list[SubscriptionRow]:
    with desk.reading() as books:
        return books.renewals_due(ends_by=ends_by, now_ms=desk.now_ms(), after=after, limit=limit)


def _begin(desk: Desk, plan_id: int, books: Books) -> tuple[Step, str]:
    return begin(desk, books, plan_id)


def _renew_page(desk: Desk, page: list[SubscriptionRow], turn: Turn) -> Counter[str]:
    steps = [desk.change(partial(_begin, desk, row.plan_id)) for row in page]
    counts = Counter(str(step) for step, _ in steps if step is not Step.PAY)
    return counts + settle_all(desk, [reference for step, reference in steps if step is Step.PAY], turn)
