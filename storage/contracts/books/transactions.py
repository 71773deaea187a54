"""What the account books promise of a transaction: all of it or nothing, one writer after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.contracts.blocks import writing_books
from storage.contracts.books.clips import KEYS, clip
from storage.contracts.books.given import OnBooks, answer, charge, code_of, event, notice, owner, with_plan
from storage.contracts.books.packages import FULL
from storage.contracts.books.people import announced, correction, export
from storage.contracts.books.shares import share
from storage.contracts.given import DAY, NOW, Opener
from storage.errors import CatalogUnavailable, ClipkeepError
from storage.rows.accounts import (
    OPERATOR_ACCOUNT,
    AcceptanceRow,
    AccountRow,
    AccountState,
    AttemptsRow,
    BlockKind,
    BlockRow,
    CodeRow,
    MethodRow,
    MethodState,
    SessionRow,
    SubscriptionRow,
)
from storage.rows.devices import DeviceName
from storage.rows.identities import IdentityRow
from storage.rows.operators import OperatorRow, OperatorTokenRow
from storage.rows.people import ConsentRow


class TransactionsContract(OnBooks):
    """See the module docstring."""

    def test_what_was_written_is_there_after_the_block(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            account = books.add_account(owner()).account
            books.add_event(event(account))
            assert len(books.events_of(account)) == 1  # inside, too
            with catalog.books() as others:
                assert others.accounts(after=OPERATOR_ACCOUNT) == []
        with catalog.books() as books:
            assert len(books.events_of(account)) == 1

    def test_a_transaction_tells_what_its_work_returned(self, catalog: Catalog) -> None:
        added = catalog.transact(lambda books: books.add_account(owner()), now_ms=NOW, new_accounts=1)
        with catalog.books() as books:
            assert books.account(added.account) == added

    def test_an_exception_undoes_all_of_it(self, catalog: Catalog, write: Any, ann: int, device: int) -> None:
        before = catalog.device(device), catalog.newest_change()
        with suppress(ZeroDivisionError), write() as books:
            books.add_account(owner("carl@example.com"))
            books.add_device(ann)
            books.put_account(replace(books.account(ann), suspended_ms=NOW))
            books.change_device(device, lambda f: replace(f, token_generation=9), what="token")
            raise ZeroDivisionError
        with catalog.books() as books:
            assert books.account_at(email="carl@example.com") is None
            assert books.account(ann).suspended_ms is None
        assert (catalog.device(device), catalog.newest_change()) == before
        assert len(catalog.devices()) == 1

    def test_what_is_undone_or_refused_uses_up_no_number(
        self, catalog: Catalog, write: Any, ann: int, device: int
    ) -> None:
        """People are shown these numbers, and pages go by them: a gap looks like a row that somebody took away."""

        def one_of_each() -> list[int]:
            plans = with_plan()
            facts = books.change_device(device, plans, what="renewed")
            return [
                facts.plans[-1].plan_id,
                books.add_payment(charge(ann, device, f"r{len(facts.plans)}")).payment_id,
                books.add_notice(notice(ann)).notice_id,
                books.add_event(event(ann)).event_id,
                books.add_block(BlockRow(0, ann, BlockKind.DISPUTE, "", "operator", NOW)).block_id,
            ]

        with write() as books:
            first = one_of_each()
        with suppress(ZeroDivisionError), write() as books:
            one_of_each()
            raise ZeroDivisionError
        with write() as books:
            with pytest.raises(ClipkeepError):
                books.add_payment(charge(ann, device, "r2"))
            assert one_of_each() == [number + 1 for number in first]

    def test_a_refusal_inside_leaves_the_transaction_as_it_was(
        self, catalog: Catalog, write: Any, ann: int
    ) -> None:
        """What refused may be caught, and the rest is committed."""
        with write() as books:
            books.add_event(event(ann, "one"))
            assert code_of(lambda: books.add_account(owner("ann@example.com"))) == "address_taken"
            books.add_event(event(ann, "two"))
        with catalog.books() as books:
            assert [e.what for e in books.events_of(ann)] == ["one", "two"]

    def test_books_cannot_be_kept(self, catalog: Catalog, write: Any) -> None:
        for opened in (catalog.books, write):
            with opened() as books:
                pass
            with pytest.raises(CatalogUnavailable, match="ended"):
                books.accounts()
            with pytest.raises(CatalogUnavailable):
                books.drop_stale(before_ms=NOW)

    @pytest.mark.parametrize(
        "name",
        sorted(
            name
            for name in Books.__abstractmethods__
            if name.startswith(
                (
                    "add_",
                    "put_",
                    "drop_",
                    "end_",
                    "change_",
                    "lift_",
                    "publish_",
                    "accept_",
                    "reserve_",
                    "release_",
                )
            )
            or name == "erase_account"
        ),
    )
    def test_a_transaction_for_reading_writes_nothing(self, catalog: Catalog, name: str) -> None:
        account = AccountRow(1, "operator", "x", 0, AccountState.ACTIVE)
        arguments: dict[str, Callable[[Books], object]] = {
            "add_account": lambda b: b.add_account(owner()),
            "put_account": lambda b: b.put_account(account),
            "add_device": lambda b: b.add_device(1),
            "change_device": lambda b: b.change_device(1, lambda f: f, what=""),
            "add_session": lambda b: b.add_session(SessionRow(bytes(32), 1, 0, 0)),
            "end_session": lambda b: b.end_session(bytes(32)),
            "end_sessions": lambda b: b.end_sessions(1),
            "put_code": lambda b: b.put_code(CodeRow(1, "activate", "", b"", 0)),
            "drop_code": lambda b: b.drop_code(1, "activate"),
            "put_attempts": lambda b: b.put_attempts(AttemptsRow("x", 1, 0, 0)),
            "drop_attempts": lambda b: b.drop_attempts("x"),
            "drop_stale": lambda b: b.drop_stale(before_ms=NOW),
            "add_subscription": lambda b: b.add_subscription(
                SubscriptionRow(1, 1, 1, "", 1, 1, True, "", 1, 0)
            ),
            "put_subscription": lambda b: b.put_subscription(
                SubscriptionRow(1, 1, 1, "", 1, 1, True, "", 1, 0)
            ),
            "add_payment": lambda b: b.add_payment(charge(1, 1, "r")),
            "put_payment": lambda b: b.put_payment(charge(1, 1, "r")),
            "add_method": lambda b: b.add_method(MethodRow("m", 1, MethodState.PENDING, 0)),
            "drop_method": lambda b: b.drop_method("m"),
            "put_method": lambda b: b.put_method(MethodRow("m", 1, MethodState.PENDING, 0)),
            "add_event": lambda b: b.add_event(event(1)),
            "add_block": lambda b: b.add_block(BlockRow(0, 1, BlockKind.OTHER, "", "", 0)),
            "lift_block": lambda b: b.lift_block(1, now_ms=NOW),
            "publish_agreement": lambda b: b.publish_agreement("x", now_ms=NOW),
            "accept_agreement": lambda b: b.accept_agreement(AcceptanceRow(1, 1, "deemed", 0)),
            "add_identity": lambda b: b.add_identity(IdentityRow(1, "p", "s", 0)),
            "drop_identity": lambda b: b.drop_identity(1, "p"),
            "add_operator": lambda b: b.add_operator(OperatorRow(0, "x", "admin", 0)),
            "put_operator": lambda b: b.put_operator(OperatorRow(1, "x", "admin", 0)),
            "add_operator_token": lambda b: b.add_operator_token(OperatorTokenRow(0, bytes(32), None, 0, 0)),
            "end_operator_token": lambda b: b.end_operator_token(1),
            "add_package": lambda b: b.add_package(FULL),
            "put_package": lambda b: b.put_package(FULL),
            "add_notice": lambda b: b.add_notice(notice(1)),
            "put_notice": lambda b: b.put_notice(notice(1, notice_id=1)),
            "add_correction": lambda b: b.add_correction(correction(1)),
            "put_correction": lambda b: b.put_correction(correction(1)),
            "publish_policy": lambda b: b.publish_policy("x", now_ms=NOW),
            "put_announcement": lambda b: b.put_announcement(announced("x", 1, 2)),
            "drop_announcement": lambda b: b.drop_announcement("x"),
            "put_consent": lambda b: b.put_consent(ConsentRow(1, "x", True, "owner", 0)),
            "add_serial": lambda b: b.add_serial(1, 1, "x"),
            "release_serial": lambda b: b.release_serial(1),
            "put_device_name": lambda b: b.put_device_name(DeviceName(1, 1, "x")),
            "add_export": lambda b: b.add_export(export(1)),
            "put_export": lambda b: b.put_export(export(1)),
            "drop_exports": lambda b: b.drop_exports(before_ms=NOW),
            "add_share": lambda b: b.add_share(share(1, 1)),
            "drop_share": lambda b: b.drop_share(1, 1),
            "drop_shares": lambda b: b.drop_shares(before_ms=NOW),
            "add_clip": lambda b: b.add_clip(clip(1, 1), KEYS[0]),
            "drop_clip": lambda b: b.drop_clip(1, 1, now_ms=NOW),
            "put_answer": lambda b: b.put_answer(answer(1, "k")),
            "erase_account": lambda b: b.erase_account(2, cancelled_on=DAY),
            "reserve_address": lambda b: b.reserve_address(bytes(32), until_day=DAY),
            "drop_reserved": lambda b: b.drop_reserved(before_day=DAY),
        }
        with (
            catalog.books() as books,
            pytest.raises(CatalogUnavailable),
        ):
            arguments[name](books)
        with catalog.books() as books:
            assert len(books.accounts()) == 1

    def test_two_writers_come_one_after_the_other(self, catalog: Catalog, opener: Opener, ann: int) -> None:
        """Read, decide, write: nobody decides on what another is about to change."""

        def trial() -> None:
            with writing_books(catalog) as books:
                row = books.account(ann)
                if row.trial_ms is None:
                    books.put_account(replace(row, trial_ms=NOW))
                    books.add_event(event(ann, "trial"))

        threads = [threading.Thread(target=trial) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with catalog.books() as books:
            assert len(books.events_of(ann)) == 1
