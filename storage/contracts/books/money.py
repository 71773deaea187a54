"""What the account books promise of subscriptions and payments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.contracts.books.given import DETAIL, OnBooks, charge, code_of, with_plan
from storage.contracts.given import DAY, NOON, NOW, Upload, commit
from storage.errors import NotFound
from storage.rows.accounts import (
    AcceptanceRow,
    AccountState,
    MethodRow,
    MethodState,
    PaymentKind,
    PaymentState,
    SubscriptionRow,
)


class MoneyContract(OnBooks):
    """See the module docstring."""

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
            assert books.subscriptions_of_device() == []
            assert books.subscriptions_of_device(99, device, device) == [changed]
            assert books.subscriptions_of(bob, ann) == [changed]
            assert books.subscriptions_of(bob, 99) == []
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
            assert books.payments_of(bob, ann) == [*rows, done, failed, others]
            assert books.payments_of(ann, limit=2, newest_first=True) == [failed, done]
            assert books.payments_of(bob, ann, after=done.payment_id, limit=1) == [failed]
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

    def test_charges_that_are_open(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        with write() as books:
            other = books.add_device(bob).device
            first = books.add_payment(charge(ann, device, "a"))
            books.add_payment(charge(ann, device, "b", state=PaymentState.DONE))
            books.add_payment(charge(ann, device, "c", kind=PaymentKind.REFUND))
            hers = books.add_payment(charge(bob, other, "d"))
            last = books.add_payment(charge(ann, device, "e"))
        with catalog.books() as books:
            assert books.open_charges(account=ann) == books.open_charges(device=device) == [first, last]
            assert books.open_charges(device=other) == [hers]
            assert books.open_charges() == [first, hers, last]
            assert books.open_charges(account=ann, device=other) == []

    def test_payments_of_all_accounts(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        with write() as books:
            a = books.add_payment(charge(ann, device, "a", at_ms=NOW + 1))
            b = books.add_payment(charge(bob, device, "b", at_ms=NOW, state=PaymentState.FAILED))
            c = books.add_payment(charge(ann, device, "c", at_ms=NOW, kind=PaymentKind.REFUND))
            d = books.add_payment(charge(bob, device, "d", at_ms=NOW + 2))
        with catalog.books() as books:
            assert books.payments() == [a, b, c, d]
            assert books.payments(after=a.payment_id, limit=2) == [b, c]
            assert books.payments(state=PaymentState.PENDING) == [a, c, d]
            assert books.payments(kind=PaymentKind.REFUND, state=PaymentState.PENDING) == [c]
            assert books.payments(before_ms=NOW + 1) == [b, c]
            assert books.payments_between(from_ms=NOW, until_ms=NOW + 2) == [b, c, a]
            assert books.payments_between(from_ms=NOW, after=b.payment_id, until_ms=NOW + 3, limit=2) == [
                c,
                a,
            ]
            assert books.payments_between(from_ms=NOW + 2, after=d.payment_id, until_ms=NOW + 3) == []

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
            assert books.failed_refunds(account=ann, after=rows[0].payment_id) == [rows[2]]
            assert books.failed_refunds(account=1) == []
            assert books.backlog(on=DAY).failed_refunds == 2

    def test_disputes_that_are_open_are_counted(
        self, catalog: Catalog, write: Any, ann: int, device: int
    ) -> None:
        states = (PaymentState.OPEN, PaymentState.LOST, PaymentState.WON, PaymentState.OPEN)
        with write() as books:
            for number, state in enumerate(states):
                books.add_payment(charge(ann, device, f"d{number}", kind=PaymentKind.DISPUTE, state=state))
            assert books.backlog(on=DAY).open_disputes == 2

    def test_a_refund_of_a_disputed_plan_is_not_what_waits_longest(
        self, catalog: Catalog, write: Any, ann: int, device: int, plan_id: int
    ) -> None:
        with write() as books:
            mine = charge(ann, device, "d", kind=PaymentKind.DISPUTE, state=PaymentState.OPEN)
            disputed = books.add_payment(replace(mine, plan_id=plan_id))
            books.add_payment(replace(disputed, payment_id=0, reference="e", plan_id=None))
            for reference, kind, plan, at_ms in (
                ("waits", PaymentKind.REFUND, plan_id, 1),
                ("of-none", PaymentKind.REFUND, None, 2),
                ("charge", PaymentKind.CHARGE, plan_id, 3),
            ):
                row = charge(ann, device, reference, kind=kind, state=PaymentState.PENDING)
                books.add_payment(replace(row, plan_id=plan, at_ms=at_ms))
            assert books.backlog(on=DAY).oldest_pending_ms == 2
            row = books.payment("of-none")
            assert row is not None
            books.put_payment(replace(row, state=PaymentState.DONE))
            assert books.backlog(on=DAY).oldest_pending_ms == 3
            books.put_payment(replace(disputed, state=PaymentState.WON))
            assert books.backlog(on=DAY).oldest_pending_ms == 1

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

    def test_methods(self, catalog: Catalog, write: Any, ann: int, bob: int) -> None:
        first = MethodRow("m-1", ann, MethodState.PENDING, NOW, url="https://pay.example/1", until_ms=NOW + 9)
        second = MethodRow("m-2", ann, MethodState.USABLE, NOW + 1, "card-2", "Visa 4242")
        usable = replace(
            first, state=MethodState.USABLE, method="card-1", label="naïve €", url="", until_ms=None
        )
        with write() as books:
            books.add_method(first)
            books.add_method(second)
            assert code_of(lambda: books.add_method(replace(first, account=bob))) == "reference_taken"
            assert books.method("m-1") == first
            books.put_method(usable)
            with pytest.raises(NotFound):
                books.put_method(replace(first, reference="m-3"))
        with catalog.books() as books:
            assert books.methods_of(ann) == [second, usable], "the newest first"
            assert books.methods_of(ann, limit=1) == [second]
            assert books.methods_of(bob) == []
            assert books.method("m-3") is None
        with write() as books:
            books.drop_method("m-2")
            books.drop_method("m-2")
        with catalog.books() as books:
            assert books.methods_of(ann) == [usable]
