"""What the account books promise of accounts, what their devices may do, and when they were last used."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.blocks import writing_books
from storage.contracts.books.given import OnBooks, Told, code_of, full_account, owner, with_plan
from storage.contracts.given import DAY, NOON, NOW, Upload, add_device, commit
from storage.days import ms_of_day
from storage.errors import CallerError, NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountState


class AccountsContract(OnBooks):
    """See the module docstring."""

    def test_the_operator_account_is_there(self, catalog: Catalog) -> None:
        with catalog.books() as books:
            [row] = books.accounts()
        assert (row.account, row.kind, row.state) == (OPERATOR_ACCOUNT, "operator", AccountState.ACTIVE)

    def test_accounts_get_numbers_upwards(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            rows = [books.add_account(owner()) for _ in range(5)]
            assert (
                books.add_account(replace(owner(), account=99)).account == 7
            )  # the number is not the caller's
        assert [row.account for row in rows] == [2, 3, 4, 5, 6]
        with catalog.books() as books:
            assert books.account(4) == rows[2] == replace(owner(), account=4)

    def test_every_field_of_an_account_is_kept(
        self, catalog: Catalog, write: Any, ann: int, bob: int
    ) -> None:
        with catalog.books() as books:
            others = books.account(bob)
        with write() as books:
            books.put_account(full_account(ann))
        with catalog.books() as books:
            assert books.account(ann) == full_account(ann)
            assert books.account(bob) == others

    def test_unknown_accounts(self, catalog: Catalog, write: Any) -> None:
        with catalog.books() as books:
            for call in (books.account, books.last_used_on):
                for number in (0, -1, 99):
                    with pytest.raises(NotFound):
                        call(number)
            assert books.account_at(email="nobody@example.com") is None
            assert books.account_at() is None
        with write() as books, pytest.raises(NotFound):
            books.put_account(full_account(99))

    def test_an_address_belongs_to_one_account(
        self, catalog: Catalog, write: Any, ann: int, bob: int
    ) -> None:
        with write() as books:
            assert books.account_at(email="ann@example.com").account == ann
            assert books.account_at(mobile="+15550101").account == bob
            assert books.account_at(email="+15550101") is None
            assert books.account_at(email="x", mobile="+15550101").account == bob
            for taken in (owner("ann@example.com"), owner("new@example.com", "+15550101")):
                assert code_of(lambda row=taken: books.add_account(row)) == "address_taken"
            row = books.account(bob)
            for fields in ({"email": "ann@example.com"}, {"mobile": "+15550100"}):
                assert code_of(lambda f=fields: books.put_account(replace(row, **f))) == "address_taken"
            assert books.account(bob) == row
            books.put_account(replace(row, name="Bobby"))  # its own is its own

    def test_an_address_that_was_let_go_is_free(self, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            books.put_account(replace(books.account(ann), email="new@example.com", mobile=None))
            assert books.account_at(email="ann@example.com") is None
            assert books.account_at(mobile="+15550100") is None
            books.put_account(replace(books.account(bob), email="ann@example.com"))
            assert books.account_at(email="ann@example.com").account == bob
            assert books.account_at(email="new@example.com").account == ann

    def test_many_accounts_are_found_by_their_addresses(self, catalog: Catalog, write: Any) -> None:
        with write(new_accounts=800) as books:
            numbers = {
                f"p{i}@example.com": books.add_account(owner(f"p{i}@example.com")).account for i in range(800)
            }
        with catalog.books() as books:
            for email, number in numbers.items():
                found = books.account_at(email=email)
                assert found is not None
                assert (found.account, found.email) == (number, email)

    def test_pages_of_accounts(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            for i in range(6):
                state = AccountState.ACTIVE if i % 2 else AccountState.NEW
                books.add_account(owner(state=state))
        with catalog.books() as books:
            assert [r.account for r in books.accounts(after=2, limit=3)] == [3, 4, 5]
            assert [r.account for r in books.accounts(after=1, state=AccountState.NEW)] == [2, 4, 6]
            assert books.accounts(after=7) == []
            assert books.accounts(limit=0) == []

    def test_a_suspension_reaches_every_device(
        self, catalog: Catalog, write: Any, told: Told, ann: int, bob: int, device: int
    ) -> None:
        with write() as books:
            second = books.add_device(ann).device
            others = books.add_device(bob).device
        for suspended_ms, barred in ((NOW, True), (None, False)):
            told.clear()
            seen = catalog.newest_change()
            before = [catalog.device(d) for d in (device, second)]
            with write() as books:
                books.put_account(replace(books.account(ann), suspended_ms=suspended_ms))
                assert [f.account_suspended for f in books.devices_of(ann)] == [barred, barred]
            after = [catalog.device(d) for d in (device, second)]
            assert told == list(zip(before, after, strict=True))
            assert after == [replace(f, account_suspended=barred) for f in before]
            assert catalog.changes_after(seen)[0] == [device, second]
            assert not catalog.device(others).account_suspended

    def test_other_changes_of_an_account_do_not(
        self, catalog: Catalog, write: Any, told: Told, ann: int, device: int
    ) -> None:
        with write() as books:
            books.put_account(replace(books.account(ann), suspended_ms=NOW))
        told.clear()
        seen = catalog.newest_change()
        with write() as books:
            books.put_account(replace(books.account(ann), suspended_ms=NOW + 5, name="Anna", used_on=DAY))
        assert (told, catalog.newest_change()) == ([], seen)

    def test_a_cancelled_account_may_do_nothing_for_good(
        self, catalog: Catalog, write: Any, told: Told, ann: int, device: int
    ) -> None:
        told.clear()
        with write() as books:
            books.put_account(replace(books.account(ann), state=AccountState.CANCELLED))
        assert [new.account_suspended for _, new in told] == [True]
        with write() as books:
            row = books.account(ann)
            assert (
                code_of(lambda: books.put_account(replace(row, state=AccountState.ACTIVE)))
                == "account_cancelled"
            )
            assert code_of(lambda: books.add_device(ann)) == "account_cancelled"

    def test_what_changes_devices_needs_the_way_to_the_bitmap(
        self, catalog: Catalog, ann: int, device: int
    ) -> None:
        before = catalog.device(device), catalog.newest_change()
        for now_ms in (None, NOW):
            with suppress(CallerError), writing_books(catalog, now_ms=now_ms) as books:
                row = replace(books.account(ann), suspended_ms=NOW)
                assert code_of(lambda b=books, r=row: b.put_account(r)) in ("not_through_bitmap", "no_time")
                raise CallerError("as the desk would")
            with writing_books(catalog, now_ms=now_ms) as books:
                call = lambda b=books: b.change_device(device, with_plan(), what="")  # noqa: E731
                assert code_of(call) == "not_through_bitmap"
        with writing_books(catalog) as books:
            assert code_of(lambda: books.add_device(ann)) == "no_time"
        assert (catalog.device(device), catalog.newest_change()) == before

    def test_the_operator_account_is_never_suspended_or_cancelled(self, write: Any) -> None:
        with write() as books:
            row = books.account(OPERATOR_ACCOUNT)
            for fields in ({"suspended_ms": NOW}, {"state": AccountState.CANCELLED}, {"kind": "owner"}):
                assert code_of(lambda f=fields: books.put_account(replace(row, **f))) == "operator_account"
            assert (
                code_of(lambda: books.erase_account(OPERATOR_ACCOUNT, cancelled_on=DAY)) == "operator_account"
            )
            books.put_account(replace(row, name="us"))
            assert books.account(OPERATOR_ACCOUNT) == replace(row, name="us")

    def test_the_last_day_of_use(self, catalog: Catalog, write: Any, ann: int, bob: int, device: int) -> None:
        """A log-in, an upload or a playback, of any device; never back."""

        def last(account: int) -> int:
            with catalog.books() as books:
                return books.last_used_on(account)

        assert (last(ann), last(bob)) == (0, 0)
        with write() as books:
            books.put_account(replace(books.account(ann), used_on=DAY - 9))
        assert last(ann) == DAY - 9
        commit(catalog, Upload(device, NOON))
        assert last(ann) == DAY
        catalog.note_used([device, 4711], DAY + 3)
        catalog.note_used([device], DAY + 1)
        catalog.note_used([], DAY + 9)
        assert (last(ann), last(bob)) == (DAY + 3, 0)
        commit(catalog, Upload(device, NOON + 1))  # of an earlier day
        assert last(ann) == DAY + 3

    def test_accounts_that_nobody_uses(self, catalog: Catalog, write: Any) -> None:
        old = ms_of_day(DAY - 400)
        with write() as books:
            unused, used, by_device, cancelled, young, suspended = [
                books.add_account(replace(owner(), created_ms=created)).account
                for created in (old, old, old, old, ms_of_day(DAY), old)
            ]
            books.put_account(replace(books.account(used), used_on=DAY))
            number = books.add_device(by_device).device
            books.add_device(by_device)
            books.put_account(replace(books.account(cancelled), state=AccountState.CANCELLED))
            books.put_account(replace(books.account(suspended), suspended_ms=NOW))
        catalog.note_used([number], DAY)

        def found(before_day: int, **page: int) -> list[int]:
            with catalog.books() as books:
                return [row.account for row in books.unused_accounts(before_day=before_day, **page)]

        assert found(DAY) == [unused, suspended]
        assert found(DAY + 1) == [unused, used, by_device, young, suspended]
        assert found(DAY - 400) == []
        assert found(DAY - 399) == [unused, suspended]
        assert found(DAY + 1, after=unused, limit=2) == [used, by_device]

    def test_the_first_upload_of_a_day_is_noted(self, catalog: Catalog, ann: int, device: int) -> None:
        def last() -> int:
            with catalog.books() as books:
                return books.last_used_on(ann)

        commit(catalog, Upload(device, NOON))
        commit(catalog, Upload(device, NOON + 1))
        assert last() == DAY
        refused = add_device(catalog)  # what is refused was sent nonetheless
        commit(catalog, Upload(refused, NOON, epoch=7))
        with catalog.books() as books:
            assert books.last_used_on(OPERATOR_ACCOUNT) == DAY
