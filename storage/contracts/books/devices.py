"""What the account books promise of devices of accounts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.contracts.blocks import writing_books
from storage.contracts.books.given import OnBooks, Told, code_of, notice, with_plan
from storage.contracts.given import DAY, NOW, WEEK
from storage.errors import CallerError, NotFound
from storage.rows.accounts import TRIAL_ENDING, AccountState, SubscriptionRow
from storage.rows.devices import DeviceFacts, PlanRow


class DevicesContract(OnBooks):
    """See the module docstring."""

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
            other = books.add_device(bob)
            assert [f.device for f in books.devices_of(ann)] == [facts.device, *more]
            assert [f.device for f in books.devices_of(bob, ann, 99)] == [facts.device, *more, other.device]
            assert books.devices_of(ann, bob, after=more[-1], limit=2) == [other]
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

    def test_trials_that_end_and_whose_owner_was_not_told(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        def trial(account: int, ends_on: int) -> int:
            plan = PlanRow(0, "trial", DAY, ends_on, WEEK)
            with write() as books:
                number = int(books.add_device(account).device)
                books.put_account(replace(books.account(account), state=AccountState.ACTIVE))
                books.change_device(number, lambda old: replace(old, plans=(plan,)), what="trial")
            return number

        late, soon = trial(ann, DAY + 9), trial(bob, DAY + 7)

        def ending(**page: int) -> list[int]:
            with catalog.books() as books:
                return [f.device for f in books.trials_ending(**{"first": DAY + 7, "last": DAY + 9} | page)]

        assert ending() == [soon, late]
        assert ending(limit=1) == [soon]
        assert ending(last=DAY + 8) == [soon]
        assert ending(first=DAY + 8) == [late]
        with write() as books:
            books.add_notice(notice(bob, purpose=TRIAL_ENDING))
        assert ending() == [late]
        with write() as books:
            books.change_device(late, lambda old: replace(old, terminated_ms=NOW), what="end")
        assert ending() == []

    def test_plans_that_end_soon_and_do_not_renew(
        self, catalog: Catalog, write: Any, ann: int, device: int
    ) -> None:
        def ending(**page: int) -> list[tuple[int, str]]:
            with catalog.books() as books:
                return books.plans_ending(**{"first": DAY + 7, "last": DAY + 9} | page)

        def with_end(books: Books, ends_on: int, kind: str = "full", of: int = ann) -> int:
            number = books.add_device(of).device
            plan = PlanRow(0, kind, DAY, ends_on, WEEK)
            facts = books.change_device(number, lambda f: replace(f, plans=(plan,)), what="")
            return int(facts.plans[0].plan_id)

        with write() as books:
            books.put_account(replace(books.account(ann), state=AccountState.ACTIVE))
            late, soon, past = (with_end(books, DAY + days) for days in (9, 7, 6))
            with_end(books, DAY + 8, "trial")
            with_end(books, DAY + 8, of=1)
            renewing, stopped = (with_end(books, DAY + 8, "monthly") for _ in range(2))
            for plan_id, renews in ((renewing, True), (stopped, False)):
                at = books.device_of_plan(plan_id).device
                books.add_subscription(
                    SubscriptionRow(plan_id, ann, at, "USD", 599, 599, renews, "card", 1, NOW)
                )
        found = [(soon, f"plan_ending:{soon}:{DAY + 7}"), (stopped, f"plan_ending:{stopped}:{DAY + 8}")]
        assert ending() == [*found, (late, f"plan_ending:{late}:{DAY + 9}")]
        assert ending(limit=1) == found[:1]
        assert ending(last=DAY + 8) == found
        assert past in [plan_id for plan_id, _ in ending(first=DAY + 6)]
        with write() as books:
            books.add_notice(notice(ann, purpose=found[0][1]))
        assert ending(last=DAY + 8) == found[1:]
        with write() as books:
            end = books.device_of_plan(stopped).device
            books.change_device(end, lambda old: replace(old, terminated_ms=NOW), what="end")
        assert ending(last=DAY + 8) == []
