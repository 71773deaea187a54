"""What `storage.catalog.sweep.SweepCatalog` promises."""

from __future__ import annotations

import numpy as np
import pytest

from storage.catalog import Catalog
from storage.contracts.given import (
    AFTER,
    DAY,
    ENDS,
    EXPIRED,
    NOON,
    NOW,
    RECLAIMED,
    OnCatalog,
    Upload,
    add_device,
    captures,
    commit,
    everything,
    lease,
    only_segment,
    refused,
    segment_of,
    segments,
    verdicts,
)
from storage.days import MS_PER_DAY, ms_of_day
from storage.errors import CallerError, CatalogCorrupt, LeaseLost
from storage.rows.recordings import ChunkRow, DayTotals, Due, Orphan, SegmentCommit, SegmentState, Unindexed
from storage.segment import MAGIC, TAG_BYTES


class SweepContract(OnCatalog):
    """See the module docstring."""

    def half_dead(
        self, catalog: Catalog, live: int = 1, of: int = 4, expires_on: int = ENDS
    ) -> SegmentCommit:
        """A committed segment of a device of its own, whose last chunks live."""
        device = add_device(catalog, expires_on - DAY - 1)
        segment = segment_of(catalog, *(Upload(device, NOON + i) for i in range(of)), expires_on=expires_on)
        catalog.commit([segment], now_ms=NOW)
        catalog.delete_range(
            device, NOON, NOON + of - live, reason="", who="", now_ms=NOW, delete_after_ms=NOW + 9
        )
        return segment

    def rewritten(self, catalog: Catalog, old: SegmentCommit, *ordinals: int) -> SegmentCommit:
        """A prepared segment of these chunks of another, in this order."""
        index = old.index[list(ordinals)].copy()
        stored = index["length"].astype(np.int64) + TAG_BYTES
        index["offset"] = len(MAGIC) + np.concatenate(([0], np.cumsum(stored)[:-1]))
        return segment_of(catalog, index=index, expires_on=old.expires_on)

    def test_half_dead_segments_best_first(self, catalog: Catalog, sound: None) -> None:
        later = ENDS + 50
        half, most = self.half_dead(catalog, live=2), self.half_dead(catalog, live=1)
        far = self.half_dead(catalog, live=2, expires_on=later)
        for live in (3, 0):
            self.half_dead(catalog, live=live)

        def found(**changed: int) -> list[int]:
            asked = {"after_day": DAY, "now_ms": NOW, "limit": 9} | changed
            return [row.segment_id for row in catalog.half_dead(**asked)]

        assert found() == [far.segment_id, most.segment_id, half.segment_id]
        assert found(limit=1) == [far.segment_id]
        assert found(after_day=ENDS) == [far.segment_id]
        assert found(after_day=later) == []
        catalog.rewrite_failed(far.segment_id, "why", fence=lease(catalog), retry_at_ms=NOW + 5)
        assert found(now_ms=NOW + 4) == [most.segment_id, half.segment_id]
        assert found(now_ms=NOW + 5)[0] == far.segment_id
        assert catalog.totals().failing_tombstones == 0

    def swap(self, catalog: Catalog, old: SegmentCommit, new: SegmentCommit, *ordinals: int) -> bool:
        return catalog.swap_segment(
            old.segment_id,
            new,
            np.array(ordinals),
            fence=lease(catalog),
            now_ms=NOW,
            delete_after_ms=NOW + 9,
        )

    def test_a_swap_moves_rows_and_nothing_else_of_them(self, catalog: Catalog, sound: None) -> None:
        old = self.half_dead(catalog, live=2)
        before = catalog.chunks(int(old.index["device"][0]), 0, 1 << 62, limit=9)
        new = self.rewritten(catalog, old, 3, 2)
        assert self.swap(catalog, old, new, 3, 2)
        after = catalog.chunks(int(old.index["device"][0]), 0, 1 << 62, limit=9)
        assert [row.ordinal for row in after] == [1, 0]
        for was, now in zip(before, after, strict=True):
            assert now.is_same_chunk(was)
            place = {"segment_id", "segment_key", "ordinal", "offset"}
            assert {n for n in ChunkRow._fields if getattr(was, n) != getattr(now, n)} <= place
            assert now.offset == new.index["offset"][now.ordinal]
        gone, kept = segments(catalog)
        assert (gone.state, gone.live_chunks) == (SegmentState.DELETING, 0)
        assert (kept.state, kept.chunks, kept.live_chunks) == (SegmentState.COMMITTED, 2, 2)
        assert catalog.due_tombstones(NOW + 8, after_id=0, limit=9) == []
        assert [t.key for t in catalog.due_tombstones(NOW + 9, after_id=0, limit=9)] == [gone.key]

    def test_what_died_since_it_was_copied_is_refused_in_the_new_segment(
        self, catalog: Catalog, sound: None
    ) -> None:
        old = self.half_dead(catalog, live=2)
        new = self.rewritten(catalog, old, 1, 2, 3)
        assert self.swap(catalog, old, new, 1, 2, 3)
        kept = segments(catalog)[1]
        assert (kept.live_chunks, refused(kept)) == (2, [0])

    def test_a_swap_that_would_lose_a_chunk_changes_nothing(self, catalog: Catalog) -> None:
        old = self.half_dead(catalog, live=2)
        new = self.rewritten(catalog, old, 3)
        before = everything(catalog)
        with pytest.raises(CatalogCorrupt):
            self.swap(catalog, old, new, 3)
        assert everything(catalog) == before

    @pytest.mark.parametrize("meanwhile", ["day closed", "all deleted", "key reclaimed"])
    def test_nothing_is_swapped_when_the_old_or_the_new_is_gone(
        self, catalog: Catalog, sound: None, meanwhile: str
    ) -> None:
        old = self.half_dead(catalog, live=2)
        new = self.rewritten(catalog, old, 2, 3)
        device = int(old.index["device"][0])
        if meanwhile == "day closed":
            catalog.close_day(ENDS, fence=lease(catalog), now_ms=AFTER, delete_after_ms=AFTER)
        elif meanwhile == "all deleted":
            catalog.delete_range(device, 0, NOON + 9, reason="", who="", now_ms=NOW, delete_after_ms=NOW)
        else:
            catalog.reclaim([new.segment_id], fence=lease(catalog), now_ms=NOW)
        served = catalog.chunks(device, 0, 1 << 62, limit=9)
        assert not self.swap(catalog, old, new, 2, 3)
        assert catalog.chunks(device, 0, 1 << 62, limit=9) == served
        assert segments(catalog)[1].state is SegmentState.DELETING

    def test_only_the_holder_of_the_lease_swaps(self, catalog: Catalog) -> None:
        """Invariant 8."""
        old = self.half_dead(catalog, live=2)
        new = self.rewritten(catalog, old, 2, 3)
        stale = lease(catalog)
        catalog.release_lease("sweep", fence=stale)
        before = everything(catalog)
        ordinals = np.array([2, 3])
        for act in (
            lambda: catalog.swap_segment(
                old.segment_id, new, ordinals, fence=stale, now_ms=NOW, delete_after_ms=NOW
            ),
            lambda: catalog.rewrite_failed(old.segment_id, "x", fence=stale, retry_at_ms=NOW),
            lambda: catalog.adopt_orphans(
                [Orphan("v1/1/x", 1, ENDS, 5)], fence=stale, now_ms=NOW, delete_after_ms=NOW
            ),
            lambda: catalog.holding_lease(fence=stale).__enter__(),
        ):
            with pytest.raises(LeaseLost):
                act()
        assert everything(catalog) == before

    def test_a_day_is_closed_in_one_step(self, catalog: Catalog, sound: None) -> None:
        """Invariant 6: un-indexed and tombstoned at once. Invariant 3: no other day is touched."""
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1))
        commit(catalog, Upload(device, NOON + 1), Upload(device, NOON + 2))
        commit(catalog, Upload(device, NOON + MS_PER_DAY), expires_on=ENDS + 1)
        late = segment_of(catalog, Upload(device, NOON + 3))
        assert catalog.open_days(ENDS - 1) == []
        wanted = DayTotals(ENDS, segments=2, chunks=3, size_bytes=2_000_000)
        assert catalog.open_days(ENDS) == [wanted]
        assert catalog.open_days(ENDS + 1) == [wanted, DayTotals(ENDS + 1, 1, 1, 1_000_000)]
        fence = lease(catalog)
        assert catalog.close_day(ENDS, fence=fence, now_ms=AFTER, delete_after_ms=AFTER + 9) == wanted
        assert catalog.closed_through == ENDS
        assert catalog.open_days(ENDS) == []
        assert list(catalog.day_rows(ENDS)) == []
        assert captures(catalog.chunks(device, 0, 1 << 62, limit=9)) == [NOON + MS_PER_DAY]
        assert catalog.due_tombstones(AFTER + 8, after_id=0, limit=9) == []
        assert len(catalog.due_tombstones(AFTER + 9, after_id=0, limit=9)) == 2
        [found] = catalog.commit([late], now_ms=AFTER)
        assert verdicts(found) == [EXPIRED]
        before = everything(catalog)
        again = catalog.close_day(ENDS, fence=fence, now_ms=AFTER, delete_after_ms=AFTER)
        assert again == DayTotals(ENDS, 0, 0, 0)
        assert everything(catalog) == before

    def test_a_day_that_has_not_come_is_not_closed(self, catalog: Catalog, sound: None) -> None:
        """Invariant 3, whoever asks."""
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        before = everything(catalog)
        with pytest.raises(CallerError) as caught:
            catalog.close_day(ENDS, fence=lease(catalog), now_ms=ms_of_day(ENDS) - 1, delete_after_ms=AFTER)
        assert caught.value.code == "not_expired"
        assert everything(catalog) == before
        assert catalog.closed_through == 0

    def test_prepared_keys_past_their_time_are_found(self, catalog: Catalog) -> None:
        """Invariant 5: without listing the bucket."""
        device = add_device(catalog)
        old = [segment_of(catalog, Upload(device, NOON + i)) for i in range(3)]
        catalog.prepare(worker="w", class_days=31, expires_on=ENDS, count=1, now_ms=NOW + 10)
        catalog.commit(old[1:2], now_ms=NOW)
        assert catalog.stale_prepared(NOW, limit=9) == []
        found = catalog.stale_prepared(NOW + 1, limit=9)
        assert [(r.segment_id, r.state) for r in found] == [
            (s.segment_id, SegmentState.PREPARED) for s in (old[0], old[2])
        ]
        assert [r.segment_id for r in catalog.stale_prepared(NOW + 11, limit=2)] == [
            r.segment_id for r in found
        ]

    def test_a_reclaimed_key_is_deleted_twice(self, catalog: Catalog, sound: None) -> None:
        """Invariant 5: a PUT that stalled until after the first deletion leaves no orphan."""
        device, fence = add_device(catalog), lease(catalog)
        segment, committed = (segment_of(catalog, Upload(device, NOON + i)) for i in range(2))
        catalog.commit([committed], now_ms=NOW)
        one = [segment.segment_id]
        assert catalog.reclaim([*one, committed.segment_id, 999], fence=fence, now_ms=NOW) == 1
        assert catalog.reclaim([], fence=fence, now_ms=NOW) == 0
        assert catalog.chunk(device, NOON + 1) is not None
        [tombstone] = catalog.due_tombstones(NOW, after_id=0, limit=9)
        assert (tombstone.segment_id, tombstone.reclaimed, tombstone.attempts) == (*one, True, 0)
        assert catalog.deleted(one, fence=fence, now_ms=NOW, again_at_ms=NOW + 100) == 0
        assert catalog.due_tombstones(NOW + 99, after_id=0, limit=9) == []
        # Told again, because the answer got lost on its way: this is not the second deletion.
        assert catalog.deleted(one, fence=fence, now_ms=NOW + 1, again_at_ms=NOW + 101) == 0
        [tombstone] = catalog.due_tombstones(NOW + 100, after_id=0, limit=9)
        [found] = catalog.commit([segment], now_ms=NOW)
        assert verdicts(found) == [RECLAIMED]
        assert catalog.deleted(one, fence=fence, now_ms=NOW + 100, again_at_ms=NOW + 200) == 1
        [found] = catalog.commit([segment], now_ms=NOW)
        assert verdicts(found) == [RECLAIMED]
        assert only_segment(catalog).segment_id == committed.segment_id

    def test_only_tombstones_are_forgotten(self, catalog: Catalog, sound: None) -> None:
        """Invariant 6: and only the confirmed ones."""
        device, fence = add_device(catalog), lease(catalog)
        committed, prepared, *dead = (segment_of(catalog, Upload(device, NOON)) for _ in range(5))
        catalog.commit([committed, *dead], now_ms=NOW)
        ids = [committed.segment_id, prepared.segment_id, *(s.segment_id for s in dead[:2]), 999]
        assert catalog.deleted(ids, fence=fence, now_ms=NOW, again_at_ms=NOW) == 2
        assert catalog.deleted([], fence=fence, now_ms=NOW, again_at_ms=NOW) == 0
        left = [r.segment_id for r in segments(catalog)]
        assert left == [committed.segment_id, prepared.segment_id, dead[2].segment_id]

    def test_a_failed_delete_is_set_aside_and_stops_nothing(self, catalog: Catalog, sound: None) -> None:
        """Invariant 7: retried for ever, and its age is told from the first day on."""
        device, fence = add_device(catalog), lease(catalog)
        batch = [segment_of(catalog, Upload(device, NOON)) for _ in range(4)]
        catalog.commit(batch, now_ms=NOW)
        poisoned, *others = (s.segment_id for s in batch[1:])
        for attempt in range(3):
            now_ms = NOW + attempt * 100
            [first, *_] = catalog.due_tombstones(now_ms, after_id=0, limit=9)
            assert (first.segment_id, first.attempts) == (poisoned, attempt)
            catalog.delete_failed({poisoned: "AccessDenied" * 100}, fence=fence, retry_at_ms=now_ms + 100)
            due = catalog.due_tombstones(now_ms + 99, after_id=0, limit=9)
            assert [t.segment_id for t in due] == others
        assert catalog.totals().failing_tombstones == 1
        catalog.delete_failed({999: "none", batch[0].segment_id: "live"}, fence=fence, retry_at_ms=0)
        assert catalog.chunk(device, NOON) is not None
        assert catalog.deleted(others, fence=fence, now_ms=NOW, again_at_ms=NOW) == 2
        totals = catalog.totals()
        assert (totals.tombstones, totals.failing_tombstones, totals.oldest_tombstone_ms) == (1, 1, NOW)
        assert catalog.deleted([poisoned], fence=fence, now_ms=NOW + 300, again_at_ms=NOW) == 1

    def test_tombstones_come_in_pages_in_order(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        catalog.commit([segment_of(catalog, Upload(device, NOON)) for _ in range(8)], now_ms=NOW)
        found: list[int] = []
        while page := catalog.due_tombstones(NOW, after_id=found[-1] if found else 0, limit=3):
            found += [t.segment_id for t in page]
        assert found == [r.segment_id for r in segments(catalog)[1:]]

    def test_what_is_due_is_summed_as_it_is_listed(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        for at in range(3):
            commit(catalog, Upload(device, NOON + at), expires_on=ENDS - at)
        fence = lease(catalog)
        assert catalog.due_totals(AFTER + 99) == Due()
        for day in range(ENDS - 2, ENDS + 1):
            catalog.close_day(day, fence=fence, now_ms=AFTER, delete_after_ms=AFTER + ENDS - day)
        for late, count in ((-1, 0), (0, 1), (1, 2), (2, 3)):
            listed = catalog.due_tombstones(AFTER + late, after_id=0, limit=9)
            assert catalog.due_totals(AFTER + late) == Due(count, sum(t.size_bytes for t in listed))
            assert len(listed) == count

    def test_a_finished_deletion_has_nothing_left(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        catalog.delete_range(device, 0, NOON + 9, reason="", who="", now_ms=NOW, delete_after_ms=NOW)
        assert catalog.unfinished_deletions() == []
        assert catalog.finish_deletion(1, now_ms=NOW, delete_after_ms=NOW) == Unindexed()

    def test_days_without_a_segment_are_closed_too(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        catalog.advance_closed_through(ENDS, fence=lease(catalog))
        assert commit(catalog, Upload(device, NOON)) == [EXPIRED]
        assert catalog.open_days(ENDS) == []
