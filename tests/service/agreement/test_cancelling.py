"""Cancelling and what it gives back (agreement 7.2.1, 8.1, 8.2), on a real catalog."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from retention.cancelling import CancelKind
from retention.money import Money
from retention.plans import PlanKind, add_months
from service.agreement import cancelling, crediting, purchases, refunding
from service.agreement.desk import OPERATOR, Actor
from service.agreement.payments import PaymentDeclined
from service.agreement.renewing import RenewReport
from service.agreement.settling import settle_pending
from storage.errors import NotFound
from storage.rows.accounts import PaymentKind, PaymentState
from tests.service.agreement import balance
from tests.service.agreement.money_world import ANNUAL, MONTHLY, START, MoneyWorld
from tests.service.agreement.refusing import refused


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    return money.add_device(ada)


@pytest.mark.parametrize("month", range(1, 13))
def test_an_annual_plan_is_prorated_over_the_months_begun(
    money: MoneyWorld, ada: Actor, device: int, month: int
) -> None:
    """8.2.1: on the first and on the last day of each month; what is quoted is what is done."""
    for first, plan_id in ((True, 1), (False, 2)):
        money.go(START)
        own = device if first else money.add_device(ada)
        money.buy(ada, own, "annual", f"r{plan_id}")
        begins, ends = add_months(START, month - 1), add_months(START, month) - timedelta(days=1)
        money.go(begins if first else ends)
        due = max(0, 5999 - 599 * month)
        _, quoted = cancelling.quote(money.desk, ada, plan_id)
        assert (quoted.keep.last_day, quoted.keep.refund.minor) == (date(2026, 1, 30), 0)
        done = money.cancel(ada, plan_id)
        assert done.cancellation == quoted.cancellation
        assert done.cancellation.refund == Money(due, "USD")
        assert sum(row.minor for row in done.refunds) == due
        last = ends if due else date(2026, 1, 30)
        assert done.subscription.plan.ends_on == quoted.cancel.last_day == last
        assert money.entitled(own, last) or (last - money.today).days > 127  # beyond a row's reach
        assert not money.entitled(own, last + timedelta(days=1))
        with refused(409, "plan_already_cancelled"):
            money.cancel(ada, plan_id)
    balance.check(money)


def test_the_exact_instant_is_told(money: MoneyWorld, ada: Actor, device: int) -> None:
    """8.1."""
    money.buy(ada, device, "annual", "r1")
    done = money.cancel(ada, 1)
    assert done.cancellation.denied_from_ms == 1740700800000  # 2025-02-28T00:00Z
    [_, notice] = money.notices(ada)
    assert "2025-02-28 00:00 UTC" in notice.body
    assert "54.00 USD" in notice.body


def test_a_plan_that_has_not_begun_is_refunded_in_full(money: MoneyWorld, ada: Actor, device: int) -> None:
    """7.2.1: until it takes effect, and not after."""
    money.buy(ada, device, "monthly", "r1")
    for reference in ("r2", "r3"):
        money.buy(ada, device, "annual", reference)
    done = money.cancel(ada, 2)
    assert (done.cancellation.kind, done.cancellation.refund) == (CancelKind.BEFORE_START, ANNUAL)
    assert done.cancellation.last_day is None
    assert money.spans(device)[2] == ("annual", date(2025, 2, 28), date(2026, 2, 27)), "moved up"
    money.go(date(2025, 2, 28))
    assert money.cancel(ada, 3).cancellation.refund == Money(5400, "USD")
    balance.check(money)


def test_what_follows_a_plan_that_is_cut_moves_up(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    money.buy(ada, device, "monthly", "r2")
    money.go(date(2025, 3, 1))
    done = money.cancel(ada, 1)
    assert done.cancellation.denied_from_ms is None, "the next plan follows at once"
    assert money.spans(device) == [
        ("annual", START, date(2025, 3, 30)),
        ("monthly", date(2025, 3, 31), date(2025, 4, 29)),
    ]
    assert money.row(2).renews
    money.go(date(2025, 4, 29))
    assert money.renew().renewed == 1
    assert money.spans(device)[1] == ("monthly", date(2025, 3, 31), date(2025, 5, 30))
    balance.check(money)


def test_a_monthly_plan_gives_nothing_back_for_the_month_that_runs(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    """8.2.2."""
    money.buy(ada, device, "monthly", "r1")
    done = money.cancel(ada, 1)
    assert (done.cancellation.kind, done.cancellation.refund.minor) == (CancelKind.MONTHLY, 0)
    assert done.refunds == ()
    assert done.subscription.plan.ends_on == date(2025, 2, 27)
    money.go(date(2025, 2, 27))
    assert money.renew().renewed == 0
    balance.check(money)


def test_a_month_charged_ahead_is_given_back_in_full(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "monthly", "r1")
    money.go(date(2025, 2, 26))
    assert money.renew().renewed == 1
    done = money.cancel(ada, 1)
    assert done.cancellation.refund == MONTHLY
    [refund] = done.refunds
    assert refund.detail["of"].startswith("renewal-"), "of the charge for that month"
    assert done.subscription.plan.ends_on == date(2025, 2, 27)
    balance.check(money)


def test_credits_and_earlier_refunds_lower_the_refund(money: MoneyWorld, ada: Actor, device: int) -> None:
    """8.2.1."""
    money.buy(ada, device, "annual", "r1")
    credit = Money(1000, "USD")
    for _ in range(2):
        row = crediting.credit(money.desk, OPERATOR, 1, credit, why="a bad week", reference="c1")
    assert (row.kind, row.state, row.minor) == (PaymentKind.CREDIT, PaymentState.DONE, 1000)
    assert money.cancel(ada, 1).cancellation.refund == Money(5999 - 599 - 1000, "USD")
    balance.check(money)


def test_a_credit_comes_before_the_refund_or_not_at_all(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    money.buy(ada, device, "annual", "r2")
    money.cancel(ada, 1)
    credit = Money(1, "USD")
    with refused(409, "plan_already_cancelled"):
        crediting.credit(money.desk, OPERATOR, 1, credit, why="late", reference="c1")
    money.go(date(2026, 3, 1))
    with refused(422, "plan_ended"):
        crediting.credit(money.desk, OPERATOR, 2, credit, why="late", reference="c2")
    balance.check(money)


@pytest.mark.parametrize(
    ("minor", "currency", "status", "code"),
    [
        (0, "USD", 422, "bad_amount"),
        (-1, "USD", 422, "bad_amount"),
        (6000, "USD", 422, "bad_amount"),
        (1, "EUR", 422, "wrong_currency"),
    ],
)
def test_bad_credits(
    money: MoneyWorld, ada: Actor, device: int, minor: int, currency: str, status: int, code: str
) -> None:
    money.buy(ada, device, "annual", "r1")
    with refused(status, code):
        crediting.credit(money.desk, OPERATOR, 1, Money(minor, currency), why="w", reference="c1")
    with refused(409, "reference_taken"):
        crediting.credit(money.desk, OPERATOR, 1, ANNUAL, why="w", reference="r1")
    with refused(403, "operators_only"):
        crediting.credit(money.desk, ada, 1, ANNUAL, why="w", reference="c1")
    with refused(422, "bad_text"):
        crediting.credit(money.desk, OPERATOR, 1, ANNUAL, why="", reference="c1")
    with pytest.raises(NotFound):
        crediting.credit(money.desk, OPERATOR, 99, ANNUAL, why="w", reference="c1")


def test_other_peoples_subscriptions_do_not_exist(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    eve = money.add_owner("Eve")
    for plan_id, who in ((1, eve), (99, ada), (0, ada), (2**63, ada)):
        for act in (money.cancel, lambda who, plan: cancelling.quote(money.desk, who, plan)):
            with pytest.raises(NotFound) as caught:
                act(who, plan_id)
            assert caught.value.detail == "there is no such subscription"
    assert money.plans(device)[0].plan.cancelled_on is None


def test_an_ended_plan_is_not_cancelled(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    money.go(date(2026, 1, 31))
    for act in (money.cancel, lambda who, plan: cancelling.quote(money.desk, who, plan)):
        with refused(422, "plan_ended"):
            act(ada, 1)


def test_the_plan_of_a_device_that_ends_last_is_cancelled_first(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    purchases.start_trial(money.desk, ada, device)
    with refused(422, "trial_cannot_be_cancelled"):
        cancelling.cancel_of_device(money.desk, ada, device)
    money.pass_days(1)
    money.buy(ada, device, "annual", "r1")
    purchases.grant(money.desk, OPERATOR, device, PlanKind.ANNUAL)
    ids = [cancelling.cancel_of_device(money.desk, ada, device).subscription.plan_id for _ in range(2)]
    assert ids == [3, 2]
    with refused(422, "no_running_plan"):
        cancelling.cancel_of_device(money.desk, ada, device)
    balance.check(money)


# --- the gateway ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_refund_waits_for_a_gateway_that_is_away(
    money: MoneyWorld, ada: Actor, device: int, moment: str
) -> None:
    money.buy(ada, device, "annual", "r1")
    money.gateway.away = moment
    [refund] = money.cancel(ada, 1).refunds
    assert refund.state is PaymentState.PENDING
    money.clock.ms += 60_000
    assert settle_pending(money.desk) == {"waiting": 1}
    money.gateway.away = ""
    money.pass_days(1)
    assert money.renew().refunded == 1
    balance.check(money)


def test_a_refund_that_the_gateway_refuses_is_told_and_not_tried_again(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.buy(ada, device, "annual", "r1")

    def refuse() -> None:
        raise PaymentDeclined("the card was closed")

    money.gateway.before = refuse
    [refund] = money.cancel(ada, 1).refunds
    assert refund.state is PaymentState.FAILED
    assert refund.detail["refused"]["detail"] == "the card was closed"
    assert money.events(ada)[-1] == "refund_failed"
    calls = money.gateway.calls
    for _ in range(2):
        money.pass_days(1)
        assert money.renew() == RenewReport(refund_failed=1), "until somebody has paid it by other means"
    with money.desk.reading() as books:
        assert books.backlog(on=money.desk.today()).failed_refunds == 1
    with refused(403, "operators_only"):
        refunding.paid_otherwise(money.desk, ada, refund.reference, why="by cheque")
    with refused(404, "not_found"):
        refunding.paid_otherwise(money.desk, OPERATOR, "nothing", why="by cheque")
    for _ in range(2):
        row = refunding.paid_otherwise(money.desk, OPERATOR, refund.reference, why="by cheque")
        assert row.state is PaymentState.PAID_OTHERWISE
    assert money.events(ada)[-1:] == ["refund_paid_otherwise"]
    assert money.events(ada).count("refund_paid_otherwise") == 1
    assert money.renew() == RenewReport()
    with refused(409, "not_refused"):
        refunding.paid_otherwise(money.desk, OPERATOR, "r1", why="by cheque")
    assert money.gateway.calls == calls


def test_cancelled_twice_at_once_is_refunded_once(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")

    def again() -> None:
        with refused(409, "plan_already_cancelled"):
            money.cancel(ada, 1)
        settle_pending(money.desk, older_than_ms=0)

    money.gateway.before = again
    money.cancel(ada, 1)
    balance.check(money)
