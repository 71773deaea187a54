"""Open segments: chunks go in, sealed segments come out. Synchronous; the trio side is `committing`.

There is one open segment per (class_days, expires_on). It is sealed when it has reached its target (of few large
chunks: half as much again), when the next chunk does not fit, or when its oldest chunk has waited `linger_s`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.gathering import Gathering
from storage.days import month_of_day
from storage.rows.recordings import FMP4, Verdict
from storage.segment import (
    INDEX_DTYPE,
    NONCE_BYTES,
    TAG_BYTES,
    SegmentWriter,
    buffer_bytes,
)
from storage.vault import KeyId

FEW_CHUNKS = 96
"""With fewer chunks than this a segment that has reached its target goes on to `FEW_CHUNKS_STRETCH` times that. Each
segment costs a millisecond of CPU, whatever is in it (its PUT, its commit, its threads), and few chunks share it."""
FEW_CHUNKS_STRETCH = 1.5
"""Below 2: a segment that is sealed at its target still is more than half of its buffer, and leaves without a copy."""

MAX_MOVES = 16
"""How often a chunk gives way to another one that has its capture time. Each costs a put, so it goes to a time that is
free as far as the catalog knows: a second one is needed only where two meet again."""
MAX_MOVED_MS = 518
"""How far it may go: within the second that it was named by."""

STORED_DAYS = 64
"""Expiry days that are remembered of an init segment, as those that have it: one that a day has already is refused as
a duplicate, and costs its kilobyte."""

NONCES_AT_ONCE = 256
"""A system call for each costs 1 to 2 us, a twentieth of a small chunk."""


Outcome = int | None
"""A `catalog.Verdict`, or None: it could not be stored, the device is to send it again."""


class Init:
    """The init segment that fragments of a device are read by: what is needed to store it beside them.

    It is stored as a chunk of the device at the capture time −`number`, once for each expiry day that has fragments of
    it: in the segment of the first of them, so that one commit decides about both.
    """

    def __init__(self, device: int, number: int, data: bytes, crc32: int, crc64: int, facts: bytes) -> None:
        self.device = device
        self.number = number
        """1 to 2**32 - 1: a hash of `data`, `parameters` in the facts of each fragment."""
        self.data = data
        self.crc32 = crc32
        self.crc64 = crc64
        self.facts = facts
        self._stored: dict[tuple[int, int], None] = {}

    def is_stored(self, epoch: int, expires_on: int) -> bool:
        """Whether it is known to be stored for this day. A commit looks, too."""
        return (epoch, expires_on) in self._stored

    def stored(self, epoch: int, expires_on: int, is_it: bool = True) -> None:
        """Note that it is stored for a day, or that it is not."""
        if not is_it:
            self._stored.pop((epoch, expires_on), None)
            return
        if len(self._stored) >= STORED_DAYS:
            self._stored.clear()
        self._stored[epoch, expires_on] = None

    def chunk(self, epoch: int, class_days: int, expires_on: int) -> Chunk:
        """Itself as a chunk of a day."""
        return Chunk(
            device=self.device,
            capture_ms=-self.number,
            epoch=epoch,
            class_days=class_days,
            expires_on=expires_on,
            duration_ms=0,
            crc32=self.crc32,
            crc64=self.crc64,
            media=FMP4,
            length=len(self.data),
            facts=self.facts,
            moves_left=0,
            done=partial(self._done, epoch, expires_on),
        )

    def _done(self, epoch: int, expires_on: int, outcome: Outcome, now_s: float) -> None:
        self.stored(epoch, expires_on, outcome in (Verdict.STORED, Verdict.DUPLICATE))


@dataclass(slots=True, init=False)
class Chunk:
    """A complete, checked chunk on its way into a segment.

    `body` is only valid until the chunk is packed. `done` is called exactly once, with what the commit
    decided and when (trio's clock, s), on the loop's thread.
    """

    device: int
    capture_ms: int
    epoch: int
    class_days: int
    expires_on: int
    duration_ms: int
    crc32: int
    crc64: int
    media: int
    length: int
    facts: bytes
    """What its media holds, packed: `storage.media_facts`."""
    moves_left: int
    """How many times it may give way to another chunk that has its capture time; `move` does."""
    latest_ms: int
    """The latest capture time that it may be given."""
    done: Callable[[Outcome, float], None]
    init: Init | None
    """Of fragments: what they are read by."""
    has_lacked_init: bool
    """It was packed once more, with its init segment."""

    def __init__(
        self,
        *,
        device: int,
        capture_ms: int,
        epoch: int,
        class_days: int,
        expires_on: int,
        duration_ms: int,
        crc32: int,
        crc64: int,
        media: int,
        length: int,
        facts: bytes,
        moves_left: int,
        done: Callable[[Outcome, float], None],
    ) -> None:
        self.device = device
        self.capture_ms = capture_ms
        self.epoch = epoch
        self.class_days = class_days
        self.expires_on = expires_on
        self.duration_ms = duration_ms
        self.crc32 = crc32
        self.crc64 = crc64
        self.media = media
        self.length = length
        self.facts = facts
        self.moves_left = moves_left
        self.latest_ms = capture_ms + MAX_MOVED_MS if moves_left else capture_ms
        self.done = done
        self.init = None
        self.has_lacked_init = False

    def move(self, to_ms: int) -> None:
        """Give way to another chunk, at most `moves_left` times and not beyond `latest_ms`."""
        assert self.moves_left > 0, "it may not move"
        assert self.capture_ms < to_ms <= self.latest_ms, "it only moves on, and not too far"
        self.moves_left -= 1
        self.capture_ms = to_ms

    def key_id(self) -> KeyId:
        """Of the data key that encrypts it."""
        return KeyId(self.device, self.epoch, month_of_day(self.expires_on))


def append(
    writer: SegmentWriter, cipher: AESGCM, nonce: bytes, chunk: Chunk, body: bytes | bytearray | memoryview
) -> None:
    """Encrypt a chunk into a segment. It has to fit."""
    writer.append(
        cipher,
        nonce,
        body,
        device=chunk.device,
        capture_ms=chunk.capture_ms,
        epoch=chunk.epoch,
        duration_ms=chunk.duration_ms,
        crc32=chunk.crc32,
        crc64=chunk.crc64,
        media=chunk.media,
        facts=chunk.facts,
    )


@dataclass(slots=True)
class OpenSegment:
    """A segment that still takes chunks, or one that is sealed and on its way to the store."""

    class_days: int
    expires_on: int
    buffer: bytearray
    capacity: int
    """Bytes to which the buffer may grow."""
    opened_s: float
    oversize: bool = False
    """Its buffer was made for one chunk that fits no ordinary one, and is not kept."""
    chunks: list[Chunk] = field(default_factory=list)
    inits: set[tuple[int, int]] = field(default_factory=set)
    """(device, number) of the init segments that are in it."""
    writer: SegmentWriter = field(init=False)

    def __post_init__(self) -> None:
        self.writer = SegmentWriter(self.buffer, self.capacity)


class Packer:
    """Puts chunks into open segments.

    Args:
        target_bytes: size at which a segment of at least `FEW_CHUNKS` is sealed; with fewer it is half as much again.
        max_segments: most segments open or on their way at once; each is a buffer of 1 MiB more than that.
        gathering: which devices may open segments at once, and who waits.
        cached: the cipher of a data key, when it is at hand.
        opened: called when a segment was opened.
        sealed: called with each segment that is to be uploaded.
    """

    def __init__(
        self,
        target_bytes: int,
        max_segments: int,
        *,
        gathering: Gathering,
        cached: Callable[[KeyId], AESGCM | None],
        opened: Callable[[], None],
        sealed: Callable[[OpenSegment], None],
    ) -> None:
        self.target_bytes = target_bytes
        self.max_segments = max_segments
        self.in_use = 0
        self._stretched_bytes = round(target_bytes * FEW_CHUNKS_STRETCH)
        self._buffer_bytes = buffer_bytes(self._stretched_bytes)
        self._free: list[bytearray] = []
        self._open: dict[tuple[int, int], OpenSegment] = {}
        self._gathering = gathering
        self._cached = cached
        self._opened = opened
        self._sealed = sealed
        self._nonces = b""
        self._nonces_used = 0

    def pack_now(self, chunk: Chunk, body: memoryview, now_s: float) -> bool:
        """Put a complete chunk into its segment, when its data key and room are at hand. Returns whether they were;
        the body's memory is free then, and `chunk.done` comes later."""
        cipher = self._cached(chunk.key_id())
        return cipher is not None and self.add(cipher, chunk, body, now_s)

    def has_to_wait(self, chunk: Chunk, now_s: float) -> bool:
        """Whether it is to wait for others of its day: see `ingest.gathering`."""
        place = (chunk.class_days, chunk.expires_on)
        return place not in self._open and not self._gathering.may_open(chunk.device, place, now_s)

    def add(
        self, cipher: AESGCM, chunk: Chunk, body: memoryview, now_s: float, *, has_waited: bool = False
    ) -> bool:
        """Encrypt one chunk into its segment. Returns whether there was room; when there was none, some segment is on
        its way, and its end (`recycle`) makes room.

        Args:
            cipher: the data key of the chunk's device, epoch and month of expiry.
            body: the plaintext, `chunk.length` bytes; free for reuse when this returns.
            now_s: monotonic seconds, for the linger.
            has_waited: it need not wait for others of its day any more.
        """
        segment = self._segment_for(chunk, now_s, has_waited)
        if segment is None:
            return False
        try:
            if chunk.init is not None:
                self._append_init(cipher, segment, chunk, chunk.init)
            self._append(cipher, segment, chunk, body)
        except Exception:
            if not segment.chunks:  # it was opened for this chunk: none without chunks is left open
                del self._open[segment.class_days, segment.expires_on]
                self.recycle(segment)
            raise
        enough_bytes = self.target_bytes if len(segment.chunks) >= FEW_CHUNKS else self._stretched_bytes
        if segment.writer.used_bytes >= enough_bytes:
            self.seal(segment)
        return True

    def _append(
        self, cipher: AESGCM, segment: OpenSegment, chunk: Chunk, body: bytes | bytearray | memoryview
    ) -> None:
        append(segment.writer, cipher, self._nonce(), chunk, body)
        segment.chunks.append(chunk)

    def _append_init(self, cipher: AESGCM, segment: OpenSegment, chunk: Chunk, init: Init) -> None:
        """Have the init segment of fragments before them, where neither their day nor this segment has it."""
        known = (init.device, init.number)
        if known in segment.inits or init.is_stored(chunk.epoch, chunk.expires_on):
            return
        self._append(cipher, segment, init.chunk(chunk.epoch, chunk.class_days, chunk.expires_on), init.data)
        segment.inits.add(known)

    def _segment_for(self, chunk: Chunk, now_s: float, has_waited: bool) -> OpenSegment | None:
        """The open segment that this chunk fits into. None: it is to wait until one has left."""
        segment = self._open.get((chunk.class_days, chunk.expires_on))
        length = chunk.length
        if chunk.init is not None:
            length += len(chunk.init.data) + TAG_BYTES + INDEX_DTYPE.itemsize
        if segment is not None and segment.writer.fits(length):
            return segment
        if segment is None and not has_waited and self.has_to_wait(chunk, now_s):
            return None
        if self.in_use >= self.max_segments:
            if self._open and self.in_use == len(self._open):
                # Every buffer is held by a segment still filling: none will come back by itself before its linger.
                self.seal(min(self._open.values(), key=lambda s: s.opened_s))
            return None
        if segment is not None:
            self.seal(segment)
        return self._begin(chunk, length, now_s)

    def _nonce(self) -> bytes:
        """Random bytes that no other chunk gets. The system is asked for many at once; nobody forks a worker."""
        at = self._nonces_used * NONCE_BYTES
        if at == len(self._nonces):
            self._nonces = os.urandom(NONCES_AT_ONCE * NONCE_BYTES)
            self._nonces_used = at = 0
        self._nonces_used += 1
        return self._nonces[at : at + NONCE_BYTES]

    def _begin(self, chunk: Chunk, length: int, now_s: float) -> OpenSegment:
        needed = buffer_bytes(length, 0)
        oversize = needed > self._buffer_bytes
        kept = not oversize and self._free
        size = max(needed, self._buffer_bytes)
        buffer = self._free.pop() if kept else bytearray(size)
        self.in_use += 1
        segment = OpenSegment(chunk.class_days, chunk.expires_on, buffer, size, now_s, oversize)
        self._gathering.opened(chunk.device, (chunk.class_days, chunk.expires_on), now_s)
        self._open[chunk.class_days, chunk.expires_on] = segment
        self._opened()
        return segment

    def seal(self, segment: OpenSegment) -> None:
        """Close a segment to further chunks and send it on its way."""
        del self._open[segment.class_days, segment.expires_on]
        self._sealed(segment)

    def seal_place(self, class_days: int, expires_on: int) -> None:
        """Seal what is open for this class and day, if anything."""
        segment = self._open.get((class_days, expires_on))
        if segment is not None:
            self.seal(segment)

    def seal_older_than(self, opened_s: float) -> float | None:
        """Seal what was opened at or before `opened_s`. Returns when the next one was opened, None if none is."""
        for segment in [s for s in self._open.values() if s.opened_s <= opened_s]:
            self.seal(segment)
        return min((s.opened_s for s in self._open.values()), default=None)

    def recycle(self, segment: OpenSegment) -> None:
        """Take back the buffer of a segment whose way has ended."""
        self.in_use -= 1
        segment.writer.close()
        if not segment.oversize:
            self._free.append(segment.buffer)
