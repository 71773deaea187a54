"""What the suites of the account books are given.

Two accounts are there in most tests: what is asked of one must never be told of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.contracts.blocks import writing_books
from storage.contracts.given import DAY, NOW, WEEK, OnCatalog
from storage.errors import ClipkeepError
from storage.rows.accounts import (
    AccountRow,
    AccountState,
    AnswerRow,
    ClosingState,
    EventRow,
    NoticeRow,
    PaymentKind,
    PaymentRow,
    PaymentState,
    SubscriptionRow,
)
from storage.rows.devices import DeviceFacts, EraseState, PlanRow

Told = list[tuple[DeviceFacts, DeviceFacts]]

DETAIL = {"plan": {"kind": "annual", "n": [1, 2, None, True]}, "text": "naïve €"}


def owner(email: str | None = None, mobile: str | None = None, **fields: Any) -> AccountRow:
    return AccountRow(0, "owner", "Ann", NOW, email=email, mobile=mobile, **fields)


def full_account(account: int) -> AccountRow:
    """A row in which every field differs from its default."""
    return AccountRow(
        account,
        "owner",
        "Ann Ünter 家",
        NOW,
        state=AccountState.ACTIVE,
        email="ann@example.com",
        mobile="+15550100",
        password_hash="$argon2id$…",
        activated_ms=NOW + 1,
        suspended_ms=NOW + 2,
        suspend_reason="false data",
        trial_ms=NOW + 3,
        used_on=DAY,
        closing=ClosingState.REQUESTED,
        closing_ms=NOW + 4,
        closing_reason="moving",
        closing_by="owner",
    )


def charge(account: int, device: int, reference: str, **fields: Any) -> PaymentRow:
    row = PaymentRow(
        0,
        reference,
        account,
        None,
        device,
        PaymentKind.CHARGE,
        "USD",
        5999,
        PaymentState.PENDING,
        "bought",
        NOW,
    )
    return replace(row, **fields)


def notice(account: int, **fields: Any) -> NoticeRow:
    row = NoticeRow(0, account, "email", "ann@example.com", "receipt", "Thanks", "You paid.", NOW)
    return replace(row, **fields)


def event(account: int, what: str = "registered", **fields: Any) -> EventRow:
    return replace(EventRow(0, account, None, what, "owner", "", {}, NOW), **fields)


def answer(account: int, key: str, **fields: Any) -> AnswerRow:
    return replace(AnswerRow(account, key, bytes(32), 0, "", NOW), **fields)


def with_plan(ends_on: int | None = DAY + 30) -> Callable[[DeviceFacts], DeviceFacts]:
    plan = PlanRow(0, "monthly", DAY, ends_on, WEEK)
    return lambda facts: replace(facts, plans=(*facts.plans, plan))


def to_erasing(facts: DeviceFacts) -> DeviceFacts:
    return replace(
        facts,
        terminated_ms=NOW,
        erase_state=EraseState.ERASING,
        erase_epoch=facts.erase_epoch + 1,
        erase_reason="account cancelled",
    )


def code_of(call: Callable[[], object]) -> str:
    """The code of the refusal."""
    with pytest.raises(ClipkeepError) as caught:
        call()
    return caught.value.code


class OnBooks(OnCatalog):
    """Fixtures: a catalog with accounts, a device, a plan and what was bought with it."""

    @pytest.fixture
    def told(self) -> Told:
        """What `before_change` was called with."""
        return []

    @pytest.fixture
    def write(self, catalog: Catalog, told: Told) -> Callable[..., Any]:
        """Books for writing, as `Entitlements.transact` opens them."""

        @contextmanager
        def opened(**more: int) -> Iterator[Books]:
            with writing_books(
                catalog, before_change=lambda *facts: told.append(facts), now_ms=NOW, max_device=1000, **more
            ) as books:
                yield books

        return opened

    @pytest.fixture
    def ann(self, write: Any) -> int:
        with write() as books:
            return int(books.add_account(owner("ann@example.com", "+15550100")).account)

    @pytest.fixture
    def bob(self, write: Any, ann: int) -> int:
        with write() as books:
            return int(books.add_account(owner("bob@example.com", "+15550101")).account)

    @pytest.fixture
    def device(self, write: Any, ann: int) -> int:
        """Ann's, with a plan."""
        with write() as books:
            number = books.add_device(ann).device
            books.change_device(number, with_plan(), what="plan")
            return int(number)

    @pytest.fixture
    def plan_id(self, catalog: Catalog, device: int) -> int:
        return catalog.device(device).plans[0].plan_id

    @pytest.fixture
    def subscription(self, write: Any, ann: int, device: int, plan_id: int) -> SubscriptionRow:
        row = SubscriptionRow(plan_id, ann, device, "USD", 599, 599, True, "card-1", 1, NOW)
        with write() as books:
            books.add_subscription(row)
        return row
