"""From a packed chunk to its outcome: nothing is told STORED that is not in the store and in the catalog."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import structlog
import trio
import trio.testing

from ingest.committing import Uploads
from ingest.health import Health
from ingest.keyring import Keyring
from ingest.packing import FEW_CHUNKS_STRETCH, MAX_MOVED_MS, MAX_MOVES, Chunk
from ingest.stats import Stats
from storage import checksums
from storage.days import day_of_ms
from storage.errors import CallerError, CorruptError, KeyDestroyed, WorldError
from storage.faults import Fault, FaultKind, FaultyStore, no_faults
from storage.memory import MemoryStore
from storage.rows.devices import EraseState, PlanRow
from storage.rows.recordings import SegmentState, Verdict
from storage.segment import SegmentWriter
from tests.ingest.world import (
    NOW_MS,
    TODAY,
    FaultyCatalog,
    KeySource,
    ManualClock,
    read_chunk,
    video,
)

CLASS_DAYS = 30
DAY = TODAY + CLASS_DAYS + 1
LINGER_S = 0.02
TARGET = 100_000
STORED, DUPLICATE, CONFLICT = Verdict.STORED, Verdict.DUPLICATE, Verdict.CONFLICT
AWAY = 60.0
"""A linger that no test waits for."""


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - it comes true in a thread
            await trio.sleep(0.002)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[FaultyCatalog]:
    catalog = FaultyCatalog.of(tmp_path, made=True)
    plan = PlanRow(0, "monthly", TODAY - 100, None, CLASS_DAYS)
    catalog.add_devices(5, account=1, plans=[plan], now_ms=NOW_MS)
    yield catalog
    catalog.close()


@dataclass
class Pipeline:
    """Uploads on a store and a catalog that can be told to fail."""

    catalog: FaultyCatalog
    nursery: trio.Nursery
    linger_s: float = LINGER_S
    max_segments: int = 4
    prepare_ttl_ms: int = 600_000
    store: FaultyStore = field(init=False)
    outcomes: list[tuple[int, Verdict | None]] = field(default_factory=list)
    """(device, outcome) of every chunk, in the order of answering."""
    answered: int = 0

    def __post_init__(self) -> None:
        self.objects = MemoryStore()
        self.store = FaultyStore(self.objects, sleep=time.sleep)
        self.keys = KeySource()
        self.keyring = Keyring(self.keys)
        self.health = Health(self._probe)
        self.stats = Stats()
        self.clock = ManualClock()
        self.prepared: list[int] = []
        self.uploads = Uploads(
            store=self.store,
            catalog=self.catalog,
            keyring=self.keyring,
            clock=self.clock,
            health=self.health,
            stats=self.stats,
            worker="w0",
            linger_s=self.linger_s,
            target_bytes=round(TARGET / FEW_CHUNKS_STRETCH),
            max_segments=self.max_segments,
            prepare_ttl_ms=self.prepare_ttl_ms,
            prepared=self.prepared.append,
        )
        self.uploads.answered = self._count_answered

    def _count_answered(self) -> None:
        self.answered += 1

    async def _probe(self) -> None:
        return None

    async def start(self) -> Pipeline:
        await self.nursery.start(self.keyring.run)
        await self.nursery.start(self.uploads.run)
        return self

    def chunk(
        self,
        data: bytes,
        device: int = 1,
        capture_ms: int = NOW_MS,
        *,
        epoch: int = 0,
        expires_on: int = DAY,
        live: bool = False,
    ) -> Chunk:
        return Chunk(
            device=device,
            capture_ms=capture_ms,
            epoch=epoch,
            class_days=CLASS_DAYS,
            expires_on=expires_on,
            duration_ms=4000,
            crc32=checksums.crc32(data),
            crc64=checksums.crc64nvme(data),
            media=1,
            length=len(data),
            facts=b"",
            moves_left=MAX_MOVES if live else 0,
            done=lambda outcome, now_s: self.outcomes.append(
                (device, None if outcome is None else Verdict(outcome))
            ),
        )

    async def pack(self, data: bytes, device: int = 1, capture_ms: int = NOW_MS, **fields: int) -> Chunk:
        chunk = self.chunk(data, device, capture_ms, **fields)  # type: ignore[arg-type]
        await self.uploads.pack(chunk, memoryview(data))
        return chunk

    async def verdict(
        self, data: bytes, device: int = 1, capture_ms: int = NOW_MS, **fields: int
    ) -> Verdict | None:
        """Pack one chunk and wait for what became of it."""
        before = len(self.outcomes)
        await self.pack(data, device, capture_ms, **fields)
        await until(lambda: len(self.outcomes) > before)
        return self.outcomes[-1][1]

    def served(self) -> dict[tuple[int, int], bytes]:
        """What a reader gets: the catalog's rows, and the bytes they point at."""
        rows = [row for device in range(1, 6) for row in self.catalog.chunks(device, 0, 2**45, limit=1000)]
        return {(row.device, row.capture_ms): read_chunk(self.objects, row) for row in rows}

    def states(self) -> list[SegmentState]:
        return [row.state for row in self.catalog.segments(limit=10_000)]


