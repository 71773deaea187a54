"""Idempotency keys: done once, told again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from service.agreement.idempotency import (
    MAX_KEY_CHARS,
    TAKE_OVER_MS,
    Answer,
    Decide,
    checked_key,
    once,
    reference_for,
)
from service.agreement.payments import PaymentUnavailable, checked_reference
from storage.errors import CallerError
from storage.rows.accounts import AnswerRow
from tests.service.agreement import balance
from tests.service.agreement.money_world import MoneyWorld
from tests.service.agreement.refusing import refused

HASH = bytes(32)


@pytest.fixture(autouse=True)
def _owners(money: MoneyWorld) -> None:
    """Accounts 2 and 3."""
    assert [money.add_owner(name).account for name in ("Bo", "Cy")] == [2, 3]


class Work:
    """Work that counts how often it is done."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _: Decide) -> tuple[int, str]:
        self.count += 1
        return 201, f"done {self.count}"


def test_an_answer_is_told_again(money: MoneyWorld) -> None:
    work = Work()
    first = once(money.desk, 2, "key", HASH, work)
    assert first == Answer(201, "done 1")
    assert once(money.desk, 2, "key", HASH, work) == Answer(201, "done 1", replayed=True)
    assert once(money.desk, 2, "other", HASH, work).body == "done 2"
    assert once(money.desk, 3, "key", HASH, work).body == "done 3", "another account's key"


def test_a_key_belongs_to_one_request(money: MoneyWorld) -> None:
    once(money.desk, 2, "key", HASH, Work())
    with refused(409, "reused_key"):
        once(money.desk, 2, "key", b"1" * 32, Work())


def test_while_it_is_worked_on(money: MoneyWorld) -> None:
    def work(_: Decide) -> tuple[int, str]:
        with refused(409, "in_progress"):
            once(money.desk, 2, "key", HASH, Work())
        with refused(409, "reused_key"):
            once(money.desk, 2, "key", b"1" * 32, Work())
        return 200, "mine"

    assert once(money.desk, 2, "key", HASH, work) == Answer(200, "mine")


def test_what_was_raised_is_not_kept(money: MoneyWorld) -> None:
    def away(_: Decide) -> tuple[int, str]:
        raise PaymentUnavailable("the gateway is away; try again")

    for _ in range(2):
        with refused(503, "payment_unavailable"):
            once(money.desk, 2, "key", HASH, away)
    assert once(money.desk, 2, "key", HASH, Work()).body == "done 1"


def test_one_that_died_is_taken_over_after_a_while(money: MoneyWorld) -> None:
    dead = AnswerRow(2, "key", HASH, 0, "", money.clock.ms)
    money.desk.write(lambda books: books.put_answer(dead))
    money.clock.ms += TAKE_OVER_MS - 1
    with refused(409, "in_progress"):
        once(money.desk, 2, "key", HASH, Work())
    money.clock.ms += 1
    assert once(money.desk, 2, "key", HASH, Work()) == Answer(201, "done 1")


@pytest.mark.parametrize("fails", [False, True])
def test_who_was_taken_over_does_not_undo_the_answer(money: MoneyWorld, fails: bool) -> None:
    def slow(_: Decide) -> tuple[int, str]:
        money.clock.ms += TAKE_OVER_MS
        assert once(money.desk, 2, "key", HASH, lambda _: (200, "the faster")) == Answer(200, "the faster")
        if fails:
            raise CallerError("too late")
        return 200, "the slower"

    if fails:
        with pytest.raises(CallerError):
            once(money.desk, 2, "key", HASH, slow)
    else:
        once(money.desk, 2, "key", HASH, slow)
    assert once(money.desk, 2, "key", HASH, Work()) == Answer(200, "the faster", replayed=True)


def test_nothing_is_kept_for_an_account_that_was_erased_meanwhile(money: MoneyWorld) -> None:
    ada = money.add_owner()

    def work(_: Decide) -> tuple[int, str]:
        money.erase(ada)
        return 200, "personal"

    once(money.desk, ada.account, "key", HASH, work)
    with money.desk.reading() as books:
        assert books.answer(ada.account, "key") is None


def test_of_many_at_once_one_works(money: MoneyWorld) -> None:
    ready, work = Barrier(8), Work()

    def ask(_: int) -> str:
        ready.wait()
        try:
            return once(money.desk, 2, "key", HASH, work).body
        except CallerError as error:
            return error.code

    with ThreadPoolExecutor(8) as threads:
        answers = set(threads.map(ask, range(8)))
    assert work.count == 1
    assert answers <= {"done 1", "in_progress"}


def test_a_purchase_under_a_key_is_one_purchase(money: MoneyWorld) -> None:
    """Also when the answer was lost: the reference is made of the key."""
    ada = money.add_owner()
    device = money.add_device(ada)

    def work(*_: Decide) -> tuple[int, str]:
        reference = reference_for(ada.account, "key", "buy")
        return 201, str(money.buy(ada, device, "annual", reference).subscription.plan_id)

    assert work() == (201, "1")  # a process that died before its answer was stored
    assert once(money.desk, ada.account, "key", HASH, work).body == "1"
    assert len(money.spans(device)) == 1
    balance.check(money)


def test_references_are_of_account_key_and_purpose() -> None:
    references = {
        reference_for(account, key, what)
        for account in (2, 21)
        for key in ("1", "11")
        for what in ("buy", "c")
    }
    assert len(references) == 8
    assert all(checked_reference(reference) == reference for reference in references)


@pytest.mark.parametrize("key", ["", "a b", "a\n", "\0", "ä", "k" * (MAX_KEY_CHARS + 1)])
def test_bad_keys(money: MoneyWorld, key: str) -> None:
    with refused(422, "bad_idempotency_key"):
        once(money.desk, 2, key, HASH, Work())
    with refused(422, "bad_idempotency_key"):
        reference_for(2, key, "buy")
    assert checked_key("k" * MAX_KEY_CHARS)
