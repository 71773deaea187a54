"""Purchases that the gateway has not answered: shown, abandoned, expired, waited for (agreement 7.2)."""

from __future__ import annotations

from itertools import product

import pytest

from retention.orders import ORDER_STEPS, OrderState, may_be_paid
from service.agreement import open_purchases
from service.agreement.desk import OPERATOR, Actor
from service.agreement.open_purchases import OpenPurchase
from service.agreement.payments import PaymentDeclined, PaymentUnavailable
from service.agreement.settling import settle_pending
from storage.errors import NotFound
from tests.service.agreement import balance
from tests.service.agreement.money_world import ANNUAL, HOUR_MS, MoneyWorld
from tests.service.agreement.refusing import refused


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def device(money: MoneyWorld, ada: Actor) -> int:
    return money.add_device(ada)


def order(money: MoneyWorld, ada: Actor, device: int, reference: str = "r1", away: str = "before") -> None:
    """A purchase that is not answered."""
    money.gateway.away = away
    with pytest.raises(PaymentUnavailable):
        money.buy(ada, device, "annual", reference)
    money.gateway.away = ""


def shown(money: MoneyWorld, ada: Actor) -> list[OpenPurchase]:
    return open_purchases.of_account(money.desk, ada, ada.account)


def states(found: list[OpenPurchase]) -> list[OrderState]:
    return [one.state for one in found]


def test_the_table_of_states_ends_where_nothing_is_owed() -> None:
    ends = {OrderState.PAID, OrderState.DECLINED, OrderState.VOID, OrderState.GIVEN_BACK}
    assert set(ORDER_STEPS) == set(OrderState) - ends
    for before, after in product(OrderState, OrderState):
        assert after not in ORDER_STEPS.get(after, ())
        assert not (before is not OrderState.OPEN and may_be_paid(before))


def test_it_is_shown_to_its_owner_as_open(money: MoneyWorld, ada: Actor, device: int) -> None:
    assert shown(money, ada) == []
    order(money, ada, device)
    [one] = shown(money, ada)
    assert (one.device, one.package, one.fee, one.state) == (device, "annual", ANNUAL, OrderState.OPEN)
    assert one.expires_ms - one.ordered_ms == 24 * HOUR_MS
    money.add_owner("Bob")
    with pytest.raises(NotFound):
        open_purchases.of_account(money.desk, Actor("owner", ada.account + 1), ada.account)
    money.clock.ms += HOUR_MS
    settle_pending(money.desk)
    assert shown(money, ada) == []


@pytest.mark.parametrize("who", ["owner", "operator"])
def test_one_that_was_not_charged_never_is(money: MoneyWorld, ada: Actor, device: int, who: str) -> None:
    order(money, ada, device)
    actor = ada if who == "owner" else OPERATOR
    assert states(open_purchases.abandon(money.desk, actor, device)) == [OrderState.VOID]
    assert shown(money, ada) == []
    with refused(402, "purchase_abandoned"):
        money.buy(ada, device, "annual", "r1")
    with pytest.raises(PaymentDeclined):
        money.gateway.charge("r1", ANNUAL, "card-1", "later")
    assert money.events(ada)[-2:] == ["purchase_abandoned", "purchase_void"]
    assert "is abandoned" in money.notices(ada)[-1].subject
    balance.check(money)
    assert money.kept_minor() == 0


def test_one_that_was_charged_is_given_back(money: MoneyWorld, ada: Actor, device: int) -> None:
    order(money, ada, device, away="after")
    assert states(open_purchases.abandon(money.desk, ada, device)) == [OrderState.GIVEN_BACK]
    assert money.plans(device) == []
    with refused(409, "purchase_abandoned"):
        money.buy(ada, device, "annual", "r1")
    balance.check(money)
    assert money.kept_minor() == 0


@pytest.mark.parametrize("charged", [False, True])
def test_while_the_gateway_does_not_say_it_is_abandoned(
    money: MoneyWorld, ada: Actor, device: int, charged: bool
) -> None:
    """Nothing comes of it, whatever the gateway says later; and another purchase need not wait."""
    order(money, ada, device, away="after" if charged else "before")
    money.gateway.away = "before"
    for _ in range(2):
        assert states(open_purchases.abandon(money.desk, ada, device)) == [OrderState.ABANDONED]
    assert money.events(ada).count("purchase_abandoned") == 1
    money.gateway.away = ""
    money.buy(ada, device, "monthly", "r2")
    money.clock.ms += HOUR_MS
    assert set(settle_pending(money.desk)) == {"given_back" if charged else "abandoned"}
    assert [kind for kind, *_ in money.spans(device)] == ["monthly"]
    money.clock.ms += HOUR_MS
    settle_pending(money.desk)
    balance.check(money)


def test_abandoned_while_the_gateway_works(money: MoneyWorld, ada: Actor, device: int) -> None:
    """Its charge goes through, and is given back."""
    money.gateway.after = lambda: open_purchases.abandon(money.desk, ada, device)
    with refused(409, "purchase_abandoned"):
        money.buy(ada, device, "annual", "r1")
    assert money.plans(device) == []
    balance.check(money)
    assert money.kept_minor() == 0


def test_another_purchase_for_the_device_waits_for_it(money: MoneyWorld, ada: Actor, device: int) -> None:
    order(money, ada, device)
    with refused(409, "purchase_open") as caught:
        money.buy(ada, device, "monthly", "r2")
    assert "payment 1" in caught.value.detail
    other = money.add_device(ada)
    money.buy(ada, other, "monthly", "r3")
    assert money.buy(ada, device, "annual", "r1").fee == ANNUAL, "the same one goes on"
    money.buy(ada, device, "monthly", "r2")
    balance.check(money)


def test_one_that_expired_keeps_nobody_waiting(money: MoneyWorld, ada: Actor, device: int) -> None:
    order(money, ada, device)
    money.clock.ms += 24 * HOUR_MS
    with refused(409, "purchase_open"):
        money.buy(ada, device, "monthly", "r2")
    money.clock.ms += 1
    assert states(shown(money, ada)) == [OrderState.EXPIRED]
    money.buy(ada, device, "monthly", "r2")
    assert set(settle_pending(money.desk)) == {"expired"}
    balance.check(money)


def test_only_what_is_open_is_abandoned(money: MoneyWorld, ada: Actor, device: int) -> None:
    money.buy(ada, device, "annual", "r1")
    with refused(404, "no_open_purchase"):
        open_purchases.abandon(money.desk, ada, device)
    bob = money.add_owner("Bob")
    order(money, bob, money.add_device(bob), "r2")
    with pytest.raises(NotFound):
        open_purchases.abandon(money.desk, ada, 2)
    assert states(shown(money, bob)) == [OrderState.OPEN]