@pytest.fixture
async def pipeline(catalog: FaultyCatalog, nursery: trio.Nursery) -> Pipeline:
    return await Pipeline(catalog, nursery).start()


async def slow_pipeline(catalog: FaultyCatalog, nursery: trio.Nursery, *, max_segments: int = 4) -> Pipeline:
    """One whose linger never passes."""
    return await Pipeline(catalog, nursery, linger_s=AWAY, max_segments=max_segments).start()


# --- what is acknowledged is kept ------------------------------------------------------------------------------


async def test_stored_means_in_the_store_and_in_the_catalog(pipeline: Pipeline) -> None:
    """Invariant 1, and 11: it decrypts as this device and time."""
    data = video(5000)
    assert await pipeline.verdict(data) is STORED
    assert pipeline.served() == {(1, NOW_MS): data}
    row = pipeline.catalog.chunk(1, NOW_MS)
    assert row is not None
    assert (row.duration_ms, row.expires_on, row.length) == (4000, DAY, 5000)
    assert pipeline.stats.segments == 1
    assert pipeline.stats.stored_bytes == sum(map(len, pipeline.objects.objects.values()))


async def test_the_key_is_prepared_before_the_first_byte(pipeline: Pipeline) -> None:
    """Invariant 5; and the block is made known to the host before any of it is used."""
    states: list[int] = []

    def plan(op: str, key: str, nth: int) -> Fault | None:
        states.extend(row.state for row in pipeline.catalog.segments(limit=1000) if row.key == key)
        return None

    pipeline.store.plan = plan
    assert await pipeline.verdict(video()) is STORED
    assert states == [SegmentState.PREPARED]
    assert pipeline.prepared == [pipeline.catalog.highest_segment_id()]


async def test_chunks_within_the_linger_share_a_segment_and_a_commit(pipeline: Pipeline) -> None:
    for device in range(1, 6):
        await pipeline.pack(video(500, device), device)
    await until(lambda: len(pipeline.outcomes) == 5)
    assert pipeline.outcomes == [(device, STORED) for device in range(1, 6)]
    assert len(pipeline.objects.objects) == 1
    assert pipeline.catalog.commits == [1]
    assert pipeline.answered == 1, "one flush for all of them"


