"""What `storage.catalog.clips.ClipsCatalog` promises."""

from __future__ import annotations

from storage.catalog import Catalog
from storage.catalog.clips import KeptObject
from storage.contracts.given import NOW, OnCatalog, Upload, add_device, commit, erase, index_of
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.clips import KEPT_CLASS, KEPT_DAY, ClipRow, ClipState, worker_of
from storage.rows.recordings import MAX_CAPTURE_MS, ChunkRow, SegmentCommit, SegmentState

KEY = bytes(16)


def clip_row(device: int, **fields: object) -> ClipRow:
    times = {"first_ms": NOW, "from_ms": NOW, "to_ms": NOW + 10, "next_ms": NOW}
    given: dict[str, object] = {"epoch": 0, "name": "", "created_ms": NOW, "chunks": 2, "bytes": 5000} | times
    return ClipRow(0, OPERATOR_ACCOUNT, device, state=ClipState.COPYING, **(given | fields))  # type: ignore[arg-type]


def add_clip(catalog: Catalog, device: int, key_id: bytes = KEY, **fields: object) -> ClipRow:
    return catalog.transact(lambda books: books.add_clip(clip_row(device, **fields), key_id), now_ms=NOW)


def copy_of(catalog: Catalog, clip: ClipRow, sources: list[ChunkRow]) -> KeptObject:
    [key] = catalog.prepare(
        worker=worker_of(clip.clip_id), class_days=KEPT_CLASS, expires_on=KEPT_DAY, count=1, now_ms=NOW
    )
    index = index_of(*(Upload(row.device, row.capture_ms, 1, row.epoch) for row in sources))
    return KeptObject(SegmentCommit(key.segment_id, KEPT_DAY, 1_000_000, 1, index), sources)


class ClipsContract(OnCatalog):
    """See the module docstring."""

    def recorded(self, catalog: Catalog) -> tuple[int, list[ChunkRow]]:
        device = add_device(catalog)
        commit(catalog, Upload(device, NOW), Upload(device, NOW + 1))
        return device, catalog.chunks(device, 0, MAX_CAPTURE_MS, limit=9)

    def test_a_clip_is_copied_by_whoever_claimed_it(self, catalog: Catalog, sound: None) -> None:
        device, sources = self.recorded(catalog)
        clip = add_clip(catalog, device)
        assert catalog.clip_key(clip.clip_id) == KEY
        first = catalog.claim_clip(now_ms=NOW, until_ms=NOW + 5)
        assert first is not None
        assert catalog.claim_clip(now_ms=NOW, until_ms=NOW + 9) is None, "it is claimed"
        second = catalog.claim_clip(now_ms=NOW + 5, until_ms=NOW + 9)
        assert second is not None
        kept = copy_of(catalog, clip, sources[:1])
        times = {"now_ms": NOW, "until_ms": NOW + 20}
        assert catalog.commit_clip(first, kept, next_ms=NOW + 1, done=False, **times) is None
        then = catalog.commit_clip(second, kept, next_ms=NOW + 1, done=False, **times)
        assert then is not None
        assert (then.state, then.next_ms, catalog.copied_bytes(clip.clip_id)) == (
            ClipState.COPYING,
            NOW + 1,
            1001,
        )
        rest = copy_of(catalog, clip, sources[1:])
        done = catalog.commit_clip(then, rest, next_ms=NOW + 10, done=True, **times)
        assert done is not None
        assert (done.state, done.chunks, done.bytes) == (ClipState.READY, 2, 2002)
        rows = catalog.clip_chunks(device, clip.clip_id, 0, MAX_CAPTURE_MS, limit=9)
        assert [(row.capture_ms, row.expires_on) for row in rows] == [(NOW, KEPT_DAY), (NOW + 1, KEPT_DAY)]
        newest = catalog.clip_chunks(device, clip.clip_id, 0, NOW + 9, limit=1, newest_first=True)
        assert newest == rows[1:]
        assert catalog.clip_chunks(device + 1, clip.clip_id, 0, MAX_CAPTURE_MS, limit=9) == []
        assert catalog.clip_init(device, clip.clip_id, 7) is None
        assert list(catalog.day_rows(KEPT_DAY)) == rows
        assert catalog.claim_clip(now_ms=NOW + 99, until_ms=NOW + 999) is None

    def test_what_has_gone_meanwhile_is_not_kept(self, catalog: Catalog, sound: None) -> None:
        device, sources = self.recorded(catalog)
        add_clip(catalog, device)
        clip = catalog.claim_clip(now_ms=NOW, until_ms=NOW + 5)
        assert clip is not None
        kept = copy_of(catalog, clip, sources)
        catalog.delete_range(
            device, NOW, NOW + 1, reason="", who="owner", now_ms=NOW, delete_after_ms=NOW, keep_clips=True
        )
        done = catalog.commit_clip(clip, kept, next_ms=NOW + 10, done=True, now_ms=NOW, until_ms=NOW)
        assert done is not None
        rows = catalog.clip_chunks(device, clip.clip_id, 0, MAX_CAPTURE_MS, limit=9)
        assert ([row.capture_ms for row in rows], done.chunks) == ([NOW + 1], 1)

    def test_a_clip_ends_with_its_range_and_with_its_device(self, catalog: Catalog, sound: None) -> None:
        device, sources = self.recorded(catalog)
        for end in ("range", "erasure"):
            key_id = end.encode().ljust(16)
            clip = add_clip(catalog, device, key_id)
            claimed = catalog.claim_clip(now_ms=NOW, until_ms=NOW + 5)
            assert claimed is not None
            kept = copy_of(catalog, clip, sources)
            done = catalog.commit_clip(claimed, kept, next_ms=NOW, done=True, now_ms=NOW, until_ms=NOW)
            assert done is not None
            if end == "range":
                catalog.delete_range(
                    device, NOW + 5, NOW + 6, reason="", who="owner", now_ms=NOW, delete_after_ms=NOW
                )
            else:
                erase(catalog, device)
            assert catalog.clip_key(clip.clip_id) is None
            assert catalog.clip_chunks(device, clip.clip_id, 0, MAX_CAPTURE_MS, limit=9) == []
            assert key_id in catalog.ended_account_keys()
            [row] = catalog.segments(after_id=kept.segment.segment_id - 1, limit=1)
            assert row.state is SegmentState.DELETING
            assert catalog.commit_clip(done, None, next_ms=NOW, done=True, now_ms=NOW, until_ms=NOW) is None
