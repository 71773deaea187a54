"""Disputes and chargebacks: what the bank takes back, in any order of reports (agreement 6.2.2, 8.2)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from retention.money import Money
from service.agreement import cancelling, closing, refunding
from service.agreement.auditing import check_books
from service.agreement.desk import OPERATOR, Actor
from service.agreement.gateway.told import DisputeTold
from service.agreement.payments import PaymentPending
from service.agreement.reports import Heard, hear
from service.agreement.settling import settle_pending
from storage.errors import Conflict
from storage.rows.accounts import PaymentKind, PaymentRow, PaymentState
from tests.service.agreement import balance
from tests.service.agreement.money_world import ANNUAL, MONTHLY, START, MoneyWorld

DAY = timedelta(days=1)


@pytest.fixture
def money(tmp_path: Path) -> Iterator[MoneyWorld]:
    with MoneyWorld(tmp_path / "data") as world:
        yield world


@pytest.fixture
def ann(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ann: Actor) -> int:
    return money.add_device(ann)


def told(outcome: str, *, of: str = "buy-1", minor: int = ANNUAL.minor, **more: Any) -> DisputeTold:
    members = {
        "about": "dispute",
        "reference": of,
        "dispute": "dp_1",
        "currency": "USD",
        "amount_minor": minor,
    }
    return DisputeTold.model_validate({**members, "outcome": outcome, **more})


def reasons(money: MoneyWorld, owner: Actor) -> list[str]:
    return [reason.code for reason in closing.blocks(money.desk, owner.account)]


def payments(money: MoneyWorld, owner: Actor) -> list[tuple[str, str, int]]:
    return [(str(p.kind), str(p.state), p.minor) for p in money.payments(owner.account)]


def dispute(money: MoneyWorld, owner: Actor) -> PaymentRow:
    [found] = [p for p in money.payments(owner.account) if p.kind is PaymentKind.DISPUTE]
    return found


def test_an_open_dispute_takes_nothing_and_holds_the_account(
    money: MoneyWorld, ann: Actor, device: int
) -> None:
    money.buy(ann, device, "annual", "buy-1")
    spans = money.spans(device)
    assert "dispute" not in reasons(money, ann)
    assert hear(money.desk, told("open")) is Heard.TAKEN
    assert hear(money.desk, told("open")) is Heard.TAKEN, "told again"
    assert money.spans(device) == spans
    assert reasons(money, ann).count("dispute") == 1
    hear(money.desk, told("won"))
    assert money.spans(device) == spans
    assert "dispute" not in reasons(money, ann), "it lifts itself"
    assert money.events(ann)[-2:] == ["charge_disputed", "dispute_won"]
    assert [n.purpose for n in money.notices(ann)].count("dispute") == 2


def test_a_charge_that_is_gone_ends_its_plan_that_day(money: MoneyWorld, ann: Actor, device: int) -> None:
    money.buy(ann, device, "annual", "buy-1")
    money.go(date(2025, 4, 10))
    hear(money.desk, told("open"))
    hear(money.desk, told("lost"))
    assert money.spans(device) == [("annual", START, date(2025, 4, 10))]
    assert money.entitled(device, date(2025, 4, 10))
    assert not money.entitled(device, date(2025, 4, 11))
    assert payments(money, ann) == [("charge", "done", ANNUAL.minor), ("dispute", "lost", ANNUAL.minor)]
    assert "dispute" not in reasons(money, ann)


def test_what_stood_behind_it_moves_up(money: MoneyWorld, ann: Actor, device: int) -> None:
    money.buy(ann, device, "annual", "buy-1")
    money.buy(ann, device, "annual", "buy-2")
    money.go(date(2025, 4, 10))
    hear(money.desk, told("lost"))
    assert money.spans(device)[1][1] == date(2025, 4, 11)
    hear(money.desk, told("lost", of="buy-2", dispute="dp_2"))
    assert money.spans(device)[1][2] == date(2025, 4, 10), "one that had not begun gets no day"


def test_of_one_that_is_gone_in_part_the_plan_goes_on(money: MoneyWorld, ann: Actor, device: int) -> None:
    """As after a partial refund (8.2.1): it is taken off what a cancellation gives back, once."""
    started = money.buy(ann, device, "annual", "buy-1")
    hear(money.desk, told("lost", minor=1000))
    assert money.spans(device)[0][2] == date(2026, 1, 30)
    done = money.cancel(ann, started.subscription.plan_id)
    assert done.cancellation.refund == ANNUAL - Money(1000, "USD") - MONTHLY
    settle_pending(money.desk)
    assert money.kept_minor() - 1000 == MONTHLY.minor


def test_a_month_that_is_gone_ends_the_plan_and_gives_the_next_one_back(
    money: MoneyWorld, ann: Actor, device: int
) -> None:
    money.buy(ann, device, "monthly", "buy-1")
    money.go(date(2025, 2, 26))
    assert money.renew().renewed == 1, "charged ahead"
    hear(money.desk, told("lost", minor=MONTHLY.minor))
    assert money.spans(device) == [("monthly", START, date(2025, 2, 26))]
    assert settle_pending(money.desk, older_than_ms=0) == {"refunded": 1}
    assert money.kept_minor() == MONTHLY.minor, "the gateway has the first one still; the bank has taken that"
    assert not money.row(money.plans(device)[0].plan_id).renews
    money.go(date(2025, 3, 20))
    assert money.renew().renewed == 0


def test_a_month_that_is_over_is_gone_and_the_plan_goes_on(
    money: MoneyWorld, ann: Actor, device: int
) -> None:
    money.buy(ann, device, "monthly", "buy-1")
    money.go(date(2025, 2, 26))
    money.renew()
    money.go(date(2025, 3, 10))
    spans = money.spans(device)
    hear(money.desk, told("lost", minor=MONTHLY.minor))
    assert money.spans(device) == spans
    assert money.row(money.plans(device)[0].plan_id).renews


def test_what_is_gone_twice_is_taken_off_nothing_else(money: MoneyWorld, ann: Actor, device: int) -> None:
    """A month given back by hand, and taken back by the bank as well: the plan could be cancelled no more (`what was
    paid is -5.99 USD`), and of the month ahead nothing was given back."""
    money.buy(ann, device, "monthly", "buy-1")
    plan_id = money.catalog.device(device).plans[0].plan_id
    refunding.give(money.desk, OPERATOR, plan_id, MONTHLY, why="x", reference="hand-1", otherwise=True)
    money.go(date(2025, 2, 26))
    money.renew()
    money.go(date(2025, 3, 10))
    refunding.give(money.desk, OPERATOR, plan_id, MONTHLY, why="x", reference="hand-2", otherwise=True)
    hear(money.desk, told("lost", minor=MONTHLY.minor))
    _, kept = cancelling.quote(money.desk, ann, plan_id)
    assert kept.cancel.refund.minor == 0
    money.go(date(2025, 3, 29))
    assert money.renew().renewed == 1, "April, charged ahead"
    done = cancelling.cancel(money.desk, ann, plan_id)
    assert done.cancellation.refund == MONTHLY
    assert [(row.state, row.minor) for row in done.refunds] == [(PaymentState.DONE, MONTHLY.minor)]


def test_of_a_plan_that_is_gone_twice_the_reason_is_told(money: MoneyWorld, ann: Actor, device: int) -> None:
    money.buy(ann, device, "monthly", "buy-1")
    plan_id = money.catalog.device(device).plans[0].plan_id
    refunding.give(money.desk, OPERATOR, plan_id, Money(1, "USD"), why="x", reference="h", otherwise=True)
    hear(money.desk, told("lost", minor=MONTHLY.minor))
    with pytest.raises(Conflict) as caught:
        cancelling.cancel(money.desk, ann, plan_id)
    assert caught.value.code == "plan_already_cancelled"


def test_a_month_ahead_that_is_gone_is_cut_off(money: MoneyWorld, ann: Actor, device: int) -> None:
    money.buy(ann, device, "monthly", "buy-1")
    money.go(date(2025, 2, 26))
    money.renew()
    [ahead] = [p.reference for p in money.payments(ann.account) if p.reference != "buy-1"]
    hear(money.desk, told("lost", of=ahead, minor=MONTHLY.minor))
    assert money.spans(device) == [("monthly", START, date(2025, 2, 27))]
    hear(money.desk, told("won", of=ahead, minor=MONTHLY.minor))
    assert settle_pending(money.desk, older_than_ms=0) == {"refunded": 1}, "its days were not had"


def test_the_next_period_is_not_charged_while_one_is_open(money: MoneyWorld, ann: Actor, device: int) -> None:
    money.buy(ann, device, "monthly", "buy-1")
    hear(money.desk, told("open", minor=MONTHLY.minor))
    money.go(date(2025, 2, 26))
    assert money.renew().renewed == 0
    hear(money.desk, told("won", minor=MONTHLY.minor))
    assert money.renew().renewed == 1


def test_a_refund_waits_for_the_bank(money: MoneyWorld, ann: Actor, device: int) -> None:
    """Both would pay the same money back twice."""
    started = money.buy(ann, device, "annual", "buy-1")
    hear(money.desk, told("open"))
    calls = money.gateway.calls
    money.cancel(ann, started.subscription.plan_id)
    settle_pending(money.desk, older_than_ms=0)
    assert money.gateway.calls == calls, "it is not asked"
    assert payments(money, ann)[-1] == ("refund", "pending", (ANNUAL - MONTHLY).minor)
    hear(money.desk, told("won"))
    assert settle_pending(money.desk, older_than_ms=0) == {"refunded": 1}
    assert money.kept_minor() == MONTHLY.minor


def test_a_refund_that_waits_for_the_bank_is_nothing_to_see_to(
    money: MoneyWorld, ann: Actor, device: int
) -> None:
    """For weeks: neither in the check nor as what waits longest. Once the bank has decided it is."""
    started = money.buy(ann, device, "annual", "buy-1")
    hear(money.desk, told("open"))
    money.cancel(ann, started.subscription.plan_id)
    money.pass_days(20)
    settle_pending(money.desk)
    money.desk.entitlements.roll()

    def seen() -> tuple[list[str], bool]:
        found = check_books(money.desk, money.bitmap, days=36_500).findings
        with money.desk.reading() as books:
            oldest_ms = books.backlog(on=money.desk.today()).oldest_pending_ms
        return [finding.code for finding in found], oldest_ms is not None

    assert seen() == ([], False)
    hear(money.desk, told("won"))
    assert seen() == (["pending_for_long"], True)


def test_a_refund_that_the_bank_has_given_is_void(money: MoneyWorld, ann: Actor, device: int) -> None:
    started = money.buy(ann, device, "annual", "buy-1")
    hear(money.desk, told("open"))
    money.cancel(ann, started.subscription.plan_id)
    hear(money.desk, told("lost"))
    assert ("refund", "void", (ANNUAL - MONTHLY).minor) in payments(money, ann)
    assert settle_pending(money.desk, older_than_ms=0) == {}
    hear(money.desk, told("won"))
    assert settle_pending(money.desk, older_than_ms=0) == {"refunded": 1}, "owed again: the money came back"
    assert money.kept_minor() == MONTHLY.minor


def test_money_that_comes_back_after_the_plan_ended_is_not_kept(
    money: MoneyWorld, ann: Actor, device: int
) -> None:
    """As if it had been cancelled on the day of the loss: two months had begun."""
    money.buy(ann, device, "annual", "buy-1")
    money.go(date(2025, 3, 10))
    hear(money.desk, told("lost"))
    money.go(date(2025, 6, 1))
    hear(money.desk, told("won"))
    assert settle_pending(money.desk, older_than_ms=0) == {"refunded": 1}
    assert money.kept_minor() == (MONTHLY * 2).minor


@pytest.mark.parametrize("order", sorted(set(permutations(["open", "lost", "won", "open", "lost"]))))
def test_reports_come_to_the_same_in_any_order(
    money: MoneyWorld, ann: Actor, device: int, order: tuple[str, ...]
) -> None:
    """What is further on wins, and once decided nothing is decided again."""
    money.buy(ann, device, "annual", "buy-1")
    for outcome in order:
        assert hear(money.desk, told(outcome)) is Heard.TAKEN
    assert dispute(money, ann).state is PaymentState.WON
    settle_pending(money.desk, older_than_ms=0)
    ended = money.spans(device)[0][2] == START
    assert ended == (order.index("lost") < order.index("won"))
    assert money.kept_minor() == (MONTHLY if ended else ANNUAL).minor, "kept is what days were had for"


@pytest.mark.parametrize(
    "wrong", [{"of": "nothing"}, {"minor": ANNUAL.minor + 1}, {"currency": "EUR"}, {"of": "buy-1.r1"}]
)
def test_what_fits_no_charge_changes_nothing(
    money: MoneyWorld, ann: Actor, device: int, wrong: dict[str, Any]
) -> None:
    money.buy(ann, device, "annual", "buy-1")
    before = payments(money, ann)
    assert hear(money.desk, told("lost", **wrong)) is Heard.UNKNOWN
    assert payments(money, ann) == before


def test_a_charge_that_is_not_settled_yet_has_it_sent_again(
    money: MoneyWorld, ann: Actor, device: int
) -> None:
    money.gateway.away = "after"
    with pytest.raises(Exception, match="away"):
        money.buy(ann, device, "annual", "buy-1")
    with pytest.raises(PaymentPending):
        hear(money.desk, told("open"))
    money.gateway.away = ""
    money.clock.ms += 3_600_000
    settle_pending(money.desk)
    assert hear(money.desk, told("open")) is Heard.TAKEN


@pytest.mark.parametrize("outcomes", [("lost",), ("lost", "won"), ("won",)])
def test_the_books_agree_after_it(
    money: MoneyWorld, ann: Actor, device: int, outcomes: tuple[str, ...]
) -> None:
    """With the history, the bitmap and the gateway, by `books check` too; nobody is charged for the plan behind it."""
    money.buy(ann, device, "annual", "buy-1")
    money.buy(ann, device, "monthly", "buy-2")
    money.go(date(2025, 4, 10))
    for outcome in outcomes:
        hear(money.desk, told(outcome))
    settle_pending(money.desk, older_than_ms=0)
    balance.consistent(money)
    audit = check_books(money.desk, money.bitmap, days=36_500)
    assert (audit.findings, audit.unanswered) == ([], 0)


@pytest.mark.parametrize("outcomes", [("lost",), ("lost", "won"), ("won",)])
def test_the_books_agree_where_a_refund_waited_for_the_bank(
    money: MoneyWorld, ann: Actor, device: int, outcomes: tuple[str, ...]
) -> None:
    """A refund that is void because the bank gave the same money back is not money given back twice."""
    started = money.buy(ann, device, "annual", "buy-1")
    hear(money.desk, told("open"))
    money.cancel(ann, started.subscription.plan_id)
    for outcome in outcomes:
        hear(money.desk, told(outcome))
    settle_pending(money.desk, older_than_ms=0)
    balance.consistent(money)
    assert check_books(money.desk, money.bitmap, days=36_500).findings == []
