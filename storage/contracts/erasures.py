"""What `storage.catalog.erasures.ErasuresCatalog` promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

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
from storage.errors import CallerError, LeaseLost
from storage.rows.devices import EraseState
from storage.rows.recordings import Unindexed


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

    def test_a_record_is_made_with_the_epoch_and_takes_its_steps(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1))
        assert catalog.erasures() == []
        catalog.update_device(
            device,
            lambda old: replace(old, erase_state=EraseState.ERASING, erase_epoch=1, erase_reason="lapsed"),
            what="sweep: lapsed",
            now_ms=NOW,
        )
        [marked] = catalog.erasures()
        assert (marked.device, marked.epoch, marked.why, marked.who) == (device, 1, "lapsed", "sweep")
        assert (marked.marked_ms, marked.state, marked.verified) == (NOW, "marked", "")
        fence = lease(catalog)
        catalog.note_keys_destroyed({device: (1, 3)}, fence=fence, now_ms=NOW + 1)
        catalog.note_keys_destroyed({device: (1, 9)}, fence=None, now_ms=NOW + 2)  # the first word counts
        [destroyed] = catalog.erasures()
        assert (destroyed.keys_destroyed_ms, destroyed.keys_destroyed) == (NOW + 1, 3)
        assert destroyed.state == "keys destroyed"
        assert catalog.clear_erasures(destroyed_before_ms=NOW + 1, fence=fence, now_ms=NOW + 3) == 0
        catalog.unindex_device(device, fence=fence, now_ms=NOW + 4, delete_after_ms=NOW)
        [unindexed] = catalog.erasures()
        assert (unindexed.unindexed_ms, unindexed.unindexed_chunks) == (NOW + 4, 2)
        assert unindexed.state == "unindexed"
        assert catalog.clear_erasures(destroyed_before_ms=NOW, fence=fence, now_ms=NOW + 5) == 0
        assert catalog.clear_erasures(destroyed_before_ms=NOW + 1, fence=fence, now_ms=NOW + 5) == 1
        assert catalog.clear_erasures(destroyed_before_ms=NOW + 1, fence=fence, now_ms=NOW + 6) == 0
        catalog.note_verified(marked.erasure_id, "2 of 2", now_ms=NOW + 7)
        [cleared] = catalog.erasures()
        assert (cleared.cleared_ms, cleared.state) == (NOW + 5, "cleared")
        assert (cleared.verified_ms, cleared.verified) == (NOW + 7, "2 of 2")

    def test_what_a_person_wrote_is_not_in_a_record(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        for said in ("owner: my flat in Rome", "Ann asked", "sold to ann@example.com", "+15550100", "x" * 41):
            with pytest.raises(CallerError) as refused:
                catalog.update_device(device, lambda old: replace(old, erase_epoch=1), what=said, now_ms=NOW)
            assert refused.value.code == "not_a_code"
        assert catalog.erasures() == []
        for what, who in (("owner: terminated", "owner"), ("asked", "operator"), ("sweep", "sweep")):
            device = add_device(catalog)
            catalog.update_device(device, lambda old: replace(old, erase_epoch=1), what=what, now_ms=NOW)
            [record] = catalog.erasures(device=device)
            assert (record.who, record.why) == (who, "")

    def test_records_come_in_pages_and_of_one_device(self, catalog: Catalog) -> None:
        a, b = add_device(catalog), add_device(catalog)
        for device in (a, b, a):
            erase(catalog, device)
        rows = catalog.erasures()
        assert [(row.device, row.epoch) for row in rows] == [(a, 1), (b, 1), (a, 2)]
        assert catalog.erasures(after_id=rows[0].erasure_id, limit=1) == rows[1:2]
        assert catalog.erasures(device=a) == [rows[0], rows[2]]
        assert catalog.erasures(device=99) == []

    def test_which_epochs_are_destroyed_and_how_many_erasures_are_open(self, catalog: Catalog) -> None:
        a, b, c = (add_device(catalog) for _ in range(3))
        for device in (a, a, b, c):
            erase(catalog, device)
        assert catalog.erased_epochs() == {}
        assert catalog.erasure_counts() == {"marked": 4, "keys destroyed": 0, "unindexed": 0}
        catalog.note_keys_destroyed({c: (1, 0), a: (1, 2)}, fence=None, now_ms=NOW)
        catalog.note_keys_destroyed({a: (2, 2)}, fence=None, now_ms=NOW)
        catalog.unindex_device(a, fence=lease(catalog), now_ms=NOW, delete_after_ms=NOW)
        assert catalog.erased_epochs() == {a: 2, c: 1}
        assert catalog.erased_epochs(limit=1) == {a: 2}
        assert catalog.erased_epochs(after=a) == {c: 1}
        assert catalog.erasure_counts() == {"marked": 1, "keys destroyed": 1, "unindexed": 2}

    def test_the_oldest_that_waits_is_the_one_whose_keys_or_rows_are_still_there(
        self, catalog: Catalog
    ) -> None:
        assert catalog.oldest_waiting_erasure_ms() is None
        a, b = add_device(catalog), add_device(catalog)
        for device, at_ms in ((a, NOW), (b, NOW + 5)):
            catalog.update_device(
                device, lambda old: replace(old, erase_epoch=1), what="erasing", now_ms=at_ms
            )
        assert catalog.oldest_waiting_erasure_ms() == NOW
        fence = lease(catalog)
        catalog.note_keys_destroyed({a: (1, 1)}, fence=fence, now_ms=NOW + 9)
        assert catalog.oldest_waiting_erasure_ms() == NOW, "its rows wait"
        catalog.unindex_device(a, fence=fence, now_ms=NOW + 9, delete_after_ms=NOW)
        assert catalog.oldest_waiting_erasure_ms() == NOW + 5
        catalog.note_keys_destroyed({b: (1, 1)}, fence=fence, now_ms=NOW + 9)
        catalog.unindex_device(b, fence=fence, now_ms=NOW + 9, delete_after_ms=NOW)
        assert catalog.oldest_waiting_erasure_ms() is None, "what only waits for backups does not count"

    def test_keys_that_a_backup_brought_back_begin_their_wait_anew(self, catalog: Catalog) -> None:
        a, b, c = (add_device(catalog) for _ in range(3))
        for device in (a, b, c):
            erase(catalog, device)
        fence = lease(catalog)
        catalog.note_keys_destroyed({a: (1, 1), b: (1, 1)}, fence=fence, now_ms=NOW)
        for device in (a, b):
            catalog.unindex_device(device, fence=fence, now_ms=NOW, delete_after_ms=NOW)
        assert catalog.clear_erasures(destroyed_before_ms=NOW, fence=fence, now_ms=NOW) == 2
        catalog.note_verified(catalog.erasures(device=a)[0].erasure_id, "how", now_ms=NOW)
        assert catalog.reopen_erasures([a, c], now_ms=NOW + 5) == 1  # c's were never destroyed
        [again] = catalog.erasures(device=a)
        assert (again.keys_destroyed_ms, again.cleared_ms) == (NOW + 5, None)
        assert (again.verified_ms, again.verified) == (None, "")
        assert catalog.erasures(device=b)[0].state == "cleared"
        assert catalog.clear_erasures(destroyed_before_ms=NOW + 4, fence=fence, now_ms=NOW + 9) == 0
        assert catalog.clear_erasures(destroyed_before_ms=NOW + 5, fence=fence, now_ms=NOW + 9) == 1

    def test_only_the_holder_of_the_lease_notes_what_it_did(self, catalog: Catalog) -> None:
        """Invariant 8. Who destroyed keys outside of a sweep says so without a lease."""
        device = add_device(catalog)
        erase(catalog, device)
        stale = lease(catalog)
        catalog.release_lease("sweep", fence=stale)
        before = catalog.erasures()
        for act in (
            lambda: catalog.note_keys_destroyed({device: (1, 1)}, fence=stale, now_ms=NOW),
            lambda: catalog.clear_erasures(destroyed_before_ms=NOW, fence=stale, now_ms=NOW),
        ):
            with pytest.raises(LeaseLost):
                act()
        assert catalog.erasures() == before
