"""The catalog as a worker that stores chunks sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from storage.rows.recordings import PreparedKey, SegmentCommit, SentInit


class IngestCatalog(Protocol):
    """Keys before the first byte, and the commit that decides the races."""

    @abstractmethod
    def prepare(
        self, *, worker: str, class_days: int, expires_on: int, count: int, now_ms: int
    ) -> list[PreparedKey]:
        """Reserve `count` new segment keys, never used before, in state prepared."""

    @abstractmethod
    def release(self, segment_ids: Sequence[int]) -> None:
        """Give back prepared keys for which no PUT was ever started."""

    @abstractmethod
    def make_ready(self, day: int) -> None:
        """Make what commits of this day and the next need, for the classes of all plans that run then, where the engine
        would make it beside a commit: none has to wait for it at midnight. What is missing a commit makes itself."""

    @abstractmethod
    def commit(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        """Make segments committed and their chunks served, in one transaction.

        Decides the races (design §2): per segment a uint8 array of `Verdict`, one per ordinal. Chunks that
        lost get no row, and their ordinals are kept on the segment row as refused. A segment without any
        stored chunk is tombstoned at once. A row of an earlier erase epoch gives way to a new chunk.

        A chunk of a capture time below 0 is an init segment of its device, -n that of number n, which each expiry day
        has for itself. Fragments (`media` FMP4, the number is `parameters` in their facts) are stored when theirs is
        stored for this day, or is in this segment, else they are NO_INIT.

        Raises:
            CallerError: `expires_on` is not the day that the key was prepared for (`wrong_day`).
        """

    @abstractmethod
    def commit_whole(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        """As `commit`, of segments that belong together: if a chunk of them would be neither STORED nor DUPLICATE,
        nothing is changed at all, their keys stay prepared, and the verdicts say what stood in the way."""

    @abstractmethod
    def note_init(self, device: int, sent: SentInit) -> None:
        """Note that a device sent an init segment, which is stored, in place of the one that it sent before. Of a
        device that is of another erase epoch by now nothing is noted."""

    @abstractmethod
    def sent_init(self, device: int) -> SentInit | None:
        """What was noted last; None before the first, and after an erasure. A commit moves its `expires_on` on, and
        notes an init segment that it stores where none is noted."""
