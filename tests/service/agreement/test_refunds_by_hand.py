"""Refunds by hand, counter-entries, and refunds that were refused (agreement 8.2.1), on a real catalog."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from retention.cancelling import CancelKind
from retention.money import Money
from retention.plans import add_months
from service.agreement import cancelling, closing, crediting, refunding
from service.agreement.desk import OPERATOR, Actor
from service.agreement.errors import Forbidden
from service.agreement.payments import PaymentDeclined, Receipt
from service.config import NoticeSettings
from storage.errors import NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, PaymentKind, PaymentRow, PaymentState
from tests.service.agreement import balance
from tests.service.agreement.money_world import START, MoneyWorld
from tests.service.agreement.refusing import refused

GONE, DONE = PaymentState.PAID_OTHERWISE, PaymentState.DONE


def usd(minor: int) -> Money:
    return Money(minor, "USD")


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    return money.add_device(ada)


def give(
    money: MoneyWorld, minor: int, reference: str = "hand-1", plan: int = 1, **more: bool
) -> list[PaymentRow]:
    return refunding.give(
        money.desk, OPERATOR, plan, usd(minor), why="camera was away", reference=reference, **more
    )


def due(money: MoneyWorld, owner: Actor, plan: int = 1) -> int:
    _, outcomes = cancelling.quote(money.desk, owner, plan)
    return outcomes.cancel.refund.minor


def take_back(money: MoneyWorld, reference: str) -> PaymentRow:
    return crediting.take_back(money.desk, OPERATOR, reference, why="a slip")


def states(money: MoneyWorld, owner: Actor) -> list[tuple[str, str, int]]:
    """(reference, state, amount) of all but charges."""
    rows = money.payments(owner.account)
    return [(row.reference, str(row.state), row.minor) for row in rows if row.kind is not PaymentKind.CHARGE]


def refuse_refunds(money: MoneyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def refund(reference: str, of_reference: str, amount: Money) -> Receipt:
        raise PaymentDeclined("the card was closed")

    monkeypatch.setattr(money.gateway, "refund", refund)


# --- given by hand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("otherwise", [False, True])
@pytest.mark.parametrize(("month", "left"), [(1, 4400), (5, 2004), (8, 207), (9, 0)])
def test_a_cancellation_gives_back_as_much_less(
    money: MoneyWorld, ada: Actor, device: int, otherwise: bool, month: int, left: int
) -> None:
    """8.2.1: 59.99 less 5.99 for each month begun, less the 10.00 that were given by hand, by whatever way."""
    money.buy(ada, device, "annual", "r1")
    [row] = give(money, 1000, otherwise=otherwise)
    assert (row.kind, row.state, row.minor, row.plan_id) == (
        PaymentKind.REFUND,
        GONE if otherwise else DONE,
        1000,
        1,
    )
    assert row.why == "camera was away"
    money.go(add_months(START, month - 1))
    assert due(money, ada) == left == max(0, 5999 - 599 * month - 1000)
    done = money.cancel(ada, 1)
    assert (done.cancellation.kind, sum(r.minor for r in done.refunds)) == (CancelKind.ANNUAL, left)
    balance.check(money)


def test_the_plan_goes_on_and_its_owner_is_told(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    before = money.plans(device)
    give(money, 1000)
    assert money.plans(device) == before
    assert money.entitled(device, money.today)
    assert money.kept_minor() == 4999
    assert money.events(ada)[-2:] == ["refund_given", "refunded"]
    notice = money.notices(ada)[-1]
    assert "10.00 USD" in notice.subject
    assert "camera was away" in notice.body


def test_it_is_given_before_the_plan_begins_too(money: MoneyWorld, ada: Actor, device: int) -> None:
    """And a plan that has not begun is then refunded in full, less that (7.2.1)."""
    money.buy(ada, device, "monthly", "r1")
    money.buy(ada, device, "annual", "r2")
    give(money, 1000, plan=2)
    assert due(money, ada, 2) == 4999
    done = money.cancel(ada, 2)
    assert (done.cancellation.kind, done.cancellation.refund) == (CancelKind.BEFORE_START, usd(4999))
    balance.check(money)


def test_up_to_what_was_paid_in_all(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    for amount in (0, -1):
        with refused(422, "bad_amount"):
            give(money, amount)
    with refused(422, "more_than_paid") as caught:
        give(money, 6000)
    assert "59.99 USD is left" in caught.value.detail
    with refused(422, "wrong_currency"):
        refunding.give(money.desk, OPERATOR, 1, Money(1, "EUR"), why="w", reference="e")
    give(money, 5000, "h1")
    with refused(422, "more_than_paid"):
        give(money, 1000, "h2")
    give(money, 999, "h2", otherwise=True)
    with refused(422, "more_than_paid"):
        give(money, 1, "h3")
    assert due(money, ada) == 0
    money.cancel(ada, 1)
    balance.check(money)


def test_months_of_a_monthly_plan_the_newest_first(money: MoneyWorld, ada: Actor, device: int) -> None:
    """A gateway gives back of one charge at a time."""
    money.buy(ada, device, "monthly", "r1")
    money.go(add_months(START, 1) - timedelta(days=1))
    money.renew()
    [first, second] = give(money, 1000)
    assert (first.reference, first.minor, second.reference, second.minor) == ("hand-1", 599, "hand-1.2", 401)
    assert second.detail["of"] == "r1"
    assert give(money, 1000) == [first, second], "once"
    assert due(money, ada) == 198, "the month charged ahead, as far as it is not given back"
    money.cancel(ada, 1)
    balance.check(money)
    assert money.kept_minor() == 0


def test_the_same_reference_is_the_same_refund(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    money.buy(ada, device, "annual", "r2")
    rows = give(money, 1000)
    assert give(money, 1000) == rows
    for other in (
        lambda: give(money, 1001),
        lambda: give(money, 1000, otherwise=True),
        lambda: give(money, 1000, plan=2),
        lambda: give(money, 1000, "r1"),
    ):
        with refused(409, "reference_taken"):
            other()
    with refused(422, "bad_reference"):
        give(money, 1, "r" * 101)
    with pytest.raises(NotFound):
        give(money, 1, "r9", plan=99)


def test_only_operators_do(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    for act in (
        lambda: refunding.give(money.desk, ada, 1, usd(1), why="w", reference="h"),
        lambda: refunding.retry(money.desk, ada, "r1", why="w"),
        lambda: refunding.paid_otherwise(money.desk, ada, "r1", why="w"),
        lambda: crediting.take_back(money.desk, ada, "r1", why="w"),
    ):
        with pytest.raises(Forbidden):
            act()


def test_a_gateway_that_is_away_is_asked_later(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    money.gateway.away = "after"
    [row] = give(money, 1000)
    assert row.state is PaymentState.PENDING
    assert due(money, ada) == 5999 - 599 - 1000, "it counts from when it is given"
    money.gateway.away = ""
    money.clock.ms += 3_600_000
    money.renew()
    assert states(money, ada) == [("hand-1", "done", 1000)]
    balance.check(money)


def test_after_a_cancellation_and_after_the_end(money: MoneyWorld, ada: Actor, device: int) -> None:
    """What is left of what was paid may be given by hand, and its note be taken back: nothing was counted with it."""
    money.buy(ada, device, "annual", "r1")
    money.cancel(ada, 1)
    with refused(422, "more_than_paid"):
        give(money, 600)
    give(money, 500, otherwise=True)
    money.go(add_months(START, 3))
    give(money, 99, "hand-2")
    take_back(money, "hand-1")
    balance.check(money)
    assert money.kept_minor() == 500


# --- taken back ---------------------------------------------------------------------------------------------------


def test_a_note_is_taken_back_by_a_counter_entry(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    give(money, 1000, otherwise=True)
    after = take_back(money, "hand-1")
    assert (after.state, after.minor) == (PaymentState.TAKEN_BACK, 1000)
    assert take_back(money, "hand-1") == after, "once"
    *_, counter = money.payments(ada.account)
    assert (counter.kind, counter.reference, counter.minor, counter.why) == (
        PaymentKind.COUNTER,
        "hand-1.c",
        1000,
        "a slip",
    )
    assert due(money, ada) == 5999 - 599
    balance.check(money)


def test_a_credit_is_taken_back_by_a_counter_entry(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    for reference in ("c1", "c2"):
        crediting.credit(money.desk, OPERATOR, 1, usd(500), why="w", reference=reference)
    take_back(money, "c1")
    assert due(money, ada) == 5999 - 599 - 500
    money.cancel(ada, 1)
    with refused(409, "plan_already_cancelled") as caught:
        take_back(money, "c2")
    assert "refund give" in caught.value.detail
    give(money, 500)
    balance.check(money)


def test_money_that_left_is_not_taken_back(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    give(money, 1000)
    with refused(409, "money_left"):
        take_back(money, "hand-1")
    with refused(409, "not_an_entry"):
        take_back(money, "r1")
    with pytest.raises(NotFound):
        take_back(money, "nothing")
    money.gateway.away = "before"
    give(money, 1, "hand-2")
    with refused(409, "not_an_entry"):
        take_back(money, "hand-2")


def test_what_a_cancellation_counted_with_stays(money: MoneyWorld, ada: Actor, device: int) -> None:
    """Else the owner would have less than the agreement gives, or the books would say what was not counted."""
    money.buy(ada, device, "annual", "r1")
    give(money, 1000, otherwise=True)
    money.cancel(ada, 1)
    with refused(409, "plan_already_cancelled") as caught:
        take_back(money, "hand-1")
    assert "see that it is paid" in caught.value.detail
    balance.check(money)


# --- refused ------------------------------------------------------------------------------------------------------


def test_a_refund_that_was_refused_is_work_for_somebody(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner and the operators are told, and it stands in the way of closing the account."""
    desk = replace(money.desk, notices=NoticeSettings(operators="money@example.org"))
    money.buy(ada, device, "annual", "r1")
    refuse_refunds(money, monkeypatch)
    [row] = refunding.give(desk, OPERATOR, 1, usd(1000), why="w", reference="hand-1")
    assert row.state is PaymentState.FAILED
    hers = money.notices(ada)[-1]
    assert (hers.purpose, "10.00 USD" in hers.subject) == ("refund_failed", True)
    [told] = money.notices(Actor("operator", OPERATOR_ACCOUNT))
    assert told.address == "money@example.org"
    assert "refund retry --reference hand-1" in told.body
    assert "the card was closed" in told.body
    with money.desk.reading() as books:
        assert books.backlog(on=1).failed_refunds == 1
    assert "refund_failed" in [reason.code for reason in closing.blocks(money.desk, ada.account)]
    refunding.paid_otherwise(money.desk, OPERATOR, "hand-1", why="bank transfer")
    assert "refund_failed" not in [reason.code for reason in closing.blocks(money.desk, ada.account)]
    assert "by other means: bank transfer." in money.notices(ada)[-1].body
    balance.check(money)


