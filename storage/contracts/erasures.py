"""What `storage.catalog.erasures.ErasuresCatalog` promises."""

from __future__ import annotations

from dataclasses import replace

from storage.catalog import Catalog
from storage.contracts.given import (
    DAY,
    MONTH,
    NOON,
    NOW,
    WEEK,
    OnCatalog,
    Upload,
    add_device,
    captures,
    commit,
    erase,
    lease,
    refused,
    segments,
)
from storage.rows.devices import EraseState
from storage.rows.recordings import (
    Unindexed,
)


class ErasuresContract(OnCatalog):
    """See the module docstring."""

    def test_the_rows_of_an_erased_device_go_and_no_others(self, catalog: Catalog, sound: None) -> None:
        """Invariants 3 and 9: earlier epochs only, this device only; what came after a renewal stays."""
        device, neighbour = add_device(catalog, WEEK, MONTH), add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(neighbour, NOON), Upload(device, NOON + 1))
        commit(catalog, Upload(device, NOON + 2), expires_on=DAY + MONTH + 1)
        fence = lease(catalog)

        def unindex() -> Unindexed:
            return catalog.unindex_device(device, fence=fence, now_ms=NOW, delete_after_ms=NOW + 9)

        assert unindex() == Unindexed()
        assert len(catalog.chunks(device, 0, 1 << 62, limit=9)) == 3
        assert catalog.erasing_devices() == []
        erase(catalog, device)
        assert [d.erase_state for d in catalog.erasing_devices()] == [EraseState.ERASING]
        commit(catalog, Upload(device, NOON + 3, epoch=1))
        assert unindex() == Unindexed(chunks=3, size_bytes=3000, dead_segments=1)
        assert unindex() == Unindexed()
        assert captures(catalog.chunks(device, 0, 1 << 62, limit=9)) == [NOON + 3]
        assert catalog.chunk(neighbour, NOON) is not None
        assert [refused(r) for r in segments(catalog)] == [[0, 2], [0], []]
        assert catalog.due_tombstones(NOW + 8, after_id=0, limit=9) == []
        assert len(catalog.due_tombstones(NOW + 9, after_id=0, limit=9)) == 1
        assert [d.device for d in catalog.erasing_devices()] == [device]  # its keys are still to go
        catalog.update_device(
            device, lambda old: replace(old, erase_state=EraseState.ERASED), what="", now_ms=NOW
        )
        assert catalog.erasing_devices() == []

    def test_an_erased_device_with_rows_left_is_told(self, catalog: Catalog) -> None:
        a, b = add_device(catalog), add_device(catalog)
        for device in (b, a):
            erase(catalog, device, EraseState.ERASED)
        assert [d.device for d in catalog.erasing_devices()] == [a, b]
        catalog.unindex_device(b, fence=lease(catalog), now_ms=NOW, delete_after_ms=NOW)
        assert [d.device for d in catalog.erasing_devices()] == [a]
