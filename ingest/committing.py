"""From sealed segment to acknowledgement: upload, commit, answer.

A sealed segment gets a prepared key, is sealed and put by a thread, and handed to the one committer, which puts
everything that waits into one catalog transaction. Only then are its chunks answered: 2xx means persisted.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import structlog
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.calls import CallsUnderWay
from ingest.gathering import Gathering, Pack
from ingest.health import Health
from ingest.inits import LOOK_UPS, Inits
from ingest.keyring import Keyring
from ingest.keys_ahead import KeysAhead
from ingest.next_month import NextMonth
from ingest.packing import MAX_MOVED_MS, MAX_MOVES, Chunk, OpenSegment, Packer
from ingest.resumable.not_taken import NotTaken
from ingest.stats import Stats
from ingest.stored import StoredBelow
from storage.catalog.ingest import IngestCatalog
from storage.catalog.reading import ReadingCatalog
from storage.clock import Clock
from storage.errors import CatalogUnavailable, ClipkeepError, CorruptError, KeyDestroyed, WorldError
from storage.objects import ObjectStore
from storage.rows.recordings import ChunkRow, PreparedKey, SegmentCommit, Verdict
from storage.segment import TAG_BYTES, SegmentWriter, decrypt_chunk
from storage.vault import KeyId

SLOW_CALL_S = 5.0
"""Devices are told to come again after a catalog has not answered for so long. A commit takes milliseconds, and seconds
on a server that is short of everything, where to take in less is what helps."""
MAX_COMMIT_SEGMENTS = 64
"""Most segments in one transaction: bounds how long other workers wait for the catalog's lock."""

_log = structlog.get_logger("ingest")


@dataclass(slots=True)
class _Waiting:
    """A segment whose object is durable, waiting for its commit."""

    commit: SegmentCommit
    finished: trio.Event
    verdicts: np.ndarray | None = None
    error: ClipkeepError | None = None