def test_it_is_asked_for_again_under_another_reference(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    money.buy(ada, device, "annual", "r1")
    with monkeypatch.context() as context:
        refuse_refunds(money, context)
        money.cancel(ada, 1)
        again = refunding.retry(money.desk, OPERATOR, "r1.r1", why="new card")
        assert (again.reference, again.state) == ("r1.r1.a1", PaymentState.FAILED)
    done = refunding.retry(money.desk, OPERATOR, "r1.r1.a1", why="new card")
    assert (done.reference, done.state, done.payment_id) == ("r1.r1.a2", DONE, again.payment_id)
    assert [n.subject for n in money.notices(ada)][-1] == "Device 1: 54.00 USD is paid back"
    with refused(409, "not_refused"):
        refunding.retry(money.desk, OPERATOR, "r1.r1.a2", why="w")
    balance.check(money)


@pytest.mark.parametrize("reference", ["r1.r1", "r1.r1.a1"])
def test_under_an_older_reference_the_newer_one_is_told(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    """The mail to the operators names the first one, and an answer over HTTP may be lost."""
    money.buy(ada, device, "annual", "r1")
    with monkeypatch.context() as context:
        refuse_refunds(money, context)
        money.cancel(ada, 1)
        refunding.retry(money.desk, OPERATOR, "r1.r1", why="new card")
    refunding.retry(money.desk, OPERATOR, "r1.r1.a1", why="new card")
    with refused(404, "not_found") as caught:
        refunding.retry(money.desk, OPERATOR, reference, why="new card")
    assert "asked for again since, as r1.r1.a2, which is done" in caught.value.detail


def test_one_by_hand_may_be_given_up(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No money left, and nobody owes it. What the rules owe is owed on."""
    money.buy(ada, device, "annual", "r1")
    refuse_refunds(money, monkeypatch)
    give(money, 1000)
    assert take_back(money, "hand-1").state is PaymentState.VOID
    assert states(money, ada) == [("hand-1", "void", 1000)]
    assert due(money, ada) == 5999 - 599
    money.cancel(ada, 1)
    with refused(409, "not_an_entry"):
        take_back(money, "r1.r1")


def test_the_note_of_an_owed_refund_was_wrong(
    money: MoneyWorld, ada: Actor, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is owed on: work for somebody again."""
    money.buy(ada, device, "annual", "r1")
    with monkeypatch.context() as context:
        refuse_refunds(money, context)
        money.cancel(ada, 1)
    refunding.paid_otherwise(money.desk, OPERATOR, "r1.r1", why="bank transfer")
    take_back(money, "r1.r1")
    assert states(money, ada) == [
        ("r1.r1", "taken_back", 5400),
        ("r1.r1.c", "done", 5400),
        ("r1.r2", "failed", 5400),
    ]
    assert refunding.retry(money.desk, OPERATOR, "r1.r2", why="w").state is DONE
    balance.check(money)
    assert money.kept_minor() == 599
