"""Pairs of transactions that SQLite's single writer kept apart: each side is stopped at every statement while the
other one runs. Docs/design.md §8 has the table of what decides each.

A pair's two sides run on two threads. One is stopped before its n-th statement; the other runs until it is done, or
waits for a lock of the first. Then the first goes on. What both report, and what is left, must be as if one had come
after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from storage.contracts.given import MONTH, WEEK, Upload, index_of, refused, verdicts
from storage.days import MS_PER_DAY, expiry_day, ms_of_day
from storage.errors import ClipkeepError
from storage.postgres import PostgresCatalog
from storage.postgres.connection import PostgresConnection
from storage.rows.devices import EraseState, PlanRow
from storage.rows.recordings import SegmentCommit

FIRST_DAY = 20_000
_STATEMENTS = ("run", "execute", "executemany", "together", "insert_chunks", "move_chunks")


class Steps:
    """Counts the statements of one thread, and stops it before one of them."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.seen = 0
        self.stop_at: int | None = None
        self.stopped = threading.Event()
        self.go_on = threading.Event()

    def begin(self, stop_at: int | None) -> None:
        self.stop_at, self.seen = stop_at, 0
        self.stopped.clear()
        self.go_on.clear()

    def before_statement(self) -> None:
        if threading.get_ident() != self.thread:
            return
        if self.seen == self.stop_at:
            self.stopped.set()
            assert self.go_on.wait(60)
        self.seen += 1


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    steps = Steps()
    for name in _STATEMENTS:
        original = getattr(PostgresConnection, name)

        def stepped(self: Any, *args: Any, original: Callable[..., Any] = original) -> Any:
            steps.before_statement()
            return original(self, *args)

        monkeypatch.setattr(PostgresConnection, name, stepped)
    return steps


@pytest.fixture
def catalog(url: str) -> Iterator[PostgresCatalog]:
    catalog = PostgresCatalog.open(url, lock_timeout_ms=60_000)  # a busy machine must not decide
    yield catalog
    catalog.close()


class Round:
    """What one round of a pair has to itself: a day of its own, and devices. Rounds come in order of their days.

    Subclasses are the pairs: `prepare`, then `one` and `other` at once.
    """

    def __init__(self, catalog: PostgresCatalog, number: int) -> None:
        self.catalog = catalog
        self.day = FIRST_DAY + 3 * number
        self.noon = ms_of_day(self.day) + MS_PER_DAY // 2
        self.ends = expiry_day(self.day, WEEK)
        self.after = ms_of_day(self.ends) + 1
        self.devices: list[int] = []
        self.ids: list[int] = []
        fence = catalog.acquire_lease("sweep", holder="sweeper", ttl_ms=1 << 40, now_ms=0)
        assert fence is not None
        self.fence = fence
        for held in catalog.open_days(self.ends - 1):  # un-indexing takes a transaction for each open day
            catalog.close_day(held.expires_on, fence=fence, now_ms=self.after, delete_after_ms=self.after)
        self.prepare()

    def prepare(self) -> None:
        raise NotImplementedError

    def one(self) -> object:
        raise NotImplementedError

    def other(self) -> object:
        raise NotImplementedError

    def left(self) -> object:
        """What the catalog holds of this round, without numbers that differ from round to round."""
        places = {segment_id: place for place, segment_id in enumerate(self.ids)}
        rows = [
            (place, row.expires_on - self.day, row.capture_ms - self.noon, row.length, places[row.segment_id])
            for place, device in enumerate(self.devices)
            for row in self.catalog.chunks(device, 0, 1 << 50, limit=100)
        ]
        segments = []
        for place, segment_id in enumerate(self.ids):
            for row in self.catalog.segments(after_id=segment_id - 1, limit=1):
                if row.segment_id == segment_id:
                    segments.append((place, row.state, row.live_chunks, refused(row)))
        return rows, segments

    # --- what pairs are made of ------------------------------------------------------------------------------

    def device(self, *classes: int) -> int:
        plans = [PlanRow(0, "monthly", self.day, None, days) for days in classes or (WEEK,)]
        device = self.catalog.add_devices(1, account=1, plans=plans, now_ms=self.noon)[0].device
        self.devices.append(device)
        return device

    def segment(self, *uploads: Upload, expires_on: int | None = None) -> SegmentCommit:
        ends = expires_on or self.ends
        [key] = self.catalog.prepare(worker="w0", class_days=31, expires_on=ends, count=1, now_ms=self.noon)
        self.ids.append(key.segment_id)
        return SegmentCommit(key.segment_id, ends, 1_000_000, 1, index_of(*uploads))

    def commit(self, *segments: SegmentCommit) -> list[list[Any]]:
        return [verdicts(found) for found in self.catalog.commit(segments, now_ms=self.noon)]

    def erase(self, device: int) -> None:
        self.catalog.update_device(
            device,
            lambda old: replace(old, erase_state=EraseState.ERASING, erase_epoch=old.erase_epoch + 1),
            what="erase",
            now_ms=self.noon,
        )

    def unindex(self, device: int) -> int:
        found = self.catalog.unindex_device(
            device, fence=self.fence, now_ms=self.noon, delete_after_ms=self.noon
        )
        return found.chunks

    def delete(self, device: int) -> int:
        found = self.catalog.delete_range(
            device,
            self.noon - 10,
            self.noon + 10,
            reason="test",
            who="operator",
            now_ms=self.noon,
            delete_after_ms=self.noon,
        )
        return found.chunks


