"""Nobody but its owner learns whether an address has an account, and nobody has one that is not proved: 1.2, 6.5.2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from service.agreement import closing, registration, sessions, tidying
from service.agreement.desk import OPERATOR
from service.agreement.errors import Conflict, Forbidden, Unauthorized, Unprocessable
from storage.catalog.books import Books
from storage.rows.accounts import AccountRow
from tests.service.agreement.office import CLIENT, EMAIL, MOBILE, PASSWORD, Office, owner, refused

FREE, TAKEN, RESERVED = "free@example.org", "taken@example.org", "reserved@example.org"


@pytest.fixture
def town(office: Office) -> Office:
    """An office that knows an account with TAKEN, and has cancelled the one with RESERVED."""
    office.active(TAKEN, name="Grace")
    gone = office.active(RESERVED)
    closing.close_by_operator(office.desk, OPERATOR, gone.account, "false data")
    office.deliver()
    closing.settle(office.desk)
    with refused(Conflict, "address_reserved"):
        office.register(RESERVED, client=None)  # type: ignore[arg-type]
    return office


class Counting:
    """The desk's catalog, with the calls of the books in its transactions noted by name."""

    def __init__(self, catalog: Any) -> None:
        self._catalog = catalog
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    def transact(self, work: Callable[[Books], Any], **more: Any) -> Any:
        def noted(books: Books) -> Any:
            return work(_Noted(books, self.calls))  # type: ignore[arg-type]

        return self._catalog.transact(noted, **more)


class _Noted:
    def __init__(self, books: Books, calls: list[str]) -> None:
        self._books, self._calls = books, calls

    def __getattr__(self, name: str) -> Any:
        self._calls.append(name)
        return getattr(self._books, name)


@contextmanager
def counting(office: Office) -> Iterator[list[str]]:
    counted, desk = Counting(office.desk.catalog), office.desk
    office.desk = office.parts(catalog=counted)
    try:
        yield counted.calls
    finally:
        office.desk = desk


def told(row: AccountRow) -> list[object]:
    """All that an answer may say of a new account, but its number."""
    return [getattr(row, name) for name in AccountRow.__slots__ if name not in ("account", "password_hash")]


def test_registering_answers_and_works_alike_for_free_taken_and_reserved_addresses(town: Office) -> None:
    answers, work = [], []
    for address in (FREE, TAKEN, RESERVED):
        with counting(town) as calls:
            answers.append(told(town.register(address)))
            work.append(list(calls))
    assert answers[0] == answers[1] == answers[2]
    assert work[0] == work[1] == work[2], "the same steps, so the same time"
    assert work[0].count("add_notice") == 1


def test_sending_again_and_changing_an_address_work_alike_too(town: Office) -> None:
    mine = town.active()
    again, changed = [], []
    for address in (FREE, TAKEN, RESERVED):
        account = town.register(address).account
        with counting(town) as calls:
            registration.resend_code(town.desk, account, CLIENT)
            again.append(list(calls))
        with counting(town) as calls:
            changed.append(told(registration.update(town.desk, owner(mine), mine.account, email=address)))
            changed[-1].append(list(calls))
    assert again[0] == again[1] == again[2]
    assert changed[0] == changed[1] == changed[2]


@pytest.mark.parametrize("address", [TAKEN, RESERVED])
def test_what_follows_tells_nothing_either(town: Office, address: str) -> None:
    """Codes are wrong, and logging in tells what it tells of an address that is free."""
    for asked in (FREE, address):
        account = town.register(asked).account
        with refused(Unprocessable, "wrong_code"):
            registration.activate(town.desk, account, "12345678")
        with refused(Unauthorized, "bad_credentials"):
            town.log_in(asked, "the password of the stranger")
        with refused(Forbidden, "not_activated"):
            town.log_in(str(account))
        sessions.request_reset(town.desk, str(account), CLIENT)
        assert not town.notices(account, "password"), "no code for addresses that nobody has proved"


def test_the_owner_of_the_address_is_told_and_no_code_is_sent(town: Office) -> None:
    with town.catalog.books() as books:
        holder = books.account_at(email=TAKEN)
    assert holder is not None
    account = town.register(TAKEN, MOBILE).account
    [notice] = town.notices(holder.account, "address_in_use")
    assert (notice.channel, notice.address) == ("email", TAKEN)
    assert f"account {holder.account}" in notice.body
    [sent] = town.notices(account)
    assert (sent.channel, sent.purpose) == ("mobile", "activate")
    code = town.code(account)
    active = registration.activate(town.desk, account, code)
    assert (active.email, active.mobile) == (None, MOBILE), "the code of one address binds no other"
    with refused(Unprocessable, "wrong_code"):
        registration.confirm_address(town.desk, account, "email", code)
    assert town.row(holder.account) == holder


def test_the_code_of_a_taken_address_was_sent_to_nobody(town: Office) -> None:
    account = town.register(TAKEN).account
    with town.catalog.books() as books:
        assert [code.address for code in books.codes(account)] == [TAKEN]
        assert not any(n.account == account for n in books.notices())


def test_nobody_keeps_an_address_from_its_owner(office: Office) -> None:
    """Whoever registers it without proving it: its owner registers all the same, and proves it."""
    squatter = office.register(EMAIL)
    mine = office.active(EMAIL)
    assert office.row(mine.account).email == EMAIL
    with refused(Conflict, "address_taken"):  # the mailbox's owner used both codes, and may know
        registration.activate(office.desk, squatter.account, office.code(squatter.account))
    assert office.log_in(EMAIL, PASSWORD)


def test_a_cancelled_account_that_was_never_activated_reserves_nothing(office: Office) -> None:
    account = office.register(EMAIL).account
    closing.close_by_operator(office.desk, OPERATOR, account, "nobody")
    closing.settle(office.desk)
    assert office.active(EMAIL).email == EMAIL


def test_addresses_that_nobody_proved_are_forgotten(office: Office) -> None:
    account = office.register(EMAIL).account
    office.later(days=8)
    tidying.tidy(office.desk)
    with refused(Conflict, "registration_expired"):
        registration.resend_code(office.desk, account, CLIENT)


def test_a_new_account_of_an_earlier_release_keeps_what_it_proves(office: Office) -> None:
    """Their rows have addresses that nobody proved, and one code for both, which is void."""
    account = office.register(EMAIL, MOBILE).account

    def as_it_was(books: Books) -> None:
        for kind in ("email", "mobile"):
            books.drop_code(account, kind)
        books.put_account(replace(books.account(account), email=EMAIL, mobile=MOBILE))

    office.desk.write(as_it_was)
    registration.resend_code(office.desk, account, CLIENT)
    active = registration.activate(office.desk, account, office.code(account, channel="mobile"))
    assert (active.email, active.mobile) == (None, MOBILE)


def test_an_operator_sends_no_password_code_to_unproved_addresses(office: Office) -> None:
    account = office.register(EMAIL).account
    with refused(Forbidden, "not_activated"):
        sessions.send_reset(office.desk, OPERATOR, account)
    with refused(Forbidden, "not_activated"):
        registration.confirm_address(office.desk, account, "email", office.code(account), actor=OPERATOR)
