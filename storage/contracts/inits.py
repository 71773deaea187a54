"""What `storage.catalog` promises of fragments and their init segments: whoever has the one row finds the other."""

from __future__ import annotations

import numpy as np

from storage.catalog import Catalog
from storage.contracts.given import (
    CONFLICT,
    DELETED,
    DUPLICATE,
    ENDS,
    ERASED,
    NOON,
    NOW,
    STORED,
    OnCatalog,
    Upload,
    add_device,
    captures,
    day_rows,
    erase,
    index_of,
    lease,
    refused,
    segment_of,
    segments,
    verdicts,
)
from storage.days import MS_PER_DAY
from storage.media_facts import Codec, MediaFacts
from storage.rows.recordings import FIRST_PART_MS, FMP4, SegmentCommit, SentInit, Verdict

ONE, OTHER = 0x1234_5678, 0xFFFF_FFFE
"""Numbers of init segments."""
NO_INIT = Verdict.NO_INIT
SENT = SentInit(0, ONE, ENDS, NOW)


def init(device: int, number: int = ONE, content: int = 0, epoch: int = 0) -> Upload:
    return Upload(device, -number, content, epoch)


def indexed(*uploads: Upload, number: int = ONE) -> np.ndarray:
    """All of them FMP4: init segments, and fragments that are read by `number`."""
    index = index_of(*uploads)
    index["media"] = FMP4
    index["facts"] = np.void(MediaFacts(video=Codec.H264, parameters=number).pack())
    return index


def commit(
    catalog: Catalog, *uploads: Upload, number: int = ONE, expires_on: int = ENDS, now_ms: int = NOW
) -> list[Verdict]:
    index = indexed(*uploads, number=number)
    [found] = catalog.commit([segment_of(catalog, index=index, expires_on=expires_on)], now_ms=now_ms)
    return verdicts(found)


def delete(catalog: Catalog, device: int, from_ms: int, to_ms: int) -> int:
    return catalog.delete_range(
        device, from_ms, to_ms, reason="", who="owner", now_ms=NOW, delete_after_ms=NOW
    ).chunks


