"""What the account books promise of the end of an account, and addresses reserved after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.catalog.books import Books
from storage.contracts.books.given import (
    OnBooks,
    Told,
    answer,
    charge,
    code_of,
    event,
    full_account,
    notice,
    owner,
    to_erasing,
    with_plan,
)
from storage.contracts.books.people import correction, export
from storage.contracts.given import DAY, NOON, NOW, Upload, commit, lease
from storage.days import MS_PER_DAY, day_of_ms
from storage.errors import NotFound
from storage.rows.accounts import (
    AcceptanceRow,
    AccountRow,
    AccountState,
    BlockKind,
    BlockRow,
    ClosedPayment,
    CodeRow,
    MethodRow,
    MethodState,
    PaymentKind,
    PaymentState,
    SessionRow,
    SubscriptionRow,
)
from storage.rows.devices import DeviceName, EraseState
from storage.rows.people import ConsentRow


class EndingContract(OnBooks):
    """See the module docstring."""

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
            books.add_method(MethodRow(f"m{account}", account, MethodState.USABLE, NOW, "card", "Ann's card"))
            books.add_event(event(account, why="ann@example.com"))
            books.add_block(BlockRow(0, account, BlockKind.DISPUTE, "ann@example.com", "operator", NOW))
            books.add_notice(notice(account))
            books.put_answer(answer(account, "k", body="ann@example.com"))
            books.add_correction(correction(account, detail="ann@example.com"))
            books.put_consent(ConsentRow(account, "advertisements", True, "owner", NOW))
            books.add_serial(device, account, f"serial-{account}")
            books.put_device_name(DeviceName(device, account, "ann's door", "of ann@example.com"))
            books.add_export(export(account, secret="0f"))
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1))
        catalog.delete_range(
            device, NOON, NOON + 1, reason="asked for", who="owner", now_ms=NOW, delete_after_ms=NOW
        )

    def had(self, books: Books, account: int) -> list[Any]:
        return [
            books.session(account.to_bytes(32, "big")),
            books.codes(account),
            books.subscriptions_of(account),
            books.payments_of(account),
            books.payment(f"r{account}"),
            books.methods_of(account),
            books.method(f"m{account}"),
            books.events_of(account),
            books.blocks_of(account),
            books.notices(account=account),
            books.acceptances_of(account),
            books.answer(account, "k"),
            books.corrections(account=account),
            books.consents_of(account),
            [serial for facts in books.devices_of(account) if (serial := books.serial_of(facts.device))],
            books.exports(account=account),
            books.named_devices(account),
            books.device_names([facts.device for facts in books.devices_of(account)]),
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

    def test_what_was_seen_of_devices_goes_with_their_account(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        with write() as books:
            other = books.add_device(bob).device
        both = dict.fromkeys((device, other), NOW)
        refused = {(number, "expired"): (1, NOW) for number in both}
        catalog.note_sightings(both, refused)
        with write() as books:
            self.end(books, ann)
        found = catalog.sightings([device, other])
        assert (found[device].seen_ms, found[device].refused) == (None, ())
        assert (found[other].seen_ms, found[other].refusals) == (NOW, 1)
        catalog.note_sightings(both, refused)
        found = catalog.sightings([device, other])
        assert (found[device].seen_ms, found[device].refused) == (None, ()), "a worker was late"
        assert found[other].refusals == 2
        assert catalog.drop_sightings() == 0

    def test_of_an_erased_account_stays_what_moved_and_nothing_of_whose(
        self, catalog: Catalog, write: Any, ann: int, bob: int, device: int
    ) -> None:
        """Agreement 6.5.4."""
        done, paid = PaymentState.DONE, PaymentState.PAID_OTHERWISE
        tomorrow = NOW + MS_PER_DAY
        with write() as books:
            other = books.add_device(bob).device
            moved = books.add_payment(charge(ann, device, "a", state=done, at_ms=tomorrow))
            refund = books.add_payment(charge(ann, device, "b", kind=PaymentKind.REFUND, state=paid))
            for number, (kind, state) in enumerate(
                (
                    (PaymentKind.CHARGE, PaymentState.FAILED),
                    (PaymentKind.CHARGE, PaymentState.PENDING),
                    (PaymentKind.REFUND, PaymentState.TAKEN_BACK),
                    (PaymentKind.COUNTER, done),
                    (PaymentKind.CREDIT, done),
                )
            ):
                books.add_payment(charge(ann, device, f"none-{number}", kind=kind, state=state))
            books.add_payment(charge(bob, other, "c", state=done))
        with write() as books:
            assert books.closed_payments(first=0, last=DAY + 9) == []
            assert not books.is_of_closed("a")
            self.end(books, ann)
        expected = [
            ClosedPayment(row.payment_id, row.kind, row.state, row.currency, row.minor, day_of_ms(row.at_ms))
            for row in (refund, moved)
        ]
        with catalog.books() as books:
            assert books.closed_payments(first=0, last=DAY + 9) == expected, "by day"
            assert books.closed_payments(first=0, last=DAY) == expected[:1]
            today = {"first": DAY, "last": DAY + 9}
            assert books.closed_payments(after=refund.payment_id, **today) == expected[1:]
            assert books.closed_payments(limit=1, **today) == expected[:1]
            assert [books.is_of_closed(name) for name in "abc"] == [True, True, False]
            assert not books.is_of_closed("none-0")

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