async def test_a_full_segment_does_not_wait_for_the_linger(
    catalog: FaultyCatalog, nursery: trio.Nursery
) -> None:
    pipeline = await slow_pipeline(catalog, nursery)
    await pipeline.pack(video(TARGET // 2), 1)
    assert await pipeline.verdict(video(TARGET // 2), 2) is STORED
    assert pipeline.outcomes == [(1, STORED), (2, STORED)]


async def test_an_oversize_chunk_is_stored_like_any_other(pipeline: Pipeline) -> None:
    data = video(3_000_000)
    assert await pipeline.verdict(data) is STORED
    assert pipeline.served() == {(1, NOW_MS): data}


async def test_days_are_never_mixed(pipeline: Pipeline) -> None:
    for number, day in enumerate((DAY, DAY + 1, DAY)):
        await pipeline.pack(
            video(500), number + 1, expires_on=day, capture_ms=NOW_MS + (day - DAY) * 86_400_000
        )
    await until(lambda: len(pipeline.outcomes) == 3)
    assert len(pipeline.objects.objects) == 2
    assert {outcome for _, outcome in pipeline.outcomes} == {STORED}


async def test_the_same_chunk_again(pipeline: Pipeline) -> None:
    """Design §2.8: the same bytes are a duplicate, other bytes at the same time a conflict; the first stays."""
    data = video(500, 1)
    assert await pipeline.verdict(data) is STORED
    assert await pipeline.verdict(data) is DUPLICATE
    assert await pipeline.verdict(video(500, 2)) is CONFLICT
    assert await pipeline.verdict(data, device=2) is STORED
    assert pipeline.served() == {(1, NOW_MS): data, (2, NOW_MS): data}


async def test_the_same_chunk_twice_in_one_segment(pipeline: Pipeline) -> None:
    for seed in (1, 1, 2):
        await pipeline.pack(video(500, seed))
    await until(lambda: len(pipeline.outcomes) == 3)
    assert [outcome for _, outcome in pipeline.outcomes] == [STORED, DUPLICATE, CONFLICT]
    assert pipeline.served() == {(1, NOW_MS): video(500, 1)}


# --- the store fails ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.SLOW_DOWN, FaultKind.FULL, FaultKind.DENIED])
async def test_a_put_that_fails_acknowledges_nothing(pipeline: Pipeline, kind: FaultKind) -> None:
    pipeline.store.plan = lambda op, key, nth: Fault(kind)
    assert await pipeline.verdict(video()) is None
    assert pipeline.served() == {}
    assert not pipeline.objects.objects
    assert not pipeline.health.up
    assert pipeline.stats.failed_segments == 1
    assert SegmentState.COMMITTED not in pipeline.states()
    pipeline.store.plan = no_faults
    assert await pipeline.verdict(video()) is STORED, "and the device's next try is stored"


async def test_a_put_whose_answer_was_lost_is_not_acknowledged_either(pipeline: Pipeline) -> None:
    """Its object stays under a prepared key, which the sweep reclaims; the next try is under another key."""
    pipeline.store.plan = lambda op, key, nth: Fault(FaultKind.AFTER) if nth == 0 else None
    assert await pipeline.verdict(video()) is None
    (orphan,) = pipeline.objects.objects
    assert {row.key: row.state for row in pipeline.catalog.segments(limit=1000)}[
        orphan
    ] is SegmentState.PREPARED
    assert await pipeline.verdict(video()) is STORED
    assert len(pipeline.objects.objects) == 2
    row = pipeline.catalog.chunk(1, NOW_MS)
    assert row is not None
    assert row.segment_key != orphan


async def test_one_segment_that_fails_leaves_its_neighbours_alone(pipeline: Pipeline) -> None:
    pipeline.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE) if nth == 0 else None
    later_ms = NOW_MS + 86_400_000
    await pipeline.pack(video(), 1)
    await pipeline.pack(video(), 2, later_ms, expires_on=DAY + 1)
    await until(lambda: len(pipeline.outcomes) == 2)
    assert sorted(outcome is None for _, outcome in pipeline.outcomes) == [False, True]
    assert len(pipeline.served()) == 1


async def test_a_segment_that_arrives_damaged_is_not_acknowledged(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(key: str, body: bytearray, crc32: int) -> None:
        raise CorruptError("the store found other bytes", subject=key, code="bad_digest")

    monkeypatch.setattr(pipeline.objects, "put", put)
    assert await pipeline.verdict(video()) is None
    assert pipeline.served() == {}


# --- the catalog fails -------------------------------------------------------------------------------------------


async def test_a_commit_that_fails_acknowledges_nothing(pipeline: Pipeline) -> None:
    pipeline.catalog.faults["commit"] = "before"
    assert await pipeline.verdict(video()) is None
    assert pipeline.served() == {}
    assert pipeline.health.problem is not None
    assert pipeline.health.problem.code == "catalog_unavailable"
    pipeline.catalog.faults.clear()
    assert await pipeline.verdict(video()) is STORED


async def test_a_commit_whose_answer_was_lost_is_a_duplicate_next_time(pipeline: Pipeline) -> None:
    pipeline.catalog.faults["commit"] = "after"
    assert await pipeline.verdict(video()) is None
    pipeline.catalog.faults.clear()
    assert await pipeline.verdict(video()) is DUPLICATE
    assert pipeline.served() == {(1, NOW_MS): video()}


async def test_without_a_prepared_key_nothing_is_put(pipeline: Pipeline) -> None:
    """Invariant 5."""
    pipeline.catalog.faults["prepare"] = "before"
    assert await pipeline.verdict(video()) is None
    assert pipeline.store.asked["put"] == 0
    pipeline.catalog.faults.clear()
    assert await pipeline.verdict(video()) is STORED


async def test_every_waiter_of_a_failed_transaction_gets_an_error_of_its_own(
    catalog: FaultyCatalog, nursery: trio.Nursery
) -> None:
    pipeline = await slow_pipeline(catalog, nursery)
    catalog.commit_open.clear()
    catalog.faults["commit"] = "before"
    for device in (1, 2, 3):
        await pipeline.pack(video(TARGET), device)
    await until(lambda: len(pipeline.objects.objects) == 3)
    catalog.commit_open.set()
    await until(lambda: len(pipeline.outcomes) == 3)
    assert {outcome for _, outcome in pipeline.outcomes} == {None}


async def test_what_waits_goes_into_one_transaction(catalog: FaultyCatalog, nursery: trio.Nursery) -> None:
    """Group commit: one fsync for all segments that were put meanwhile."""
    pipeline = await slow_pipeline(catalog, nursery, max_segments=8)
    catalog.commit_open.clear()
    await pipeline.pack(video(TARGET), 1)
    await until(lambda: len(pipeline.objects.objects) == 1)
    for number in range(5):
        await pipeline.pack(video(TARGET), 2, NOW_MS + number)
    await until(lambda: len(pipeline.objects.objects) == 6)
    await trio.testing.wait_all_tasks_blocked(0.01)
    catalog.commit_open.set()
    await until(lambda: len(pipeline.outcomes) == 6)
    assert sum(catalog.commits) == 6
    assert len(catalog.commits) <= 3
    assert {outcome for _, outcome in pipeline.outcomes} == {STORED}


# --- races that the commit decides (design §2.7) ---------------------------------------------------------------------


def erase(catalog: FaultyCatalog, device: int) -> None:
    catalog.update_device(
        device,
        lambda facts: replace(facts, erase_epoch=facts.erase_epoch + 1, erase_state=EraseState.ERASING),
        what="test",
        now_ms=NOW_MS,
    )


async def test_a_device_erased_since_admission_loses_and_its_neighbours_do_not(pipeline: Pipeline) -> None:
    """Invariant 9."""
    erase(pipeline.catalog, 2)
    for device in (1, 2, 3):
        await pipeline.pack(video(500, device), device)
    await until(lambda: len(pipeline.outcomes) == 3)
    assert pipeline.outcomes == [(1, STORED), (2, Verdict.ERASED), (3, STORED)]
    assert set(pipeline.served()) == {(1, NOW_MS), (3, NOW_MS)}
    assert await pipeline.verdict(video(500, 9), 2, epoch=1) is STORED, "what is admitted since is stored"


async def test_a_destroyed_key_is_never_written_with(pipeline: Pipeline) -> None:
    """Invariant 9."""
    pipeline.keys.faults[1] = KeyDestroyed("gone")
    with pytest.raises(KeyDestroyed):
        await pipeline.pack(video())
    assert await pipeline.verdict(video(), 2) is STORED


async def test_a_key_store_that_is_down_is_the_world(pipeline: Pipeline) -> None:
    pipeline.keys.fault = WorldError("busy", code="key_store_unavailable")
    with pytest.raises(WorldError):
        await pipeline.pack(video())
    pipeline.keys.fault = None
    assert await pipeline.verdict(video()) is STORED


async def test_a_deleted_range_stays_deleted(pipeline: Pipeline) -> None:
    pipeline.catalog.delete_range(
        1, NOW_MS, NOW_MS + 1, reason="test", who="test", now_ms=NOW_MS, delete_after_ms=NOW_MS
    )
    assert await pipeline.verdict(video()) is Verdict.DELETED
    assert await pipeline.verdict(video(), capture_ms=NOW_MS + 1) is STORED


async def test_a_day_that_was_swept_meanwhile_takes_nothing(pipeline: Pipeline) -> None:
    fence = pipeline.catalog.acquire_lease("sweep", holder="test", ttl_ms=60_000, now_ms=NOW_MS)
    assert fence is not None
    pipeline.catalog.advance_closed_through(DAY, fence=fence)
    assert await pipeline.verdict(video()) is Verdict.EXPIRED
    assert pipeline.served() == {}


async def test_a_late_commit_on_a_reclaimed_key_is_refused(pipeline: Pipeline) -> None:
    """Invariant 5: the device is told to send it again, and then it is stored."""
    fence = pipeline.catalog.acquire_lease("sweep", holder="test", ttl_ms=60_000, now_ms=NOW_MS)
    assert fence is not None

    def reclaim(op: str, key: str, nth: int) -> Fault | None:
        ids = [row.segment_id for row in pipeline.catalog.segments(limit=1000) if row.key == key]
        assert pipeline.catalog.reclaim(ids, fence=fence, now_ms=NOW_MS) == 1
        return None

    pipeline.store.plan = reclaim
    assert await pipeline.verdict(video()) is None
    assert pipeline.served() == {}
    pipeline.store.plan = no_faults
    assert await pipeline.verdict(video()) is STORED


async def test_keys_prepared_too_long_ago_are_not_used(pipeline: Pipeline) -> None:
    """Invariant 5: a sweep may be reclaiming them."""
    for device in (1, 2):  # the second makes two keys, and leaves one
        assert await pipeline.verdict(video(), device) is STORED
    prepared = pipeline.catalog.highest_segment_id()
    assert SegmentState.PREPARED in pipeline.states()
    pipeline.clock.ms += 300_000
    assert await pipeline.verdict(video(), 3) is STORED
    assert pipeline.catalog.highest_segment_id() == prepared + 1


# --- live chunks ----------------------------------------------------------------------------------------------------


async def test_live_chunks_in_one_millisecond_are_moved_on(pipeline: Pipeline) -> None:
    """Design §6: bumped by 1 ms until unique, also past a time that is taken by a chunk with a time of its own."""
    assert await pipeline.verdict(video(500, 100), capture_ms=NOW_MS + 1) is STORED
    pipeline.outcomes.clear()
    for seed in range(3):
        await pipeline.pack(video(500 + seed, seed), live=True)
    await until(lambda: len(pipeline.outcomes) == 3)
    assert {outcome for _, outcome in pipeline.outcomes} == {STORED}
    served = pipeline.served()
    assert set(served) == {(1, NOW_MS + i) for i in range(4)}
    assert sorted(served.values()) == sorted([video(500, 100), *(video(500 + s, s) for s in range(3))])
    assert served[1, NOW_MS] == video(500, 0), "the first keeps its time"


async def test_a_second_holds_a_bounded_number_of_live_chunks(pipeline: Pipeline) -> None:
    for later_ms in range(1, MAX_MOVED_MS + 1):
        await pipeline.pack(video(200, later_ms), capture_ms=NOW_MS + later_ms)
    await until(lambda: len(pipeline.outcomes) == MAX_MOVED_MS)
    assert await pipeline.verdict(video(500, 1000), live=True) is STORED
    assert await pipeline.verdict(video(500, 1001), live=True) is CONFLICT
    assert len(pipeline.served()) == MAX_MOVED_MS + 1


async def test_a_live_chunk_sent_twice_is_one(pipeline: Pipeline) -> None:
    for _ in range(2):
        await pipeline.pack(video(), live=True)
    await until(lambda: len(pipeline.outcomes) == 2)
    assert sorted(outcome for _, outcome in pipeline.outcomes if outcome is not None) == [STORED, DUPLICATE]


async def test_a_live_chunk_moved_over_midnight_stays_in_its_segment_day(pipeline: Pipeline) -> None:
    last_ms = (TODAY + 1) * 86_400_000 - 1
    pipeline.clock.ms = last_ms
    for seed in range(2):
        await pipeline.pack(video(500, seed), capture_ms=last_ms, live=True)
    await until(lambda: len(pipeline.outcomes) == 2)
    assert set(pipeline.served()) == {(1, last_ms), (1, last_ms + 1)}
    assert day_of_ms(last_ms + 1) == TODAY + 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (KeyDestroyed("gone"), Verdict.ERASED),
        (WorldError("busy"), None),
        (CorruptError("flipped", code="key_store_corrupt"), None),
    ],
)
async def test_a_key_that_is_gone_when_a_live_chunk_is_moved_on(
    pipeline: Pipeline, error: Exception, outcome: Verdict | None
) -> None:
    """Invariant 9: that chunk is refused; the segment's other chunks, and the worker, are not."""

    def lose_the_key(op: str, key: str, nth: int) -> Fault | None:
        pipeline.keys.faults[1] = error  # type: ignore[assignment]
        trio.from_thread.run_sync(pipeline.keyring.purge, lambda key_id: key_id.device != 1)
        return None

    pipeline.store.plan = lose_the_key
    await pipeline.pack(video(500, 0), live=True)
    await pipeline.pack(video(500, 1), live=True)
    await pipeline.pack(video(500, 2), 2)
    await until(lambda: len(pipeline.outcomes) == 3)
    assert pipeline.outcomes == [(1, STORED), (1, outcome), (2, STORED)]
    pipeline.store.plan = no_faults
    assert await pipeline.verdict(video(), 3) is STORED


async def test_a_chunk_with_a_time_of_its_own_is_never_moved(pipeline: Pipeline) -> None:
    assert await pipeline.verdict(video(500, 1), live=True) is STORED
    assert await pipeline.verdict(video(500, 2)) is CONFLICT


# --- bounds, and the end --------------------------------------------------------------------------------------------


class Gate:
    """A plan that holds puts up, and notes how many were in the store at once."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, op: str, key: str, nth: int) -> Fault | None:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.open.wait(10)
        with self._lock:
            self.inside -= 1
        return None


async def test_a_slow_store_holds_up_packing_not_memory(
    catalog: FaultyCatalog, nursery: trio.Nursery
) -> None:
    """Invariant 15: no more segments than max_segments, however many chunks want in."""
    pipeline = await slow_pipeline(catalog, nursery, max_segments=2)
    gate = Gate()
    pipeline.store.plan = gate
    packed: list[int] = []

    async def pack(number: int) -> None:
        await pipeline.pack(video(TARGET, number), 1, NOW_MS + number)
        packed.append(number)

    for number in range(6):
        nursery.start_soon(pack, number)
    await until(lambda: gate.inside == 2)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert len(packed) == 2
    assert pipeline.uploads.packer.in_use == 2
    gate.open.set()
    await until(lambda: len(pipeline.outcomes) == 6)
    assert gate.most == 2
    assert {outcome for _, outcome in pipeline.outcomes} == {STORED}
    assert len(pipeline.served()) == 6


async def test_more_days_than_segments_take_turns(catalog: FaultyCatalog, nursery: trio.Nursery) -> None:
    """Open segments give way to one another long before their linger."""
    pipeline = await slow_pipeline(catalog, nursery, max_segments=2)
    with trio.fail_after(10):
        for number in range(5):
            await pipeline.pack(video(), 1, NOW_MS + number * 86_400_000, expires_on=DAY + number)
        await pipeline.uploads.drain()
    assert pipeline.outcomes == [(1, STORED)] * 5


async def test_a_cancelled_packer_takes_nobodys_room(catalog: FaultyCatalog, nursery: trio.Nursery) -> None:
    pipeline = await slow_pipeline(catalog, nursery, max_segments=1)
    gate = Gate()
    pipeline.store.plan = gate
    await pipeline.pack(video(TARGET), 1)
    with trio.move_on_after(0.01) as scope:
        await pipeline.pack(video(TARGET), 2)
    assert scope.cancelled_caught
    gate.open.set()
    await pipeline.pack(video(TARGET), 3)
    await until(lambda: len(pipeline.outcomes) == 2)
    assert pipeline.outcomes == [(1, STORED), (3, STORED)]


async def test_drain_answers_everything_and_gives_unused_keys_back(
    catalog: FaultyCatalog, nursery: trio.Nursery
) -> None:
    pipeline = await slow_pipeline(catalog, nursery)
    for device in (1, 2, 3):
        await pipeline.pack(video(), device, live=True)
    await pipeline.pack(video(500, 7), 3, live=True)  # is moved on by a millisecond while draining
    with trio.fail_after(10):
        await pipeline.uploads.drain()
    assert [outcome for _, outcome in pipeline.outcomes] == [STORED] * 4
    assert len(pipeline.served()) == 4
    assert SegmentState.PREPARED not in pipeline.states()
    assert len(catalog.released) == 1, "of a block of one key and one of two, two were used"


async def test_drain_of_nothing(pipeline: Pipeline) -> None:
    with trio.fail_after(5):
        await pipeline.uploads.drain()
    assert pipeline.catalog.released == []


async def test_drain_ends_also_when_nothing_can_be_stored(pipeline: Pipeline) -> None:
    await pipeline.verdict(video(), 2)
    pipeline.catalog.faults["release"] = "before"
    pipeline.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)
    await pipeline.pack(video())
    with trio.fail_after(5):
        await pipeline.uploads.drain()
    assert pipeline.outcomes[-1] == (1, None)


async def test_a_stop_at_the_deadline_acknowledges_nothing_more(catalog: FaultyCatalog) -> None:
    """Cancelled in the middle of a put: its chunks are told nothing good, whatever became of the object."""
    gate = Gate()
    async with trio.open_nursery() as nursery:
        pipeline = await slow_pipeline(catalog, nursery)
        pipeline.store.plan = gate
        await pipeline.pack(video(TARGET), 1)
        await until(lambda: gate.inside == 1)
        nursery.cancel_scope.cancel()
        gate.open.set()
    assert pipeline.outcomes == [(1, None)]
    assert pipeline.served() == {}


async def test_the_linger_is_from_the_first_chunk(catalog: FaultyCatalog, nursery: trio.Nursery) -> None:
    """A steady trickle does not keep a segment open: what is packed later goes with it."""
    pipeline = await Pipeline(catalog, nursery, linger_s=0.1).start()
    for number in range(1000):
        await pipeline.pack(video(), 1, NOW_MS + number)
        await trio.sleep(0.005)
        if pipeline.outcomes:
            break
    assert pipeline.outcomes


# --- what nobody expected ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["seal", "commit", "prepare"])
async def test_a_surprise_costs_its_segment_and_nothing_else(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """One ended the worker's uploads without a line, and whoever waited for room was never answered."""

    def surprise(*args: object, **kwargs: object) -> None:
        raise ValueError("nobody expected this")

    owner = SegmentWriter if where == "seal" else pipeline.catalog
    with monkeypatch.context() as patched, structlog.testing.capture_logs() as logs:
        patched.setattr(owner, where, surprise)
        assert await pipeline.verdict(video()) is None
    (line,) = [entry for entry in logs if entry["event"] == "segment_not_stored"]
    assert (line["code"], line["chunks"]) == ("internal", 1)
    assert pipeline.uploads.packer.in_use == 0
    assert await pipeline.verdict(video()) is STORED


async def test_a_segment_whose_key_was_reclaimed_is_in_the_log(pipeline: Pipeline) -> None:
    def reclaim(op: str, key: str, nth: int) -> Fault | None:
        ids = [row.segment_id for row in pipeline.catalog.segments(limit=1000)]
        pipeline.catalog.release(ids)
        return None

    pipeline.store.plan = reclaim
    with structlog.testing.capture_logs() as logs:
        assert await pipeline.verdict(video()) is None
    assert [entry.get("code") for entry in logs if entry["event"] == "segment_not_stored"] == [
        "key_reclaimed"
    ]


async def test_who_waits_for_room_is_refused_when_uploads_end(catalog: FaultyCatalog) -> None:
    """Such a wait is shielded, for a complete body commits: it kept a worker that had failed from ending."""
    refused: list[str] = []

    async def wait_for_room() -> None:
        with trio.CancelScope(shield=True):
            try:
                await pipeline.pack(video(TARGET * 3 // 4), 5)
            except WorldError as error:
                refused.append(error.code)

    with structlog.testing.capture_logs() as logs, trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            pipeline = await slow_pipeline(catalog, nursery, max_segments=2)
            await pipeline.keyring.load(pipeline.chunk(video(), 5).key_id())
            catalog.commit_open.clear()
            for device in (1, 2, 3, 4):
                nursery.start_soon(pipeline.pack, video(TARGET * 3 // 4), device)
            await until(lambda: pipeline.uploads.packer.in_use == 2)
            nursery.start_soon(wait_for_room)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            catalog.commit_open.set()
    assert refused == ["stopping"]
    lost = [entry for entry in logs if entry["event"] == "segment_not_stored"]
    assert {entry["code"] for entry in lost} == {"stopped"}, "each has its line"


async def test_a_chunk_that_cannot_be_encrypted_leaves_no_segment_behind(pipeline: Pipeline) -> None:
    with pytest.raises(CallerError):
        await pipeline.pack(b"")  # no chunk is empty: admission has refused it
    assert pipeline.uploads.packer.in_use == 0
    assert await pipeline.verdict(video()) is STORED
    assert pipeline.stats.segments == 1
    assert pipeline.stats.failed_segments == 0
