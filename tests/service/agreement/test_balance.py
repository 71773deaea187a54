"""The books' check itself: it must find a cent that nothing explains."""

from __future__ import annotations

import pytest

from service.agreement.charging import give_back, owe
from service.agreement.desk import Actor
from tests.service.agreement import balance
from tests.service.agreement.money_world import START, MoneyWorld


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.mark.parametrize("terminated", [False, True])
@pytest.mark.parametrize("minor", [1, 599])
@pytest.mark.parametrize(("kind", "cancelled"), [("annual", True), ("annual", False), ("monthly", True)])
def test_a_refund_that_was_not_due_is_found(
    money: MoneyWorld, ada: Actor, kind: str, cancelled: bool, minor: int, terminated: bool
) -> None:
    """Also of a device that was terminated, and also when all that was kept is given back."""
    device = money.add_device(ada)
    money.buy(ada, device, kind, "r1")
    if cancelled:
        money.cancel(ada, 1)
    if terminated:
        money.pass_days(1)
        money.terminate(device)
    balance.check(money)
    slip(money, ada, minor)
    with pytest.raises(AssertionError, match=f"starts_on=datetime.date\\({START.year}"):
        balance.check(money)


def slip(money: MoneyWorld, owner: Actor, minor: int) -> None:
    """Books and gateway give back, of the first charge, what no rule said."""
    [charge] = [row for row in money.payments(owner.account) if row.reference == "r1"]
    owed = money.desk.write(lambda books: owe(money.desk, books, charge, minor, "a slip", plan_id=1))
    give_back(money.desk, owed.reference)
