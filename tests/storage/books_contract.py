"""The conformance suite of `storage.catalog.books.Books`, and of `Catalog.books`.

To put a new catalog to it, subclass it in a test module and say how to open one:

    class TestMyBooks(BooksContract):
        @pytest.fixture
        def opener(self): ...   # opens one and the same catalog, empty at first

Two accounts are there in most tests: what is asked of one must never be told of the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.days import ms_of_day
from storage.errors import CallerError, CatalogUnavailable, ClipkeepError, NotFound
from storage.rows.accounts import (
    MAX_OVERDUE_DAYS,
    OPERATOR_ACCOUNT,
    AcceptanceRow,
    AccountRow,
    AccountState,
    AnswerRow,
    AttemptsRow,
    Backlog,
    BlockKind,
    BlockRow,
    ClosingState,
    CodeRow,
    EventRow,
    NoticeRow,
    NoticeState,
    PaymentKind,
    PaymentRow,
    PaymentState,
    SessionRow,
    SubscriptionRow,
)
from storage.rows.devices import DeviceFacts, EraseState, PlanRow
from tests.storage.blocks import writing_books
from tests.storage.catalog_contract import DAY, NOON, NOW, WEEK, Opener, Upload, add_device, commit, lease

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


class BooksContract:
    """See the module docstring."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    def catalog(self, opener: Opener) -> Iterator[Catalog]:
        catalog = opener()
        yield catalog
        catalog.close()

    @pytest.fixture
    def told(self) -> Told:
        """What `before_change` was called with."""
        return []

    @pytest.fixture
    def write(self, catalog: Catalog, told: Told) -> Callable[[], Any]:
        """Books for writing, as `Entitlements.transact` opens them."""

        @contextmanager
        def opened() -> Iterator[Books]:
            with writing_books(
                catalog, before_change=lambda *facts: told.append(facts), now_ms=NOW, max_device=1000
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

    # --- the transaction --------------------------------------------------------------------------------------

    def test_what_was_written_is_there_after_the_block(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            account = books.add_account(owner()).account
            books.add_event(event(account))
            assert len(books.events_of(account)) == 1  # inside, too
            with catalog.books() as others:
                assert others.accounts(after=OPERATOR_ACCOUNT) == []
        with catalog.books() as books:
            assert len(books.events_of(account)) == 1

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
                ("add_", "put_", "drop_", "end_", "change_", "lift_", "publish_", "accept_", "reserve_")
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
            "add_event": lambda b: b.add_event(event(1)),
            "add_block": lambda b: b.add_block(BlockRow(0, 1, BlockKind.OTHER, "", "", 0)),
            "lift_block": lambda b: b.lift_block(1, now_ms=NOW),
            "publish_agreement": lambda b: b.publish_agreement("x", now_ms=NOW),
            "accept_agreement": lambda b: b.accept_agreement(AcceptanceRow(1, 1, "deemed", 0)),
            "add_notice": lambda b: b.add_notice(notice(1)),
            "put_notice": lambda b: b.put_notice(notice(1, notice_id=1)),
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

    # --- accounts ---------------------------------------------------------------------------------------------

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
        with write() as books:
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

    # --- what an account's devices may do ---------------------------------------------------------------------

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

    # --- days of use ------------------------------------------------------------------------------------------

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

    # --- devices ----------------------------------------------------------------------------------------------

    def test_a_device_of_an_account(
        self, catalog: Catalog, write: Any, told: Told, ann: int, bob: int
    ) -> None:
        before = catalog.newest_change()
        with write() as books:
            facts = books.add_device(ann)
            assert books.device(facts.device) == facts
        assert facts == DeviceFacts(facts.device, ann, 1, 0)
        assert catalog.device(facts.device) == facts
        assert catalog.changes_after(before)[0] == [facts.device]
        assert told == []  # nobody was allowed anything, nor is
        with write() as books:
            more = [books.add_device(ann).device for _ in range(3)]
            books.add_device(bob)
            assert [f.device for f in books.devices_of(ann)] == [facts.device, *more]
            assert [f.device for f in books.devices_of(ann, after=facts.device, limit=2)] == more[:2]
            assert books.devices_of(99) == []
            for call in (lambda: books.device(99), lambda: books.add_device(99)):
                with pytest.raises(NotFound):
                    call()

    def test_the_device_of_a_plan(self, catalog: Catalog, device: int, plan_id: int) -> None:
        with catalog.books() as books:
            assert books.device_of_plan(plan_id) == books.device(device)
            assert code_of(lambda: books.device_of_plan(plan_id + 1)) == "not_found"

    def test_no_more_devices_than_there_is_room_for(self, catalog: Catalog, ann: int) -> None:
        with writing_books(catalog, now_ms=NOW, max_device=2) as books:
            assert [books.add_device(ann).device for _ in range(2)] == [1, 2]
            assert code_of(lambda: books.add_device(ann)) == "too_many_devices"
        assert [f.device for f in catalog.devices()] == [1, 2]

    def test_changing_a_device(self, catalog: Catalog, write: Any, told: Told, ann: int, device: int) -> None:
        told.clear()
        before, seen = catalog.device(device), catalog.newest_change()
        with write() as books:
            facts = books.change_device(device, with_plan(DAY + 9), what="operator: more")
            assert facts == books.device(device)
            assert told == [(before, facts)]
            again = books.change_device(device, lambda f: replace(f), what="nothing")
            assert again == facts
        assert len(told) == 1
        assert catalog.device(device) == facts
        assert facts.plans[:-1] == before.plans
        assert facts.plans[-1].plan_id not in (0, before.plans[0].plan_id)
        assert catalog.changes_after(seen) == ([device], seen + 1)
        with write() as books, pytest.raises(NotFound):
            books.change_device(99, with_plan(), what="")

    def test_a_refused_change_of_a_device_changes_nothing(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        before, seen = catalog.device(device), catalog.newest_change()
        with write() as books:
            for fields in ({"device": 99}, {"account": bob}, {"account_suspended": True}):
                with pytest.raises(CallerError):
                    books.change_device(device, lambda f, x=fields: replace(f, **x), what="")
        assert (catalog.device(device), catalog.newest_change()) == (before, seen)

    def test_a_plan_that_was_paid_for_is_not_removed(
        self, catalog: Catalog, write: Any, device: int, subscription: SubscriptionRow
    ) -> None:
        before = catalog.device(device)
        with write() as books:
            call = lambda: books.change_device(device, lambda f: replace(f, plans=()), what="")  # noqa: E731
            assert code_of(call) == "plan_in_use"
        assert catalog.device(device).plans == before.plans

    def test_numbers_of_plans_do_not_come_twice(
        self, catalog: Catalog, write: Any, device: int, plan_id: int
    ) -> None:
        """References of payments are made of them."""
        with write() as books:
            books.change_device(device, lambda f: replace(f, plans=()), what="")
            facts = books.change_device(device, with_plan(), what="")
        assert facts.plans[0].plan_id == plan_id + 1

    # --- sessions, codes, attempts ----------------------------------------------------------------------------

    def test_sessions(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        rows = [SessionRow(bytes([i]) * 32, ann if i < 3 else bob, NOW, NOW + i) for i in range(4)]
        with write() as books:
            for row in rows:
                books.add_session(row)
            assert code_of(lambda: books.add_session(rows[0])) == "exists"
            with pytest.raises(NotFound):
                books.add_session(SessionRow(b"z" * 32, 99, NOW, NOW))
        with write() as books:
            assert [books.session(row.token_hash) for row in rows] == rows
            assert books.session(b"z" * 32) is None
            assert (books.end_session(rows[0].token_hash), books.end_session(rows[0].token_hash)) == (
                True,
                False,
            )
            assert (books.end_sessions(ann), books.end_sessions(ann)) == (2, 0)
            assert [books.session(row.token_hash) for row in rows] == [None, None, None, rows[3]]

    def test_codes(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        """One per account and purpose: a new one replaces the old one."""
        first = CodeRow(ann, "activate", "ann@example.com", b"1" * 32, NOW)
        second = replace(first, address="+15550100", code_hash=b"2" * 32, attempts=3)
        email, others = replace(first, purpose="email"), replace(first, account=bob)
        with write() as books:
            for row in (first, second, email, others):
                books.put_code(row)
            with pytest.raises(NotFound):
                books.put_code(replace(first, account=99))
        with write() as books:
            assert books.code(ann, "activate") == second
            assert books.codes(ann) == [second, email]
            assert books.code(ann, "password") is None
            books.drop_code(ann, "activate")
            books.drop_code(ann, "activate")
            assert (books.codes(ann), books.codes(bob)) == ([email], [others])

    def test_attempts(self, catalog: Catalog, write: Any) -> None:
        row = AttemptsRow("login:client:203.0.113.9", 1, NOW, NOW)
        more = replace(row, count=5, last_ms=NOW + 1, locked_until_ms=NOW + 2)
        with write() as books:
            books.put_attempts(row)
            books.put_attempts(more)
            books.put_attempts(replace(row, subject="login:account:5"))
        with write() as books:
            assert books.attempts(row.subject) == more
            assert books.attempts("login:client:203.0.113.10") is None
            books.drop_attempts(row.subject)
            books.drop_attempts(row.subject)
            assert books.attempts(row.subject) is None
            assert books.attempts("login:account:5") == replace(row, subject="login:account:5")

    def test_what_is_stale_is_forgotten(self, catalog: Catalog, write: Any, ann: int) -> None:
        """Ended, last counted or given before that time; at it is not before it."""
        with write() as books:
            for i, ms in enumerate((NOW - 1, NOW)):
                books.add_session(SessionRow(bytes([i]) * 32, ann, 0, ms))
                books.put_code(CodeRow(ann, str(i), "", b"", ms))
                books.put_attempts(AttemptsRow(str(i), 1, 0, ms))
                books.put_answer(answer(ann, str(i), at_ms=ms))
            books.put_attempts(AttemptsRow("locked", 1, 0, NOW - 1, locked_until_ms=NOW))
            assert books.drop_stale(before_ms=NOW) == 4
            assert books.drop_stale(before_ms=NOW) == 0
            assert [books.session(bytes([i]) * 32) is None for i in (0, 1)] == [True, False]
            assert [c.purpose for c in books.codes(ann)] == ["1"]
            assert [books.attempts(s) is None for s in ("0", "1", "locked")] == [True, False, False]
            assert [books.answer(ann, k) is None for k in ("0", "1")] == [True, False]

    # --- subscriptions ----------------------------------------------------------------------------------------

    def test_subscriptions(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int, subscription: SubscriptionRow
    ) -> None:
        changed = replace(
            subscription,
            renews=False,
            method="card-2",
            retry_at_ms=NOW,
            failed_charges=2,
            fee_minor=0,
            currency="JPY",
        )
        with write() as books:
            assert books.subscription(subscription.plan_id) == subscription
            assert code_of(lambda: books.add_subscription(subscription)) == "exists"
            books.put_subscription(changed)
        with write() as books:
            assert books.subscription(subscription.plan_id) == changed
            assert books.subscriptions_of(ann) == books.subscriptions_of_device(device) == [changed]
            assert books.subscriptions_of(bob) == books.subscriptions_of_device(99) == []
            unknown = replace(subscription, plan_id=99)
            for call in (books.add_subscription, books.put_subscription):
                with pytest.raises(NotFound):
                    call(unknown)
            with pytest.raises(NotFound):
                books.subscription(99)
            granted = books.change_device(device, with_plan(None), what="").plans[-1]
            with pytest.raises(NotFound):
                books.subscription(granted.plan_id)

    def test_renewals_that_are_due(self, catalog: Catalog, write: Any, ann: int) -> None:
        def add(books: Books, ends_on: int | None, **fields: Any) -> int:
            number = books.add_device(ann).device
            plan_id = books.change_device(number, with_plan(ends_on), what="").plans[0].plan_id
            row = SubscriptionRow(plan_id, ann, number, "USD", 599, 599, True, "m", 1, NOW)
            books.add_subscription(replace(row, **fields))
            return plan_id

        with write() as books:
            last_day = add(books, DAY)
            earlier = add(books, DAY - 3)
            add(books, DAY + 1)
            add(books, None)
            add(books, DAY, renews=False)
            retried = add(books, DAY, retry_at_ms=NOW)
            add(books, DAY, retry_at_ms=NOW + 1)

        def due(**page: int) -> list[int]:
            with catalog.books() as books:
                return [row.plan_id for row in books.renewals_due(ends_by=DAY, now_ms=NOW, **page)]

        assert due() == [last_day, earlier, retried]
        assert due(after=last_day, limit=1) == [earlier]
        with write() as books:  # renewed: no longer due
            row = books.subscription(earlier)
            facts = books.device(row.device)
            plans = (replace(facts.plans[0], ends_on=DAY + 27),)
            books.change_device(row.device, lambda f: replace(f, plans=plans), what="renewed")
        assert due() == [last_day, retried]

    # --- payments ---------------------------------------------------------------------------------------------

    def test_a_reference_happens_once(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        with write() as books:
            row = books.add_payment(charge(ann, device, "buy-1"))
            assert row == charge(ann, device, "buy-1", payment_id=row.payment_id)
            other = charge(bob, device, "buy-1", minor=1)
            assert code_of(lambda: books.add_payment(other)) == "reference_taken"
            assert books.payment("buy-1") == row
            assert books.payment("buy-2") is None
            second = books.add_payment(charge(ann, device, "buy-2"))
            assert second.payment_id > row.payment_id > 0
            moved = replace(second, reference="buy-1")
            assert code_of(lambda: books.put_payment(moved)) == "reference_taken"

    def test_every_field_of_a_payment_is_kept(
        self, catalog: Catalog, write: Any, ann: int, device: int, plan_id: int
    ) -> None:
        with write() as books:
            row = books.add_payment(charge(ann, device, "r", detail=DETAIL))
            assert books.payment("r") == row
            done = replace(
                row,
                plan_id=plan_id,
                kind=PaymentKind.REFUND,
                currency="KWD",
                minor=(1 << 62),
                state=PaymentState.DONE,
                why="cancelled",
                at_ms=NOW - 1,
                settled_ms=NOW + 5,
                gateway_id="g-1",
                detail={},
            )
            books.put_payment(done)
        with write() as books:
            assert books.payment("r") == done
            for call in (
                lambda: books.put_payment(replace(done, payment_id=99)),
                lambda: books.add_payment(charge(99, device, "s")),
                lambda: books.add_payment(charge(ann, 99, "s")),
                lambda: books.add_payment(charge(ann, device, "s", plan_id=99)),
            ):
                with pytest.raises(NotFound):
                    call()

    def test_lists_of_payments(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int, plan_id: int
    ) -> None:
        with write() as books:
            times = (NOW - 2, NOW - 1, NOW)
            rows = [books.add_payment(charge(ann, device, str(t), at_ms=t, plan_id=plan_id)) for t in times]
            done = books.add_payment(charge(ann, device, "d", at_ms=0, state=PaymentState.DONE))
            failed = books.add_payment(charge(ann, device, "f", at_ms=0, state=PaymentState.FAILED))
            others = books.add_payment(charge(bob, device, "o", at_ms=0))
        with catalog.books() as books:
            assert books.payments_of(ann) == [*rows, done, failed]
            assert books.payments_of(ann, after=rows[0].payment_id, limit=2) == rows[1:]
            assert books.payments_of_plan(plan_id) == rows
            assert books.payments_of_plan(99) == []
            assert books.pending_payments(before_ms=NOW, now_ms=NOW) == [*rows[:2], others]
            assert books.pending_payments(before_ms=NOW, now_ms=NOW, limit=1) == rows[:1]
        later = replace(rows[0], attempts=1, next_ms=NOW + 5)
        with write() as books:
            books.put_payment(later)
        with catalog.books() as books:
            assert books.pending_payments(before_ms=NOW, now_ms=NOW + 4) == [rows[1], others]
            assert books.pending_payments(before_ms=NOW, now_ms=NOW + 5) == [rows[1], others, later]
            assert books.failed_refunds() == []

    def test_refused_refunds(self, catalog: Catalog, write: Any, ann: int, device: int, plan_id: int) -> None:
        with write() as books:
            states = (
                PaymentState.FAILED,
                PaymentState.DONE,
                PaymentState.FAILED,
                PaymentState.PAID_OTHERWISE,
            )
            rows = [
                books.add_payment(charge(ann, device, f"r{n}", kind=PaymentKind.REFUND, state=state))
                for n, state in enumerate(states)
            ]
        with catalog.books() as books:
            assert books.failed_refunds() == [rows[0], rows[2]]
            assert books.failed_refunds(after=rows[0].payment_id) == [rows[2]]
            assert books.failed_refunds(limit=1) == [rows[0]]
            assert books.backlog(on=DAY).failed_refunds == 2

    def test_who_used_the_service_under_an_agreement_and_has_not_accepted_it(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        def unaccepted(version: int, first: int = 1, last: int = 99) -> list[int]:
            with catalog.books() as books:
                assert books.newest_account() == max(ann, bob)
                return books.unaccepted(version, first=first, last=last)

        with write() as books:
            for account in (ann, bob):
                books.put_account(replace(books.account(account), state=AccountState.ACTIVE))
            version = books.publish_agreement("one", now_ms=NOW).version
        assert unaccepted(version) == []
        commit(catalog, Upload(device, NOON))
        assert unaccepted(version) == [ann], "an upload"
        assert unaccepted(version, first=ann + 1) == unaccepted(version, last=ann - 1) == []
        with write() as books:
            books.note_requests([bob, 4711], DAY, version=version)
        assert unaccepted(version) == [ann, bob], "a request"
        with write() as books:
            books.accept_agreement(AcceptanceRow(ann, version, "deemed", NOW))
            newer = books.publish_agreement("two", now_ms=NOW + 1).version
        assert (unaccepted(version), unaccepted(newer)) == ([bob], [])
        commit(catalog, Upload(device, NOON + 1))
        assert unaccepted(newer) == [ann], "on the same day"
        catalog.note_used([device], DAY, version=version)
        assert unaccepted(newer) == [ann], "it does not go back"
        with write() as books:
            books.put_account(replace(books.account(ann), state=AccountState.CANCELLED))
        assert unaccepted(newer) == []

    # --- history, blocks, agreement ---------------------------------------------------------------------------

    def test_events(self, catalog: Catalog, write: Any, ann: int, bob: int, device: int) -> None:
        with write() as books:
            rows = [
                books.add_event(event(ann)),
                books.add_event(
                    event(ann, "subscribed", device=device, who="system", why="paid", facts=DETAIL)
                ),
            ]
            books.add_event(event(bob))
            with pytest.raises(NotFound):
                books.add_event(event(99))
        assert rows[1] == event(
            ann,
            "subscribed",
            device=device,
            who="system",
            why="paid",
            facts=DETAIL,
            event_id=rows[1].event_id,
        )
        with catalog.books() as books:
            assert books.events_of(ann) == rows
            assert books.events_of(ann, after=rows[0].event_id) == rows[1:]
            assert books.events_of(ann, limit=1) == rows[:1]
            assert books.events_of(99) == []

    def test_blocks(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            rows = [
                books.add_block(BlockRow(0, ann, kind, f"because {kind}", "operator", NOW))
                for kind in BlockKind
            ]
            books.add_block(BlockRow(0, bob, BlockKind.OTHER, "", "operator", NOW))
            lifted = books.lift_block(rows[1].block_id, now_ms=NOW + 1)
            assert lifted == replace(rows[1], lifted_ms=NOW + 1)
            assert books.lift_block(rows[1].block_id, now_ms=NOW + 9) == lifted
            for call in (
                lambda: books.lift_block(99, now_ms=NOW),
                lambda: books.add_block(BlockRow(0, 99, BlockKind.OTHER, "", "", NOW)),
            ):
                with pytest.raises(NotFound):
                    call()
        with catalog.books() as books:
            assert books.blocks_of(ann) == [rows[0], lifted, *rows[2:]]
            assert books.blocks_of(99) == []

    def test_versions_of_the_agreement(self, catalog: Catalog, write: Any) -> None:
        with write() as books:
            with pytest.raises(NotFound):
                books.agreement()
            first = books.publish_agreement("One.", now_ms=NOW)
            assert books.publish_agreement("One.", now_ms=NOW + 1) == first
            second = books.publish_agreement("Two: ünï", now_ms=NOW + 2)
            third = books.publish_agreement("One.", now_ms=NOW + 3)  # back to the old text is a change
        assert [r.version for r in (first, second, third)] == [1, 2, 3]
        assert first.sha256 == third.sha256 != second.sha256
        assert len(first.sha256) == 64
        with catalog.books() as books:
            assert books.agreement() == third
            assert books.agreement(2) == second
            assert books.agreements() == [first, second, third]
            for version in (0, 4):
                with pytest.raises(NotFound):
                    books.agreement(version)

    def test_the_first_acceptance_counts(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            for text in ("One.", "Two."):
                books.publish_agreement(text, now_ms=NOW)
            first = AcceptanceRow(ann, 1, "registered", NOW)
            for row in (
                AcceptanceRow(ann, 2, "deemed", NOW + 1),
                first,
                AcceptanceRow(ann, 1, "purchase", NOW + 2),
            ):
                books.accept_agreement(row)
            for row in (AcceptanceRow(ann, 3, "deemed", NOW), AcceptanceRow(99, 1, "deemed", NOW)):
                with pytest.raises(NotFound):
                    books.accept_agreement(row)
        with catalog.books() as books:
            assert books.acceptances_of(ann) == [first, AcceptanceRow(ann, 2, "deemed", NOW + 1)]
            assert books.acceptances_of(bob) == []

    # --- notices ----------------------------------------------------------------------------------------------

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
            assert books.backlog(on=DAY) == Backlog(0, None, 0, 0, 0, 0, 0, None, 0, 0)

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
            assert books.backlog(on=DAY) == Backlog(2, NOW - 3, 1, 1, 2, 0, 2, NOW - 4, 0, 0)

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

    # --- idempotency ------------------------------------------------------------------------------------------

    def test_answers(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        with write() as books:
            books.put_answer(answer(ann, "k"))
            done = answer(ann, "k", request_sha256=b"r" * 32, status=201, body='{"plan": 1}', at_ms=NOW + 1)
            books.put_answer(done)
            with pytest.raises(NotFound):
                books.put_answer(answer(99, "k"))
        with catalog.books() as books:
            assert books.answer(ann, "k") == done
            assert books.answer(bob, "k") is None
            assert books.answer(ann, "K") is None

    # --- the end of an account --------------------------------------------------------------------------------

    def fill(self, catalog: Catalog, write: Any, account: int, device: int) -> None:
        """A row of everything that an account has."""
        plan_id = catalog.device(device).plans[0].plan_id
        with write() as books:
            books.publish_agreement("One.", now_ms=NOW)
            books.accept_agreement(AcceptanceRow(account, 1, "registered", NOW))
            books.add_session(SessionRow(account.to_bytes(32, "big"), account, NOW, NOW))
            books.put_code(CodeRow(account, "email", "ann@example.com", b"c", NOW))
            books.add_subscription(
                SubscriptionRow(plan_id, account, device, "USD", 599, 599, True, "card", 1, NOW)
            )
            books.add_payment(charge(account, device, f"r{account}", plan_id=plan_id))
            books.add_event(event(account, why="ann@example.com"))
            books.add_block(BlockRow(0, account, BlockKind.DISPUTE, "ann@example.com", "operator", NOW))
            books.add_notice(notice(account))
            books.put_answer(answer(account, "k", body="ann@example.com"))
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1))
        catalog.delete_range(
            device, NOON, NOON + 1, reason="asked for", who="ann@example.com", now_ms=NOW, delete_after_ms=NOW
        )

    def had(self, books: Books, account: int) -> list[Any]:
        return [
            books.session(account.to_bytes(32, "big")),
            books.codes(account),
            books.subscriptions_of(account),
            books.payments_of(account),
            books.payment(f"r{account}"),
            books.events_of(account),
            books.blocks_of(account),
            books.notices(account=account),
            books.acceptances_of(account),
            books.answer(account, "k"),
        ]

    def end(self, books: Books, account: int) -> None:
        for facts in books.devices_of(account):
            books.change_device(facts.device, to_erasing, what="owner: account cancelled")
        books.erase_account(account, cancelled_on=DAY)

    def test_an_erased_account_is_empty_and_others_are_not(
        self, catalog: Catalog, write: Any, told: Told, ann: int, bob: int, device: int
    ) -> None:
        with write() as books:
            other = books.add_device(bob).device
            books.change_device(other, with_plan(), what="")
            books.put_account(replace(full_account(ann), suspended_ms=None))
        for account, number in ((ann, device), (bob, other)):
            self.fill(catalog, write, account, number)
        with catalog.books() as books:
            bobs = (books.account(bob), *self.had(books, bob), books.device(other))
            assert all(self.had(books, ann))
        seen = catalog.newest_change()
        told.clear()
        with write() as books:
            self.end(books, ann)
        with catalog.books() as books:
            assert books.account(ann) == AccountRow(
                ann, "owner", "", 0, state=AccountState.CANCELLED, cancelled_on=DAY
            )
            assert not any(self.had(books, ann))
            assert books.account_at(email="ann@example.com") is None
            assert books.account_at(mobile="+15550100") is None
            assert (books.account(bob), *self.had(books, bob), books.device(other)) == bobs
            assert [row.account for row in books.accounts()] == [1, ann, bob]
        facts = catalog.device(device)
        assert (facts.plans, facts.account_suspended, facts.erase_state) == ((), True, EraseState.ERASING)
        assert told[-1][1] == facts
        assert catalog.changes_after(seen)[0] == [device]
        [record] = catalog.erasures(device=device)
        assert (record.why, record.who) == ("account cancelled", "owner")
        assert list(catalog.broken_rows()) == []

    def test_devices_that_ended_before_are_told_too(
        self, catalog: Catalog, write: Any, told: Told, ann: int, device: int
    ) -> None:
        """Their plans go as well; their last change may be long ago."""
        with write() as books:
            books.put_account(replace(books.account(ann), suspended_ms=NOW))
            books.change_device(device, to_erasing, what="")
        fence = lease(catalog)
        catalog.note_keys_destroyed({device: (1, 1)}, fence=fence, now_ms=NOW)
        with write() as books:
            books.change_device(device, lambda f: replace(f, erase_state=EraseState.ERASED), what="")
        seen = catalog.newest_change()
        told.clear()
        with write() as books:
            books.erase_account(ann, cancelled_on=DAY)
        assert [(old.plans != (), new.plans) for old, new in told] == [(True, ())]
        assert catalog.changes_after(seen)[0] == [device]

    def test_devices_must_have_been_marked(self, catalog: Catalog, write: Any, ann: int, device: int) -> None:
        for change in (lambda f: f, lambda f: replace(f, terminated_ms=NOW)):
            with write() as books:
                books.change_device(device, change, what="")
                assert code_of(lambda: books.erase_account(ann, cancelled_on=DAY)) == "not_marked"
        with catalog.books() as books:
            assert books.account(ann).email == "ann@example.com"

    def test_an_erased_account_stays_as_it_is(
        self, catalog: Catalog, write: Any, ann: int, device: int
    ) -> None:
        with write() as books:
            self.end(books, ann)
        before = catalog.newest_change()
        with write() as books:
            books.erase_account(ann, cancelled_on=DAY + 5)
            assert books.account(ann).cancelled_on == DAY
            assert (
                code_of(lambda: books.put_account(replace(books.account(ann), name="x")))
                == "account_cancelled"
            )
            assert code_of(lambda: books.add_device(ann)) == "account_cancelled"
            for call in (
                lambda: books.add_event(event(ann)),
                lambda: books.add_notice(notice(ann)),
                lambda: books.add_session(SessionRow(b"s" * 32, ann, NOW, NOW)),
                lambda: books.put_code(CodeRow(ann, "email", "", b"", NOW)),
                lambda: books.add_payment(charge(ann, device, "late")),
                lambda: books.put_answer(answer(ann, "late")),
                lambda: books.add_block(BlockRow(0, ann, BlockKind.OTHER, "", "", NOW)),
            ):
                with pytest.raises(NotFound):
                    call()
        assert catalog.newest_change() == before
        assert catalog.overwrite_erased()
        with write() as books, pytest.raises(NotFound):
            books.erase_account(99, cancelled_on=DAY)

    def test_its_addresses_are_free_again_for_others(self, write: Any, ann: int) -> None:
        """Whether they are reserved is a rule's business."""
        with write() as books:
            books.erase_account(ann, cancelled_on=DAY)
            again = books.add_account(owner("ann@example.com", "+15550100"))
            assert again.account > ann

    def test_numbers_of_what_was_erased_do_not_come_twice(
        self, catalog: Catalog, write: Any, ann: int, device: int, bob: int
    ) -> None:
        """A payment's is known to a gateway, a notice's names a file."""
        self.fill(catalog, write, ann, device)
        with catalog.books() as books:
            [payment], [told], [happened], [block] = (
                books.payments_of(ann),
                books.notices(account=ann),
                books.events_of(ann),
                books.blocks_of(ann),
            )
        with write() as books:
            self.end(books, ann)
            assert books.add_payment(charge(bob, device, "new")).payment_id > payment.payment_id
            assert books.add_notice(notice(bob)).notice_id > told.notice_id
            assert books.add_event(event(bob)).event_id > happened.event_id
            assert books.add_block(BlockRow(0, bob, BlockKind.OTHER, "", "", NOW)).block_id > block.block_id

    # --- reserved addresses -----------------------------------------------------------------------------------

    def test_an_address_is_reserved_through_a_day(self, catalog: Catalog, write: Any) -> None:
        one, other = b"1" * 32, b"2" * 32
        with write() as books:
            books.reserve_address(one, until_day=DAY + 10)
            books.reserve_address(one, until_day=DAY + 5)  # the longer one counts
            books.reserve_address(other, until_day=DAY)
        with write() as books:
            assert [books.is_reserved(one, on=DAY + n) for n in (0, 10, 11)] == [True, True, False]
            assert not books.is_reserved(b"3" * 32, on=DAY)
            assert books.drop_reserved(before_day=DAY) == 0
            assert books.drop_reserved(before_day=DAY + 1) == 1
            assert not books.is_reserved(other, on=DAY)
            assert books.drop_reserved(before_day=DAY + 10) == 0
            assert books.drop_reserved(before_day=DAY + 11) == 1

    # --- beside the main job ----------------------------------------------------------------------------------

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
