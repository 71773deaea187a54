"""The conformance suite of `storage.catalog.Catalog`.

To put a new catalog to it, subclass it in a test module and say how to open one:

    class TestMyCatalog(CatalogContract):
        @pytest.fixture
        def opener(self): ...   # opens one and the same catalog, empty at first; can be pickled

`opener` is called in other processes too: the suite kills some of them. Captures are on `DAY` unless a test
says otherwise, and kept for `WEEK` or `MONTH`.
"""

from __future__ import annotations

import itertools
import multiprocessing
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.catalog import Catalog
from storage.days import MS_PER_DAY, day_of_ms, ms_of_day
from storage.errors import CallerError, CatalogCorrupt, CatalogUnavailable, LeaseLost, NotFound
from storage.media_facts import FACTS_BYTES
from storage.objects import checked_key
from storage.rows.devices import DeviceFacts, EraseState, PlanRow
from storage.rows.recordings import (
    MAX_CLOCK_AHEAD_MS,
    NOTHING_STORED,
    ChunkRow,
    DayTotals,
    Due,
    LiveListRow,
    Orphan,
    SegmentCommit,
    SegmentMark,
    SegmentRow,
    SegmentState,
    Unindexed,
    Verdict,
)
from storage.segment import INDEX_DTYPE, MAGIC, TAG_BYTES

Opener = Callable[[], Catalog]

DAY = 20_000
NOON = ms_of_day(DAY) + MS_PER_DAY // 2
NOW = NOON
WEEK, MONTH = 7, 30
ENDS = DAY + WEEK + 1
"""The expiry day of what was captured on DAY and is kept for a WEEK."""
AFTER = ms_of_day(ENDS) + 1
"""A time at which that day may be closed."""

STORED, DUPLICATE, CONFLICT = Verdict.STORED, Verdict.DUPLICATE, Verdict.CONFLICT
ERASED, EXPIRED, DELETED, RECLAIMED = Verdict.ERASED, Verdict.EXPIRED, Verdict.DELETED, Verdict.RECLAIMED


@dataclass(frozen=True)
class Upload:
    """A chunk as a commit sees it; `content` stands for its bytes."""

    device: int
    capture_ms: int
    content: int = 0
    epoch: int = 0


def index_of(*uploads: Upload) -> np.ndarray:
    index = np.zeros(len(uploads), INDEX_DTYPE)
    offset = len(MAGIC)
    for row, upload in zip(index, uploads, strict=True):
        content = upload.content.to_bytes(8, "little")
        row["device"], row["capture_ms"], row["epoch"] = upload.device, upload.capture_ms, upload.epoch
        row["length"], row["offset"] = 1000 + upload.content, offset
        row["crc32"] = zlib.crc32(content)
        row["crc64"] = (1 << 63) + zlib.crc32(content, 1)  # above what fits a signed number
        row["duration_ms"], row["media"] = 2000, 1
        row["facts"] = np.void(bytes([1 + upload.content % 255]) * FACTS_BYTES)
        row["nonce"] = np.void(repr((upload, offset)).encode()[-12:])
        offset += int(row["length"]) + TAG_BYTES
    return index


def segment_of(
    catalog: Catalog, *uploads: Upload, expires_on: int = ENDS, index: np.ndarray | None = None
) -> SegmentCommit:
    """A segment whose key is prepared and whose object, one would think, is stored."""
    [key] = catalog.prepare(worker="w0", class_days=31, expires_on=expires_on, count=1, now_ms=NOW)
    rows = index_of(*uploads) if index is None else index
    return SegmentCommit(key.segment_id, expires_on, 1_000_000, 0xFFFFFFFF, rows)


def verdicts(found: np.ndarray) -> list[Verdict]:
    assert found.dtype == np.uint8
    return [Verdict(v) for v in found.tolist()]


def commit(catalog: Catalog, *uploads: Upload, expires_on: int = ENDS) -> list[Verdict]:
    [found] = catalog.commit([segment_of(catalog, *uploads, expires_on=expires_on)], now_ms=NOW)
    return verdicts(found)