class CommitAndClosing(Round):
    def prepare(self) -> None:
        device = self.device()
        self.commit(self.segment(Upload(device, self.noon + 50)))
        self.new = self.segment(Upload(device, self.noon), Upload(device, self.noon + 1))

    def one(self) -> object:
        return self.commit(self.new)

    def other(self) -> object:
        totals = self.catalog.close_day(
            self.ends, fence=self.fence, now_ms=self.after, delete_after_ms=self.after
        )
        return totals.chunks


class CommitAndErasure(Round):
    def prepare(self) -> None:
        device, bystander = self.device(), self.device()
        self.commit(self.segment(Upload(device, self.noon), Upload(bystander, self.noon)))
        self.new = self.segment(Upload(device, self.noon + 1), Upload(bystander, self.noon + 1))

    def one(self) -> object:
        return self.commit(self.new)

    def other(self) -> object:
        self.erase(self.devices[0])
        return self.unindex(self.devices[0])


class CommitAndUnindexing(Round):
    """The commit's chunk takes the place of a row that the un-indexing removes."""

    def prepare(self) -> None:
        device, bystander = self.device(), self.device()
        self.commit(self.segment(Upload(device, self.noon), Upload(bystander, self.noon)))
        self.erase(device)
        self.new = self.segment(Upload(device, self.noon, epoch=1), Upload(device, self.noon + 1, epoch=1))

    def one(self) -> object:
        return self.commit(self.new)

    def other(self) -> object:
        self.unindex(self.devices[0])  # how many depends on who came first
        return None


class CommitAndDeletedRange(Round):
    def prepare(self) -> None:
        device = self.device()
        self.commit(self.segment(Upload(device, self.noon), Upload(device, self.noon + 100)))
        self.new = self.segment(Upload(device, self.noon + 1), Upload(device, self.noon + 101))

    def one(self) -> object:
        return self.commit(self.new)

    def other(self) -> object:
        return self.delete(self.devices[0])


class CommitAndSwap(Round):
    """The commit replaces a row, of before an erasure, that the swap moves."""

    def prepare(self) -> None:
        device, bystander = self.device(), self.device()
        self.old = self.segment(Upload(device, self.noon), Upload(bystander, self.noon))
        self.commit(self.old)
        self.erase(device)
        self.new = self.segment(Upload(device, self.noon, content=1, epoch=1))
        self.copy = replace(self.segment(), index=self.old.index)

    def one(self) -> object:
        return self.commit(self.new)

    def other(self) -> object:
        return self.catalog.swap_segment(
            self.old.segment_id,
            self.copy,
            np.arange(2),
            fence=self.fence,
            now_ms=self.noon,
            delete_after_ms=self.noon,
        )


class CommitsOfOneTimeIntoTwoDays(Round):
    KNOWN = (WEEK, MONTH)
    """The device's classes."""

    def prepare(self) -> None:
        device = self.device(*self.KNOWN)
        self.short = self.segment(Upload(device, self.noon))
        self.long = self.segment(Upload(device, self.noon, content=1), expires_on=expiry_day(self.day, MONTH))

    def one(self) -> object:
        return self.commit(self.short)

    def other(self) -> object:
        return self.commit(self.long)


class CommitsOfOneTimeAndAClassThatNobodyKnew(CommitsOfOneTimeIntoTwoDays):
    KNOWN = (WEEK,)


class CommitsOfOneTimeIntoOneDay(Round):
    def prepare(self) -> None:
        device = self.device()
        self.first = self.segment(Upload(device, self.noon), Upload(device, self.noon + 2))
        self.second = self.segment(
            Upload(device, self.noon + 2, content=1), Upload(device, self.noon, content=1)
        )

    def one(self) -> object:
        return self.commit(self.first)

    def other(self) -> object:
        return self.commit(self.second)


class CommitAndReclaim(Round):
    def prepare(self) -> None:
        device = self.device()
        self.new = self.segment(Upload(device, self.noon))

    def one(self) -> object:
        return self.commit(self.new)

    def other(self) -> object:
        return self.catalog.reclaim([self.new.segment_id], fence=self.fence, now_ms=self.noon)


class ReleaseAndReclaim(Round):
    def prepare(self) -> None:
        self.device()
        self.new = self.segment()

    def one(self) -> object:
        self.catalog.release([self.new.segment_id])
        return None

    def other(self) -> object:
        return self.catalog.reclaim([self.new.segment_id], fence=self.fence, now_ms=self.noon)


class PrepareAndReclaim(Round):
    def prepare(self) -> None:
        self.device()

    def one(self) -> object:
        self.segment()
        return None

    def other(self) -> object:
        """All that is prepared and too old: what is prepared at this moment is not."""
        stale = self.catalog.stale_prepared(self.noon, limit=100)
        return self.catalog.reclaim([row.segment_id for row in stale], fence=self.fence, now_ms=self.noon)


