"""The catalog as playback sees it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from storage.rows.recordings import MAX_CAPTURE_MS, ChunkRow, LiveListRow, SegmentMark


class ReadingCatalog(Protocol):
    """Stored chunks of one device. Nothing of an earlier erase epoch, of a deleted range or of a closed day is told."""

    @abstractmethod
    def chunk(self, device: int, capture_ms: int) -> ChunkRow | None:
        """The stored chunk, or None. Like all reading: nothing of an earlier erase epoch or of a closed day."""

    @abstractmethod
    def init(self, device: int, number: int, expires_on: int) -> ChunkRow | None:
        """The init segment of this number as the day's fragments have it."""

    @abstractmethod
    def parts(self, device: int, from_ms: int, to_ms: int, expires_on: int, *, limit: int) -> list[ChunkRow]:
        """What is stored for this day with from_ms <= capture_ms < to_ms, as `chunks`, of times below 0: parts of
        resumable uploads."""

    @abstractmethod
    def chunks(self, device: int, from_ms: int, to_ms: int, *, limit: int) -> list[ChunkRow]:
        """Chunks with from_ms <= capture_ms < to_ms in order of capture, at most `limit`, the earliest ones. Times are
        from 0 on: below it are init segments."""

    @abstractmethod
    def latest_chunks(self, device: int, *, limit: int, before_ms: int = MAX_CAPTURE_MS) -> list[ChunkRow]:
        """The newest `limit` chunks with capture_ms < before_ms, in order of capture."""

    @abstractmethod
    def chunks_stored_after(
        self, device: int, mark: SegmentMark, from_ms: int, to_ms: int, *, limit: int
    ) -> list[ChunkRow]:
        """As `chunks`, of those that were stored after `mark` was taken. What a rewrite has moved since is in it."""

    @abstractmethod
    def has_deletions(self, device: int, from_ms: int, to_ms: int) -> bool:
        """Whether `delete_range` ever deleted what was captured in a part of [from_ms, to_ms)."""

    @abstractmethod
    def deleted_ranges(self, device: int, from_ms: int, to_ms: int, *, limit: int) -> list[tuple[int, int]]:
        """What `delete_range` deleted of [from_ms, to_ms), joined: (from_ms, to_ms), ascending, no two of which touch;
        at most the `limit` earliest deletions that began there or before are looked at."""

    @abstractmethod
    def segment_mark(self) -> SegmentMark:
        """What is stored now; NOTHING_STORED before the first segment key was prepared."""

    @abstractmethod
    def live_list(self, device: int) -> LiveListRow | None:
        """What `put_live_list` stored last; None before the first, and after an erasure."""

    @abstractmethod
    def put_live_list(self, device: int, row: LiveListRow) -> bool:
        """Store a live list in place of that of version `row.version - 1`, 0 for none.

        Returns:
            False, and nothing was changed: another writer was first, or the device is of another erase epoch by now.
        """