class InitsContract(OnCatalog):
    """See the module docstring."""

    def test_fragments_are_stored_with_their_init_segment_or_after_it(
        self, catalog: Catalog, sound: None
    ) -> None:
        device, other = add_device(catalog), add_device(catalog)
        assert commit(catalog, Upload(device, NOON)) == [NO_INIT]
        assert captures(catalog.chunks(device, 0, 1 << 50, limit=9)) == []
        assert commit(catalog, Upload(device, NOON), init(device)) == [STORED, STORED]
        assert commit(catalog, Upload(device, NOON + 1)) == [STORED]
        assert commit(catalog, Upload(device, NOON + 2), number=OTHER) == [NO_INIT]
        assert commit(catalog, Upload(other, NOON), Upload(device, NOON + 3)) == [NO_INIT, STORED]
        assert captures(catalog.chunks(device, 0, 1 << 50, limit=9)) == [NOON, NOON + 1, NOON + 3]
        assert captures(catalog.latest_chunks(device, limit=9)) == [NOON, NOON + 1, NOON + 3]
        found = catalog.init(device, ONE, ENDS)
        assert found is not None
        assert (found.capture_ms, found.media, found.expires_on) == (-ONE, FMP4, ENDS)
        for absent in ((device, OTHER, ENDS), (device, ONE, ENDS + 1), (other, ONE, ENDS)):
            assert catalog.init(*absent) is None

    def test_several_segments_of_one_commit(self, catalog: Catalog, sound: None) -> None:
        device, other = add_device(catalog), add_device(catalog)
        batch = [
            segment_of(catalog, index=indexed(init(device), Upload(device, NOON))),
            segment_of(catalog, Upload(other, NOON)),
            segment_of(catalog, index=indexed(Upload(device, NOON + 1), Upload(other, NOON + 1))),
        ]
        found = [verdicts(each) for each in catalog.commit(batch, now_ms=NOW)]
        assert found == [[STORED, STORED], [STORED], [STORED, NO_INIT]]

    def test_an_init_segment_is_stored_once_for_a_device_and_day(self, catalog: Catalog, sound: None) -> None:
        device, other = add_device(catalog), add_device(catalog)
        assert commit(catalog, init(device)) == [STORED]
        assert commit(catalog, init(device), Upload(device, NOON)) == [DUPLICATE, STORED]
        assert commit(catalog, init(device), Upload(device, NOON + MS_PER_DAY), expires_on=ENDS + 1) == [
            STORED,
            STORED,
        ]
        assert commit(catalog, init(other)) == [STORED]
        days = day_rows(catalog)
        assert {day: [r.capture_ms for r in rows if r.capture_ms < 0] for day, rows in days.items()} == {
            ENDS: [-ONE, -ONE],
            ENDS + 1: [-ONE],
        }

    def test_fragments_of_another_init_segment_of_the_same_number_are_not_stored(
        self, catalog: Catalog
    ) -> None:
        device = add_device(catalog)
        assert commit(catalog, init(device), Upload(device, NOON)) == [STORED, STORED]
        assert commit(catalog, init(device, content=1), Upload(device, NOON + 1)) == [CONFLICT, NO_INIT]

    def test_parts_of_resumable_uploads_are_no_init_segments(self, catalog: Catalog, sound: None) -> None:
        """They are at capture times below all of those: found by these, told to no reader, noted as sent by nobody."""
        device = add_device(catalog)
        lowest = 5 - (1 << 62)
        parts = [Upload(device, FIRST_PART_MS), Upload(device, FIRST_PART_MS - 1000), Upload(device, lowest)]
        uploads = [init(device), Upload(device, NOON), *parts]
        assert commit(catalog, *uploads) == [STORED] * 5
        assert commit(catalog, *parts) == [DUPLICATE] * 3
        assert commit(catalog, Upload(device, lowest, content=1)) == [CONFLICT]
        sent = catalog.sent_init(device)
        assert sent is not None
        assert sent.number == ONE
        for part in parts:
            found = catalog.init(device, -part.capture_ms, ENDS)
            assert found is not None
            assert found.capture_ms == part.capture_ms
            assert catalog.init(device, -part.capture_ms, ENDS + 1) is None
        assert captures(catalog.chunks(device, 0, 1 << 50, limit=9)) == [NOON]
        assert captures(catalog.latest_chunks(device, limit=9)) == [NOON]
        assert delete(catalog, device, NOON, NOON + 1) == 1
        assert all(catalog.init(device, -part.capture_ms, ENDS) is not None for part in parts)

    def test_what_was_sent_last_is_noted(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        assert catalog.sent_init(device) is None
        catalog.note_init(device, SENT)
        assert catalog.sent_init(device) == SENT
        newer = replace_sent(SENT, number=OTHER, at_ms=NOW + 1)
        catalog.note_init(device, newer)
        assert catalog.sent_init(device) == newer
        catalog.note_init(device, replace_sent(SENT, epoch=7))  # of an epoch that it is not of
        assert catalog.sent_init(device) == newer
        catalog.note_init(device + 1, SENT)  # nobody
        assert catalog.sent_init(device + 1) is None

    def test_the_note_follows_the_days_for_which_it_is_stored(self, catalog: Catalog) -> None:
        device = add_device(catalog)
        assert commit(catalog, init(device)) == [STORED]
        assert catalog.sent_init(device) == replace_sent(
            SENT, at_ms=0
        )  # nothing was noted: better than nothing
        catalog.note_init(device, SENT)
        assert commit(catalog, init(device), expires_on=ENDS + 2) == [STORED]
        assert commit(catalog, init(device), expires_on=ENDS + 1) == [STORED]
        assert commit(catalog, init(device, OTHER), expires_on=ENDS + 3) == [STORED]
        assert catalog.sent_init(device) == replace_sent(SENT, expires_on=ENDS + 2)

    def test_an_erasure_takes_it_along(self, catalog: Catalog, sound: None) -> None:
        device = add_device(catalog)
        assert commit(catalog, init(device), Upload(device, NOON)) == [STORED, STORED]
        erase(catalog, device)
        assert catalog.init(device, ONE, ENDS) is None
        assert catalog.sent_init(device) is None
        assert commit(catalog, init(device), Upload(device, NOON)) == [ERASED, ERASED]
        # One of before is not what fragments of now are read by, though its row may still be there.
        assert commit(catalog, Upload(device, NOON, epoch=1)) == [NO_INIT]
        assert commit(catalog, init(device, epoch=1), Upload(device, NOON, epoch=1)) == [STORED, STORED]
        found = catalog.init(device, ONE, ENDS)
        assert found is not None
        assert found.epoch == 1

    def test_a_deleted_range_takes_those_that_nothing_needs_any_more(
        self, catalog: Catalog, sound: None
    ) -> None:
        device = add_device(catalog)
        assert commit(catalog, init(device), *(Upload(device, NOON + i) for i in range(3))) == [STORED] * 4
        assert commit(catalog, init(device, OTHER), Upload(device, NOON + 9), number=OTHER) == [STORED] * 2
        catalog.note_init(device, replace_sent(SENT, number=OTHER))
        assert delete(catalog, device, NOON, NOON + 2) == 2
        assert catalog.init(device, ONE, ENDS) is not None
        assert delete(catalog, device, NOON, NOON + 5) == 1
        assert catalog.init(device, ONE, ENDS) is None
        assert commit(catalog, Upload(device, NOON + 6)) == [NO_INIT]
        # What the device sent last stays for what is still to come, and its recordings go.
        assert delete(catalog, device, NOON, NOON + 10) == 1
        assert catalog.init(device, OTHER, ENDS) is not None
        assert commit(catalog, Upload(device, NOON + 11), number=OTHER) == [STORED]
        assert commit(catalog, Upload(device, NOON + 3), init(device)) == [DELETED, STORED]

    def test_a_rewrite_and_a_rebuild_keep_it(self, catalog: Catalog, sound: None) -> None:
        device, other = add_device(catalog), add_device(catalog)
        chunks = [init(device), Upload(device, NOON), *(Upload(other, NOON + i) for i in range(4))]
        index = indexed(*chunks)
        index["media"][2:] = 1
        segment = segment_of(catalog, index=index)
        assert set(verdicts(catalog.commit([segment], now_ms=NOW)[0])) == {STORED}
        assert delete(catalog, other, NOON, NOON + 4) == 4
        [key] = catalog.prepare(worker="sweep", class_days=31, expires_on=ENDS, count=1, now_ms=NOW)
        kept = np.array([0, 1], dtype="<u4")
        new = SegmentCommit(key.segment_id, ENDS, 1_000_000, 1, index[kept])
        assert catalog.swap_segment(
            segment.segment_id, new, kept, fence=lease(catalog), now_ms=NOW, delete_after_ms=NOW
        )
        found = catalog.init(device, ONE, ENDS)
        assert found is not None
        assert found.segment_id == key.segment_id
        rows = [row for row in segments(catalog) if row.segment_id == key.segment_id]
        assert refused(rows[0]) == []
        assert catalog.rebuild_chunks((row, index[kept]) for row in rows) == 0
        assert catalog.init(device, ONE, ENDS) == found


def replace_sent(sent: SentInit, **changes: int) -> SentInit:
    return sent._replace(**changes)
