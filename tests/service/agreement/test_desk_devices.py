"""Devices at the desk: whose they are, how many, their tokens, their end."""

from __future__ import annotations

from datetime import date

import pytest

from retention.money import Money
from retention.plans import PlanKind
from retention.tokens import check_device_token, read_viewer_token
from service.agreement import crediting, devices, purchases
from service.agreement.desk import OPERATOR, Actor
from service.agreement.renewing import RenewReport
from storage.errors import NotFound
from storage.keys import KeyId
from storage.rows.devices import EraseState
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import ROWS, START, MoneyWorld
from tests.service.agreement.refusing import refused


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


def test_a_device_is_known_to_the_bitmap_at_once(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    assert money.bitmap.read(device) is not None
    assert devices.show(money.desk, ada, device).state == "no plan"
    assert [s.facts.device for s in devices.devices_of(money.desk, ada, ada.account)] == [device]
    assert money.events(ada) == ["device_added"]


def test_an_account_has_so_many_devices(money: MoneyWorld) -> None:
    with fast_folder() as folder, MoneyWorld(folder / "data", max_devices_per_account=2) as world:
        ada, eve = world.add_owner(), world.add_owner("Eve")
        first, _ = world.add_device(ada), world.add_device(ada)
        with refused(409, "too_many_devices"):
            world.add_device(ada)
        world.add_device(eve)
        world.terminate(first)
        world.add_device(ada)
        for _ in range(3):
            world.add_device(OPERATOR)


def test_the_service_has_room_for_so_many(money: MoneyWorld) -> None:
    for _ in range(ROWS - 1):
        money.add_device(OPERATOR)
    with refused(422, "too_many_devices"):
        money.add_device(OPERATOR)


def test_only_an_open_account_gets_one(money: MoneyWorld, ada: Actor) -> None:
    eve = money.add_owner("Eve")
    with pytest.raises(NotFound):
        devices.add_device(money.desk, eve, ada.account)
    money.change_account(ada, suspended_ms=1)
    with refused(403, "account_suspended"):
        devices.add_device(money.desk, OPERATOR, ada.account)


def test_what_a_device_may_do(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    purchases.grant(money.desk, OPERATOR, device, PlanKind.ANNUAL, starts_on=date(2025, 2, 2))

    def state() -> str:
        return devices.show(money.desk, ada, device).state

    assert state() == "not started"
    money.go(date(2025, 2, 2))
    shown = devices.show(money.desk, ada, device)
    assert (shown.state, shown.entitled_through, shown.retention_days) == ("recording", date(2026, 2, 1), 30)
    money.change_account(ada, suspended_ms=1)
    assert state() == "suspended"
    money.change_account(ada, suspended_ms=None)
    money.go(date(2026, 2, 2))
    assert state() == "lapsed"
    money.terminate(device)
    assert state() == "terminated"


def test_tokens(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    secret = money.vault.token_secret
    first = devices.token(money.desk, ada, device)
    assert check_device_token(secret, device, 1, first)
    text, expires_s = devices.viewer_token(money.desk, ada, device, hours=2)
    assert expires_s == money.clock.ms // 1000 + 7200
    claims = read_viewer_token(secret, text)
    assert claims is not None
    assert (claims.device, claims.generation) == (device, 1)
    second = devices.new_token(money.desk, ada, device, why="lost")
    assert check_device_token(secret, device, 2, second)
    row = money.bitmap.read(device)
    assert row is not None
    assert row.token_generation == 2
    assert money.events(ada)[-1] == "token_renewed"
    for hours in (0, -1, float("nan"), float("inf"), 24 * 366 + 1):
        with refused(422, "bad_hours"):
            devices.viewer_token(money.desk, ada, device, hours=hours)
    with refused(422, "bad_text"):
        devices.new_token(money.desk, ada, device, why="\n")


def test_other_peoples_devices_do_not_exist(money: MoneyWorld, ada: Actor) -> None:
    eve, device = money.add_owner("Eve"), money.add_device(ada)
    for act in (
        lambda: devices.show(money.desk, eve, device),
        lambda: devices.token(money.desk, eve, device),
        lambda: devices.new_token(money.desk, eve, device, why="w"),
        lambda: devices.viewer_token(money.desk, eve, device),
        lambda: devices.terminate(money.desk, eve, device, why="w"),
        lambda: devices.devices_of(money.desk, eve, ada.account),
    ):
        with pytest.raises(NotFound):
            act()


def test_a_terminated_device_is_denied_at_once_and_its_plans_end(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    money.buy(ada, device, "monthly", "r1")
    money.go(date(2025, 2, 10))
    money.vault.ensure([KeyId(device, 0, 202503)])
    with refused(409, "cancel_first"):
        devices.terminate(money.desk, ada, device, why="sold")
    shown, destroyed = devices.terminate(money.desk, OPERATOR, device, why="abuse", erase=True)
    assert (shown.state, shown.facts.erase_state, destroyed) == ("terminated", EraseState.ERASING, 1)
    assert money.spans(device) == [("monthly", START, date(2025, 2, 9))]
    assert not money.entitled(device, money.today)
    assert not money.row(1).renews
    again, destroyed = devices.terminate(money.desk, OPERATOR, device, why="abuse", erase=True)
    assert (again.facts, destroyed) == (shown.facts, 0)
    balance.check(money)


def test_the_record_of_an_erasure_says_who_ended_the_device(money: MoneyWorld, ada: Actor) -> None:
    for actor in (ada, OPERATOR):
        device = money.add_device(ada)
        devices.terminate(money.desk, actor, device, why="sold: sweep", erase=True)
        [record] = money.catalog.erasures(device=device)
        assert (record.who, record.why) == (actor.role, "terminated")


def test_an_owner_ends_a_device_once_its_plan_is_cancelled(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    money.buy(ada, device, "annual", "r1")
    money.cancel(ada, 1)
    assert devices.terminate(money.desk, ada, device, why="sold")[0].state == "terminated"
    balance.check(money)


@pytest.mark.parametrize("away", ["", "before", "after"])
@pytest.mark.parametrize(("credit_minor", "kept_minor"), [(0, 2 * 599), (100, 2 * 599 + 100)])
def test_what_a_cancelled_plan_gives_back_stands_when_its_device_ends(
    money: MoneyWorld, ada: Actor, away: str, credit_minor: int, kept_minor: int
) -> None:
    """Its months that had begun are kept and the rest is given back (8.2.1), also when the gateway was away until then;
    the end of the device, in the middle of a month, moves no money of its own (3.3)."""
    device = money.add_device(ada)
    money.buy(ada, device, "annual", "r1")
    money.go(date(2025, 3, 15))  # in the second month
    if credit_minor:
        credit = Money(credit_minor, "USD")
        crediting.credit(money.desk, OPERATOR, 1, credit, why="a bad week", reference="c1")
    money.gateway.away = away
    money.cancel(ada, 1)
    money.go(date(2025, 3, 20))
    money.terminate(device)
    assert money.spans(device) == [("annual", START, date(2025, 3, 19))]
    money.gateway.away = ""
    for refunded in (1 if away else 0, 0):
        assert money.renew().refunded == refunded
        assert money.kept_minor() == kept_minor
        balance.check(money)
        money.pass_days(40)


def test_what_is_stacked_counts_for_how_far_a_device_is_entitled(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)

    def through() -> date | None:
        return devices.show(money.desk, ada, device).entitled_through

    assert through() is None
    purchases.start_trial(money.desk, ada, device)
    assert through() == date(2025, 2, 13)
    money.buy(ada, device, "monthly", "r1")
    assert through() == date(2025, 2, 27)
    money.buy(ada, device, "annual", "r2")
    assert through() == date(2026, 2, 27)
    money.buy(ada, device, "annual", "r3")
    assert through() == date(2027, 2, 27)
    start = date(2027, 4, 1)
    purchases.grant(money.desk, OPERATOR, device, PlanKind.ANNUAL, starts_on=start)
    assert through() == date(2027, 2, 27), "what follows after a gap does not"
    money.cancel(ada, 3)
    assert through() == date(2026, 2, 27), "what was stacked moves up"


def test_an_erasure_is_recorded_when_the_keys_are_gone(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    devices.terminate(money.desk, OPERATOR, device, why="asked for", erase=True)
    [record] = money.catalog.erasures(device=device)
    assert (record.state, record.keys_destroyed_ms) == ("keys destroyed", money.clock.ms)
    assert money.catalog.erasure_counts()["marked"] == 0


def test_what_an_operator_ends_with_a_device_is_not_refunded(money: MoneyWorld, ada: Actor) -> None:
    """3.3: neither the month that was charged ahead, nor a plan that had not begun."""
    device = money.add_device(ada)
    money.buy(ada, device, "monthly", "r1")
    money.go(date(2025, 2, 26))
    assert money.renew().renewed == 1
    money.buy(ada, device, "annual", "r2")
    money.terminate(device)
    money.pass_days(40)
    assert money.renew() == RenewReport()
    assert money.kept_minor() == 2 * 599 + 5999
    balance.check(money)
