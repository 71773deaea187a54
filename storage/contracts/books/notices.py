"""What the account books promise of notices, closings that wait, and the backlog."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.contracts.books.given import OnBooks, charge, notice, owner
from storage.contracts.given import DAY, NOW, WEEK
from storage.errors import NotFound
from storage.rows.accounts import (
    MAX_OVERDUE_DAYS,
    AccountState,
    Backlog,
    ClosingState,
    NoticeState,
    PaymentState,
    SubscriptionRow,
)
from storage.rows.devices import PlanRow


class NoticesContract(OnBooks):
    """See the module docstring."""

    def test_every_field_of_a_notice_is_kept(self, catalog: Catalog, write: Any, ann: int) -> None:
        with write() as books:
            row = books.add_notice(notice(ann))
            assert books.notice(row.notice_id) == row == notice(ann, notice_id=row.notice_id)
            sent = replace(
                row,
                channel="mobile",
                address="+15550100",
                purpose="closing",
                subject="",
                body="Your code: 123456\n",
                state=NoticeState.FAILED,
                attempts=8,
                next_ms=NOW + 7,
                settled_ms=NOW + 8,
                error="550 no such user",
            )
            books.put_notice(sent)
        with write() as books:
            assert books.notice(row.notice_id) == sent
            for call in (
                lambda: books.notice(99),
                lambda: books.put_notice(replace(sent, notice_id=99)),
                lambda: books.add_notice(notice(99)),
            ):
                with pytest.raises(NotFound):
                    call()

    def test_due_notices_the_longest_due_first(
        self, catalog: Catalog, write: Any, ann: int, bob: int
    ) -> None:
        with write() as books:
            late, now, first = (books.add_notice(notice(ann, next_ms=ms)) for ms in (NOW - 5, NOW, NOW - 9))
            again = books.add_notice(notice(bob, next_ms=NOW - 9))
            books.add_notice(notice(ann, next_ms=NOW + 1))
            for state in (NoticeState.DELIVERED, NoticeState.FAILED):
                books.add_notice(notice(ann, state=state))
        with catalog.books() as books:
            assert books.due_notices(now_ms=NOW) == [first, again, late, now]
            assert books.due_notices(now_ms=NOW, limit=2) == [first, again]
            assert books.due_notices(now_ms=NOW - 10) == []

    def test_lists_of_notices(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            rows = [
                books.add_notice(notice(account, purpose=purpose, state=state))
                for account in (ann, bob)
                for purpose in ("closing", "receipt")
                for state in NoticeState
            ]
        with catalog.books() as books:
            assert books.notices() == rows
            assert books.notices(account=bob) == rows[6:]
            assert books.notices(state=NoticeState.FAILED) == rows[2::3]
            assert books.notices(purpose="closing", account=ann) == rows[:3]
            assert books.notices(after=rows[3].notice_id, limit=2) == rows[4:6]
            assert books.notices(account=99) == []
            assert books.notices(limit=2, newest_first=True) == rows[::-1][:2]

    def test_approved_closings(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            for closing in (*ClosingState, *ClosingState):
                books.add_account(owner(closing=closing))
            found = [row.account for row in books.approved_closings()]
            assert [books.account(n).closing for n in found] == [ClosingState.APPROVED] * 2
            assert [row.account for row in books.approved_closings(after=found[0], limit=1)] == found[1:]
            books.put_account(replace(books.account(found[0]), state=AccountState.CANCELLED))
            assert [row.account for row in books.approved_closings()] == found[1:]

    def test_requested_closings(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            for closing in (*ClosingState, *ClosingState):
                books.add_account(owner(closing=closing))
            found = [row.account for row in books.requested_closings()]
            assert [books.account(n).closing for n in found] == [ClosingState.REQUESTED] * 2
            assert [row.account for row in books.requested_closings(after=found[0], limit=1)] == found[1:]
            books.put_account(replace(books.account(found[0]), state=AccountState.CANCELLED))
            assert [row.account for row in books.requested_closings()] == found[1:]

    def test_nothing_waits_at_first(self, catalog: Catalog) -> None:
        with catalog.books() as books:
            assert books.backlog(on=DAY) == Backlog(0, None, 0, 0, 0, 0, 0, None, 0, 0, 0)

    def test_the_backlog_counts_what_waits_and_nothing_else(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        with write() as books:
            for ms, state in ((NOW + 7, NoticeState.QUEUED), (NOW - 3, NoticeState.QUEUED)):
                books.add_notice(notice(bob, next_ms=ms, state=state))
            for state in (NoticeState.FAILED, NoticeState.DELIVERED, NoticeState.DELIVERED):
                books.add_notice(notice(ann, next_ms=NOW - 9, state=state))
            for closing in (*ClosingState, ClosingState.APPROVED):
                books.add_account(owner(closing=closing))
            books.put_account(replace(books.account(bob), state=AccountState.CANCELLED))
            for number, state in enumerate((*PaymentState, PaymentState.PENDING)):
                books.add_payment(charge(ann, device, f"r{number}", state=state, at_ms=NOW - number))
        with catalog.books() as books:
            assert books.backlog(on=DAY) == Backlog(
                2, NOW - 3, 1, 1, 2, 0, 2, NOW - len(PaymentState), 0, 0, 0
            )

    def test_renewals_are_overdue_when_their_last_day_is_over(
        self, catalog: Catalog, write: Any, ann: int
    ) -> None:
        def add(books: Books, ends_on: int | None, *, renews: bool = True, kind: str = "monthly") -> None:
            number = books.add_device(ann).device
            plans = (PlanRow(0, kind, DAY - 90, ends_on, WEEK),)
            plan_id = books.change_device(number, lambda f: replace(f, plans=plans), what="").plans[0].plan_id
            books.add_subscription(
                SubscriptionRow(plan_id, ann, number, "USD", 599, 599, renews, "m", 1, NOW)
            )

        with write() as books:
            for ends_on in (DAY - 1, DAY - MAX_OVERDUE_DAYS, DAY, DAY - MAX_OVERDUE_DAYS - 1, None):
                add(books, ends_on)
            add(books, DAY - 1, renews=False)
            add(books, DAY - 1, renews=False, kind="annual")
        with catalog.books() as books:
            assert [books.backlog(on=day).overdue_renewals for day in (DAY, DAY + 1)] == [2, 2]