class LeaseAndDestruction(Round):
    """No lease changes hands while its holder destroys something outside of the database."""

    def prepare(self) -> None:
        self.device()
        self.taken = threading.Event()

    def one(self) -> object:
        try:
            with self.catalog.holding_lease(fence=self.fence):
                before = self.taken.is_set()
                with self.catalog.db.read() as connection:  # where it may be stopped once more
                    connection.execute("SELECT 1")
                return before, self.taken.is_set()
        except ClipkeepError as error:
            return type(error).__name__

    def other(self) -> object:
        self.catalog.release_lease("sweep", fence=self.fence)
        self.taken.set()
        return None


class RebuildAndUnindexing(Round):
    def prepare(self) -> None:
        device, bystander = self.device(), self.device()
        self.old = self.segment(Upload(device, self.noon), Upload(bystander, self.noon))
        self.commit(self.old)
        self.erase(device)
        [self.row] = self.catalog.segments(after_id=self.old.segment_id - 1, limit=1)

    def one(self) -> object:
        self.catalog.rebuild_chunks([(self.row, self.old.index)])
        return None

    def other(self) -> object:
        self.unindex(self.devices[0])
        return None


class RebuildAndCommit(Round):
    """The commit replaces a row, of before an erasure, that the rebuild refuses."""

    def prepare(self) -> None:
        device, bystander = self.device(), self.device()
        self.old = self.segment(Upload(device, self.noon), Upload(bystander, self.noon))
        self.commit(self.old)
        self.erase(device)
        self.new = self.segment(Upload(device, self.noon, content=1, epoch=1))
        [self.row] = self.catalog.segments(after_id=self.old.segment_id - 1, limit=1)

    def one(self) -> object:
        self.catalog.rebuild_chunks([(self.row, self.old.index)])
        return None

    def other(self) -> object:
        return self.commit(self.new)


class CommitAndAnotherClass(Round):
    """A plan change, and a commit that is the first to depend on another class."""

    def prepare(self) -> None:
        device = self.device(WEEK)
        self.long = self.segment(Upload(device, self.noon), expires_on=expiry_day(self.day, MONTH))

    def one(self) -> object:
        return self.commit(self.long)

    def other(self) -> object:
        plan = PlanRow(0, "annual", self.day, None, 60)
        self.catalog.update_device(
            self.devices[0], lambda old: replace(old, plans=(plan,)), what="retention", now_ms=self.noon
        )
        return None


PAIRS = [
    CommitAndClosing,
    CommitAndErasure,
    CommitAndUnindexing,
    CommitAndDeletedRange,
    CommitAndSwap,
    CommitsOfOneTimeIntoTwoDays,
    CommitsOfOneTimeAndAClassThatNobodyKnew,
    CommitsOfOneTimeIntoOneDay,
    CommitAndReclaim,
    ReleaseAndReclaim,
    PrepareAndReclaim,
    LeaseAndDestruction,
    RebuildAndUnindexing,
    RebuildAndCommit,
    CommitAndAnotherClass,
]


@pytest.mark.parametrize("pair", PAIRS)
def test_whoever_is_stopped_where_it_is_as_if_one_came_after_the_other(
    catalog: PostgresCatalog, url: str, steps: Steps, pair: type[Round]
) -> None:
    numbers = iter(range(1000))
    serial = []
    for first_is_one in (True, False):
        each = pair(catalog, next(numbers))
        if first_is_one:
            one = each.one()
            serial.append((one, each.other(), each.left()))
        else:
            other = each.other()
            serial.append((each.one(), other, each.left()))
    assert list(catalog.broken_rows()) == []
    with (
        ThreadPoolExecutor(1) as stopped,
        ThreadPoolExecutor(1) as running,
        psycopg.connect(url, autocommit=True) as watching,
    ):
        steps.thread = stopped.submit(threading.get_ident).result()
        for one_is_stopped in (True, False):
            for stop_at in range(200):
                each = pair(catalog, next(numbers))
                steps.begin(stop_at)
                side, rest = (each.one, each.other) if one_is_stopped else (each.other, each.one)
                found = stopped.submit(side)
                while not steps.stopped.wait(0.01) and not found.done():
                    pass
                if not steps.stopped.is_set():
                    found.result()
                    rest()  # so that no day of this round stays open before those of the next
                    break
                beside = running.submit(rest)
                _until_done_or_waiting(beside, watching)
                steps.go_on.set()
                results = found.result(60), beside.result(60)
                ended = (*(results if one_is_stopped else results[::-1]), each.left())
                assert ended in serial, (
                    f"{'one' if one_is_stopped else 'other'} stopped at statement {stop_at}"
                )
            assert list(catalog.broken_rows()) == []
            assert stop_at > 1, "it was stopped inside of a transaction"


def _until_done_or_waiting(beside: Future[object], watching: psycopg.Connection[Any]) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not wait([beside], timeout=0.002).done:
        if watching.execute(waiting).fetchone() is not None:
            return
