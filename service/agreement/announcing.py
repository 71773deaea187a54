"""The same notice to many accounts: changes and interruptions of the service (agreement 3.1, 3.2), and
advertisements (2.6).

What has a planned window is shown to anybody until that is over, without a log-in. An account gets each announcement
once: when the call was interrupted, the same call goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from service.agreement.consents import unsubscribe_url, wants_advertisements
from service.agreement.desk import Actor, Desk
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.outbox import addresses_of, queue
from service.agreement.texts import MAX_SUBJECT_CHARS, one_line, paragraphs
from storage.catalog.books import Books
from storage.days import MS_PER_DAY
from storage.errors import NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, AccountState
from storage.rows.people import AnnouncementRow

PAGE_ACCOUNTS = 100
"""Accounts that get an announcement in one transaction."""
MAX_PLANNED = 50
"""Announcements with a window that are not over: anybody may read all of them, so a page of them has an end."""
MAX_AHEAD_DAYS = 2 * 366
MAX_REFERENCE_CHARS = 64
ADVERTISEMENT = "advertisement:"
"""Begins the purpose of advertisements."""


@dataclass(frozen=True, slots=True)
class Window:
    """When it is planned for, Unix ms."""

    from_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Announcement:
    reference: str
    accounts: int  # that got it with this call


def announce(
    desk: Desk,
    actor: Actor,
    subject: str,
    body: str,
    *,
    reference: str | None = None,
    window: Window | None = None,
    to_suspended: bool = False,
    passed: Callable[[int], None] = lambda account: None,
) -> Announcement:
    """Tell all active accounts of a change or an interruption of the service (agreement 3.1, 3.2).

    Args:
        reference: what makes it the same announcement; by default today's date and the text.
        window: when it is planned for; until that is over anybody can read it.
        to_suspended: suspended accounts are told, too.
        passed: called with the number of the last account of each page, when it is done.

    Raises:
        Forbidden: `operators_only`; Unprocessable: `bad_text`, `bad_window`; Conflict: `too_many_announcements`.
    """
    actor.require_operator()
    subject = one_line(subject, "the subject", MAX_SUBJECT_CHARS)
    body = paragraphs(body, "the announcement")
    reference = _reference(desk, reference, subject, body)
    if window is not None:
        _show(desk, AnnouncementRow(reference, subject, body, window.from_ms, window.until_ms, desk.now_ms()))

    def told(books: Books, row: AccountRow) -> bool:
        return to_suspended or row.suspended_ms is None

    done = _to_many(desk, f"announcement:{reference}", lambda row: (subject, body), told, passed)
    facts = {"reference": reference, "accounts": done.accounts}
    desk.write(lambda books: desk.record(books, actor, OPERATOR_ACCOUNT, "announced", facts=facts))
    return done


def advertise(
    desk: Desk,
    actor: Actor,
    subject: str,
    body: str,
    *,
    reference: str | None = None,
    passed: Callable[[int], None] = lambda account: None,
) -> Announcement:
    """Tell those who want it of what is not owed (agreement 2.6), with a link that ends that. As `announce`.

    Raises:
        Unprocessable: `no_public_url`: a link needs `[notices] public_url`. And as `announce`.
    """
    actor.require_operator()
    if not desk.notices.public_url:
        raise Unprocessable(
            "advertisements have a link that ends them: set [notices] public_url", code="no_public_url"
        )
    subject = one_line(subject, "the subject", MAX_SUBJECT_CHARS)
    body = paragraphs(body, "the advertisement")
    reference = _reference(desk, reference, subject, body)

    def told(books: Books, row: AccountRow) -> bool:
        return row.suspended_ms is None and wants_advertisements(desk, books, row.account)

    def text(row: AccountRow) -> tuple[str, str]:
        fields = {"subject": subject, "body": body, "link": unsubscribe_url(desk, row.account)}
        written = desk.templates.write("advertisement", fields)
        return written.subject, written.body

    done = _to_many(desk, f"{ADVERTISEMENT}{reference}", text, told, passed)
    facts = {"reference": reference, "accounts": done.accounts}
    desk.write(lambda books: desk.record(books, actor, OPERATOR_ACCOUNT, "advertised", facts=facts))
    return done


def planned(desk: Desk) -> list[AnnouncementRow]:
    """Announcements with a window that is not over, in order of their beginning: for anybody."""
    with desk.reading() as books:
        return books.announcements(now_ms=desk.now_ms(), limit=MAX_PLANNED)


def withdraw(desk: Desk, actor: Actor, reference: str) -> None:
    """What was planned is off, or over early: nobody is shown it any more. Who was told stays told.

    Raises:
        Forbidden: `operators_only`; NotFound: `no_announcement`.
    """
    actor.require_operator()

    def work(books: Books) -> None:
        if not books.drop_announcement(reference):
            raise NotFound("no announcement of this reference is shown", code="no_announcement")
        facts = {"reference": reference}
        desk.record(books, actor, OPERATOR_ACCOUNT, "announcement_withdrawn", facts=facts)

    desk.write(work)


def _reference(desk: Desk, reference: str | None, subject: str, body: str) -> str:
    if reference is None:
        digest = sha256(f"{subject}\n{body}".encode()).hexdigest()[:16]
        reference = f"{desk.date().isoformat()}-{digest}"
    return one_line(reference, "the reference", MAX_REFERENCE_CHARS)


def _show(desk: Desk, row: AnnouncementRow) -> None:
    now_ms = desk.now_ms()
    if not row.from_ms < row.until_ms or not now_ms < row.until_ms <= now_ms + MAX_AHEAD_DAYS * MS_PER_DAY:
        raise Unprocessable(
            f"a planned window begins before it ends, and ends between now and {MAX_AHEAD_DAYS} days from now",
            code="bad_window",
        )

    def work(books: Books) -> None:
        there = books.announcements(now_ms=now_ms, limit=MAX_PLANNED)
        if len(there) >= MAX_PLANNED and all(one.reference != row.reference for one in there):
            raise Conflict(
                f"{MAX_PLANNED} announcements are shown already; withdraw one that is no longer planned",
                code="too_many_announcements",
            )
        books.put_announcement(row)

    desk.write(work)


def _to_many(
    desk: Desk,
    purpose: str,
    text: Callable[[AccountRow], tuple[str, str]],
    told: Callable[[Books, AccountRow], bool],
    passed: Callable[[int], None],
) -> Announcement:
    after = count = 0
    while True:

        def page(books: Books, after: int = after) -> tuple[int | None, int]:
            return _page(desk, books, after, purpose, text, told)

        last, queued = desk.write(page)
        count += queued
        if last is None:
            return Announcement(purpose.partition(":")[2], count)
        after = last
        passed(after)


def _page(
    desk: Desk,
    books: Books,
    after: int,
    purpose: str,
    text: Callable[[AccountRow], tuple[str, str]],
    told: Callable[[Books, AccountRow], bool],
) -> tuple[int | None, int]:
    rows = books.accounts(after=after, limit=PAGE_ACCOUNTS, state=AccountState.ACTIVE)
    count = 0
    for row in rows:
        if not addresses_of(row) or not told(books, row):
            continue
        if not books.notices(account=row.account, purpose=purpose, limit=1):
            queue(desk, books, row, purpose, *text(row), bulk=True)
            count += 1
    return (rows[-1].account if rows else None), count
