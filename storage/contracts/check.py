"""What `storage.catalog.check.CheckCatalog` promises."""

from __future__ import annotations

from storage.catalog import Catalog
from storage.contracts.given import (
    ENDS,
    NOON,
    NOW,
    STORED,
    OnCatalog,
    Upload,
    add_device,
    commit,
    everything,
    lease,
    only_segment,
    segment_of,
    segments,
)
from storage.rows.recordings import Due, Orphan


class CheckContract(OnCatalog):
    """See the module docstring."""

    def test_orphans_become_tombstones_and_known_keys_stay(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        known = only_segment(catalog)
        orphans = [Orphan(key, 31, ENDS, 77) for key in (known.key, "v1/31/2024-10-12/w9/ff")]
        when = {"fence": lease(catalog), "now_ms": NOW, "delete_after_ms": NOW + 9}
        assert catalog.adopt_orphans(orphans, **when) == 1
        assert catalog.adopt_orphans(orphans, **when) == 0
        assert catalog.segment_with_key(known.key) == known
        assert catalog.segment_with_key("v1/none") is None
        assert catalog.due_totals(NOW + 8) == Due()
        assert catalog.due_totals(NOW + 9) == Due(1, 77)
        [tombstone] = catalog.due_tombstones(NOW + 9, after_id=0, limit=9)
        assert (tombstone.key, tombstone.reclaimed) == (orphans[1].key, False)

    def test_segments_by_key_in_pages(self, catalog: Catalog) -> None:
        for worker in ("w1", "w0", "W", "w-"):
            catalog.prepare(worker=worker, class_days=31, expires_on=ENDS, count=3, now_ms=NOW)
        found: list[str] = []
        while page := catalog.segments_by_key(after_key=found[-1] if found else "", limit=5):
            found += [row.key for row in page]
        assert found == sorted(row.key for row in segments(catalog))

    def test_the_rows_of_a_day_are_in_order_and_do_not_stand_in_the_way(self, catalog: Catalog) -> None:
        """Whoever reads them slowly can ask and commit in between, and sees one moment."""
        a, b = add_device(catalog), add_device(catalog)
        commit(catalog, Upload(b, NOON), Upload(a, NOON))
        commit(catalog, Upload(a, NOON - 5), Upload(b, NOON - 5))
        rows = catalog.day_rows(ENDS)
        found = [next(rows)]
        assert catalog.device(a).device == a
        assert commit(catalog, Upload(a, NOON + 1)) == [STORED]
        found += rows
        assert [(r.device, r.capture_ms) for r in found] == [
            (b, NOON),
            (a, NOON),
            (a, NOON - 5),
            (b, NOON - 5),
        ]
        assert [(r.segment_id, r.ordinal) for r in found] == sorted((r.segment_id, r.ordinal) for r in found)
        abandoned = catalog.day_rows(ENDS)
        next(abandoned)
        del abandoned
        assert len(list(catalog.day_rows(ENDS))) == 5
        assert list(catalog.day_rows(ENDS + 1)) == []

    def test_rebuilding_a_sound_catalog_changes_nothing(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        stored = [segment_of(catalog, Upload(device, NOON), Upload(device, NOON + i)) for i in range(1, 3)]
        catalog.commit(stored, now_ms=NOW)
        prepared = segment_of(catalog, Upload(device, NOON + 9))
        before = everything(catalog)
        indexes = [s.index for s in (*stored, prepared)]
        assert catalog.rebuild_chunks(zip(segments(catalog), indexes, strict=True)) == 0
        assert everything(catalog) == before

    def test_a_sound_catalog_has_nothing_broken_and_no_damage(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(device, NOON))
        assert list(catalog.broken_rows()) == []
        assert catalog.damage() == []
        assert all(len(said) > 20 for said in catalog.unlooked())

    def test_segments_in_pages(self, catalog: Catalog) -> None:
        ids = [segment_of(catalog).segment_id for _ in range(5)]
        assert [row.segment_id for row in catalog.segments()] == ids
        assert [row.segment_id for row in catalog.segments(after_id=ids[1], limit=2)] == ids[2:4]
        assert catalog.segments(after_id=ids[-1]) == []
