"""The worker's one way into the catalog: a thread whose object is durable commits it, with whatever else waits.

The same thread that put an object goes on to its commit: to come back to the loop in between, and to send another
thread for the commit, costs a tenth of a millisecond of CPU a segment.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from storage.catalog import Catalog, SegmentCommit
from storage.clock import Clock
from storage.errors import CatalogUnavailable, ClipkeepError

MAX_COMMIT_SEGMENTS = 64
"""Most segments in one transaction: bounds how long other workers wait for the catalog's lock."""

Decided = np.ndarray | ClipkeepError
"""uint8 `Verdict` per ordinal; or why nothing of the segment is stored. (Or it is, and the answer was lost: what is
sent again is then answered 200.)"""


@dataclass(slots=True)
class _Waiting:
    """A segment whose object is durable, waiting for its commit."""

    commit: SegmentCommit
    turn: threading.Lock
    """Held until it is decided, or until its thread is to commit what waits."""
    decided: Decided | None = None


class GroupCommit:
    """One transaction at a time, of all that waits. Called by the threads that put objects."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        """A thread is committing, or about to. While none is, nothing waits."""

    def commit(self, commit: SegmentCommit) -> Decided:
        """Commit one segment. Blocks while another transaction is under way; when that ends, the thread that has
        waited longest commits all that waits, in the order of coming, and the others return with it.

        The error of a transaction that failed is given to all that were in it, the same to each.
        """
        waiting = _Waiting(commit, threading.Lock())
        waiting.turn.acquire()
        with self._lock:
            self._waiting.append(waiting)
            mine, self._busy = not self._busy, True
        if not mine:
            waiting.turn.acquire()  # until another thread lets go of it
        if waiting.decided is None:
            self._commit_batch()
        assert waiting.decided is not None, "the first that waits is in the batch"
        return waiting.decided

    def _commit_batch(self) -> None:
        with self._lock:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_COMMIT_SEGMENTS))]
        unexpected = CatalogUnavailable("a commit ended in an error that nobody expected")
        outcomes: list[Decided] = [unexpected] * len(batch)
        try:
            outcomes = [*self._catalog.commit([w.commit for w in batch], now_ms=self._clock.now_ms())]
        except ClipkeepError as error:
            outcomes = [error] * len(batch)
        finally:  # also when it was a bug: nobody may wait for ever
            for waiting, decided in zip(batch, outcomes, strict=True):
                waiting.decided = decided
            with self._lock:
                self._busy = bool(self._waiting)
                after = [self._waiting[0]] if self._busy else []
            for waiting in (*after, *batch[1:]):
                waiting.turn.release()
