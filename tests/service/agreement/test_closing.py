"""The cancellation of an account: eligibility, approval, notice, effect, and what is left (agreement 6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from service.agreement import closing, notices, registration, sessions, standing, tidying, versions
from service.agreement.desk import OPERATOR, Actor
from service.agreement.errors import Conflict, Forbidden, Unauthorized, Unprocessable
from service.agreement.senders import SendRefused
from storage.catalog.books import Books
from storage.days import day_of_ms
from storage.errors import NotFound
from storage.rows.accounts import (
    AccountState,
    AnswerRow,
    AttemptsRow,
    BlockKind,
    ClosingState,
    NoticeState,
    PaymentKind,
    PaymentRow,
    PaymentState,
)
from storage.rows.devices import EraseState
from tests.retention.world import NOON, TODAY
from tests.servers.catalogs import sqlite_only
from tests.service.agreement.office import CLIENT, EMAIL, MOBILE, Office, owner, refused


def codes(office: Office, account: int) -> list[str]:
    return [reason.code for reason in closing.blocks(office.desk, account)]


def pay(office: Office, account: int, state: PaymentState = PaymentState.PENDING) -> None:
    def work(books: Books) -> None:
        found = books.payment("r1")
        row = PaymentRow(
            0, "r1", account, None, 1, PaymentKind.CHARGE, "USD", 599, state, "monthly plan", office.clock.ms
        )
        if found is None:
            books.add_payment(row)
        else:
            books.put_payment(replace(found, state=state))

    office.desk.write(work)


# --- eligibility --------------------------------------------------------------------------------------------------


def test_all_reasons_are_named_at_once_and_go_one_by_one(office: Office) -> None:
    row = office.active()
    account = row.account
    device = office.device(account)
    blocks = [
        closing.add_block(office.desk, OPERATOR, account, kind, f"case {number}")
        for number, kind in enumerate(BlockKind)
    ]
    pay(office, account)
    registration.update(office.desk, owner(row), account, mobile=MOBILE)
    with refused(Unprocessable, "cancellation_blocked") as caught:
        closing.request(office.desk, owner(row), account, "moving")
    expected = [
        *("too_young", "dispute", "linked_account", "balance", "unfinished_transaction"),
        *("unfinished_transaction", "ongoing_subscription", "ongoing_change", "other"),
    ]
    reasons = caught.value.reasons  # type: ignore[attr-defined]
    assert [reason.code for reason in reasons] == expected
    assert all(reason.detail and reason.what_to_do for reason in reasons)
    assert "2025-06-22" in reasons[0].what_to_do
    assert office.row(account).closing is ClosingState.NONE

    def cancel_plan() -> None:
        office.change(
            device, lambda f: replace(f, plans=(replace(f.plans[0], ends_on=TODAY - 1, cancelled_on=TODAY),))
        )

    remedies: list[tuple[str, Callable[[], object]]] = [
        ("dispute", lambda: closing.lift_block(office.desk, OPERATOR, blocks[0].block_id)),
        ("linked_account", lambda: closing.lift_block(office.desk, OPERATOR, blocks[1].block_id)),
        ("balance", lambda: closing.lift_block(office.desk, OPERATOR, blocks[2].block_id)),
        ("unfinished_transaction", lambda: pay(office, account, PaymentState.DONE)),
        ("unfinished_transaction", lambda: closing.lift_block(office.desk, OPERATOR, blocks[3].block_id)),
        ("ongoing_subscription", cancel_plan),
        (
            "ongoing_change",
            lambda: registration.confirm_address(
                office.desk, account, "mobile", office.code(account, "mobile")
            ),
        ),
        ("other", lambda: closing.lift_block(office.desk, OPERATOR, blocks[4].block_id)),
        ("too_young", lambda: office.later(days=7)),
    ]
    for code, remedy in remedies:
        remedy()
        expected.remove(code)
        assert codes(office, account) == expected
    asked = closing.request(office.desk, owner(row), account, "moving")
    assert (asked.closing, asked.closing_ms, asked.closing_by) == (
        ClosingState.REQUESTED,
        office.clock.ms,
        "owner",
    )
    assert office.told(account)[-1] == "closing_requested"


def test_an_account_must_be_seven_days_old_to_the_millisecond(office: Office) -> None:
    row = office.active()
    office.clock.ms += 7 * 86_400_000 - 1
    assert codes(office, row.account) == ["too_young"]
    office.clock.ms += 1
    assert codes(office, row.account) == []


def test_an_account_that_was_never_activated(office: Office) -> None:
    row = office.register()
    office.later(days=7)
    assert codes(office, row.account) == ["not_activated"]


def test_a_code_for_a_new_password_is_an_ongoing_change_while_it_can_be_used(office: Office) -> None:
    row = office.old_enough()
    sessions.request_reset(office.desk, EMAIL, CLIENT)
    assert codes(office, row.account) == ["ongoing_change"]
    office.later(hours=0.5)
    assert codes(office, row.account) == []


def test_what_came_up_since_the_request_keeps_it_from_being_approved(office: Office) -> None:
    row = office.old_enough()
    closing.request(office.desk, owner(row), row.account, "")
    closing.add_block(office.desk, OPERATOR, row.account, BlockKind.DISPUTE, "chargeback")
    with refused(Unprocessable, "cancellation_blocked"):
        closing.approve(office.desk, OPERATOR, row.account)
    assert office.row(row.account).closing is ClosingState.REQUESTED
    assert not office.notices(row.account, "closing")


# --- the way ------------------------------------------------------------------------------------------------------


def test_a_request_is_withdrawn_or_rejected_and_made_again(office: Office) -> None:
    row = office.old_enough()
    for end in (
        lambda: closing.withdraw(office.desk, owner(row), row.account),
        lambda: closing.reject(office.desk, OPERATOR, row.account, "an open question"),
    ):
        closing.request(office.desk, owner(row), row.account, "moving")
        with refused(Conflict, "already_requested"):
            closing.request(office.desk, owner(row), row.account, "moving")
        assert end().closing is ClosingState.NONE
    [notice] = office.notices(row.account, "closing_rejected")
    assert "an open question" in notice.body
    assert office.told(row.account)[-4:] == [
        *("closing_requested", "closing_withdrawn", "closing_requested", "closing_rejected")
    ]
    office.log_in()


def test_who_may_do_what(office: Office) -> None:
    row, other = office.old_enough(), office.active("b@example.org")
    mine, account = owner(row), row.account
    for act in (
        lambda who: closing.approve(office.desk, who, account),
        lambda who: closing.reject(office.desk, who, account, "x"),
        lambda who: closing.close_by_operator(office.desk, who, account, "x"),
        lambda who: closing.add_block(office.desk, who, account, BlockKind.OTHER, "x"),
        lambda who: closing.lift_block(office.desk, who, 1),
    ):
        with refused(Forbidden, "operators_only"):
            act(mine)
    for act in (
        lambda who: closing.request(office.desk, who, account, "x"),
        lambda who: closing.withdraw(office.desk, who, account),
        lambda who: closing.progress(office.desk, who, account),
        lambda who: closing.blocks(office.desk, account, actor=who),
    ):
        with refused(NotFound, "not_found"):
            act(owner(other))
    for act in (closing.withdraw, closing.approve):
        with refused(Conflict, "not_requested"):
            act(office.desk, OPERATOR, account)
    with refused(Conflict, "not_requested"):
        closing.reject(office.desk, OPERATOR, account, "x")
    with refused(NotFound, "not_found"):
        closing.lift_block(office.desk, OPERATOR, 99)
    with refused(NotFound, "not_found"):
        closing.add_block(office.desk, OPERATOR, 99, BlockKind.OTHER, "x")
    with refused(Unprocessable, "operator_account"):
        closing.close_by_operator(office.desk, OPERATOR, 1, "x")
    with refused(Unprocessable, "bad_text"):
        closing.request(office.desk, mine, account, "a\x1bb")


def test_what_was_approved_is_not_taken_back(office: Office) -> None:
    row = office.approved()
    for act in (
        lambda: closing.withdraw(office.desk, owner(row), row.account),
        lambda: closing.reject(office.desk, OPERATOR, row.account, "x"),
        lambda: closing.approve(office.desk, OPERATOR, row.account),
        lambda: closing.close_by_operator(office.desk, OPERATOR, row.account, "x"),
    ):
        with refused(Conflict, "already_approved"):
            act()
    with refused(Conflict, "already_requested"):
        closing.request(office.desk, owner(row), row.account, "x")


def test_an_operator_cancels_without_conditions_but_with_reason_and_notice(office: Office) -> None:
    row = office.active()
    device = office.device(row.account)
    office.keep([(device, NOON)])
    closing.add_block(office.desk, OPERATOR, row.account, BlockKind.OTHER, "x")
    with refused(Unprocessable, "bad_text"):
        closing.close_by_operator(office.desk, OPERATOR, row.account, "")
    closing.close_by_operator(office.desk, OPERATOR, row.account, "under age")
    [notice] = office.notices(row.account, "closing")
    assert "under age" in notice.body
    assert office.told(row.account)[-1] == "closing_approved"
    assert office.serves(device, NOON) == [True], "until it is notified"
    office.deliver()
    assert office.row(row.account).state is AccountState.CANCELLED
    assert office.serves(device, NOON) == [False]
    assert office.attacked() == set()


# --- taking effect ------------------------------------------------------------------------------------------------


def test_it_takes_effect_when_the_last_address_was_notified(office: Office) -> None:
    row = office.approved(EMAIL, MOBILE)
    mail, text = office.notices(row.account, "closing")
    assert {mail.channel, text.channel} == {"email", "mobile"}
    office.deliver(mobile=Refusing())
    assert office.row(row.account).closing is ClosingState.APPROVED
    office.log_in()  # all goes on until then
    [waits_for] = closing.progress(office.desk, OPERATOR, row.account).waits_for
    assert (waits_for.channel, waits_for.state) == ("mobile", NoticeState.FAILED)
    office.later(days=3)
    assert closing.settle(office.desk) == []
    notices.confirm(office.desk, OPERATOR, waits_for.notice_id)
    gone = office.row(row.account)
    assert (gone.state, gone.cancelled_on) == (AccountState.CANCELLED, day_of_ms(office.clock.ms))


class Refusing:
    def send(self, notice: object) -> None:
        raise SendRefused("no such number")


def test_it_takes_effect_on_the_day_of_the_delivery_not_of_the_run(office: Office) -> None:
    """A process that was killed between the two leaves the rest to a later day: the date does not move."""
    row = office.approved()
    [notice] = office.notices(row.account, "closing")
    delivered = replace(notice, state=NoticeState.DELIVERED, settled_ms=office.clock.ms)
    office.desk.write(lambda books: books.put_notice(delivered))
    on = day_of_ms(office.clock.ms)
    office.later(days=2)
    assert closing.settle(office.desk) == [row.account]
    assert office.row(row.account).cancelled_on == on


def test_notices_of_an_earlier_request_do_not_count(office: Office) -> None:
    row = office.active()
    closing.close_by_operator(office.desk, OPERATOR, row.account, "x")
    old = office.notices(row.account, "closing")[0]
    office.later(days=8)
    # As if it had been taken back, by whatever way there may be.
    office.desk.write(
        lambda books: books.put_account(replace(books.account(row.account), closing=ClosingState.NONE))
    )
    closing.request(office.desk, owner(row), row.account, "")
    closing.approve(office.desk, OPERATOR, row.account)
    notices.confirm(office.desk, OPERATOR, old.notice_id)
    assert office.row(row.account).state is AccountState.ACTIVE


def test_money_under_way_is_settled_first(office: Office) -> None:
    row = office.active()
    office.device(row.account)
    pay(office, row.account)
    closing.close_by_operator(office.desk, OPERATOR, row.account, "x")
    office.deliver()
    assert office.row(row.account).state is AccountState.ACTIVE
    pay(office, row.account, PaymentState.DONE)
    assert closing.settle(office.desk) == [row.account]


def test_an_account_without_addresses_is_cancelled_without_notice(office: Office) -> None:
    row = office.active()
    office.desk.write(lambda books: books.put_account(replace(books.account(row.account), email=None)))
    closing.close_by_operator(office.desk, OPERATOR, row.account, "x")
    assert closing.settle(office.desk) == [row.account]
    assert office.row(row.account).cancelled_on == office.desk.today()


def test_recordings_are_beyond_recovery_and_the_neighbours_are_not(office: Office) -> None:
    row, other = office.old_enough(), office.active("b@example.org")
    mine, theirs = [office.device(row.account) for _ in range(3)], office.device(other.account)
    at = office.clock.ms
    office.keep([(device, at) for device in (*mine, theirs)])
    for device in mine:
        office.change(device, lambda f: replace(f, plans=(replace(f.plans[0], ends_on=TODAY + 7),)))
    office.terminate(mine[2], erase=True)
    office.later(days=1)
    closing.request(office.desk, owner(row), row.account, "")
    closing.approve(office.desk, OPERATOR, row.account)
    assert office.serves(theirs, at) == [True]
    office.deliver()
    assert office.attacked() == {(theirs, at)}
    assert office.serves(theirs, at) == [True]
    for device, reason in zip(mine, ["account cancelled"] * 2 + ["terminated"], strict=True):
        facts = office.catalog.device(device)
        assert (facts.erase_state, facts.erase_reason) == (EraseState.ERASING, reason)
        assert facts.terminated_ms is not None
        assert facts.plans == ()
        assert not office.serves(device, at)[0]
    office.later(hours=2)
    office.sweep().run()
    assert {office.catalog.device(device).erase_state for device in mine} == {EraseState.ERASED}
    office.sound()


def test_nobody_logs_in_to_a_cancelled_account_or_recovers_it(office: Office) -> None:
    row = office.approved()
    token = office.log_in()
    office.deliver()
    with refused(Unauthorized, "session_ended"):
        sessions.who(office.desk, token)
    for login in (EMAIL, str(row.account)):
        with refused(Unauthorized, "bad_credentials"):
            office.log_in(login)
        sessions.request_reset(office.desk, login, CLIENT)
    assert not office.notices(row.account)
    for actor in (owner(row), Actor("owner", 999)):
        with refused(NotFound, "not_found"):
            closing.request(office.desk, actor, row.account, "")
    for act in (closing.approve, closing.withdraw):
        with refused(Conflict, "account_cancelled"):
            act(office.desk, OPERATOR, row.account)
    with refused(Conflict, "account_cancelled"):
        standing.resume(office.desk, OPERATOR, row.account, "x")


@pytest.mark.parametrize(("email", "mobile"), [(EMAIL, None), (None, MOBILE)])
def test_addresses_are_refused_through_day_10_and_taken_from_day_11_on(
    office: Office, email: str | None, mobile: str | None
) -> None:
    office.approved(EMAIL, MOBILE)
    other = office.active("b@example.org")
    office.deliver()
    effective_ms = office.clock.ms - office.clock.ms % 86_400_000
    free = "2025-07-03"  # effective on 2025-06-22
    for moment in (office.clock.ms, effective_ms + 9 * 86_400_000, effective_ms + 11 * 86_400_000 - 1):
        office.clock.ms = moment
        with refused(Conflict, "address_reserved") as caught:
            office.register(email, mobile, client=None)  # type: ignore[arg-type]
        assert free in caught.value.detail
        with refused(Conflict, "address_reserved"):
            registration.update(office.desk, OPERATOR, other.account, email=email, mobile=mobile)
        registration.update(office.desk, owner(other), other.account, email=email, mobile=mobile)
        account = office.register(email, mobile).account  # who is no operator isn't told, and gets no code
        assert [n.purpose for n in office.notices(account)] == ["address_reserved"]
    assert [n.purpose for n in office.notices(other.account)][-3:] == ["address_reserved"] * 3
    tidying.tidy(office.desk)
    office.clock.ms = effective_ms + 11 * 86_400_000
    registered = office.register(email, mobile)
    assert registered.account > other.account
    kind = "email" if email is not None else "mobile"
    bound = registration.activate(office.desk, registered.account, office.code(registered.account))
    assert getattr(bound, kind) == (email or mobile)


def test_reserved_hashes_are_dropped_when_they_have_run_out(office: Office) -> None:
    office.approved(EMAIL, MOBILE)
    office.deliver()
    while office.desk.today() < TODAY + 7 + 10:
        office.later(days=1)
    tidying.tidy(office.desk)
    with refused(Conflict, "address_reserved"):
        office.register(client=None)  # type: ignore[arg-type]
    office.later(days=1)
    assert tidying.tidy(office.desk) >= 2
    assert rows(office, "reserved_addresses") == []


def test_a_confirmation_comes_too_late_for_a_reserved_address(office: Office) -> None:
    """Bound to nobody between asking for it and confirming it."""
    row = office.old_enough()
    other = office.active("b@example.org")
    registration.update(office.desk, owner(other), other.account, email="c@example.org")
    code = office.code(other.account, "email")
    office.desk.write(
        lambda books: books.put_account(replace(books.account(row.account), email="c@example.org"))
    )
    closing.close_by_operator(office.desk, OPERATOR, row.account, "x")
    office.deliver()
    with refused(Conflict, "address_reserved"):
        registration.confirm_address(office.desk, other.account, "email", code)


def rows(office: Office, table: str) -> list[tuple[object, ...]]:
    with office.catalog.db.read() as connection:  # type: ignore[attr-defined]
        return list(connection.execute(f"SELECT * FROM {table}"))


@sqlite_only
def test_nothing_about_the_person_is_left_in_the_files(office: Office) -> None:
    row = office.old_enough(EMAIL, MOBILE)
    account, actor = row.account, owner(row)
    other = office.active("neighbour@example.org", name="Grace")
    device = office.device(account)
    marks = ["zebra-name", "zebra-reason", "zebra-detail", "zebra@example.org", "old-zebra@example.org"]
    registration.update(office.desk, actor, account, name=marks[0], email=marks[4])
    registration.confirm_address(office.desk, account, "email", office.code(account, "email"))
    registration.update(office.desk, actor, account, email=marks[3])
    registration.confirm_address(office.desk, account, "email", office.code(account, "email"))
    sessions.request_reset(office.desk, marks[3], CLIENT)
    code = office.code(account, "password")
    sessions.reset_password(office.desk, MOBILE, code, "another password", CLIENT)
    with refused(Unauthorized, "bad_credentials"):
        office.log_in(marks[3])
    office.log_in(marks[3], "another password")
    standing.suspend(office.desk, OPERATOR, account, marks[1])
    standing.resume(office.desk, OPERATOR, account, marks[1])
    versions.publish(office.desk, OPERATOR, "Version two")
    block = closing.add_block(office.desk, OPERATOR, account, BlockKind.DISPUTE, marks[2])
    closing.lift_block(office.desk, OPERATOR, block.block_id)
    office.change(device, lambda f: replace(f, suspended=True))
    office.catalog.delete_range(
        device,
        0,
        NOON,
        reason=marks[1],
        who="owner",
        now_ms=office.clock.ms,
        delete_after_ms=office.clock.ms,
    )
    pay(office, account, PaymentState.DONE)
    office.desk.write(
        lambda books: books.put_answer(AnswerRow(account, "k", bytes(32), 200, marks[2], office.clock.ms))
    )
    office.desk.write(
        lambda books: books.put_attempts(AttemptsRow(f"login:account:{account}", 1, NOON, NOON))
    )
    while office.deliver().delivered:
        pass
    closing.close_by_operator(office.desk, OPERATOR, account, marks[1])
    # All of it is sealed with the account's key already. The agreement is not: the search finds what is there.
    assert found(office, [*marks, EMAIL, MOBILE, "Version two"]) == {"Version two"}
    office.deliver()
    assert office.row(account).state is AccountState.CANCELLED
    assert found(office, [*marks, EMAIL, MOBILE]) == set()
    assert (office.row(other.account).name, office.row(other.account).email) == (
        "Grace",
        "neighbour@example.org",
    )
    for table in ("sessions", "codes", "payments", "events", "notices", "acceptances", "answers", "blocks"):
        assert not [r for r in rows(office, table) if r[:2].count(account)], table


def found(office: Office, marks: list[str]) -> set[str]:
    """Which of them are in any of the folder's database files: the log included, whatever SQLite makes of it."""
    content = b"".join(path.read_bytes() for path in office.folder.glob("**/*.db*"))
    content += (office.folder / "entitlements.bitmap").read_bytes()[:1_000_000]
    return {mark for mark in marks if mark.encode() in content}


def test_two_settles_at_once_do_the_work_of_one(office: Office) -> None:
    accounts = []
    for number in range(6):
        row = office.active(f"a{number}@example.org")
        office.keep([(office.device(row.account), NOON)])
        closing.close_by_operator(office.desk, OPERATOR, row.account, "x")
        [notice] = office.notices(row.account, "closing")
        done = replace(notice, state=NoticeState.DELIVERED, settled_ms=office.clock.ms)
        office.desk.write(lambda books, done=done: books.put_notice(done))
        accounts.append(row.account)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(closing.settle, office.desk) for _ in range(2)]
        settled = [account for future in both for account in future.result()]
    assert sorted(settled) == accounts
    assert office.attacked() == set()


def test_settling_with_nothing_to_do_is_cheap(office: Office) -> None:
    changes = office.catalog.newest_change()
    began = time.process_time()
    for _ in range(100):
        assert closing.settle(office.desk) == []
    assert time.process_time() - began < 2
    assert office.catalog.newest_change() == changes