class Committer:
    """The worker's one writer to the catalog: groups what waits into one transaction."""

    def __init__(self, catalog: IngestCatalog, clock: Clock, calls: CallsUnderWay) -> None:
        self._catalog = catalog
        self._clock = clock
        self._calls = calls
        self._waiting: list[_Waiting] = []
        self._wake = trio.Event()
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def commit(self, commit: SegmentCommit) -> np.ndarray:
        """Commit one segment, with whatever else waits.

        Returns:
            uint8 `Verdict` per ordinal.

        Raises:
            CatalogUnavailable: nothing of it is stored. (Or it is, and the answer was lost: a retry is then
            answered 200.)
        """
        waiting = _Waiting(commit, trio.Event())
        self._waiting.append(waiting)
        self._wake.set()
        await waiting.finished.wait()
        if waiting.error is not None:
            raise waiting.error
        assert waiting.verdicts is not None
        return waiting.verdicts

    async def commit_whole(self, commits: Sequence[SegmentCommit]) -> list[np.ndarray]:
        """Commit segments that belong together, all of them or none, in a transaction of their own.

        Returns:
            uint8 `Verdict` per ordinal of each.

        Raises:
            CatalogUnavailable: nothing of them is stored, or all of it and the answer was lost.
        """
        call = partial(self._catalog.commit_whole, commits, now_ms=self._clock.now_ms())
        with self._calls.one():
            return await trio.to_thread.run_sync(call, limiter=self._one_at_a_time)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The owning task. Cancelling it leaves commits unanswered: stop it last."""
        task_status.started()
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._waiting:
                batch = self._waiting[:MAX_COMMIT_SEGMENTS]
                del self._waiting[:MAX_COMMIT_SEGMENTS]
                await self._commit_batch(batch)

    async def _commit_batch(self, batch: list[_Waiting]) -> None:
        call = partial(self._catalog.commit, [w.commit for w in batch], now_ms=self._clock.now_ms())
        try:
            with self._calls.one():
                verdicts = await trio.to_thread.run_sync(call, limiter=self._one_at_a_time)
            for waiting, verdict in zip(batch, verdicts, strict=True):
                waiting.verdicts = verdict
        except ClipkeepError as error:
            for waiting in batch:
                waiting.error = copy.copy(error)  # one each: a raised error collects its task's traceback
        except Exception as error:  # a bug, which must not end the commits of everybody else
            _log.exception("commit_failed", segments=len(batch))
            for waiting in batch:
                waiting.error = WorldError(f"the commit failed: {error!r}", code="internal")
        finally:
            for waiting in batch:
                waiting.finished.set()


class UploadsCatalog(IngestCatalog, ReadingCatalog, Protocol):
    """Reading tells which milliseconds are free for a chunk that has to move."""


class Uploads:
    """Carries sealed segments to the store and answers their chunks.

    Args:
        worker: this worker's name, part of the keys it writes.
        linger_s: how long the oldest chunk of an open segment waits at most.
        target_bytes, max_segments: see `Packer`.
        prepare_ttl_ms: how long a prepared key stays unreclaimed; half of it is used.
        gathering: of chunks that wait for others of their day.
        prepared: called in a thread with the highest segment id of each prepared block.
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        catalog: UploadsCatalog,
        keyring: Keyring,
        clock: Clock,
        health: Health,
        stats: Stats,
        worker: str,
        linger_s: float,
        target_bytes: int,
        max_segments: int,
        prepare_ttl_ms: int,
        gathering: Gathering | None = None,
        prepared: Callable[[int], None] = lambda segment_id: None,
    ) -> None:
        self._opened = trio.Event()
        self.gathering = gathering or Gathering()
        self._held = trio.Event()
        self.packer = Packer(
            target_bytes,
            max_segments,
            gathering=self.gathering,
            cached=keyring.cached,
            opened=self._has_opened,
            sealed=self._sealed,
        )
        self.linger_s = linger_s
        self._store = store
        self._catalog = catalog
        self._keyring = keyring
        self._clock = clock
        self._health = health
        self._stats = stats
        self._worker = worker
        self._prepared = prepared
        self.answered: Callable[[], None] = lambda: None
        """Called once after each group of chunks was answered."""
        self._catalog_calls = CallsUnderWay()
        self._committer = Committer(catalog, clock, self._catalog_calls)
        self._next_month = NextMonth(keyring)
        self.inits = Inits(store, catalog, keyring)
        self.parts = StoredBelow(store, catalog, keyring, trio.CapacityLimiter(LOOK_UPS))
        """Of resumable uploads: whoever asks for many of them keeps no fragment waiting."""
        self.not_taken = NotTaken()
        self.cutting = trio.Lock()
        """Of whoever cuts a long upload: what that takes of memory is bounded, and so is its part of the CPU."""
        self._keys = KeysAhead(self._prepare, prepare_ttl_ms // 2)
        self._threads = trio.CapacityLimiter(max_segments)
        self._nursery: trio.Nursery | None = None
        self._room = trio.lowlevel.ParkingLot()
        self._ended = False
        self._under_way = 0
        self._idle = trio.Event()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The owning task of all uploads. Drain before cancelling it."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._committer.run)
                await nursery.start(self._next_month.run)
                nursery.start_soon(self._seal_lingering)
                nursery.start_soon(self._pack_lots)
                task_status.started()
        finally:
            self._ended = True
            self._room.unpark_all()  # who waits is shielded, and would keep the process from ending

    @property
    def ended(self) -> bool:
        """Nothing that is packed is carried any more."""
        return self._ended

    def require_answers(self) -> None:
        """Make sure that the catalog answers what it was asked: one that is frozen fails no call for a while, and takes
        in what nobody will store.

        Raises:
            CatalogUnavailable: a commit, or a block of keys, is waited for longer than `SLOW_CALL_S`.
        """
        if (waited_s := self._catalog_calls.longest_s) > SLOW_CALL_S:
            raise CatalogUnavailable(f"it has not answered for {waited_s:.0f} s")

    async def drain(self) -> None:
        """Seal everything, wait until all is answered, and give unused keys back."""
        self.hurry()
        self.packer.seal_older_than(math.inf)
        while self._under_way or self.gathering.waiting_bytes:
            self._idle = trio.Event()
            await self._idle.wait()
            self.packer.seal_older_than(math.inf)
        if unused := self._keys.unused():
            try:
                await trio.to_thread.run_sync(self._catalog.release, unused)
            except WorldError as error:
                _log.warning("keys_not_released", detail=str(error))  # the sweep reclaims them

    # --- packing --------------------------------------------------------------------------------------------

    def gather(self, chunk: Chunk, pack: Pack, now_s: float) -> bool:
        """Let a chunk wait for others of its day, if it has to. Returns whether it does; `pack` comes later then."""
        place = (chunk.class_days, chunk.expires_on)
        if self._ended or not self.packer.has_to_wait(chunk, now_s):
            return False
        held = self.gathering.hold(chunk.device, place, chunk.length, pack, now_s)
        if held:
            self._held.set()
        return held

    def hurry(self) -> None:
        """From now on no chunk waits for others: the server stops."""
        self.gathering.stop()
        self._held.set()

    async def _pack_lots(self) -> None:
        """Pack what has waited for others of its day. So that other chunks find room, half of the segments are left
        to them, and what is due waits until so many are free."""
        while True:
            due_s = self.gathering.next_due_s()
            if due_s > trio.current_time():
                self._held = trio.Event()
                with trio.move_on_at(due_s):
                    await self._held.wait()
            elif self.packer.in_use * 2 > self.packer.max_segments:
                await self._room.park()
            elif lot := self.gathering.take_due(trio.current_time()):
                self._under_way += 1
                for pack in lot.waiting:
                    await pack()
                self.packer.seal_place(*lot.place)
                self._one_has_ended()
                await trio.lowlevel.checkpoint()

    def _one_has_ended(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._idle.set()

    async def pack(self, chunk: Chunk, body: memoryview) -> None:
        """Put a complete chunk into its segment, waiting for room and for its data key, and for no others of its day.

        Returns when the body's memory is free. `chunk.done` comes later.

        Raises:
            KeyDestroyed: the device's recordings are being erased.
            WorldError: the key store is unavailable, or `run` has ended.
        """
        key_id = chunk.key_id()
        cipher = self._keyring.cached(key_id)
        if cipher is None:
            cipher = await self._keyring.load(key_id)
        while not self._ended and not self.packer.add(
            cipher, chunk, body, trio.current_time(), has_waited=True
        ):
            await self._room.park()
        if self._ended:
            raise WorldError("uploads have ended; try again", code="stopping")

    def _has_opened(self) -> None:
        self._opened.set()
        self._held.set()  # who waits for others of this day joins it

    async def _seal_lingering(self) -> None:
        while True:
            next_opened_s = self.packer.seal_older_than(trio.current_time() - self.linger_s)
            if next_opened_s is None:
                self._opened = trio.Event()
                await self._opened.wait()
                await trio.sleep(self.linger_s)
            else:
                await trio.sleep_until(next_opened_s + self.linger_s)

    def _sealed(self, segment: OpenSegment) -> None:
        assert self._nursery is not None, "run() owns the uploads"
        self._under_way += 1
        self._next_month.seen(segment.expires_on, ((c.device, c.epoch) for c in segment.chunks))
        self._nursery.start_soon(self._carry, segment)

    def answer_soon(self, answering: Callable[[], Awaitable[None]]) -> None:
        """Have an answer made beside its connection, which goes on. It raises nothing but Cancelled."""
        assert self._nursery is not None, "run() owns the uploads"
        self._nursery.start_soon(answering)

    # --- the way of one segment -----------------------------------------------------------------------------

    async def _carry(self, segment: OpenSegment) -> None:
        again: list[tuple[Chunk, bytes, bool]] = []
        outcomes: list[int] | None = None
        try:
            index, body, verdicts = await self._store_segment(segment)
            outcomes = verdicts.tolist()
            again = await self._moved_on(segment, index, body, outcomes)
        except (WorldError, CorruptError) as error:
            self._stats.failed_segments += 1
            self._health.failed(error)
            _log.warning("segment_not_stored", code=error.code, detail=str(error), chunks=len(segment.chunks))
        except trio.Cancelled:
            self._ended = True  # its nursery ends: nothing that is packed from now on would be carried
            _log.warning("segment_not_stored", code="stopped", chunks=len(segment.chunks))
            raise
        except (
            Exception
        ):  # a bug, which must end neither the worker nor other segments: nothing was acknowledged
            self._stats.failed_segments += 1
            _log.exception("segment_not_stored", code="internal", chunks=len(segment.chunks))
        finally:
            self.packer.recycle(segment)
            self._room.unpark_all()
            self._answer(segment, outcomes, {id(chunk) for chunk, _, _ in again})
        await self._pack_all_again(again)
        self._one_has_ended()

    async def _store_segment(self, segment: OpenSegment) -> tuple[np.ndarray, bytearray, np.ndarray]:
        """Put and commit. Returns the index, the object and the verdicts."""
        key = await self._keys.take(segment.class_days, segment.expires_on, self._clock.now_ms())
        index = segment.writer.index()
        body, crc32 = await trio.to_thread.run_sync(self._seal_and_put, segment, key, limiter=self._threads)
        self._stats.segments += 1
        self._stats.stored_bytes += len(body)
        commit = SegmentCommit(key.segment_id, segment.expires_on, len(body), crc32, index)
        return index, body, await self._committer.commit(commit)

    def _seal_and_put(self, segment: OpenSegment, key: PreparedKey) -> tuple[bytearray, int]:
        body, crc32 = segment.writer.seal(
            class_days=segment.class_days, expires_on=segment.expires_on, segment_id=key.segment_id
        )
        self._store.put(key.key, body, crc32)
        return body, crc32

    # --- segments of their own ------------------------------------------------------------------------------------

    async def cipher(self, key_id: KeyId) -> AESGCM:
        """Of a data key. Raises KeyDestroyed, WorldError."""
        return self._keyring.cached(key_id) or await self._keyring.load(key_id)

    async def put_apart(self, writer: SegmentWriter, class_days: int, expires_on: int) -> SegmentCommit:
        """Put a segment that no other chunks share, under a prepared key. Nothing of it is served before
        `commit_whole`: who never comes to that leaves a prepared key, which the sweep reclaims.

        Raises:
            CatalogUnavailable, WorldError: it is not in the store.
        """
        if self._ended:
            raise WorldError("uploads have ended; try again", code="stopping")
        try:
            key = await self._keys.take(class_days, expires_on, self._clock.now_ms())
            index = writer.index()
            seal = partial(writer.seal, class_days=class_days, expires_on=expires_on)
            put = partial(self._put_apart, seal, key)
            size, crc32 = await trio.to_thread.run_sync(put, limiter=self._threads)
        except WorldError as error:
            self._stats.failed_segments += 1
            self._health.failed(error)
            raise
        self._stats.segments += 1
        self._stats.stored_bytes += size
        return SegmentCommit(key.segment_id, expires_on, size, crc32, index)

    def _put_apart(self, seal: Callable[..., tuple[bytearray, int]], key: PreparedKey) -> tuple[int, int]:
        body, crc32 = seal(segment_id=key.segment_id)
        self._store.put(key.key, body, crc32)
        return len(body), crc32

    async def commit_whole(self, commits: Sequence[SegmentCommit]) -> list[np.ndarray]:
        """Commit segments that were put apart, all of them or none. Returns uint8 `Verdict` per ordinal of each.

        Raises:
            CatalogUnavailable: nothing of them is stored, or all of it and the answer was lost.
        """
        if self._ended:
            raise WorldError("uploads have ended; try again", code="stopping")
        try:
            return await self._committer.commit_whole(commits)
        except WorldError as error:
            self._health.failed(error)
            raise

    async def _prepare(self, class_days: int, expires_on: int, count: int) -> list[PreparedKey]:
        call = partial(
            self._catalog.prepare,
            worker=self._worker,
            class_days=class_days,
            expires_on=expires_on,
            count=count,
            now_ms=self._clock.now_ms(),
        )
        with self._catalog_calls.one():
            block = await trio.to_thread.run_sync(call)
        await trio.to_thread.run_sync(self._prepared, block[-1].segment_id)
        return block

    def _answer(self, segment: OpenSegment, outcomes: list[int] | None, kept: set[int]) -> None:
        now_s = trio.current_time()
        if outcomes and outcomes[0] == Verdict.RECLAIMED:  # as all of them then
            _log.warning("segment_not_stored", code="key_reclaimed", chunks=len(segment.chunks))
        for ordinal, chunk in enumerate(segment.chunks):
            if id(chunk) not in kept:
                outcome = None if outcomes is None else outcomes[ordinal]
                chunk.done(None if outcome == Verdict.RECLAIMED else outcome, now_s)
        self.answered()

    # --- live chunks whose millisecond was taken --------------------------------------------------------------

    async def _moved_on(
        self, segment: OpenSegment, index: np.ndarray, body: bytearray, outcomes: list[int]
    ) -> list[tuple[Chunk, bytes, bool]]:
        """Chunks that are to be packed once more, with their plaintext, and whether at another time: those timed by
        arrival that met another chunk, and fragments whose init segment was deleted since it was last seen."""
        moved = []
        for ordinal, chunk in enumerate(segment.chunks):
            if outcomes[ordinal] == Verdict.NO_INIT and chunk.init is not None and not chunk.has_lacked_init:
                chunk.has_lacked_init = True
                chunk.init.stored(chunk.epoch, chunk.expires_on, False)
            elif outcomes[ordinal] != Verdict.CONFLICT or not chunk.moves_left:
                continue
            try:
                plaintext = await self._plaintext(chunk, index[ordinal], body)
                moved.append((chunk, plaintext, outcomes[ordinal] == Verdict.CONFLICT))
            except KeyDestroyed:
                outcomes[ordinal] = Verdict.ERASED
            except ClipkeepError as error:
                _log.warning("chunk_not_moved_on", code=error.code, detail=str(error))
                outcomes[ordinal] = Verdict.RECLAIMED  # nothing of it is stored: to be sent again
        return moved

    async def _pack_all_again(self, again: list[tuple[Chunk, bytes, bool]]) -> None:
        left = deque(again)
        chosen: set[tuple[int, int]] = set()
        try:
            while left:
                await self._pack_again(*left.popleft(), chosen)
        finally:
            for chunk, _, _ in left:  # the worker stops
                chunk.done(None, trio.current_time())

    async def _plaintext(self, chunk: Chunk, row: np.void, body: bytearray) -> bytes:
        start = int(row["offset"])
        stored = bytes(memoryview(body)[start : start + chunk.length + TAG_BYTES])
        cipher = await self._keyring.load(chunk.key_id())
        nonce = row["nonce"].tobytes()
        return decrypt_chunk(cipher, nonce, stored, device=chunk.device, capture_ms=chunk.capture_ms)

    async def _pack_again(
        self, chunk: Chunk, plaintext: bytes, moves: bool, chosen: set[tuple[int, int]]
    ) -> None:
        """Pack a chunk at the next time that is free as far as the catalog knows, or that holds the same bytes: it was
        sent before. A put for each time that is taken would let one device, or one name, make many of them.

        Args:
            moves: whether its time is taken; else it is packed at its own.
            chosen: what others of its segment were given, (device, capture time); this one's is added.
        """
        look = partial(
            self._catalog.chunks, chunk.device, chunk.capture_ms, chunk.latest_ms + 1, limit=MAX_MOVED_MS + 1
        )
        try:
            if not moves:
                await self.pack(chunk, memoryview(plaintext))
                return
            rows = await trio.to_thread.run_sync(look, limiter=self._threads)
            to_ms = _next_time(chunk, rows, chosen)
            if to_ms is None:
                chunk.done(Verdict.CONFLICT, trio.current_time())
                return
            chosen.add((chunk.device, to_ms))
            chunk.move(to_ms)
            await self.pack(chunk, memoryview(plaintext))
        except KeyDestroyed:
            chunk.done(Verdict.ERASED, trio.current_time())
        except ClipkeepError as error:
            _log.warning("chunk_not_moved_on", code=error.code, detail=str(error))
            chunk.done(None, trio.current_time())
        except trio.Cancelled:
            chunk.done(None, trio.current_time())
            raise
        except Exception:
            _log.exception("chunk_not_moved_on", code="internal")
            chunk.done(None, trio.current_time())


def _next_time(chunk: Chunk, rows: Sequence[ChunkRow], chosen: Collection[tuple[int, int]]) -> int | None:
    """Where a chunk goes whose time is another's; None when there is no room.

    Args:
        rows: what is stored from its time to the latest that it may have.
    """
    taken = {row.capture_ms for row in rows}
    for row in rows:
        if row.capture_ms > chunk.capture_ms and (row.length, row.crc32) == (chunk.length, chunk.crc32):
            return row.capture_ms
    free = [
        ms
        for ms in range(chunk.capture_ms + 1, chunk.latest_ms + 1)
        if ms not in taken and (chunk.device, ms) not in chosen
    ]
    if not free:
        return None
    # Whoever meets another one again looks further away each time: the next free one is what all of them see.
    moves = MAX_MOVES - chunk.moves_left
    return free[chunk.crc32 % min(len(free), 8 << moves)] if moves else free[0]
