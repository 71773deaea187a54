"""Reading recordings: who may, what there is, and the bytes. No HTTP in here.

Entitlement is asked at every read, and once more when the bytes have come back from the store, right before
they are sent: a revocation during a read wins (invariant 2). Nothing that was found out before is trusted for
that: the row says which erase epoch and expiry day a chunk is of, the bitmap says which are served now.
A chunk is decrypted as what was asked for, device and time, and checked against its length and CRC-32 before
anyone sees a byte of it (invariant 11).

Blocking calls run in threads, in three groups that don't wait for each other: listings, which take long,
look-ups of one chunk, and the store. Memory for chunks under way is charged and bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import structlog
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest import answers
from ingest.answers import Answer
from ingest.keyring import Keyring
from ingest.media import Media
from retention.bitmap import BUSY, ERASED, PRESENT, SUSPENDED, TERMINATED, EntitlementBitmap
from retention.tokens import read_viewer_token
from service import hls
from service.hls import ListedChunk, Span
from storage.catalog import Catalog, ChunkRow
from storage.checksums import crc32
from storage.clock import Clock, today
from storage.days import month_of_day
from storage.errors import CallerError, ClipkeepError, CorruptError, ObjectMissing
from storage.keys import KeyId, KeyStore
from storage.objects import ObjectStore
from storage.segment import TAG_BYTES, decrypt_chunk

MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which no playlist can name a time."""
PAGE_ROWS = 4096
"""Rows asked of the catalog at once by a long listing: some 2 MB of them, and a read transaction of some 10 ms."""
STEPS_NUMBERED = 10_000
"""Steps of live numbering until it comes round: so that the numbers stay below 2**31, which is all that some
players have room for. By the defaults that is seven years of one token."""

T = TypeVar("T")
_log = structlog.get_logger("playback")


class Refused(CallerError):
    """It is not given. `code` says why, one of `ingest.answers` where that is the same thing, else: `erased`,
    `not_found`, `only_mp4`, `range_too_large`."""

    code = "not_found"


