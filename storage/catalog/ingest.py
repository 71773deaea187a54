"""The catalog as a worker that stores chunks sees it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from storage.rows.recordings import PreparedKey, SegmentCommit


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

        Raises:
            CallerError: `expires_on` is not the day that the key was prepared for (`wrong_day`).
        """
