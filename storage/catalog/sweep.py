"""The catalog as the sweep sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from storage.rows.recordings import DayTotals, Due, SegmentCommit, SegmentRow, Tombstone, Unindexed


class SweepCatalog(Protocol):
    """Days that are over, keys that nobody used, objects and ranges to be deleted, segments to be rewritten."""

    @abstractmethod
    def open_days(self, through: int) -> list[DayTotals]:
        """Expiry days up to and including `through` which still hold committed segments or a partition."""

    @abstractmethod
    def close_day(self, day: int, *, fence: int, now_ms: int, delete_after_ms: int) -> DayTotals:
        """Un-index a whole day: `closed_through` advances, its committed segments become tombstones, its
        partition of chunk rows is dropped, all in one transaction (invariant 6).

        Raises:
            CallerError: at `now_ms` the day has not come: its chunks are live (`not_expired`).
        """

    @abstractmethod
    def advance_closed_through(self, day: int, *, fence: int) -> None:
        """Say that all days up to `day` are closed. Only ever grows."""

    @abstractmethod
    def unfinished_deletions(self) -> list[int]:
        """The ids of deletions whose rows are not all gone yet."""

    @abstractmethod
    def finish_deletion(self, deletion_id: int, *, now_ms: int, delete_after_ms: int) -> Unindexed:
        """Remove the rows that a deletion has left. Several may do so at once. Returns what this call removed."""

    @abstractmethod
    def stale_prepared(self, before_ms: int, *, limit: int) -> list[SegmentRow]:
        """Segments still prepared since before `before_ms`."""

    @abstractmethod
    def reclaim(self, segment_ids: Sequence[int], *, fence: int, now_ms: int) -> int:
        """Turn prepared keys into tombstones to be deleted at once and once more later. Returns how many."""

    @abstractmethod
    def due_tombstones(self, now_ms: int, *, after_id: int, limit: int) -> list[Tombstone]:
        """Tombstones whose time has come, with an id above `after_id`, in order of id."""

    @abstractmethod
    def due_totals(self, now_ms: int) -> Due:
        """What all pages of `due_tombstones` hold together."""

    @abstractmethod
    def deleted(self, segment_ids: Sequence[int], *, fence: int, now_ms: int, again_at_ms: int) -> int:
        """The store confirmed these: forget them, but keep reclaimed ones once more until `again_at_ms`.

        Tombstones that are not due at `now_ms` stay as they are, so that the same confirmation told twice does
        not stand for the second deletion of a reclaimed one. Returns how many were forgotten.
        """

    @abstractmethod
    def delete_failed(self, errors: dict[int, str], *, fence: int, retry_at_ms: int) -> None:
        """Set tombstones aside until `retry_at_ms`, counting the attempt and keeping the store's word. Their age,
        as `totals` tells it, stays (invariant 7)."""

    @abstractmethod
    def half_dead(self, *, after_day: int, now_ms: int, limit: int) -> list[SegmentRow]:
        """Committed segments that expire after `after_day` and of whose chunks at least half are not served, but
        not all: those first whose rewrite frees most bytes for most days. Not those set aside at `now_ms`."""

    @abstractmethod
    def swap_segment(
        self,
        old_id: int,
        new: SegmentCommit,
        ordinals: np.ndarray,
        *,
        fence: int,
        now_ms: int,
        delete_after_ms: int,
    ) -> bool:
        """Let a rewritten segment take the place of the old one, in one transaction: rows that still point at the
        old one point at the new one, which is committed; the old one becomes a tombstone. Chunks that died since
        they were copied are refused in the new one.

        Args:
            new: its object is durable, its key is prepared.
            ordinals: in the old segment, of each chunk of the new one.

        Returns:
            False when there was nothing left to swap: the old segment is no longer committed, its day is closed,
            or the new one's key was reclaimed. The new segment is a tombstone then.

        Raises:
            CatalogCorrupt: the old segment has rows that the new one was not given. Nothing was changed.
        """

    @abstractmethod
    def rewrite_failed(self, segment_id: int, error: str, *, fence: int, retry_at_ms: int) -> None:
        """Leave a segment out of `half_dead` until `retry_at_ms`."""
