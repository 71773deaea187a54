"""Trials, purchases and grants (agreement 7.1, 7.2), on a real catalog."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from retention.money import Money
from retention.plans import PlanKind
from retention.terms import Terms
from service.agreement import packages, purchases
from service.agreement.desk import OPERATOR, Actor
from service.agreement.payments import PaymentDeclined, PaymentUnavailable
from service.agreement.settling import settle_pending
from storage.errors import NotFound
from storage.rows.accounts import ClosingState, PaymentKind, PaymentState
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import (
    ANNUAL,
    HOUR_MS,
    METHOD,
    MONTHLY,
    RETENTION_DAYS,
    START,
    MoneyWorld,
)
from tests.service.agreement.refusing import refused


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    return money.add_device(ada)


# --- the trial ----------------------------------------------------------------------------------------------------


def test_a_trial_is_14_days_with_7_days_of_storage_and_the_only_one(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    """7.1."""
    started = purchases.start_trial(money.desk, ada, device)
    assert (started.subscription.plan.ends_on, started.fee) == (date(2025, 2, 13), None)
    assert started.subscription.plan.retention_days == 7
    assert [money.entitled(device, date(2025, 2, day)) for day in (13, 14)] == [True, False]
    other = money.add_device(ada)
    for again in (device, other):
        with refused(409, "trial_used"):
            purchases.start_trial(money.desk, ada, again)
    money.terminate(device)
    with refused(409, "trial_used"):
        purchases.start_trial(money.desk, ada, other)
    balance.check(money)


def test_paying_during_the_trial_starts_at_once_without_a_gap(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    """7.1: and the purchase says what becomes of what the trial recorded."""
    purchases.start_trial(money.desk, ada, device)
    money.go(date(2025, 2, 5))
    bought = money.buy(ada, device, "monthly", "r1")
    assert money.spans(device) == [
        ("trial", START, date(2025, 2, 4)),
        ("monthly", date(2025, 2, 5), date(2025, 3, 4)),
    ]
    assert [note.code for note in bought.notes] == ["trial_cut"]
    assert "7 days" in bought.notes[0].text
    assert all(money.entitled(device, date(2025, 2, day)) for day in range(1, 29))
    balance.check(money)


def test_a_trial_beside_a_plan_is_refused_and_stays_unused(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    money.buy(ada, device, "monthly", "r1")
    with refused(422, "plan_overlaps"):
        purchases.start_trial(money.desk, ada, device)
    assert money.account(ada).trial_ms is None
    purchases.start_trial(money.desk, ada, money.add_device(ada))


# --- buying -------------------------------------------------------------------------------------------------------


def test_an_annual_plan_is_charged_and_starts_on_payment(money: MoneyWorld, ada: Actor, device: int) -> None:
    """7.2.1."""
    quoted = purchases.quote(money.desk, ada, device, PlanKind.ANNUAL)
    bought = money.buy(ada, device, "annual", "r1", amount=quoted.fee)
    assert (quoted.fee, bought.fee) == (ANNUAL, ANNUAL)
    plan = bought.subscription.plan
    assert (quoted.starts_on, quoted.ends_on) == (plan.starts_on, plan.ends_on) == (START, date(2026, 1, 30))
    assert quoted.denied_from_ms == 1769817600000  # 2026-01-31T00:00Z
    assert (plan.retention_days, bought.subscription.renews) == (RETENTION_DAYS, False)
    [payment] = money.payments(ada.account)
    assert (payment.state, payment.plan_id, payment.minor) == (PaymentState.DONE, 1, 5999)
    row = money.row(1)
    assert (row.fee_minor, row.monthly_fee_minor, row.currency, row.account) == (
        5999,
        599,
        "USD",
        ada.account,
    )
    [notice] = money.notices(ada)
    assert notice.purpose == "receipt"
    assert "00:00 UTC on 2026-01-31" in notice.body
    balance.check(money)


def test_a_quote_changes_nothing(money: MoneyWorld, ada: Actor, device: int) -> None:
    before = money.catalog.newest_change()
    purchases.quote(money.desk, ada, device, PlanKind.MONTHLY)
    assert money.catalog.newest_change() == before
    assert money.payments(ada.account) == []
    assert money.gateway.calls == 0


def test_a_plan_bought_behind_another_follows_it(money: MoneyWorld, ada: Actor, device: int) -> None:
    """7.2.1; of a monthly one the renewal stops."""
    money.buy(ada, device, "monthly", "r1")
    bought = money.buy(ada, device, "annual", "r2")
    assert money.spans(device) == [
        ("monthly", START, date(2025, 2, 27)),
        ("annual", date(2025, 2, 28), date(2026, 2, 27)),
    ]
    assert [note.code for note in bought.notes] == ["renewal_stopped", "follows"]
    assert not money.row(1).renews
    money.go(date(2025, 2, 27))
    assert money.renew().renewed == 0
    balance.check(money)


def test_the_same_reference_is_the_same_purchase(money: MoneyWorld, ada: Actor, device: int) -> None:
    first = money.buy(ada, device, "monthly", "r1")
    calls = money.gateway.calls
    assert money.buy(ada, device, "monthly", "r1") == first
    assert money.gateway.calls == calls, "not even asked"
    assert len(money.spans(device)) == 1
    for kind, more in (("annual", {}), ("monthly", {"retention_days": 9})):
        with refused(409, "reference_taken"):
            money.buy(ada, device, kind, "r1", **more)
    with refused(409, "reference_taken"):
        money.buy(ada, money.add_device(ada), "monthly", "r1")
    balance.check(money)


def test_the_fees_are_those_of_the_day_of_purchase(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.gateway.away = "before"
    with pytest.raises(PaymentUnavailable):
        money.buy(ada, device, "annual", "r1")
    money.gateway.away = ""
    cheap = {"USD": Terms(Money(2, "USD"), Money(1, "USD"))}
    assert packages.reprice(money.desk, OPERATOR, "annual", cheap).version == 2
    assert money.buy(ada, device, "annual", "r1").fee == ANNUAL
    assert money.row(1).monthly_fee_minor == 599
    assert money.buy(ada, device, "annual", "r2").fee == Money(2, "USD")
    balance.check(money)


@pytest.mark.parametrize(
    ("code", "more"),
    [
        ("wrong_currency", {"amount": Money(599, "EUR")}),
        ("wrong_amount", {"amount": Money(598, "USD")}),
        ("wrong_amount", {"amount": ANNUAL}),
        ("bad_retention_days", {"retention_days": 0, "by": OPERATOR}),
        ("bad_retention_days", {"retention_days": 256, "by": OPERATOR}),
        ("bad_method", {"method": ""}),
        ("bad_reference", {"reference": "r" * 101}),
        ("bad_reference", {"reference": "../r"}),
        ("not_for_sale", {"kind": "trial"}),
    ],
)
def test_what_can_not_be_bought(
    money: MoneyWorld, ada: Actor, device: int, code: str, more: dict[str, Any]
) -> None:
    order: dict[str, Any] = {"kind": "monthly", "reference": "r1", "amount": MONTHLY, **more}
    by = order.pop("by", ada)
    with refused(422, code):
        money.buy(by, device, order.pop("kind"), order.pop("reference"), **order)
    assert money.payments(ada.account) == []
    assert money.gateway.calls == 0


def test_a_declined_payment_leaves_nothing_but_its_note(money: MoneyWorld, ada: Actor, device: int) -> None:
    for _ in range(2):
        with refused(402, "payment_declined"):
            money.buy(ada, device, "annual", "r1", method="declined-1")
    assert money.gateway.calls == 1
    assert money.spans(device) == []
    assert [p.state for p in money.payments(ada.account)] == [PaymentState.FAILED]
    assert money.events(ada)[-1] == "purchase_declined"
    assert money.buy(ada, device, "annual", "r2").fee == ANNUAL
    balance.check(money)


def test_other_peoples_devices_do_not_exist(money: MoneyWorld, ada: Actor, device: int) -> None:
    eve = money.add_owner("Eve")
    for act in (
        lambda: money.buy(eve, device, "annual", "r1"),
        lambda: purchases.start_trial(money.desk, eve, device),
        lambda: purchases.quote(money.desk, eve, device, PlanKind.ANNUAL),
        lambda: money.buy(eve, 99, "annual", "r1"),
    ):
        with pytest.raises(NotFound) as caught:
            act()
        assert caught.value.detail == "there is no such device"
    assert money.spans(device) == []


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"suspended_ms": 5}, 403, "account_suspended"),
        ({"closing": ClosingState.REQUESTED}, 409, "account_closing"),
        ({"closing": ClosingState.APPROVED}, 409, "account_closing"),
    ],
)
def test_no_business_with_a_suspended_or_closing_account(
    money: MoneyWorld, ada: Actor, device: int, fields: dict[str, Any], status: int, code: str
) -> None:
    money.change_account(ada, **fields)
    with refused(status, code):
        money.buy(OPERATOR, device, "annual", "r1")
    with refused(status, code):
        purchases.start_trial(money.desk, OPERATOR, device)
    assert money.gateway.calls == 0


def test_what_costs_nothing_needs_no_gateway_and_is_started_once() -> None:
    with fast_folder() as folder, MoneyWorld(folder / "data", monthly_fee_minor=0) as world:
        ada = world.add_owner()
        device = world.add_device(ada)
        first = world.buy(ada, device, "monthly", "r1")
        assert first.fee == Money(0, "USD")
        assert world.buy(ada, device, "monthly", "r1").subscription == first.subscription
        assert len(world.spans(device)) == 1
        world.go(date(2025, 2, 27))
        assert [world.renew().renewed for _ in range(2)] == [1, 0]
        [payment] = world.payments(ada.account)
        assert (payment.minor, payment.state, payment.plan_id) == (0, PaymentState.DONE, 1)
        assert world.gateway.calls == 0
        assert world.spans(device) == [("monthly", START, date(2025, 3, 30))]
        balance.check(world)


# --- what happens while the gateway works --------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("terminate", "terminated"),
        ("suspend", "account_suspended"),
        ("close", "account_closing"),
        ("calendar", "date_out_of_range"),
    ],
)
def test_when_the_world_changes_meanwhile_the_charge_is_given_back(
    money: MoneyWorld, ada: Actor, device: int, moment: str, what: str, code: str
) -> None:
    acts = {
        "terminate": lambda: money.terminate(device),
        "suspend": lambda: money.change_account(ada, suspended_ms=money.clock.ms),
        "close": lambda: money.change_account(ada, closing=ClosingState.REQUESTED),
        "calendar": lambda: money.go(date(9999, 6, 1)),
    }
    setattr(money.gateway, moment, acts[what])
    for _ in range(2):
        with refused(409, code):
            money.buy(ada, device, "annual", "r1")
    assert money.spans(device) == []
    charge, refund = money.payments(ada.account)
    assert (charge.kind, refund.kind, refund.minor) == (PaymentKind.CHARGE, PaymentKind.REFUND, 5999)
    assert "given back" in money.notices(ada)[-1].subject
    assert money.gateway.calls == 2
    if what != "calendar":
        balance.check(money)


def test_of_two_purchases_at_once_of_one_device_one_waits(money: MoneyWorld, ada: Actor, device: int) -> None:
    """And then follows."""

    def at_once() -> None:
        with refused(409, "purchase_open"):
            money.buy(ada, device, "monthly", "r2")

    money.gateway.after = at_once
    money.buy(ada, device, "annual", "r1")
    money.buy(ada, device, "monthly", "r2")
    assert money.spans(device) == [
        ("annual", START, date(2026, 1, 30)),
        ("monthly", date(2026, 1, 31), date(2026, 2, 27)),
    ]
    balance.check(money)


def test_the_same_purchase_finished_by_another_meanwhile(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.gateway.after = lambda: settle_pending(money.desk, older_than_ms=0)
    bought = money.buy(ada, device, "annual", "r1")
    assert bought.subscription.plan_id == 1
    assert len(money.spans(device)) == 1
    balance.check(money)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_gateway_that_is_away_is_asked_again(
    money: MoneyWorld, ada: Actor, device: int, moment: str
) -> None:
    """Whether it acted or not: money is charged once, and the plan made once."""
    money.gateway.away = moment
    with refused(503, "payment_unavailable"):
        money.buy(ada, device, "annual", "r1")
    assert settle_pending(money.desk, older_than_ms=0) == {}, "not again before a minute has passed"
    money.clock.ms += 60_000
    assert settle_pending(money.desk) == {"waiting": 1}
    money.gateway.away = ""
    assert settle_pending(money.desk) == {}
    money.pass_days(1)
    money.clock.ms -= 60_000
    assert settle_pending(money.desk) == {"done": 1}, "the last moment at which a plan is made of it"
    assert money.spans(device) == [("annual", date(2025, 2, 1), date(2026, 1, 31))]
    balance.check(money)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_purchase_that_was_not_answered_in_time_expires(
    money: MoneyWorld, ada: Actor, device: int, moment: str
) -> None:
    """No plan starts out of the blue: what was charged is given back, and what was not never will be."""
    money.gateway.away = moment
    with refused(503, "payment_unavailable"):
        money.buy(ada, device, "annual", "r1")
    money.pass_days(1)
    money.clock.ms += 1
    assert settle_pending(money.desk) == {"waiting": 1}, (
        "nor does an old one count as paid or not before it is known"
    )
    money.gateway.away = ""
    money.clock.ms += HOUR_MS
    charged = moment == "after"
    assert settle_pending(money.desk) == {"given_back" if charged else "expired": 1}
    for _ in range(2):
        with refused(409 if charged else 402, "payment_expired"):
            money.buy(ada, device, "annual", "r1")
    assert money.spans(device) == []
    assert money.kept_minor() == 0
    assert money.notices(ada)[-1].purpose == ("receipt" if charged else "purchase_expired")
    assert ("purchase_expired" in money.events(ada)) is not charged
    with pytest.raises(PaymentDeclined):
        money.gateway.charge("r1", ANNUAL + MONTHLY if charged else ANNUAL, METHOD, "late")
    balance.check(money)
    money.buy(ada, device, "annual", "r2")


@pytest.mark.parametrize("days", [1, 7, 29, 31, 255])
def test_an_owner_gets_the_plans_days_of_storage(
    money: MoneyWorld, ada: Actor, device: int, days: int
) -> None:
    """The fee is for those; only operators may sell others for it."""
    with refused(403, "operators_only"):
        money.buy(ada, device, "annual", "r1", retention_days=days)
    with refused(403, "operators_only"):
        purchases.quote(money.desk, ada, device, PlanKind.ANNUAL, retention_days=days)
    assert money.payments(ada.account) == []
    bought = money.buy(OPERATOR, device, "annual", "r1", retention_days=days)
    assert bought.subscription.plan.retention_days == days
    same = money.buy(ada, device, "annual", "r2", retention_days=RETENTION_DAYS)
    assert same.subscription.plan.retention_days == RETENTION_DAYS


def test_an_account_that_is_erased_while_the_gateway_works_gets_its_money_back(
    money: MoneyWorld, ada: Actor, device: int
) -> None:
    """6.5.4: its payments are cleared, so there is no row to owe it in."""
    money.gateway.after = lambda: money.erase(ada)
    with refused(409, "account_cancelled"):
        money.buy(ada, device, "annual", "r1")
    receipts = [(r.kind, r.money) for r in money.gateway.receipts()]
    assert receipts == [("charge", ANNUAL), ("refund", ANNUAL)]


# --- operators ----------------------------------------------------------------------------------------------------


def test_an_operator_grants_a_plan_without_a_fee(money: MoneyWorld, ada: Actor, device: int) -> None:
    with refused(403, "operators_only"):
        purchases.grant(money.desk, ada, device, PlanKind.ANNUAL)
    started = purchases.grant(money.desk, OPERATOR, device, PlanKind.MONTHLY, retention_days=90)
    assert (started.subscription.terms, started.subscription.plan.ends_on) == (None, None)
    assert money.events(ada)[-1] == "plan_granted"
    money.buy(ada, device, "annual", "r1")
    assert money.spans(device)[0] == ("monthly", START, date(2025, 2, 27))
    balance.check(money)


def test_a_granted_trial_is_the_accounts_one_trial(money: MoneyWorld, ada: Actor, device: int) -> None:
    purchases.grant(money.desk, OPERATOR, device, PlanKind.TRIAL)
    with refused(409, "trial_used"):
        purchases.start_trial(money.desk, ada, money.add_device(ada))
    with refused(409, "trial_used"):
        purchases.grant(money.desk, OPERATOR, money.add_device(ada), PlanKind.TRIAL)
    for _ in range(2):  # the operators' own devices are not customers
        own = money.add_device(OPERATOR)
        purchases.grant(money.desk, OPERATOR, own, PlanKind.TRIAL)
    with refused(422, "operator_account"):
        money.buy(OPERATOR, own, "annual", "r1")
    balance.check(money)


def test_a_purchase_accepts_the_current_agreement(money: MoneyWorld, ada: Actor, device: int) -> None:
    """11.2."""
    money.desk.write(lambda books: books.publish_agreement("one", now_ms=1))
    assert purchases.quote(money.desk, ada, device, PlanKind.ANNUAL).agreement_version == 1
    money.buy(ada, device, "annual", "r1")
    with money.desk.reading() as books:
        [accepted] = books.acceptances_of(ada.account)
    assert (accepted.version, accepted.how) == (1, "purchase")
    assert money.row(1).agreement_version == 1
