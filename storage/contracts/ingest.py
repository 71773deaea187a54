"""What `storage.catalog.ingest.IngestCatalog` promises: keys, commits, races, and killed processes."""

from __future__ import annotations

import itertools
import multiprocessing
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest

from storage.catalog import Catalog
from storage.contracts.given import (
    CONFLICT,
    DAY,
    DELETED,
    DUPLICATE,
    ENDS,
    ERASED,
    EXPIRED,
    MONTH,
    NOON,
    NOW,
    RECLAIMED,
    STORED,
    WEEK,
    OnCatalog,
    Opener,
    Upload,
    add_class,
    add_device,
    captures,
    commit,
    erase,
    everything,
    index_of,
    lease,
    only_segment,
    refused,
    segment_of,
    segments,
    verdicts,
)
from storage.days import MS_PER_DAY, ms_of_day
from storage.errors import CallerError
from storage.media_facts import FACTS_BYTES
from storage.objects import checked_key
from storage.rows.devices import EraseState
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS, ChunkRow, SegmentState, SentInit, Verdict


def commit_for_ever(opener: Opener, device: int, worker: int, chunks: int, reports: Connection) -> None:
    """Commit segment after segment; report each one's capture times once its commit has returned."""
    catalog = opener()
    for turn in itertools.count():
        times = [NOON + worker * 10_000_000 + turn * 1000 + i for i in range(chunks)]
        assert set(commit(catalog, *(Upload(device, t) for t in times))) == {STORED}
        reports.send(times)