def add_device(catalog: Catalog, *classes: int) -> int:
    plans = [PlanRow(0, "monthly", DAY, None, days) for days in classes or (WEEK,)]
    return catalog.add_devices(1, account=1, plans=plans, now_ms=NOW)[0].device


def add_class(catalog: Catalog, device: int, days: int) -> None:
    plan = PlanRow(0, "annual", DAY, None, days)
    catalog.update_device(device, lambda old: replace(old, plans=(plan,)), what="retention", now_ms=NOW)


def erase(catalog: Catalog, device: int, state: EraseState = EraseState.ERASING) -> None:
    catalog.update_device(
        device,
        lambda old: replace(old, erase_state=state, erase_epoch=old.erase_epoch + 1),
        what="erase",
        now_ms=NOW,
    )


def lease(catalog: Catalog, holder: str = "sweeper", now_ms: int = NOW) -> int:
    fence = catalog.acquire_lease("sweep", holder=holder, ttl_ms=60_000, now_ms=now_ms)
    assert fence is not None
    return fence


def segments(catalog: Catalog) -> list[SegmentRow]:
    found: list[SegmentRow] = []
    while batch := catalog.segments(after_id=found[-1].segment_id if found else 0, limit=7):
        found += batch
    return found


def day_rows(catalog: Catalog) -> dict[int, list[ChunkRow]]:
    days = {row.expires_on for row in segments(catalog)}
    found = {day: list(catalog.day_rows(day)) for day in sorted(days)}
    return {day: rows for day, rows in found.items() if rows}


def everything(catalog: Catalog) -> tuple[object, ...]:
    """All that the interface tells, to say that nothing changed."""
    facts = catalog.devices(limit=100_000)
    return segments(catalog), day_rows(catalog), facts, catalog.totals(), catalog.newest_change()


def only_segment(catalog: Catalog) -> SegmentRow:
    [row] = segments(catalog)
    return row


def refused(row: SegmentRow) -> list[int]:
    return sorted(np.frombuffer(row.refused, dtype="<u4").tolist())


def captures(rows: list[ChunkRow]) -> list[int]:
    return [row.capture_ms for row in rows]


# --- what runs in other processes -----------------------------------------------------------------------------


def commit_for_ever(opener: Opener, device: int, worker: int, chunks: int, reports: Connection) -> None:
    """Commit segment after segment; report each one's capture times once its commit has returned."""
    catalog = opener()
    for turn in itertools.count():
        times = [NOON + worker * 10_000_000 + turn * 1000 + i for i in range(chunks)]
        assert set(commit(catalog, *(Upload(device, t) for t in times))) == {STORED}
        reports.send(times)