@dataclass(frozen=True, kw_only=True)
class PlaybackServices:
    """What playback stands on, and its limits."""

    catalog: Catalog
    store: ObjectStore
    key_store: KeyStore
    bitmap: EntitlementBitmap
    clock: Clock
    token_secret: bytes

    gap_ms: int = 1000
    """More than this between two chunks is a gap: a new span, a discontinuity in a playlist."""
    page_chunks: int = 1000
    """Chunks in a page of a listing, unless fewer are asked for."""
    max_listed_chunks: int = 100_000
    """Most chunks of one playlist or export: four days of 4 s chunks, some 30 MB while it is made."""
    live_window_ms: int = 60_000
    """What a live playlist lists, at least: enough to start with and to pause for a moment."""
    live_reach_ms: int = 600_000
    """How late a camera's chunks may be, by its clock or by its network, and still play live: as much as a
    clock may be ahead. At least `live_window_ms`."""
    live_step_ms: int = 21_600_000
    """How often the anchor of live numbering moves: a quarter of a default token's life. Each reload reads all
    chunks since the anchor, 5,400 of 4 s at most, and a viewing which lasts through a step skips to the live edge
    once."""
    listing_threads: int = 2
    """Listings made at once. They hold the interpreter; more would only slow the reads down."""
    lookup_threads: int = 4
    """Look-ups of single chunks at once: as many as the catalog keeps connections."""
    store_threads: int = 16
    """Chunks being fetched and decrypted at once, by all requests together."""
    max_bytes_held: int = 256 * 1024 * 1024
    """Plaintext of chunks read or being sent. Ciphertext comes on top, one chunk per store thread."""
    memory_wait_s: float = 5.0
    """How long a read waits for that memory before it is refused as overload."""
    max_exports: int = 8
    """Exports at once. Each holds its list of chunks, 15 MB at `max_listed_chunks`."""
    read_ahead_chunks: int = 4
    """Chunks that an export reads ahead of what it sends: hides the store's latency."""
    read_ahead_bytes: int = 8 * 1024 * 1024
    """Bytes of them, unless one chunk alone is more."""
    max_keys: int = 4096
    """Data keys kept in memory: 11 MB, and a purge takes some 5 ms of the loop."""
    purge_every_s: float = 5.0
    """How soon the keys of erased devices and past months leave memory. They are never used in between."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: for which device, and with which token."""

    device: int
    token: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A yes, as of now: chunks of this erase epoch which expire after this day number."""

    device: int
    epoch: int
    today: int
    token_expires_ms: int

    def covers(self, row: ChunkRow) -> bool:
        return row.epoch == self.epoch and row.expires_on > self.today


class Gate:
    """Asks the bitmap. Synchronous, some microseconds."""

    def __init__(self, bitmap: EntitlementBitmap, clock: Clock, token_secret: bytes) -> None:
        self._bitmap = bitmap
        self._clock = clock
        self._secret = token_secret

    def ask(self, viewer: Viewer) -> Grant:
        """May this viewer read this device's recordings, now?

        The token comes first: who has none learns nothing of the device.

        Raises:
            Refused: `overloaded` (the row is being written), `bad_token`, `suspended`, `terminated`, `erased`,
                `plan_lapsed`.
        """
        now_ms = self._clock.now_ms()
        day = today(self._clock, self._bitmap.closed_through)
        flags, _, generation, epoch, today_ok, _ = self._bitmap.probe(viewer.device, day, day)
        if flags & BUSY:
            raise _refused(answers.OVERLOADED)
        expires_ms = self._token_expires_ms(viewer, generation)
        if not flags & PRESENT or expires_ms <= now_ms:
            raise _bad_token()
        if flags & SUSPENDED:
            raise _refused(answers.SUSPENDED)
        if flags & TERMINATED:
            raise _refused(answers.TERMINATED)
        if flags & ERASED:
            raise Refused("the recordings of this device were erased", code="erased")
        if not today_ok:
            raise _refused(answers.PLAN_LAPSED)
        return Grant(viewer.device, epoch, day, expires_ms)

    def _token_expires_ms(self, viewer: Viewer, generation: int) -> int:
        try:
            claims = read_viewer_token(self._secret, viewer.token)
        except CallerError:
            raise _bad_token() from None
        if (claims.device, claims.generation) != (viewer.device, generation):
            raise _bad_token()
        return claims.expires_s * 1000

    def key_is_live(self) -> Callable[[KeyId], bool]:
        """For `Keyring.purge`: whether a key may still be needed, as of now."""
        day = today(self._clock, self._bitmap.closed_through)
        month = month_of_day(day)

        def is_live(key_id: KeyId) -> bool:
            flags, _, _, epoch, _, _ = self._bitmap.probe(key_id.device, day, day)
            if flags & BUSY:
                return True  # asked again at the next purge
            alive = flags & PRESENT and not flags & ERASED
            return bool(alive) and epoch == key_id.epoch and key_id.month >= month

        return is_live


class Memory:
    """Bytes of chunks under way, bounded: who finds no room waits, and is refused in the end."""

    def __init__(self, total_bytes: int, wait_s: float) -> None:
        self.total_bytes = total_bytes
        self.held_bytes = 0
        self._wait_s = wait_s
        self._lot = trio.lowlevel.ParkingLot()

    async def take(self, size: int) -> None:
        """Charge `size` bytes. A chunk above the total is let in alone, so that it is not refused for ever.

        Raises:
            Refused: `overloaded`, no room for `wait_s`. Nothing is charged then, nor on cancellation.
        """
        with trio.move_on_after(self._wait_s) as waiting:
            while self.held_bytes and self.held_bytes + size > self.total_bytes:
                await self._lot.park()
        if waiting.cancelled_caught:
            raise _refused(answers.OVERLOADED)
        self.held_bytes += size

    def give(self, size: int) -> None:
        self.held_bytes -= size
        assert self.held_bytes >= 0, "gave back more than was taken"
        self._lot.unpark_all()


class ReadChunk:
    """A chunk's plaintext, checked. Its memory is charged until `release`, which may be called again."""

    def __init__(self, row: ChunkRow, data: bytes, memory: Memory) -> None:
        self.row = row
        self.data = data
        self._memory: Memory | None = memory

    def release(self) -> None:
        if self._memory is not None:
            self._memory.give(self.row.length)
        self._memory = None
        self.data = b""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing: spans with their chunks; a span goes on in the next page when its time does."""

    spans: Sequence[tuple[Span, Sequence[ChunkRow]]]
    next_ms: int | None
    """`from_ms` of the next page; None after the last."""


class Playback:
    """All reading of one process. `run` must be running.

    Every method that takes a `Viewer` raises Refused as `Gate.ask` does, and WorldError when catalog, store or key
    store can't be asked. A cancelled one waits for its call under way, which its own time-outs bound.
    """

    def __init__(self, services: PlaybackServices) -> None:
        self._services = services
        self._gate = Gate(services.bitmap, services.clock, services.token_secret)
        self._keyring = Keyring(services.key_store.get_each, max_keys=services.max_keys)
        self._listings = trio.CapacityLimiter(services.listing_threads)
        self._lookups = trio.CapacityLimiter(services.lookup_threads)
        self._fetches = trio.CapacityLimiter(services.store_threads)
        self.memory = Memory(services.max_bytes_held, services.memory_wait_s)
        self.exports = 0
        self.running = False

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the key cache, until cancelled. Keys that are over leave it every `purge_every_s`."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._keyring.run)
            self.running = True
            try:
                task_status.started()
                while True:
                    await trio.sleep(self._services.purge_every_s)
                    self._keyring.purge(self._gate.key_is_live())
            finally:
                self.running = False

    # --- listings -------------------------------------------------------------------------------------------

    async def page(
        self, viewer: Viewer, from_ms: int, to_ms: int, *, limit: int, finish: Callable[[Page], T]
    ) -> T:
        """Chunks captured in [from_ms, to_ms) that may be read, of any media, in order of capture.

        Args:
            limit: most chunks looked at; a page has fewer, even none, where some have just expired.
            finish: makes what is returned of it, in the thread.
        """

        def make(grant: Grant) -> T:
            rows = self._services.catalog.chunks(viewer.device, from_ms, to_ms, limit=limit + 1)
            next_ms = rows[limit].capture_ms if len(rows) > limit else None
            covered = [row for row in rows[:limit] if grant.covers(row)]
            places = iter(covered)
            spans = hls.spans(map(_listed, covered), self._services.gap_ms)
            return finish(
                Page([(span, [next(places) for _ in range(span.chunk_count)]) for span in spans], next_ms)
            )

        return await self._list(viewer, make)

    async def recorded(self, viewer: Viewer, from_ms: int, to_ms: int, *, finish: Callable[[str], T]) -> T:
        """A playlist that is complete: the MPEG-TS chunks captured in [from_ms, to_ms).

        Args:
            finish: makes what is returned of the text, in the thread.

        Raises:
            Refused: `range_too_large`, more than `max_listed_chunks`.
        """

        def make(grant: Grant) -> T:
            chunks = self._range(grant, from_ms, to_ms)
            gap_ms = self._services.gap_ms
            return finish(
                hls.playlist(chunks, token=viewer.token, ended=True, media_sequence=0, gap_ms=gap_ms)
            )

        return await self._list(viewer, make)

    async def live(self, viewer: Viewer, from_ms: int | None, *, finish: Callable[[str], T]) -> T:
        """A live playlist: the last `live_window_ms`.

        Its numbers are counted from an anchor that the request gives (see `service.hls`): `from_ms`, or the end
        of the token, and the same for `live_step_ms`; nothing captured before `from_ms` is listed.

        Raises:
            Refused: `range_too_large`, chunks so short that more than `max_listed_chunks` came since the anchor.
        """
        services = self._services

        def make(grant: Grant) -> T:
            reached_ms = services.clock.now_ms() - services.live_reach_ms
            if from_ms is None:
                # So that the first step after a token was made, for a number of steps, is a whole one.
                base_ms = grant.token_expires_ms - services.live_reach_ms
                anchor_ms, step = live_anchor(base_ms, reached_ms, services.live_step_ms)
            else:
                anchor_ms, step = live_anchor(from_ms, max(from_ms, reached_ms), services.live_step_ms)
            chunks = self._range(grant, max(anchor_ms, 0), MAX_TIME_MS + 1)
            window = hls.live_window(chunks, gap_ms=services.gap_ms, window_ms=services.live_window_ms)
            before = step % STEPS_NUMBERED * services.max_listed_chunks
            text = hls.playlist(
                window.chunks,
                token=viewer.token,
                ended=False,
                media_sequence=before + window.media_sequence,
                gap_ms=services.gap_ms,
                discontinuity_sequence=before + window.discontinuity_sequence,
                target_s=window.target_s,
            )
            return finish(text)

        return await self._list(viewer, make)

    async def _list(self, viewer: Viewer, make: Callable[[Grant], T]) -> T:
        """Ask, make the listing in a thread, ask again."""
        grant = self._gate.ask(viewer)
        made = await trio.to_thread.run_sync(make, grant, limiter=self._listings)
        if self._gate.ask(viewer) != grant:  # midnight, or an erasure: what was listed may be over
            raise _refused(answers.OVERLOADED)
        return made

    def _range(self, grant: Grant, from_ms: int, to_ms: int) -> list[ListedChunk]:
        """All that may be read in [from_ms, to_ms), any media. Blocks."""
        found: list[ListedChunk] = []
        while True:
            rows = self._services.catalog.chunks(grant.device, from_ms, to_ms, limit=PAGE_ROWS)
            found += [_listed(row) for row in rows if grant.covers(row)]
            if len(found) > self._services.max_listed_chunks:
                limit = self._services.max_listed_chunks
                raise Refused(f"more than {limit} chunks: ask for less at once", code="range_too_large")
            if len(rows) < PAGE_ROWS:
                return found
            from_ms = rows[-1].capture_ms + 1

    # --- one chunk ------------------------------------------------------------------------------------------

    async def find(self, viewer: Viewer, capture_ms: int) -> ChunkRow:
        """The row of a chunk that may be read now.

        Raises:
            Refused: `not_found` when there is none, or none of this erase epoch; `expired`.
        """
        self._gate.ask(viewer)
        catalog = self._services.catalog
        row = await trio.to_thread.run_sync(catalog.chunk, viewer.device, capture_ms, limiter=self._lookups)
        if row is None:
            raise _not_found()
        self.check(viewer, row)
        return row

    def check(self, viewer: Viewer, row: ChunkRow) -> None:
        """May this chunk be sent now? Synchronous: nothing happens between the answer and the sending.

        Raises:
            Refused: as `find`.
        """
        grant = self._gate.ask(viewer)
        if row.device != viewer.device or row.epoch != grant.epoch:
            raise _not_found()
        if not grant.covers(row):
            raise Refused("this recording has expired", code=answers.EXPIRED.code)

    async def readable(self, viewer: Viewer, row: ChunkRow) -> None:
        """As `read`, short of the bytes: whether there still is a key.

        Raises:
            KeyDestroyed: as `read`.
        """
        await self._cipher(row)
        self.check(viewer, row)

    async def read(self, viewer: Viewer, row: ChunkRow) -> ReadChunk:
        """The plaintext of a chunk that `find` found. The caller releases it.

        Raises:
            KeyDestroyed: nobody can read it any more.
            CorruptError: `chunk_corrupt`, what is stored is not this chunk; `object_missing`, its segment is gone.
                Logged. None of it leaves here.
            Refused: `overloaded`, no memory for it; and as `find`, for it may be over meanwhile.
        """
        await self.memory.take(row.length)
        try:
            cipher = await self._cipher(row)
            data = await trio.to_thread.run_sync(self._fetch, row, cipher, limiter=self._fetches)
            self.check(viewer, row)
        except CorruptError as error:
            place = {"segment_id": row.segment_id, "ordinal": row.ordinal}
            _log.error(error.code, device=row.device, capture_ms=row.capture_ms, **place)
            self.memory.give(row.length)
            raise
        except BaseException:
            self.memory.give(row.length)
            raise
        return ReadChunk(row, data, self.memory)

    async def _cipher(self, row: ChunkRow) -> AESGCM:
        key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
        return self._keyring.cached(key_id) or await self._keyring.load(key_id)

    def _fetch(self, row: ChunkRow, cipher: AESGCM) -> bytes:
        """In a thread: fetch, decrypt and check."""
        try:
            stored = self._services.store.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
            data = decrypt_chunk(cipher, row.nonce, stored, device=row.device, capture_ms=row.capture_ms)
        except ObjectMissing as error:
            raise CorruptError("its segment is not in the store", code=error.code) from error
        except CorruptError as error:
            raise _corrupt() from error
        if len(data) != row.length or crc32(data) != row.crc32:
            raise _corrupt()
        return data

    # --- export ---------------------------------------------------------------------------------------------

    async def export(self, viewer: Viewer, from_ms: int, to_ms: int) -> Export:
        """The MPEG-TS chunks captured in [from_ms, to_ms), to be read one after the other.

        MP4 chunks can't be joined to a stream and are left out.

        Raises:
            Refused: `not_found`, there is nothing; `only_mp4`; `range_too_large`.
        """
        listed = await self._list(viewer, lambda grant: self._range(grant, from_ms, to_ms))
        chunks = [chunk for chunk in listed if chunk.media is Media.MPEG_TS]
        if listed and not chunks:
            detail = "there are only MP4 recordings in this range; fetch them one by one from `recordings`"
            raise Refused(detail, code="only_mp4")
        if not chunks:
            raise Refused("there are no recordings in this range")
        return Export(self, self._services, viewer, chunks)


class Export:
    """One export under way: `open`, `stream`, and `close` in any case."""

    def __init__(
        self, playback: Playback, services: PlaybackServices, viewer: Viewer, chunks: Sequence[ListedChunk]
    ) -> None:
        self.length_bytes = sum(chunk.length_bytes for chunk in chunks)
        self.from_ms = chunks[0].capture_ms
        self._playback = playback
        self._services = services
        self._viewer = viewer
        self._planned = deque(chunks)
        self._ahead: deque[_Ahead] = deque()
        self._opened = False

    async def open(self) -> None:
        """Read the first chunk, so that what is wrong with it can still be answered.

        Raises:
            Refused: `overloaded`, `max_exports` are under way; and what `Playback.read` raises.
        """
        if self._playback.exports >= self._services.max_exports:
            raise _refused(answers.OVERLOADED)
        self._playback.exports += 1
        self._opened = True
        first = _Ahead(self._planned.popleft())
        self._ahead.append(first)
        await first.fill(self._playback, self._viewer)
        if first.error is not None:
            raise first.error

    def close(self) -> None:
        """Give everything back."""
        self._playback.exports -= self._opened
        self._opened = False
        for ahead in self._ahead:
            ahead.release()
        self._ahead.clear()

    async def stream(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand every chunk to `write` in turn, while the next ones are being read.

        Raises:
            ClipkeepError: it can't go on: entitlement was lost, a chunk was deleted or can't be read. What was
                written until then is good; nothing more is.
        """
        failure: ClipkeepError | None = None
        async with trio.open_nursery() as nursery:
            try:
                while self._ahead or self._planned:
                    self._read_ahead(nursery)
                    await self._write_one(write)
            except ClipkeepError as error:  # raised below: a nursery would wrap it
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    def _read_ahead(self, nursery: trio.Nursery) -> None:
        while self._planned and len(self._ahead) <= self._services.read_ahead_chunks:
            chunk_bytes = self._planned[0].length_bytes
            ahead_bytes = sum(ahead.chunk.length_bytes for ahead in self._ahead)
            if self._ahead and ahead_bytes + chunk_bytes > self._services.read_ahead_bytes:
                return
            self._ahead.append(_Ahead(self._planned.popleft()))
            nursery.start_soon(self._ahead[-1].fill, self._playback, self._viewer)

    async def _write_one(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        ahead = self._ahead[0]
        await ahead.filled.wait()
        if ahead.read is None:
            assert ahead.error is not None, "filled with neither"
            raise ahead.error
        self._playback.check(self._viewer, ahead.read.row)  # it may have waited long for its turn
        await write(ahead.read.data)
        ahead.release()
        self._ahead.popleft()


class _Ahead:
    """One chunk that an export reads ahead: planned, then either read or failed."""

    __slots__ = ("chunk", "error", "filled", "read")

    def __init__(self, chunk: ListedChunk) -> None:
        self.chunk = chunk
        self.filled = trio.Event()
        self.read: ReadChunk | None = None
        self.error: ClipkeepError | None = None

    async def fill(self, playback: Playback, viewer: Viewer) -> None:
        """Read it, as if it had been asked for alone: what was deleted since the planning is not sent."""
        try:
            row = await playback.find(viewer, self.chunk.capture_ms)
            if row.length != self.chunk.length_bytes:
                raise _not_found()
            self.read = await playback.read(viewer, row)
        except ClipkeepError as error:
            self.error = error
        self.filled.set()

    def release(self) -> None:
        if self.read is not None:
            self.read.release()


def live_anchor(base_ms: int, reached_ms: int, step_ms: int) -> tuple[int, int]:
    """The last of the moments `base_ms + k * step_ms`, k any integer, that is not after `reached_ms`; and k."""
    step = (reached_ms - base_ms) // step_ms
    return base_ms + step * step_ms, step


_MEDIA = {int(media): media for media in Media}


def _listed(row: ChunkRow) -> ListedChunk:
    # A duration is above 0 by the catalog's contract with ingest; a rebuilt row of an odd segment may lie.
    return ListedChunk(row.capture_ms, row.duration_ms or 1, row.length, _MEDIA.get(row.media, Media.UNKNOWN))


def _refused(answer: Answer) -> Refused:
    return Refused(answer.detail, code=answer.code)


def _bad_token() -> Refused:
    detail = "send a viewer token of this device that has not ended: as Bearer, or as ?token="
    return Refused(detail, code=answers.BAD_TOKEN.code)


def _not_found() -> Refused:
    return Refused("there is no such recording")


def _corrupt() -> CorruptError:
    return CorruptError("what is stored is not this recording", code="chunk_corrupt")