class IngestContract(OnCatalog):
    """See the module docstring."""

    def test_what_is_made_ready_ahead_changes_nothing_else(self, catalog: Catalog) -> None:
        catalog.make_ready(DAY)  # without a plan
        device = add_device(catalog, WEEK, MONTH)
        for _ in range(2):
            catalog.make_ready(DAY)
        assert catalog.chunks(device, 0, 1 << 50, limit=9) == []
        assert commit(catalog, Upload(device, NOON)) == [STORED]
        catalog.make_ready(DAY)
        assert captures(catalog.chunks(device, 0, 1 << 50, limit=9)) == [NOON]
        assert list(catalog.broken_rows()) == []

    def test_an_init_segment_that_a_device_sent_is_noted(self, catalog: Catalog) -> None:
        """More is in `InitsContract`."""
        device = add_device(catalog)
        assert catalog.sent_init(device) is None
        catalog.note_init(device, SentInit(0, 7, ENDS, NOW))
        assert catalog.sent_init(device) == SentInit(0, 7, ENDS, NOW)

    def test_prepared_keys_are_new_and_say_when_they_may_go(self, catalog: Catalog, sound: None) -> None:
        """Invariant 5: the key is there before the first byte. Invariant 4: none is given twice."""
        found = []
        for worker in ("w0", "w1"):
            found += catalog.prepare(worker=worker, class_days=31, expires_on=ENDS, count=20, now_ms=NOW)
        assert len({k.key for k in found}) == len({k.segment_id for k in found}) == 40
        for key in found:
            assert checked_key(key.key) == key.key
            assert key.prepared_ms == NOW
        version, class_days, date, worker, _ = found[0].key.split("/")
        assert (version, class_days, date, worker) == ("v1", "31", "2024-10-12", "w0")
        assert [(r.segment_id, r.key, r.state) for r in segments(catalog)] == [
            (k.segment_id, k.key, SegmentState.PREPARED) for k in found
        ]
        assert catalog.highest_segment_id() == found[-1].segment_id
        assert catalog.prepare(worker="w0", class_days=31, expires_on=ENDS, count=0, now_ms=NOW) == []

    def test_only_prepared_keys_are_released_and_their_ids_never_come_again(self, catalog: Catalog) -> None:
        """Invariant 4."""
        device = add_device(catalog)
        committed = segment_of(catalog, Upload(device, NOON))
        catalog.commit([committed], now_ms=NOW)
        last = segment_of(catalog, Upload(device, NOON + 1))
        catalog.release([committed.segment_id, last.segment_id, 12345])
        catalog.release([])
        assert only_segment(catalog).segment_id == committed.segment_id
        assert catalog.chunk(device, NOON) is not None
        assert catalog.highest_segment_id() == last.segment_id
        assert segment_of(catalog).segment_id > last.segment_id

    def test_a_committed_chunk_has_a_row_with_all_that_reading_needs(
        self, catalog: Catalog, sound: None
    ) -> None:
        device = add_device(catalog)
        segment = segment_of(catalog, Upload(device, NOON), Upload(device, NOON + 5, content=3))
        [found] = catalog.commit([segment], now_ms=NOW)
        assert verdicts(found) == [STORED, STORED]
        row = only_segment(catalog)
        assert (row.state, row.expires_on, row.class_days) == (SegmentState.COMMITTED, ENDS, 31)
        assert (row.size_bytes, row.crc32, row.chunks, row.live_chunks) == (1_000_000, 0xFFFFFFFF, 2, 2)
        assert row.refused == b""
        wanted = segment.index[1]
        assert catalog.chunk(device, NOON + 5) == ChunkRow(
            device=device,
            capture_ms=NOON + 5,
            duration_ms=2000,
            expires_on=ENDS,
            segment_id=segment.segment_id,
            segment_key=row.key,
            ordinal=1,
            offset=int(wanted["offset"]),
            length=1003,
            crc32=int(wanted["crc32"]),
            nonce=wanted["nonce"].tobytes(),
            media=1,
            epoch=0,
            facts=b"\4" * FACTS_BYTES,
        )
        assert catalog.chunk(device, NOON + 6) is None
        assert catalog.chunk(device + 1, NOON) is None

    def test_committing_nothing(self, catalog: Catalog, sound: None) -> None:
        assert catalog.commit([], now_ms=NOW) == []
        [found] = catalog.commit([segment_of(catalog)], now_ms=NOW)
        assert verdicts(found) == []
        assert only_segment(catalog).state == SegmentState.DELETING

    def test_the_same_chunk_again_is_a_duplicate_other_bytes_a_conflict(
        self, catalog: Catalog, sound: None
    ) -> None:
        a, b = add_device(catalog), add_device(catalog)
        assert commit(catalog, Upload(a, NOON, content=1)) == [STORED]
        again = [Upload(a, NOON, 1), Upload(a, NOON, 2), Upload(a, NOON + 1, 1), Upload(b, NOON, 2)]
        assert commit(catalog, *again) == [DUPLICATE, CONFLICT, STORED, STORED]
        assert [refused(r) for r in segments(catalog)] == [[], [0, 1]]
        assert [r.live_chunks for r in segments(catalog)] == [1, 2]
        kept = catalog.chunk(a, NOON)
        assert kept is not None
        assert (kept.segment_id, kept.length) == (segments(catalog)[0].segment_id, 1001)

    @pytest.mark.parametrize("field", ["length", "crc32", "crc64"])
    def test_the_same_chunk_means_length_and_both_checksums(self, catalog: Catalog, field: str) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        for far, wanted in ((False, CONFLICT), (True, DUPLICATE)):
            index = index_of(Upload(device, NOON))
            # What does not make the chunk another one: when it was encrypted, and how long it plays.
            index["nonce"], index["duration_ms"] = b"another one!", 1
            if not far:
                index[field] ^= 1
            [found] = catalog.commit([segment_of(catalog, index=index)], now_ms=NOW)
            assert verdicts(found) == [wanted]

    def test_within_one_segment_the_first_wins(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        same = [Upload(device, NOON, 1), Upload(device, NOON, 1), Upload(device, NOON, 2)]
        assert commit(catalog, *same) == [STORED, DUPLICATE, CONFLICT]
        assert refused(only_segment(catalog)) == [1, 2]

    def test_within_one_batch_the_first_wins(self, catalog: Catalog, sound: None) -> None:
        """Also where its segments expire on different days."""
        device = add_device(catalog, WEEK, MONTH)
        batch = [
            segment_of(catalog, Upload(device, NOON, 1)),
            segment_of(catalog, Upload(device, NOON, 1), Upload(device, NOON + 1)),
            segment_of(catalog, Upload(device, NOON, 2), expires_on=DAY + MONTH + 1),
            segment_of(catalog, Upload(device, NOON + 1), expires_on=DAY + MONTH + 1),
        ]
        found = [verdicts(v) for v in catalog.commit(batch, now_ms=NOW)]
        assert found == [[STORED], [DUPLICATE, STORED], [CONFLICT], [DUPLICATE]]
        states = [r.state for r in segments(catalog)]
        assert states == [SegmentState.COMMITTED] * 2 + [SegmentState.DELETING] * 2

    @pytest.mark.parametrize(("first", "then"), [(WEEK, MONTH), (MONTH, WEEK)])
    def test_unique_across_days_after_a_change_of_retention(
        self, catalog: Catalog, sound: None, first: int, then: int
    ) -> None:
        device = add_device(catalog, first)
        assert commit(catalog, Upload(device, NOON, 1), expires_on=DAY + first + 1) == [STORED]
        add_class(catalog, device, then)
        again = [Upload(device, NOON, 1), Upload(device, NOON, 2), Upload(device, NOON + 1)]
        assert commit(catalog, *again, expires_on=DAY + then + 1) == [DUPLICATE, CONFLICT, STORED]
        assert captures(catalog.chunks(device, NOON, NOON + 2, limit=9)) == [NOON, NOON + 1]

    @pytest.mark.parametrize("early_first", [True, False])
    @pytest.mark.parametrize("into_day_ms", [0, MAX_CLOCK_AHEAD_MS - 1])
    def test_unique_across_days_when_the_camera_is_ahead_at_midnight(
        self, catalog: Catalog, sound: None, early_first: bool, into_day_ms: int
    ) -> None:
        """Just past midnight by its own clock, a chunk expires by the server's day, one earlier."""
        device = add_device(catalog)
        capture_ms = ms_of_day(DAY) + into_day_ms
        days = [ENDS - 1, ENDS] if early_first else [ENDS, ENDS - 1]
        assert commit(catalog, Upload(device, capture_ms, 1), expires_on=days[0]) == [STORED]
        again = [Upload(device, capture_ms, 1), Upload(device, capture_ms, 2)]
        assert commit(catalog, *again, expires_on=days[1]) == [DUPLICATE, CONFLICT]
        assert catalog.chunk(device, capture_ms) is not None

    def test_a_class_the_catalog_never_heard_of_is_served_all_the_same(
        self, catalog: Catalog, sound: None
    ) -> None:
        """Invariant 1: a plan change that reached the bitmap but not the catalog must not hide what it let in."""
        device = add_device(catalog, WEEK)
        strange = DAY + 90 + 1
        assert commit(catalog, Upload(device, NOON), expires_on=strange) == [STORED]
        assert catalog.chunk(device, NOON) is not None
        assert captures(catalog.chunks(device, 0, 1 << 62, limit=5)) == [NOON]
        assert captures(catalog.latest_chunks(device, limit=5)) == [NOON]
        assert commit(catalog, Upload(device, NOON)) == [DUPLICATE]
        gone = catalog.delete_range(
            device, NOON, NOON + 1, reason="r", who="w", now_ms=NOW, delete_after_ms=NOW
        )
        assert gone.chunks == 1

    def test_what_was_admitted_before_an_erasure_loses(self, catalog: Catalog, sound: None) -> None:
        """Invariant 9: nothing is written after key destruction; its neighbours are."""
        a, b = add_device(catalog), add_device(catalog)
        erase(catalog, a)
        unknown = 1_000_000
        found = commit(
            catalog, Upload(a, NOON), Upload(b, NOON), Upload(a, NOON + 1, epoch=1), Upload(unknown, NOON)
        )
        assert found == [ERASED, STORED, STORED, ERASED]
        assert refused(only_segment(catalog)) == [0, 3]
        assert (catalog.chunk(a, NOON), catalog.chunk(unknown, NOON)) == (None, None)

    def test_an_epoch_above_the_catalogs_loses_too(self, catalog: Catalog) -> None:
        """As with a catalog restored from a backup: the keys of that epoch are nobody's to vouch for."""
        assert commit(catalog, Upload(add_device(catalog), NOON, epoch=1)) == [ERASED]

    @pytest.mark.parametrize("state", [EraseState.ERASING, EraseState.ERASED, EraseState.NONE])
    def test_rows_of_an_earlier_epoch_are_not_served(self, catalog: Catalog, state: EraseState) -> None:
        """Invariant 2: not with rows still there; also not after a renewal."""
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        erase(catalog, device, state)
        assert catalog.chunk(device, NOON) is None
        assert catalog.chunks(device, 0, 1 << 62, limit=5) == []
        assert catalog.latest_chunks(device, limit=5) == []

    @pytest.mark.parametrize("old_day", [ENDS, DAY + MONTH + 1])
    def test_a_row_of_an_earlier_epoch_gives_way(self, catalog: Catalog, sound: None, old_day: int) -> None:
        """Invariants 1 and 9: a renewal starts empty, and what it stores is found, wherever the old row lies."""
        device, neighbour = add_device(catalog, WEEK, MONTH), add_device(catalog, MONTH, WEEK)
        commit(catalog, Upload(device, NOON, 1), Upload(neighbour, NOON), expires_on=old_day)
        commit(catalog, Upload(device, NOON + 1, 1), expires_on=old_day)
        erase(catalog, device, EraseState.NONE)
        renewed = [Upload(device, NOON, 2, epoch=1), Upload(device, NOON + 1, 1, epoch=1)]
        assert commit(catalog, *renewed) == [STORED, STORED]
        for upload in renewed:
            found = catalog.chunk(device, upload.capture_ms)
            assert found is not None
            assert (found.epoch, found.length, found.expires_on) == (1, 1000 + upload.content, ENDS)
        assert captures(catalog.chunks(device, 0, 1 << 62, limit=5)) == [NOON, NOON + 1]
        assert catalog.chunk(neighbour, NOON) is not None
        rows = segments(catalog)
        assert [refused(r) for r in rows] == [[0], [0], []]
        assert [r.state for r in rows] == [
            SegmentState.COMMITTED,
            SegmentState.DELETING,
            SegmentState.COMMITTED,
        ]

    def test_what_expires_on_a_closed_day_loses(self, catalog: Catalog, sound: None) -> None:
        """Invariant 2, and 12: `closed_through` only grows, whatever a clock says."""
        device = add_device(catalog)
        fence = lease(catalog)
        catalog.advance_closed_through(ENDS, fence=fence)
        catalog.advance_closed_through(ENDS - 5, fence=fence)
        assert catalog.closed_through == ENDS
        assert commit(catalog, Upload(device, NOON)) == [EXPIRED]
        assert commit(catalog, Upload(device, NOON), expires_on=ENDS - 1) == [EXPIRED]
        assert [r.state for r in segments(catalog)] == [SegmentState.DELETING] * 2
        later = Upload(device, NOON + MS_PER_DAY)
        assert commit(catalog, later, expires_on=ENDS + 1) == [STORED]

    def test_what_a_closed_day_still_holds_neither_serves_nor_stands_in_the_way(
        self, catalog: Catalog
    ) -> None:
        """Invariant 2; and a chunk with a longer retention is no duplicate of one that has expired."""
        device = add_device(catalog, WEEK, MONTH)
        commit(catalog, Upload(device, NOON))
        catalog.advance_closed_through(ENDS, fence=lease(catalog))
        assert catalog.chunk(device, NOON) is None
        assert catalog.chunks(device, 0, 1 << 62, limit=5) == []
        assert catalog.latest_chunks(device, limit=5) == []
        assert commit(catalog, Upload(device, NOON), expires_on=DAY + MONTH + 1) == [STORED]
        found = catalog.chunk(device, NOON)
        assert found is not None
        assert found.expires_on == DAY + MONTH + 1

    def test_what_lies_in_a_deleted_range_loses(self, catalog: Catalog, sound: None) -> None:
        a, b = add_device(catalog), add_device(catalog)
        catalog.delete_range(a, NOON, NOON + 10, reason="asked", who="owner", now_ms=NOW, delete_after_ms=NOW)
        uploads = [Upload(a, NOON - 1), Upload(a, NOON), Upload(a, NOON + 9), Upload(a, NOON + 10)]
        found = commit(catalog, *uploads, Upload(b, NOON))
        assert found == [STORED, DELETED, DELETED, STORED, STORED]
        assert refused(only_segment(catalog)) == [1, 2]

    @pytest.mark.parametrize("by", ["itself", "another process"])
    def test_a_commit_goes_by_what_changed_since_the_last(
        self, catalog: Catalog, opener: Opener, sound: None, by: str
    ) -> None:
        """Invariant 9, whoever changed it: nothing that an earlier commit read of a device may be taken for true."""
        erased, cut, moved, same = devices = [add_device(catalog) for _ in range(4)]
        for early in (0, 1):
            assert commit(catalog, *(Upload(d, NOON + early) for d in devices)) == [STORED] * 4
        other = catalog if by == "itself" else opener()
        erase(other, erased)
        assert commit(catalog, *(Upload(d, NOON + 2) for d in devices)) == [ERASED, STORED, STORED, STORED]
        other.delete_range(cut, NOON + 3, NOON + 5, reason="r", who="w", now_ms=NOW, delete_after_ms=NOW)
        assert commit(catalog, *(Upload(d, NOON + 3) for d in devices)) == [ERASED, DELETED, STORED, STORED]
        add_class(other, moved, MONTH)
        monthly = [Upload(moved, NOON), Upload(moved, NOON + 4), Upload(same, NOON + 4)]
        found = commit(catalog, *monthly, expires_on=DAY + MONTH + 1)
        assert found == [DUPLICATE, STORED, STORED]
        late = [Upload(d, NOON + 4) for d in devices]
        assert commit(catalog, *late) == [ERASED, DELETED, DUPLICATE, DUPLICATE]
        if other is not catalog:
            other.close()

    def test_a_segment_whose_key_is_no_longer_prepared_is_refused_whole(
        self, catalog: Catalog, sound: None
    ) -> None:
        """Invariant 5: a late commit on a reclaimed key, or a second one, stores nothing."""
        device = add_device(catalog)
        late, twice, released = (segment_of(catalog, Upload(device, NOON + i)) for i in range(3))
        assert catalog.reclaim([late.segment_id], fence=lease(catalog), now_ms=NOW) == 1
        catalog.commit([twice], now_ms=NOW)
        catalog.release([released.segment_id])
        before = everything(catalog)
        for segment in (late, twice, released):
            [found] = catalog.commit([segment], now_ms=NOW)
            assert verdicts(found) == [RECLAIMED]
        assert everything(catalog) == before
        assert captures(catalog.chunks(device, 0, 1 << 62, limit=5)) == [NOON + 1]

    def test_a_segment_of_another_day_than_its_key_undoes_the_batch(
        self, catalog: Catalog, sound: None
    ) -> None:
        """Invariant 3: under a key of an earlier day its object would go before its chunks."""
        device = add_device(catalog)
        good, bad = segment_of(catalog, Upload(device, NOON)), segment_of(catalog, Upload(device, NOON + 1))
        before = everything(catalog)
        with pytest.raises(CallerError) as caught:
            catalog.commit([good, replace(bad, expires_on=ENDS + 1)], now_ms=NOW)
        assert caught.value.code == "wrong_day"
        assert everything(catalog) == before

    def test_a_segment_without_a_stored_chunk_is_a_tombstone_at_once(
        self, catalog: Catalog, sound: None
    ) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        assert commit(catalog, Upload(device, NOON), Upload(device, NOON, 1)) == [DUPLICATE, CONFLICT]
        [tombstone] = catalog.due_tombstones(NOW, after_id=0, limit=5)
        assert (tombstone.size_bytes, tombstone.reclaimed) == (1_000_000, False)
        assert refused(segments(catalog)[1]) == [0, 1]

    def test_what_belongs_together_is_stored_together_or_not_at_all(
        self, catalog: Catalog, sound: None
    ) -> None:
        device, other = add_device(catalog, WEEK, MONTH), add_device(catalog)
        assert commit(catalog, Upload(device, NOON + 5), Upload(other, NOON)) == [STORED] * 2

        def together(*groups: list[Upload]) -> list[list[Verdict]]:
            both = [segment_of(catalog, *group) for group in groups]
            before = everything(catalog)
            found = [verdicts(each) for each in catalog.commit_whole(both, now_ms=NOW)]
            is_whole = {verdict for each in found for verdict in each} <= {STORED, DUPLICATE}
            assert (everything(catalog) != before) == is_whole
            return found

        half = [Upload(device, NOON + 1), Upload(device, NOON + 2)]
        assert together(half, [Upload(device, NOON + 5, 1)]) == [[STORED] * 2, [CONFLICT]]
        assert together([Upload(device, NOON + 6, epoch=3)], half) == [[ERASED], [STORED] * 2]
        assert captures(catalog.chunks(device, 0, 1 << 50, limit=9)) == [NOON + 5]
        catalog.delete_range(device, NOON + 9, NOON + 10, reason="", who="", now_ms=NOW, delete_after_ms=NOW)
        assert together(half, [Upload(device, NOON + 9)]) == [[STORED] * 2, [DELETED]]
        assert {row.state for row in segments(catalog)} == {SegmentState.COMMITTED, SegmentState.PREPARED}
        # What is there already stands in nobody's way: whoever was not told sends all of it again.
        again = [Upload(device, NOON + 5)]
        assert together(half, again) == [[STORED] * 2, [DUPLICATE]]
        assert together(half, again) == [[DUPLICATE] * 2, [DUPLICATE]]
        assert captures(catalog.chunks(device, 0, 1 << 50, limit=9)) == [NOON + 1, NOON + 2, NOON + 5]

    def test_two_processes_lose_nothing_of_each_other(
        self, catalog: Catalog, opener: Opener, sound: None
    ) -> None:
        """Invariant 1: what each was told is committed is there in the end."""
        device = add_device(catalog)
        told = run_killed(opener, device, workers=2, reports_each=40)
        found = set(captures(catalog.chunks(device, 0, 1 << 62, limit=100_000)))
        assert told <= found

    def test_a_killed_process_has_committed_all_it_reported_and_nothing_by_half(
        self, catalog: Catalog, opener: Opener, sound: None
    ) -> None:
        """Invariant 1, at the catalog: SIGKILL in the middle of commits, several times over."""
        device = add_device(catalog)
        told: set[int] = set()
        for turn in range(4):
            told |= run_killed(opener, device, workers=1, reports_each=3 + 5 * turn, first_worker=turn)
            found = captures(catalog.chunks(device, 0, 1 << 62, limit=100_000))
            assert told <= set(found)
            by_segment = {r.segment_id: r for r in segments(catalog)}
            for segment_id, rows in itertools.groupby(catalog.day_rows(ENDS), lambda r: r.segment_id):
                assert by_segment[segment_id].state == SegmentState.COMMITTED
                assert len(list(rows)) == by_segment[segment_id].chunks == CHUNKS_EACH


CHUNKS_EACH = 30


def run_killed(
    opener: Opener, device: int, *, workers: int, reports_each: int, first_worker: int = 0
) -> set[int]:
    """Let processes commit until each has reported so often, kill them, and return all that they reported."""
    context = multiprocessing.get_context("spawn")
    running = []
    for worker in range(first_worker, first_worker + workers):
        reports, end = context.Pipe(duplex=False)
        process = context.Process(target=commit_for_ever, args=(opener, device, worker, CHUNKS_EACH, end))
        process.start()
        end.close()
        running.append((process, reports))
    told: set[int] = set()
    for _, reports in running:
        for _ in range(reports_each):
            told.update(reports.recv())
    for process, _ in running:
        process.kill()
    for process, reports in running:
        process.join()
        with suppress(EOFError, OSError):  # the last report may be cut
            while True:
                told.update(reports.recv())
        reports.close()
        process.close()
    return told
