"""What the account books promise of packages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, code_of
from storage.contracts.given import DAY, NOW, WEEK
from storage.errors import NotFound
from storage.rows.accounts import SubscriptionRow
from storage.rows.devices import PlanRow
from storage.rows.packages import PackageRow

FULL = PackageRow("half-year", 1, "full", 6, 0, 60, 3, DAY, None, NOW, {"USD": [3299, 599], "JPY": [0, 1]})
TRIAL = PackageRow("trial", 1, "trial", 0, 14, 7, 0, DAY, DAY + 9, NOW)


class PackagesContract(OnBooks):
    """See the module docstring."""

    def test_packages_are_kept_in_versions(self, catalog: Catalog, write: Any) -> None:
        second = replace(FULL, version=2, prices={"EUR": [10**10, 1]})
        with write() as books:
            assert books.packages() == []
            for row in (TRIAL, second, FULL):
                books.add_package(row)
            assert code_of(lambda: books.add_package(FULL)) == "exists"
        with catalog.books() as books:
            assert books.packages() == [FULL, second, TRIAL]
            assert books.packages(limit=1) == [FULL]

    def test_each_change_is_counted_and_only_those(self, catalog: Catalog, write: Any) -> None:
        seen = []

        def look() -> None:
            with catalog.books() as books:
                seen.append(books.packages_change())

        look()
        for change in ("add_package", "put_package", "put_package"):
            with write() as books:
                getattr(books, change)(FULL)
            look()
        look()
        assert seen == sorted(seen)
        assert len(set(seen)) == 4

    def test_whose_owners_are_to_be_told_of_another_fee(self, catalog: Catalog, write: Any, ann: int) -> None:
        def subscribed(package: str, version: int, **more: Any) -> int:
            plan = PlanRow(0, "monthly", DAY, DAY + 30, WEEK, None, package, version)
            with write() as books:
                device = books.add_device(ann).device
                [stored] = books.change_device(device, lambda f: replace(f, plans=(plan,)), what="").plans
                row = SubscriptionRow(stored.plan_id, ann, device, "USD", 1, 1, True, "", 1, NOW)
                books.add_subscription(replace(row, **more))
            return int(stored.plan_id)

        first = subscribed("monthly", 1)
        told = subscribed("monthly", 1, next_fee_version=2, next_fee_minor=9, next_fee_on=DAY)
        paying = subscribed("monthly", 1, fee_version=2)
        second = subscribed("monthly", 2)
        subscribed("monthly", 1, renews=False)
        other = subscribed("other", 1, next_fee_version=2)

        def due(version: int, package: str = "monthly", **more: int) -> list[int]:
            with catalog.books() as books:
                return [row.plan_id for row in books.fee_changes_due(package, version, **more)]

        assert due(0) == [told]
        assert due(1) == [told]
        assert due(2) == [first]
        assert due(3) == [first, told, paying, second]
        assert due(3, after=first, limit=2) == [told, paying]
        assert due(0, "other") == [other]
        assert due(2, "other") == []
        with catalog.books() as books:
            assert books.subscription(told).next_fee_on == DAY

    def test_a_version_ends(self, catalog: Catalog, write: Any) -> None:
        ended = replace(FULL, sold_until=DAY - 1)
        with write() as books:
            books.add_package(FULL)
            books.put_package(ended)
            with pytest.raises(NotFound):
                books.put_package(replace(FULL, version=2))
        with catalog.books() as books:
            assert books.packages() == [ended]

    def test_a_plan_says_what_it_is_of(self, catalog: Catalog, write: Any, ann: int) -> None:
        of_package = PlanRow(0, "full", DAY, DAY + 180, WEEK, None, "half-year", 2)
        with write() as books:
            device = books.add_device(ann).device
            books.change_device(device, lambda f: replace(f, plans=(of_package,)), what="")
        [stored] = catalog.device(device).plans
        assert stored == replace(of_package, plan_id=stored.plan_id)
        renamed = replace(stored, package="year", package_version=3)
        with write() as books:
            books.change_device(device, lambda f: replace(f, plans=(renamed,)), what="")
        assert catalog.device(device).plans == (renamed,)