class CatalogContract:
    """See the module docstring."""

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    def catalog(self, opener: Opener) -> Iterator[Catalog]:
        catalog = opener()
        yield catalog
        catalog.close()

    @pytest.fixture
    def sound(self, catalog: Catalog) -> Iterator[None]:
        """After the test the catalog's own rows must agree (invariant 4). Used by all tests but those that break it."""
        yield
        assert list(catalog.broken_rows()) == []

    # --- whose it is ------------------------------------------------------------------------------------------

    def test_the_home_is_settled_once(self, catalog: Catalog, opener: Opener) -> None:
        assert catalog.home is None
        assert catalog.settle_home((1 << 63) - 1) == (1 << 63) - 1
        assert catalog.settle_home(7) == catalog.home == (1 << 63) - 1
        again = opener()
        assert again.home == (1 << 63) - 1
        again.close()

    # --- prepare, release -------------------------------------------------------------------------------------

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

    # --- commit -----------------------------------------------------------------------------------------------

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

    # --- reading ----------------------------------------------------------------------------------------------

    def test_a_range_is_half_open_sorted_and_bounded(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog, WEEK, MONTH)
        for i in range(5):  # in turns on two expiry days
            commit(catalog, Upload(device, NOON + i), expires_on=ENDS if i % 2 else DAY + MONTH + 1)
        times = [NOON + i for i in range(5)]
        assert captures(catalog.chunks(device, NOON, NOON + 5, limit=9)) == times
        assert captures(catalog.chunks(device, NOON + 1, NOON + 4, limit=9)) == times[1:4]
        for limit in range(1, 7):  # whichever day the earliest or newest ones are on
            assert captures(catalog.chunks(device, 0, 1 << 62, limit=limit)) == times[:limit]
            assert captures(catalog.latest_chunks(device, limit=limit)) == times[-limit:]
        assert catalog.chunks(device, NOON + 2, NOON + 2, limit=9) == []
        assert catalog.chunks(device, NOON + 3, NOON + 2, limit=9) == []
        assert catalog.chunks(device, NOON, NOON + 5, limit=0) == []
        assert catalog.latest_chunks(device, limit=0) == []

    def test_the_newest_before_a_time(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog, WEEK, MONTH)
        for i in range(5):
            commit(catalog, Upload(device, NOON + i), expires_on=ENDS if i % 2 else DAY + MONTH + 1)
        for before in range(6):
            times = [NOON + i for i in range(before)]
            for limit in (1, 2, 9):
                found = catalog.latest_chunks(device, limit=limit, before_ms=NOON + before)
                assert captures(found) == times[-limit:]

    def test_what_was_stored_since_a_segment(self, catalog: Catalog, sound: None) -> None:
        device, other = add_device(catalog), add_device(catalog)
        assert catalog.segment_mark() == NOTHING_STORED
        commit(catalog, Upload(device, NOON + 5), Upload(device, NOON + 7))
        before = catalog.segment_mark()
        assert before == SegmentMark(segments(catalog)[-1].segment_id)
        commit(catalog, Upload(device, NOON + 2), Upload(device, NOON + 6), Upload(other, NOON + 3))
        found = catalog.chunks_stored_after(device, before, 0, NOON + 9, limit=9)
        assert captures(found) == [NOON + 2, NOON + 6]
        assert found == [row for row in catalog.chunks(device, 0, NOON + 9, limit=9) if row in found]
        assert captures(catalog.chunks_stored_after(device, before, NOON + 3, NOON + 9, limit=9)) == [
            NOON + 6
        ]
        assert captures(catalog.chunks_stored_after(device, before, 0, NOON + 9, limit=1)) == [NOON + 2]
        assert catalog.chunks_stored_after(device, catalog.segment_mark(), 0, NOON + 9, limit=9) == []

    def test_what_was_stored_since_under_a_number_prepared_before(
        self, catalog: Catalog, sound: None
    ) -> None:
        device = add_device(catalog)
        first, *late, last = (segment_of(catalog, Upload(device, NOON + i)) for i in range(5))
        catalog.commit([first], now_ms=NOW)
        catalog.commit([last], now_ms=NOW)
        mark = catalog.segment_mark()
        assert mark == SegmentMark(last.segment_id, ((first.segment_id + 1, last.segment_id - 1),))
        catalog.commit(late, now_ms=NOW)
        found = catalog.chunks_stored_after(device, mark, 0, NOON + 9, limit=9)
        assert captures(found) == [NOON + 1, NOON + 2, NOON + 3]
        assert catalog.segment_mark() == SegmentMark(last.segment_id)

    def test_a_live_list_is_changed_by_who_saw_the_last_change(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        assert catalog.live_list(device) is None
        assert not catalog.put_live_list(device, LiveListRow(2, 0, "b"))
        assert catalog.put_live_list(device, LiveListRow(1, 0, "a"))
        assert not catalog.put_live_list(device, LiveListRow(1, 0, "other"))
        assert catalog.put_live_list(device, LiveListRow(2, 0, "b"))
        assert not catalog.put_live_list(device, LiveListRow(2, 0, "other"))
        assert not catalog.put_live_list(device, LiveListRow(4, 0, "other"))
        assert catalog.live_list(device) == LiveListRow(2, 0, "b")
        assert not catalog.put_live_list(device + 1, LiveListRow(1, 0, "a"))

    def test_a_live_list_goes_with_the_recordings(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        assert catalog.put_live_list(device, LiveListRow(1, 0, "a"))
        erase(catalog, device)
        assert catalog.live_list(device) is None
        assert not catalog.put_live_list(device, LiveListRow(1, 0, "a"))
        assert not catalog.put_live_list(device, LiveListRow(2, 0, "a"))
        assert catalog.put_live_list(device, LiveListRow(1, 1, "a"))

    def test_the_newest_chunk_may_expire_first(self, catalog: Catalog, sound: None) -> None:
        """Just past midnight, a camera that was ahead: its chunk is on the day before, and still the newest."""
        device = add_device(catalog)
        midnight = ms_of_day(DAY)
        commit(catalog, Upload(device, midnight + 1))
        commit(catalog, Upload(device, midnight + 2), expires_on=ENDS - 1)
        assert captures(catalog.latest_chunks(device, limit=1)) == [midnight + 2]
        assert captures(catalog.chunks(device, 0, 1 << 62, limit=1)) == [midnight + 1]

    model_ops = st.lists(
        st.one_of(
            st.tuples(
                st.just("commit"),
                st.lists(
                    st.tuples(
                        st.integers(0, 1),  # device
                        st.sampled_from([WEEK, MONTH]),
                        st.sampled_from([0, 1, 2, 9]),  # capture day
                        st.sampled_from([0, 1, MAX_CLOCK_AHEAD_MS - 1, MAX_CLOCK_AHEAD_MS, MS_PER_DAY - 1]),
                        st.booleans(),  # the camera's clock is ahead of the server's by 10 minutes
                        st.integers(0, 1),  # content
                    ),
                    min_size=1,
                    max_size=6,
                ),
            ),
            st.tuples(st.just("erase"), st.integers(0, 1)),
            st.tuples(st.just("unindex"), st.integers(0, 1)),
            st.tuples(st.just("delete"), st.integers(0, 1), st.integers(0, 3), st.integers(1, 3)),
            st.tuples(st.just("close"), st.integers(0, 12)),
        ),
        max_size=8,
    )
    bases = itertools.count(DAY, 100)

    @settings(
        max_examples=40,
        deadline=None,
        # The suite is run by a class for each implementation: hypothesis takes those for one.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(ops=model_ops, limit=st.integers(1, 5))
    def test_it_equals_a_dict(
        self, catalog: Catalog, sound: None, ops: list[tuple[Any, ...]], limit: int
    ) -> None:
        """Whatever is committed, erased, deleted and closed: what is served is what a dict would hold."""
        base = next(self.bases)  # each example has its own days: a closed one stays closed
        plans = [PlanRow(0, "monthly", base, None, days) for days in (WEEK, MONTH)]
        devices = [d.device for d in catalog.add_devices(2, account=1, plans=plans, now_ms=NOW)]
        epochs = [0, 0]
        model: dict[tuple[int, int], tuple[int, int]] = {}  # (device, capture) -> (content, expires_on)
        deleted: list[tuple[int, int, int]] = []
        closed = base - 50
        fence = lease(catalog, now_ms=NOW + base * MS_PER_DAY)
        for op, *args in ops:
            if op == "commit":
                by_day: dict[int, list[tuple[int, int, int]]] = {}
                for which, days, day, into_day_ms, ahead, content in args[0]:
                    capture_ms = ms_of_day(base + day) + into_day_ms
                    server_ms = capture_ms - MAX_CLOCK_AHEAD_MS if ahead else capture_ms
                    expires_on = day_of_ms(min(capture_ms, server_ms)) + days + 1
                    by_day.setdefault(expires_on, []).append((which, capture_ms, content))
                batch: list[SegmentCommit] = []
                wanted: list[list[Verdict]] = []
                for expires_on, chunks in by_day.items():
                    uploads = [Upload(devices[w], t, content, epochs[w]) for w, t, content in chunks]
                    batch.append(segment_of(catalog, *uploads, expires_on=expires_on))
                    wanted.append([])
                    for which, t, content in chunks:
                        if expires_on <= closed:
                            wanted[-1].append(EXPIRED)
                        elif any(w == which and start <= t < end for w, start, end in deleted):
                            wanted[-1].append(DELETED)
                        elif (which, t) in model:
                            same = model[which, t][0] == content
                            wanted[-1].append(DUPLICATE if same else CONFLICT)
                        else:
                            wanted[-1].append(STORED)
                            model[which, t] = (content, expires_on)
                assert [verdicts(v) for v in catalog.commit(batch, now_ms=NOW)] == wanted
            elif op == "erase":
                erase(catalog, devices[args[0]], EraseState.ERASED)
                epochs[args[0]] += 1
                model = {k: v for k, v in model.items() if k[0] != args[0]}
            elif op == "unindex":
                catalog.unindex_device(devices[args[0]], fence=fence, now_ms=NOW, delete_after_ms=NOW)
            elif op == "delete":
                which, day, length = args
                start, end = ms_of_day(base + day), ms_of_day(base + day + length)
                catalog.delete_range(
                    devices[which], start, end, reason="r", who="w", now_ms=NOW, delete_after_ms=NOW
                )
                deleted.append((which, start, end))
                model = {k: v for k, v in model.items() if k[0] != which or not start <= k[1] < end}
            else:
                day = base + args[0] + WEEK
                for each in (*(d.expires_on for d in catalog.open_days(day)), day):
                    catalog.close_day(each, fence=fence, now_ms=ms_of_day(day), delete_after_ms=NOW)
                closed = max(closed, day)
                model = {k: v for k, v in model.items() if v[1] > closed}
        for which, device in enumerate(devices):
            times = sorted(t for w, t in model if w == which)
            found = catalog.chunks(device, 0, 1 << 62, limit=1000)
            assert [(r.capture_ms, r.length - 1000, r.expires_on) for r in found] == [
                (t, *model[which, t]) for t in times
            ]
            assert captures(catalog.chunks(device, 0, 1 << 62, limit=limit)) == times[:limit]
            assert captures(catalog.latest_chunks(device, limit=limit)) == times[-limit:]
            middle = ms_of_day(base + 1)
            wanted_times = [t for t in times if middle <= t < middle + 2 * MS_PER_DAY]
            assert captures(catalog.chunks(device, middle, middle + 2 * MS_PER_DAY, limit=99)) == wanted_times
            for t in times:
                row = catalog.chunk(device, t)
                assert row is not None
                assert row.length == 1000 + model[which, t][0]

    # --- devices and plans ------------------------------------------------------------------------------------

    def test_many_devices_at_once(self, catalog: Catalog, sound: None) -> None:
        plans = [PlanRow(0, "trial", DAY, DAY + 13, WEEK), PlanRow(0, "monthly", DAY + 14, None, MONTH)]
        added = catalog.add_devices(1000, account=1, plans=plans, now_ms=NOW)
        first = added[0].device
        assert [d.device for d in added] == list(range(first, first + 1000))
        ids = [p.plan_id for d in added for p in d.plans]
        assert len(set(ids)) == 2000
        assert 0 not in ids
        for facts in added[:: len(added) - 1]:
            assert [replace(p, plan_id=0) for p in facts.plans] == plans
            assert facts == DeviceFacts(facts.device, 1, 1, 0, plans=facts.plans)
            assert catalog.device(facts.device) == facts
        assert catalog.devices(after=first + 10, limit=3) == added[11:14]
        assert catalog.changes_after(0) == ([d.device for d in added], catalog.newest_change())
        assert catalog.totals().devices == 1000

    def test_devices_without_plans_and_none_at_all(self, catalog: Catalog) -> None:
        assert catalog.add_devices(0, account=1, plans=[], now_ms=NOW) == []
        assert catalog.newest_change() == 0
        [facts] = catalog.add_devices(1, account=1, plans=[], now_ms=NOW)
        assert facts.plans == ()

    def test_what_does_not_exist_is_not_found(self, catalog: Catalog) -> None:
        before = everything(catalog)
        calls: list[Callable[[], object]] = [
            lambda: catalog.device(99),
            lambda: catalog.update_device(99, lambda old: old, what="", now_ms=NOW),
            lambda: catalog.delete_range(99, 0, 1, reason="", who="", now_ms=NOW, delete_after_ms=NOW),
            lambda: catalog.add_devices(1, account=99, plans=[], now_ms=NOW),
        ]
        for call in calls:
            with pytest.raises(NotFound):
                call()
        assert everything(catalog) == before

    def test_all_facts_of_a_device_can_change_and_come_back(self, catalog: Catalog) -> None:
        device = add_device(catalog, WEEK)
        old = catalog.device(device)
        new = replace(
            old,
            token_generation=2,
            erase_epoch=3,
            suspended=True,
            terminated_ms=NOW,
            erase_state=EraseState.ERASED,
            erase_reason="asked for",
            plans=(
                replace(old.plans[0], ends_on=DAY + 5, cancelled_on=DAY + 2),
                PlanRow(0, "annual", DAY + 6, None, MONTH),
            ),
        )
        stored, number = catalog.update_device(device, lambda _: new, what="all", now_ms=NOW)
        assert stored == catalog.device(device)
        assert stored.plans[0] == new.plans[0]
        assert stored.plans[1].plan_id not in (0, stored.plans[0].plan_id)
        assert replace(stored, plans=()) == replace(new, plans=())
        assert number == catalog.newest_change()
        fewer, later = catalog.update_device(
            device, lambda f: replace(f, plans=f.plans[1:]), what="fewer", now_ms=NOW
        )
        assert fewer.plans == stored.plans[1:]
        assert later > number

    def test_changes_are_numbered_and_each_device_told_once(self, catalog: Catalog) -> None:
        a, b = add_device(catalog), add_device(catalog)
        seen = catalog.newest_change()
        assert catalog.changes_after(seen) == ([], seen)
        numbers = [
            catalog.update_device(d, lambda f: replace(f, suspended=not f.suspended), what="", now_ms=NOW)[1]
            for d in (b, a, b)
        ]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > seen
        assert catalog.changes_after(seen) == ([a, b], numbers[-1])
        assert catalog.changes_after(numbers[1]) == ([b], numbers[-1])

    def test_who_reads_changes_up_to_a_number_misses_none_that_is_committed_late(
        self, catalog: Catalog
    ) -> None:
        """Numbers without gaps, seen in the order in which they are given, however long a writer takes."""
        numbers = [add_device(catalog) for _ in range(24)]
        first = seen = catalog.newest_change()
        told: list[int] = []

        def change(device: int) -> None:
            catalog.update_device(
                device,
                lambda old: replace(old, suspended=True),
                what="suspend",
                now_ms=NOW,
                before_commit=lambda old, new: time.sleep(device % 4 * 0.003),
            )

        with ThreadPoolExecutor(4) as threads:
            changing = [threads.submit(change, device) for device in numbers]
            while seen < first + len(numbers):
                for each in changing:
                    assert not each.done() or each.exception() is None
                devices, newest = catalog.changes_after(seen)
                assert len(devices) == newest - seen, "each number up to the newest is there"
                told += devices
                seen = newest
        assert sorted(told) == numbers

    def test_the_same_facts_change_nothing(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        called = []
        facts, number = catalog.update_device(
            device,
            lambda old: replace(old),
            what="",
            now_ms=NOW,
            before_commit=lambda *_: called.append(1),
        )
        assert (facts, number, called) == (catalog.device(device), 0, [])
        assert catalog.changes_after(0) == ([device], 1)

    def test_a_refusal_changes_nothing(self, catalog: Catalog) -> None:
        device, other = add_device(catalog), add_device(catalog)
        before = everything(catalog)
        foreign = catalog.device(other).plans

        def refuse(old: DeviceFacts) -> DeviceFacts:
            raise CallerError("no", code="refused")

        changes: list[Callable[[DeviceFacts], DeviceFacts]] = [
            refuse,
            lambda old: replace(old, device=other),
            lambda old: replace(old, account=2),
            lambda old: replace(old, suspended=True, plans=foreign),
        ]
        for change in changes:
            with pytest.raises(CallerError):
                catalog.update_device(device, change, what="", now_ms=NOW)
            assert everything(catalog) == before

    def test_before_commit_is_told_inside_the_transaction_and_can_undo_it(
        self, catalog: Catalog, opener: Opener
    ) -> None:
        """A revocation is in the bitmap before it is committed (design §3)."""
        device = add_device(catalog)
        before = everything(catalog)
        other = opener()
        told: list[tuple[DeviceFacts, DeviceFacts, DeviceFacts]] = []

        def tell(old: DeviceFacts, new: DeviceFacts) -> None:
            told.append((old, new, other.device(device)))

        def fail(old: DeviceFacts, new: DeviceFacts) -> None:
            raise OSError("the bitmap is full")

        plan = PlanRow(0, "annual", DAY, None, MONTH)

        def change(old: DeviceFacts) -> DeviceFacts:
            return replace(old, suspended=True, plans=(*old.plans, plan))

        with pytest.raises(OSError, match="the bitmap is full"):
            catalog.update_device(device, change, what="", now_ms=NOW, before_commit=fail)
        assert everything(catalog) == before
        new, _ = catalog.update_device(device, change, what="", now_ms=NOW, before_commit=tell)
        [(old, announced, seen_by_others)] = told
        assert announced == new
        assert announced.plans[-1].plan_id != 0
        assert seen_by_others == old
        assert other.device(device) == new
        other.close()

    def test_devices_changing_on_a_day(self, catalog: Catalog) -> None:
        def with_plan(starts_on: int, ends_on: int | None) -> int:
            plans = [PlanRow(0, "monthly", starts_on, ends_on, WEEK)]
            return catalog.add_devices(1, account=1, plans=plans, now_ms=NOW)[0].device

        with_plan(DAY - 9, None)
        starts, ended = with_plan(DAY, DAY + 5), with_plan(DAY - 9, DAY - 1)
        with_plan(DAY + 1, DAY + 2)
        with_plan(DAY - 9, DAY)
        assert sorted(catalog.devices_changing_on(DAY)) == [starts, ended]

    # --- deleting a range -------------------------------------------------------------------------------------

    def test_a_deleted_range_is_unserved_and_its_neighbours_are_not(
        self, catalog: Catalog, sound: None
    ) -> None:
        a, b = add_device(catalog, WEEK, MONTH), add_device(catalog)
        commit(catalog, *(Upload(a, NOON + i) for i in range(4)), Upload(b, NOON + 1))
        commit(catalog, Upload(a, NOON + 4), expires_on=DAY + MONTH + 1)
        gone = catalog.delete_range(
            a, NOON + 1, NOON + 5, reason="asked", who="owner", now_ms=NOW, delete_after_ms=NOW + 9
        )
        assert gone == Unindexed(chunks=4, size_bytes=4000, dead_segments=1)
        assert captures(catalog.chunks(a, 0, 1 << 62, limit=9)) == [NOON]
        assert catalog.chunk(b, NOON + 1) is not None
        half, dead = segments(catalog)
        assert (half.state, half.live_chunks, refused(half)) == (SegmentState.COMMITTED, 2, [1, 2, 3])
        assert (dead.state, dead.live_chunks, refused(dead)) == (SegmentState.DELETING, 0, [0])
        assert catalog.due_tombstones(NOW + 8, after_id=0, limit=9) == []
        assert [t.segment_id for t in catalog.due_tombstones(NOW + 9, after_id=0, limit=9)] == [
            dead.segment_id
        ]
        again = catalog.delete_range(
            a, NOON + 1, NOON + 5, reason="", who="", now_ms=NOW, delete_after_ms=NOW
        )
        assert again == Unindexed()

    def test_an_empty_range_is_not_deleted(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        for end in (NOON, NOON - 1):
            with pytest.raises(CallerError):
                catalog.delete_range(device, NOON, end, reason="", who="", now_ms=NOW, delete_after_ms=NOW)
        assert commit(catalog, Upload(device, NOON)) == [STORED]

    def test_a_finished_deletion_has_nothing_left(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON))
        catalog.delete_range(device, 0, NOON + 9, reason="", who="", now_ms=NOW, delete_after_ms=NOW)
        assert catalog.unfinished_deletions() == []
        assert catalog.finish_deletion(1, now_ms=NOW, delete_after_ms=NOW) == Unindexed()

    # --- rewriting --------------------------------------------------------------------------------------------

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
            assert {n for n in ChunkRow.__slots__ if getattr(was, n) != getattr(now, n)} <= place
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

    # --- orphans ----------------------------------------------------------------------------------------------

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

    def test_devices_by_number(self, catalog: Catalog) -> None:
        numbers = [add_device(catalog) for _ in range(4)]
        asked = [numbers[3], 999, numbers[1]]
        assert catalog.devices_numbered(asked) == [catalog.device(numbers[1]), catalog.device(numbers[3])]
        assert catalog.devices_numbered([]) == []

    # --- leases and fences ------------------------------------------------------------------------------------

    def test_one_holder_at_a_time_and_tokens_that_only_grow(self, catalog: Catalog) -> None:
        """Invariant 8."""

        def acquire(holder: str, now_ms: int, name: str = "sweep") -> int | None:
            return catalog.acquire_lease(name, holder=holder, ttl_ms=100, now_ms=now_ms)

        first = acquire("a", 0)
        assert first is not None
        assert acquire("b", 99) is None
        assert acquire("a", 50) == first  # renewed, until 150
        assert acquire("b", 149) is None
        second = acquire("b", 150)
        assert second is not None
        assert second > first
        assert acquire("a", 151) is None
        catalog.release_lease("sweep", fence=first)  # no longer ours to give back
        assert acquire("a", 151) is None
        catalog.release_lease("sweep", fence=second)
        third = acquire("a", 151)
        assert third is not None
        assert third > second
        assert acquire("b", 151, name="another") is not None

    @pytest.mark.parametrize("how", ["never held", "taken over", "given back"])
    def test_a_stale_fence_changes_nothing(self, catalog: Catalog, sound: None, how: str) -> None:
        """Invariant 8, for every method that takes a fence."""
        device = add_device(catalog)
        commit(catalog, Upload(device, NOON), Upload(device, NOON + 1))
        commit(catalog, Upload(device, NOON))
        erase(catalog, device, EraseState.ERASED)
        prepared, dead = segment_of(catalog).segment_id, segments(catalog)[1].segment_id
        stale = 1
        if how != "never held":
            stale = lease(catalog, "a")
        if how == "taken over":
            lease(catalog, "b", NOW + 60_000)
        if how == "given back":
            catalog.release_lease("sweep", fence=stale)
        before = everything(catalog)
        late = AFTER + MS_PER_DAY
        calls: list[Callable[[], object]] = [
            lambda: catalog.close_day(ENDS, fence=stale, now_ms=late, delete_after_ms=late),
            lambda: catalog.advance_closed_through(ENDS, fence=stale),
            lambda: catalog.reclaim([prepared], fence=stale, now_ms=late),
            lambda: catalog.deleted([dead], fence=stale, now_ms=late, again_at_ms=late),
            lambda: catalog.delete_failed({dead: "denied"}, fence=stale, retry_at_ms=late),
            lambda: catalog.unindex_device(device, fence=stale, now_ms=late, delete_after_ms=late),
        ]
        for call in calls:
            with pytest.raises(LeaseLost):
                call()
            assert everything(catalog) == before
        assert [d.device for d in catalog.erasing_devices()] == [device]

    # --- the end of a day -------------------------------------------------------------------------------------

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

    # --- tombstones -------------------------------------------------------------------------------------------

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

    # --- erasure ----------------------------------------------------------------------------------------------

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

    # --- check and rebuild ------------------------------------------------------------------------------------

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

    def test_a_closed_catalog_says_so(self, opener: Opener) -> None:
        catalog = opener()
        catalog.totals()
        catalog.close()
        catalog.close()
        with pytest.raises(CatalogUnavailable):
            catalog.totals()

    # --- several processes, and their deaths --------------------------------------------------------------------

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
