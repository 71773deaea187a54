"""Notices go out, at least once each; what can't be delivered goes to the operator.

A notice is claimed before it is sent: its next attempt is put off by longer than one takes, in a transaction. So two
runs at once do not send it twice, and one that is killed between sending and noting it leaves it to be sent again.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from service.agreement import closing
from service.agreement.desk import Actor, Desk
from service.agreement.errors import Conflict
from service.agreement.senders import Senders, SendLater, SendRefused
from storage.catalog.books import Books
from storage.days import MS_PER_DAY
from storage.errors import NotFound
from storage.rows.accounts import CODE_PURPOSES, NoticeLane, NoticeRow, NoticeState

CLAIM_FACTOR = 4
"""How many times the longest wait for a server a claim lasts: a send is a few exchanges, each of which may wait."""
MAX_BATCH = 1000
MAX_BATCHES = 20
"""In one turn; the next one goes on."""
SECRET_PURPOSES = frozenset(CODE_PURPOSES)
"""Notices that carry a one-time code: it is not kept once they are out."""


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    delivered: int = 0
    delayed: int = 0  # to be tried again
    failed: int = 0  # for good: an operator must act
    closed_accounts: int = 0  # whose cancellation took effect, as their last notice was delivered


def deliver_due(desk: Desk, senders: Senders, *, limit: int = 100) -> DeliveryReport:
    """Send what is due, at most `limit` notices, and let cancellations take effect whose notices are delivered."""
    report = _deliver(desk, senders, limit, NoticeLane.ALL)
    return replace(report, closed_accounts=len(closing.settle(desk)))


def deliver_now(desk: Desk, senders: Senders, lane: NoticeLane) -> DeliveryReport:
    """Send all that is due of a lane: cheap when there is nothing, so it may be called every second. When something was
    delivered, cancellations take effect whose notices are delivered."""
    total = one = _deliver(desk, senders, MAX_BATCH, lane)
    batches = 1
    while one.delivered + one.delayed + one.failed == MAX_BATCH and batches < MAX_BATCHES:
        one = _deliver(desk, senders, MAX_BATCH, lane)
        total = _sum(total, one)
        batches += 1
    closed = closing.settle(desk) if total.delivered and lane is not NoticeLane.CODES else []
    return replace(total, closed_accounts=len(closed))


def _sum(one: DeliveryReport, other: DeliveryReport) -> DeliveryReport:
    return DeliveryReport(
        one.delivered + other.delivered, one.delayed + other.delayed, one.failed + other.failed
    )


def _deliver(desk: Desk, senders: Senders, limit: int, lane: NoticeLane) -> DeliveryReport:
    outcomes: Counter[NoticeState] = Counter()
    with desk.reading() as books:
        due = books.due_notices(now_ms=desk.now_ms(), limit=min(limit, MAX_BATCH), lane=lane)
    for notice in due:
        claimed = _claim(desk, notice.notice_id)
        if claimed is not None:
            outcomes[_note(desk, claimed, _attempt(senders, claimed))] += 1
    return DeliveryReport(
        outcomes[NoticeState.DELIVERED], outcomes[NoticeState.QUEUED], outcomes[NoticeState.FAILED]
    )


def listed(
    desk: Desk,
    actor: Actor,
    *,
    state: NoticeState | None = None,
    account: int | None = None,
    after: int = 0,
    limit: int = 100,
    newest_first: bool = False,
) -> list[NoticeRow]:
    """Notices for operators, codes not included."""
    actor.require_operator()
    with desk.reading() as books:
        rows = books.notices(
            account=account, state=state, after=after, limit=limit, newest_first=newest_first
        )
    return [without_code(row) for row in rows]


def confirm(desk: Desk, actor: Actor, notice_id: int) -> NoticeRow:
    """An operator says that the notice reached its owner by other ways (agreement 6.4). The cancellation of an account
    that waited for it takes effect.

    Raises:
        Conflict: `already_delivered`.
    """
    actor.require_operator()

    def work(books: Books) -> NoticeRow:
        row = books.notice(notice_id)
        if row.state is NoticeState.DELIVERED:
            raise Conflict("it was delivered", subject=f"notice {notice_id}", code="already_delivered")
        done = without_code(replace(row, state=NoticeState.DELIVERED, settled_ms=desk.now_ms(), error=""))
        books.put_notice(done)
        facts = {"notice": notice_id, "purpose": row.purpose, "channel": row.channel}
        desk.record(books, actor, row.account, "notice_confirmed", facts=facts)
        return done

    done = desk.write(work)
    closing.settle(desk)
    return done


# --- one notice ---------------------------------------------------------------------------------------------------


def _claim(desk: Desk, notice_id: int) -> NoticeRow | None:
    """Put the next attempt off while this one is under way; None when it is no longer due."""

    def work(books: Books) -> NoticeRow | None:
        now_ms = desk.now_ms()
        try:
            row = books.notice(notice_id)
        except NotFound:  # the account was cancelled since
            return None
        if row.state is not NoticeState.QUEUED or row.next_ms > now_ms:
            return None
        claim_ms = round(CLAIM_FACTOR * desk.notices.send_timeout_s * 1000)
        claimed = replace(row, attempts=row.attempts + 1, next_ms=now_ms + claim_ms)
        books.put_notice(claimed)
        return claimed

    return desk.write(work)


def _attempt(senders: Senders, notice: NoticeRow) -> SendLater | SendRefused | None:
    sender = senders.get(notice.channel)
    if sender is None:
        return SendRefused(f"there is no sender for {notice.channel}")
    try:
        sender.send(notice)
    except (SendLater, SendRefused) as error:
        return error
    return None


def _note(desk: Desk, claimed: NoticeRow, error: SendLater | SendRefused | None) -> NoticeState:
    """Note what became of it. An operator, or another run after a claim that ran out, may have been faster."""

    def work(books: Books) -> NoticeState:
        try:
            row = books.notice(claimed.notice_id)
        except NotFound:
            return NoticeState.DELIVERED if error is None else NoticeState.FAILED
        if row.state is NoticeState.DELIVERED:
            return row.state
        noted = _settled(desk, row, error)
        books.put_notice(noted)
        return noted.state

    return desk.write(work)


def _settled(desk: Desk, row: NoticeRow, error: SendLater | SendRefused | None) -> NoticeRow:
    now_ms = desk.now_ms()
    if error is None:
        return without_code(replace(row, state=NoticeState.DELIVERED, settled_ms=now_ms, error=""))
    said = error.detail.replace(row.address, "its address")
    if isinstance(error, SendRefused) or row.attempts >= desk.notices.max_attempts:
        return without_code(replace(row, state=NoticeState.FAILED, settled_ms=now_ms, error=said))
    pause_ms = min(MS_PER_DAY, round(desk.notices.retry_s * 1000) << (row.attempts - 1))
    return replace(row, next_ms=now_ms + pause_ms, error=said)


def without_code(row: NoticeRow) -> NoticeRow:
    """The row as it may be shown: a one-time code is for its address alone."""
    return replace(row, body="") if row.purpose in SECRET_PURPOSES else row
