"""What the account books promise of packages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from storage.catalog import Catalog
from storage.contracts.books.given import OnBooks, code_of
from storage.contracts.given import DAY, NOW, WEEK
from storage.errors import NotFound
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
