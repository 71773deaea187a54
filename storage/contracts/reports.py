"""What `storage.catalog.reports.ReportsCatalog` promises."""

from __future__ import annotations

from storage.catalog import Catalog
from storage.contracts.given import (
    ENDS,
    MONTH,
    NOON,
    NOW,
    WEEK,
    OnCatalog,
    Upload,
    add_device,
    commit,
    lease,
    segment_of,
)


class ReportsContract(OnCatalog):
    """See the module docstring."""

    def test_sums(self, catalog: Catalog) -> None:
        empty = catalog.totals()
        assert (empty.devices, empty.chunks, empty.segment_bytes, empty.tombstones) == (0, 0, 0, 0)
        assert (empty.oldest_tombstone_ms, empty.closed_through) == (None, 0)
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1), Upload(device, NOON))
        commit(catalog, Upload(device, NOON))
        segment_of(catalog)
        catalog.advance_closed_through(5, fence=lease(catalog))
        totals = catalog.totals()
        assert (totals.devices, totals.chunks, totals.segment_bytes) == (1, 2, 1_000_000)
        assert totals.segments == {"prepared": 1, "committed": 1, "deleting": 1}
        assert (totals.tombstones, totals.oldest_tombstone_ms, totals.failing_tombstones) == (1, NOW, 0)
        assert totals.closed_through == 5

    def test_the_newest_report_of_a_sweep_is_kept(self, catalog: Catalog) -> None:
        assert catalog.last_sweep() is None
        for number in range(3):
            catalog.record_sweep({"number": number, "days": [{"day": ENDS, "ok": True}]}, now_ms=NOW - number)
        assert catalog.last_sweep() == {"number": 2, "days": [{"day": ENDS, "ok": True}]}

    def test_reports_and_failures_come_newest_first(self, catalog: Catalog) -> None:
        assert (catalog.sweep_reports(limit=9), catalog.failed_sweeps(limit=9)) == ([], [])
        for number in range(3):
            catalog.record_sweep({"number": number}, now_ms=NOW + number)
            catalog.note_failed_sweep("clock_wrong", f"by {number}", now_ms=NOW + number)
        assert catalog.sweep_reports(limit=2) == [{"number": 2}, {"number": 1}]
        assert catalog.failed_sweeps(limit=2) == [
            {"at_ms": NOW + 2, "code": "clock_wrong", "detail": "by 2"},
            {"at_ms": NOW + 1, "code": "clock_wrong", "detail": "by 1"},
        ]

    def test_failures_are_counted_since_the_last_pass_that_ended_well(self, catalog: Catalog) -> None:
        assert catalog.failures_since_success() == 0
        for expected in (1, 2):
            catalog.note_failed_sweep("store_unavailable", "", now_ms=NOW)
            assert catalog.failures_since_success() == expected
        catalog.record_sweep({}, now_ms=NOW)
        assert catalog.failures_since_success() == 0
        catalog.note_failed_sweep("store_unavailable", "", now_ms=NOW)
        assert catalog.failures_since_success() == 1

    def test_classes_in_use_are_of_plans_and_of_objects(self, catalog: Catalog) -> None:
        assert catalog.retention_classes() == []
        add_device(catalog, WEEK, MONTH, WEEK)
        assert catalog.retention_classes() == [WEEK, MONTH]
        segment_of(catalog)
        assert catalog.retention_classes() == [WEEK, MONTH, 31]
