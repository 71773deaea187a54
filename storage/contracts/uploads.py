"""What `storage.catalog.uploads.UploadsCatalog` promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from storage.catalog import Catalog
from storage.contracts.given import DAY, OnCatalog


class UploadsContract(OnCatalog):
    """See the module docstring."""

    def test_sums_are_of_a_day_and_a_device(self, catalog: Catalog) -> None:
        assert catalog.add_uploads(DAY, {}) == {}
        assert catalog.add_uploads(DAY, {7: (100, 1), 3: (5, 2)}) == {7: (100, 1), 3: (5, 2)}
        assert catalog.add_uploads(DAY, {7: (1 << 47, 1)}) == {7: ((1 << 47) + 100, 2)}
        assert catalog.add_uploads(DAY, {3: (0, 0), 4: (0, 0)}) == {3: (5, 2), 4: (0, 0)}
        assert catalog.add_uploads(DAY + 1, {7: (1, 1)}) == {7: (1, 1)}

    def test_many_devices_at_once(self, catalog: Catalog) -> None:
        uploads = {device: (device, 1) for device in range(1, 1201)}
        assert catalog.add_uploads(DAY, uploads) == uploads
        assert catalog.add_uploads(DAY, uploads)[1200] == (2400, 2)

    def test_nothing_is_lost_of_what_several_add_at_once(self, catalog: Catalog) -> None:
        def add(turn: int) -> None:
            catalog.add_uploads(DAY, dict.fromkeys((1, 2, 3, 4 + turn), (10, 1)))

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(add, range(20)))
        assert catalog.add_uploads(DAY, {2: (0, 0), 5: (0, 0)}) == {2: (200, 20), 5: (10, 1)}

    def test_earlier_days_go_page_by_page(self, catalog: Catalog) -> None:
        for day in (DAY - 2, DAY - 1, DAY):
            catalog.add_uploads(day, {1: (10, 1), 2: (10, 1)})
        assert [catalog.drop_uploads(before_day=DAY, limit=3) for _ in range(3)] == [3, 1, 0]
        assert catalog.add_uploads(DAY, {1: (0, 0)}) == {1: (10, 1)}
        assert catalog.add_uploads(DAY - 1, {1: (0, 0)}) == {1: (0, 0)}
