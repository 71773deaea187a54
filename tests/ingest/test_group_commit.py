"""Group commit: one transaction at a time, of all that waits, and everybody gets an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

import numpy as np

from ingest.group_commit import MAX_COMMIT_SEGMENTS, Decided, GroupCommit
from storage.catalog import Catalog, SegmentCommit
from storage.errors import CatalogUnavailable
from storage.segment import INDEX_DTYPE
from tests.ingest.world import NOW_MS, ManualClock


class HeldCatalog:
    """Answers each commit with its segment's id, as soon as it is let; `error` instead, when there is one."""

    def __init__(self) -> None:
        self.let = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.error: Exception | None = None
        self.under_way = 0

    def commit(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        assert now_ms == NOW_MS
        self.under_way += 1
        assert self.under_way == 1
        self.batches.append([s.segment_id for s in segments])
        assert self.let.acquire(timeout=10)
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        return [np.array([s.segment_id], dtype=np.uint8) for s in segments]


class Committers:
    """Threads that commit one segment each, the first of which is held in its transaction."""

    def __init__(self, count: int) -> None:
        self.catalog = HeldCatalog()
        self.group = GroupCommit(cast(Catalog, self.catalog), ManualClock())
        self.pool = ThreadPoolExecutor(count)
        self.calls: list[Future[Decided]] = []
        for segment_id in range(count):
            commit = SegmentCommit(segment_id, 20_000, 1, 0, np.zeros(1, INDEX_DTYPE))
            self.calls.append(self.pool.submit(self.group.commit, commit))
            self.until(lambda: len(self.catalog.batches) == 1)
            self.until(lambda n=segment_id: len(self.group._waiting) == n)

    def until(self, condition: Any) -> None:
        deadline_s = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline_s
            time.sleep(0.001)

    def end(self, transactions: int) -> list[Any]:
        """Let so many transactions end; what each call gave or raised."""
        self.catalog.let.release(transactions)
        self.pool.shutdown()
        return [call.exception() or call.result() for call in self.calls]


def test_what_waits_is_one_transaction_in_order_of_coming() -> None:
    committers = Committers(5)
    assert [found.tolist() for found in committers.end(2)] == [[0], [1], [2], [3], [4]]
    assert committers.catalog.batches == [[0], [1, 2, 3, 4]]


def test_a_transaction_is_bounded() -> None:
    count = 1 + MAX_COMMIT_SEGMENTS + 2
    committers = Committers(count)
    assert [found.tolist() for found in committers.end(3)] == [[n] for n in range(count)]
    assert list(map(len, committers.catalog.batches)) == [1, MAX_COMMIT_SEGMENTS, 2]


def test_all_of_a_transaction_share_its_error_and_the_next_is_tried() -> None:
    committers = Committers(3)
    committers.catalog.error = CatalogUnavailable("no")
    found = committers.end(2)
    assert [type(each) for each in found] == [CatalogUnavailable] * 3
    assert committers.catalog.batches == [[0], [1, 2]]
    committers.catalog.error = None
    committers.catalog.let.release()
    again = committers.group.commit(SegmentCommit(7, 20_000, 1, 0, np.zeros(1, INDEX_DTYPE)))
    assert isinstance(again, np.ndarray)


def test_a_bug_ends_whose_turn_it_was_and_leaves_nobody_waiting() -> None:
    committers = Committers(3)
    committers.catalog.error = ZeroDivisionError("a bug")
    first, *others = committers.end(2)
    assert isinstance(first, ZeroDivisionError)
    assert sorted(type(each).__name__ for each in others) == ["CatalogUnavailable", "ZeroDivisionError"]
    assert committers.catalog.batches == [[0], [1, 2]]


def test_under_load_each_segment_is_committed_once() -> None:
    threads = 8
    catalog = HeldCatalog()
    catalog.let.release(1000)
    group = GroupCommit(cast(Catalog, catalog), ManualClock())

    def commit_some(first: int) -> list[int]:
        ids = range(first, 200, threads)
        found = [group.commit(SegmentCommit(i, 20_000, 1, 0, np.zeros(1, INDEX_DTYPE))) for i in ids]
        assert [each.tolist() for each in found if isinstance(each, np.ndarray)] == [[i] for i in ids]
        return list(ids)

    with ThreadPoolExecutor(threads) as pool:
        done = sorted(i for ids in pool.map(commit_some, range(threads)) for i in ids)
    assert sorted(i for batch in catalog.batches for i in batch) == done == list(range(200))
