"""Packages: sold, bought, tried and granted, with the books and the gateway (agreement 7.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import pytest

from retention.money import Money
from retention.packages import Package, PackageKind
from retention.terms import Terms
from retention.upload_limits import UploadLimits
from service.agreement import packages, purchases
from service.agreement.desk import OPERATOR, Actor
from service.agreement.settling import settle_pending
from service.config import AgreementSettings, RetentionSettings
from storage.contracts.given import Upload, index_of
from storage.days import MS_PER_DAY, expiry_day
from storage.rows.recordings import SegmentCommit, Verdict
from tests.retention.world import fast_folder
from tests.service.agreement import balance
from tests.service.agreement.money_world import MoneyWorld
from tests.service.agreement.refusing import refused

DAY = timedelta(days=1)


def usd(minor: int) -> Money:
    return Money(minor, "USD")


@pytest.fixture
def money() -> Iterator[MoneyWorld]:
    with fast_folder() as folder, MoneyWorld(folder / "data") as world:
        yield world


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


@pytest.fixture
def half(money: MoneyWorld) -> Package:
    package = Package(
        "half-year",
        1,
        PackageKind.FULL,
        60,
        money.today,
        months=6,
        max_devices=1,
        prices={"USD": Terms(usd(3299), usd(599)), "JPY": Terms(Money(4800, "JPY"), Money(900, "JPY"))},
    )
    return packages.add(money.desk, OPERATOR, package)


def test_a_catalog_begins_with_what_config_says_and_then_goes_its_own_way(money: MoneyWorld) -> None:
    sold = {package.name: package for package in packages.listed(money.desk)}
    assert list(sold) == ["annual", "monthly", "trial"]
    assert sold["annual"].terms("USD") == Terms(usd(5999), usd(599))
    assert sold["monthly"].terms("USD") == Terms(usd(599), usd(599))
    assert (sold["trial"].days, sold["trial"].retention_days) == (14, 7)
    dear = AgreementSettings(monthly_fee_minor=999)
    packages.ensure(money.catalog, dear, RetentionSettings(default_days=9), now_ms=money.clock.ms)
    assert {package.name: package for package in packages.listed(money.desk)} == sold
    assert packages.unlike_config(money.desk, RetentionSettings()) == []
    later = replace(money.desk, settings=dear)
    days = RetentionSettings(default_days=9)
    assert [detail.split()[1] for detail in packages.unlike_config(later, days)] == [
        "monthly_fee_minor",
        "default_days",
    ]
    packages.reprice(money.desk, OPERATOR, "monthly", {"USD": Terms(usd(999), usd(999))})
    assert packages.unlike_config(later, RetentionSettings()) == []


def test_a_half_year_is_bought_kept_for_its_days_and_refunded_by_its_months(
    money: MoneyWorld, ada: Actor, half: Package
) -> None:
    device, start = money.add_device(ada), money.today
    quote = purchases.quote(money.desk, ada, device, "half-year")
    assert (quote.fee, quote.package, quote.version, quote.retention_days) == (usd(3299), "half-year", 1, 60)
    bought = money.buy(ada, device, "half-year", "r1")
    plan = bought.subscription.plan
    assert (str(plan.kind), plan.package, plan.version) == ("full", "half-year", 1)
    assert (plan.retention_days, bought.fee, bought.subscription.renews) == (60, usd(3299), False)
    assert plan.ends_on == quote.ends_on
    assert money.notices(ada)[-1].subject == f"Device {device}: half-year plan, 32.99 USD", "as it was sold"
    assert money.entitled(device, start)
    done = money.cancel(ada, bought.subscription.plan_id)
    assert (str(done.cancellation.kind), done.cancellation.refund) == ("full", usd(3299 - 599))
    balance.check(money)


def test_storage_days_are_the_packages_and_not_the_owners(
    money: MoneyWorld, ada: Actor, half: Package
) -> None:
    device = money.add_device(ada)
    with refused(403, "operators_only"):
        money.buy(ada, device, "half-year", "r1", retention_days=61)
    assert money.buy(ada, device, "half-year", "r2", retention_days=60).subscription.plan.retention_days == 60


def test_it_is_paid_in_a_currency_that_it_has(money: MoneyWorld, ada: Actor, half: Package) -> None:
    device = money.add_device(ada)
    yen = Money(4800, "JPY")
    assert purchases.quote(money.desk, ada, device, "half-year", currency="JPY").fee == yen
    with refused(422, "wrong_currency"):
        purchases.quote(money.desk, ada, device, "half-year", currency="EUR")
    assert money.buy(ada, device, "half-year", "r1", amount=yen).fee == yen
    balance.check(money)


def test_another_package_follows_what_runs_and_nothing_is_converted(
    money: MoneyWorld, ada: Actor, half: Package
) -> None:
    """7.2.1, 7.2.2."""
    device = money.add_device(ada)
    monthly = money.buy(ada, device, "monthly", "r1").subscription
    money.pass_days(10)
    new = money.buy(ada, device, "half-year", "r2").subscription
    assert monthly.plan.ends_on is not None
    assert new.plan.starts_on == monthly.plan.ends_on + DAY
    kept, _ = money.plans(device)
    assert (kept.plan, kept.renews) == (monthly.plan, False)
    row = money.bitmap.read(device)
    assert row is not None
    assert row.class_days == 30, "until then recordings are kept as the first package says"
    money.go(new.plan.starts_on)
    money.desk.entitlements.roll()
    row = money.bitmap.read(device)
    assert row is not None
    assert row.class_days == 60
    balance.check(money)


def test_a_new_price_is_for_new_purchases(money: MoneyWorld, ada: Actor) -> None:
    first = money.add_device(ada)
    old = money.buy(ada, first, "monthly", "r1").subscription
    dear = {"USD": Terms(usd(799), usd(799))}
    begins = money.today + 5 * DAY
    packages.reprice(money.desk, OPERATOR, "monthly", dear, sold_from=begins)
    assert money.buy(ada, money.add_device(ada), "monthly", "r2").fee == usd(599)
    money.go(begins)
    bought = money.buy(ada, money.add_device(ada), "monthly", "r3")
    assert (bought.fee, bought.subscription.plan.version) == (usd(799), 2)
    assert old.plan.ends_on is not None
    money.go(old.plan.ends_on)
    money.renew()
    [charged, renewed] = [p for p in money.payments(ada.account) if p.plan_id == old.plan_id]
    assert (charged.minor, renewed.minor) == (599, 599)
    balance.check(money)


def test_what_was_ordered_before_a_package_ended_is_what_is_had(
    money: MoneyWorld, ada: Actor, half: Package
) -> None:
    device = money.add_device(ada)
    money.gateway.away = "after"
    with pytest.raises(Exception, match="away"):
        money.buy(ada, device, "half-year", "r1")
    packages.end(money.desk, OPERATOR, "half-year", last_day=money.today - DAY)
    with refused(422, "not_for_sale"):
        money.buy(ada, money.add_device(ada), "half-year", "r2")
    money.gateway.away = ""
    money.pass_days(1)
    settle_pending(money.desk)
    [sub] = money.plans(device)
    assert (sub.plan.package, sub.plan.retention_days) == ("half-year", 60)
    balance.check(money)


def test_a_package_is_for_so_many_devices_of_an_account(money: MoneyWorld, ada: Actor, half: Package) -> None:
    first, second = money.add_device(ada), money.add_device(ada)
    money.buy(ada, first, "half-year", "r1")
    money.buy(ada, first, "half-year", "r2")  # behind it, on the same device
    for ask in (
        lambda: money.buy(ada, second, "half-year", "r3"),
        lambda: purchases.quote(money.desk, ada, second, "half-year"),
    ):
        with refused(409, "package_devices"):
            ask()
    bob = money.add_owner("Bob")
    money.buy(bob, money.add_device(bob), "half-year", "r4")
    money.terminate(first)
    money.buy(ada, second, "half-year", "r5")
    balance.check(money)


def test_the_trial_is_the_one_that_is_offered(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    packages.end(money.desk, OPERATOR, "trial", last_day=money.today - DAY)
    with refused(422, "not_for_sale"):
        purchases.start_trial(money.desk, ada, device)
    packages.add(money.desk, OPERATOR, Package("month-trial", 1, PackageKind.TRIAL, 3, money.today, days=30))
    started = purchases.start_trial(money.desk, ada, device).subscription.plan
    assert (started.package, started.retention_days) == ("month-trial", 3)
    assert started.ends_on == money.today + 29 * DAY


def test_an_operator_grants_also_what_is_not_sold(money: MoneyWorld, ada: Actor, half: Package) -> None:
    device = money.add_device(ada)
    packages.end(money.desk, OPERATOR, "half-year", last_day=money.today - DAY)
    granted = purchases.grant(money.desk, OPERATOR, device, "half-year", retention_days=9).subscription
    assert (granted.plan.package, granted.plan.retention_days, granted.terms) == ("half-year", 9, None)
    with refused(404, "not_found"):
        purchases.grant(money.desk, OPERATOR, device, "nothing")


def test_only_operators_change_what_is_sold(money: MoneyWorld, ada: Actor, half: Package) -> None:
    other = replace(half, name="other")
    for act in (
        lambda: packages.add(money.desk, ada, other),
        lambda: packages.reprice(money.desk, ada, "half-year", half.prices),
        lambda: packages.end(money.desk, ada, "half-year", last_day=date(2100, 1, 1)),
    ):
        with refused(403, "operators_only"):
            act()


def test_a_purchase_of_an_earlier_release_is_of_the_package_named_as_its_kind(
    money: MoneyWorld, ada: Actor
) -> None:
    device = money.add_device(ada)
    money.gateway.away = "after"
    with pytest.raises(Exception, match="away"):
        money.buy(ada, device, "annual", "r1")
    with money.desk.reading() as books:
        [row] = books.payments_of(ada.account)
    then = {name: value for name, value in row.detail.items() if not name.startswith("package")}
    money.desk.write(lambda books: books.put_payment(replace(row, detail=then)))
    money.gateway.away = ""
    money.pass_days(1)
    settle_pending(money.desk)
    [sub] = money.plans(device)
    assert (str(sub.plan.kind), sub.plan.package, sub.plan.version) == ("annual", "annual", 1)


def test_another_package_for_the_same_device_follows_and_nothing_stored_changes(
    money: MoneyWorld, ada: Actor, half: Package
) -> None:
    """7.2.1, 7.2.2: bought behind what runs. What was recorded under the old package keeps its 30 days, also while the
    new one of 60 days runs; days of storage and limits change with its first day."""
    limits = UploadLimits(16 << 20, 3)
    large = replace(half, name="large", retention_days=60, limits=limits)
    packages.add(money.desk, OPERATOR, large)
    device = money.add_device(ada)
    money.buy(ada, device, "monthly", "r1")
    stored = {}

    def record() -> None:
        """A chunk of today, as a worker stores it: by what the bitmap says."""
        money.clock.ms += 1000
        money.desk.entitlements.roll()
        day = money.desk.today()
        _, class_days, _, epoch, today_ok, _, _ = money.bitmap.probe(device, day, day)
        assert today_ok
        expires_on = expiry_day(day, class_days)
        stored[money.clock.ms] = expires_on
        [key] = money.catalog.prepare(
            worker="w0", class_days=class_days, expires_on=expires_on, count=1, now_ms=money.clock.ms
        )
        index = index_of(Upload(device, money.clock.ms, epoch=epoch))
        segment = SegmentCommit(key.segment_id, expires_on, 1000, 1, index)
        [verdicts] = money.catalog.commit([segment], now_ms=money.clock.ms)
        assert verdicts.tolist() == [Verdict.STORED]

    record()
    bought = money.buy(ada, device, "large", "r2")
    assert bought.subscription.plan.starts_on == date(2025, 2, 28)
    record()
    assert money.bitmap.probe(device, money.desk.today(), money.desk.today())[6] == 0
    money.go(date(2025, 2, 27))
    record()
    money.go(date(2025, 2, 28))
    record()
    limit_class = money.bitmap.probe(device, money.desk.today(), money.desk.today())[6]
    assert UploadLimits.of_word(money.bitmap.limits_word(limit_class)) == limits
    money.go(date(2025, 3, 10))
    record()
    days = [expires_on - ms // MS_PER_DAY for ms, expires_on in sorted(stored.items())]
    assert days == [31, 31, 31, 61, 61]
    for ms, expires_on in stored.items():
        row = money.catalog.chunk(device, ms)
        assert row is not None
        assert row.expires_on == expires_on
    assert money.spans(device)[0] == ("monthly", date(2025, 1, 31), date(2025, 2, 27))
    assert money.row(1).fee_minor == 599, "nothing is converted"
    balance.check(money)
