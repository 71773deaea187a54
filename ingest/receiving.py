"""What a worker's connections share: limits, budget, memory, admission, and the way of a complete body."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from ingest import answers, media
from ingest.admission import ASKED_AGAIN_MS, Credentials, admit, still_admitted
from ingest.answers import Answer
from ingest.body import Body
from ingest.budget import REQUEST_BYTES, Budget
from ingest.chunks import chunk_at
from ingest.committing import Uploads
from ingest.framing import MAX_HEAD_BYTES
from ingest.heads import Head
from ingest.health import Health
from ingest.inits import KnownInit
from ingest.outbox import Outbox, Slot
from ingest.packing import MAX_MOVES, Chunk, Outcome
from ingest.polling import Poller
from ingest.protocols.base import MAX_UPLOAD_BYTES, Admission, Bounds
from ingest.protocols.cors import origins_of
from ingest.protocols.table import besides
from ingest.rate import DeviceRate
from ingest.refusals import Refusals
from ingest.sightings import Sightings
from ingest.stats import Stats
from ingest.strangers import STRANGER_BYTES, Strangers
from ingest.upload_limits import UploadCounts
from ingest.waits import ForPacking
from retention.bitmap import EntitlementBitmap
from retention.freshness import Freshness
from storage import checksums
from storage.clock import Clock
from storage.days import MS_PER_DAY
from storage.segment import MAX_CHUNK_BYTES

SCRATCH_BYTES = 1024 * 1024 + 16 * 1024
"""Receives a head with as much of its body as has come. A whole chunk of up to 1 MiB is encrypted from here, without a
copy and while it is in the cache; what is only a part is copied to the body's own memory, where the rest follows."""

_DIGESTS: dict[bytes, Callable[[memoryview], bytes]] = {
    b"sha-256": lambda data: hashlib.sha256(data).digest(),
    b"crc32": lambda data: checksums.crc32(data).to_bytes(4, "big"),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of a connection, with its default. Configurable as `[ingest]` (docs/operations.md)."""

    max_chunk_bytes: int = MAX_CHUNK_BYTES
    max_upload_bytes: int = MAX_UPLOAD_BYTES
    """Of a resumable upload. What is more than a chunk's is cut into chunks."""
    max_head_bytes: int = MAX_HEAD_BYTES
    max_outstanding: int = 64
    """Requests of one connection that wait for their answer."""
    max_gathered: int = 1024
    """Besides, requests of one connection that wait for others of their day."""
    drain_bytes: int = MAX_CHUNK_BYTES
    """Of a refused body that are thrown away for the sake of the connection; past it the connection ends."""
    min_body_bytes_per_s: int = 8000
    body_grace_s: float = 10.0
    """Before the minimum rate is asked for."""
    head_timeout_s: float = 10.0
    idle_timeout_s: float = 75.0
    """Of a connection between requests, as nginx's keepalive_timeout."""
    send_timeout_s: float = 30.0
    linger_close_s: float = 2.0
    stranger_bytes: int = STRANGER_BYTES
    """Held of all connections together on which no request was admitted yet."""
    tus_expire_h: int = 24
    """For so long at least what came of a resumable upload is kept: to the end of a UTC day."""
    cors_origins: str = ""
    """Whose pages may upload by tus: origins, separated by commas."""
    chunks_per_s: float = 0.0
    """Per device and worker; 0 is no limit."""


class Receiver:
    """See the module docstring. One per worker."""

    def __init__(
        self,
        *,
        limits: Limits,
        budget: Budget,
        bitmap: EntitlementBitmap,
        uploads: Uploads,
        health: Health,
        stats: Stats,
        clock: Clock,
        token_secret: bytes,
        freshness: Freshness | None = None,
    ) -> None:
        self.limits = limits
        self.budget = budget
        self.poller = Poller()
        self.pool = budget.pool
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.strangers = Strangers(limits.stranger_bytes)
        self.stopping = False
        self.token_secret = token_secret
        self._credentials = Credentials(token_secret)
        self._bounds = Bounds(limits.max_chunk_bytes, limits.max_upload_bytes)
        self._bitmap = bitmap
        self._freshness = freshness or Freshness(bitmap, 0)
        self.uploads = uploads
        self._packer = uploads.packer
        uploads.answered = self.flush
        self._refusals = Refusals()
        self._origins = origins_of(limits.cors_origins)
        self._rate = DeviceRate(limits.chunks_per_s)
        self.counts = UploadCounts(bitmap.limits_word)
        """Of devices whose package has limits. Exchanged with the catalog by the worker."""
        self.sightings = Sightings()
        """Of whoever showed a device's token. Told to the catalog by the worker."""
        self._health = health
        self._stats = stats
        self._clock = clock
        self._touched: dict[Outbox, None] = {}
        self.send_rest: Callable[[Outbox], None] = lambda outbox: None
        """Starts the task that sends what a socket did not take at once. Set by the server."""
        self.pack_gathered: Callable[[ForPacking], Awaitable[None]] | None = None
        """Packs a chunk that has waited for others of its day. Set by the server."""

    def count(self, answer: Answer) -> None:
        """Count an answer that is not an acknowledgement."""
        self._stats.answers[answer.status, answer.code] += 1

    def answered(
        self, answer: Answer, now_s: float, *, device: int | None = None, target: bytes = b""
    ) -> None:
        """Count an answer, and see to it that a refusal is in the log.

        Args:
            device: whose token the request came with, unless `admit` refused it.
        """
        self.count(answer)
        if answer.status >= 400:
            if device is not None:
                self.sightings.refused(device, answer.code, now_s)
            self._refusals.note(answer, now_s, device=device, target=target)

    # --- admission --------------------------------------------------------------------------------------------

    def admit(self, head: Head, now_s: float) -> Admission | Answer:
        """Decide about one request. Synchronous. `now_s` is monotonic."""
        self._credentials.shown = 0
        decided = self._decide(head, now_s)
        if isinstance(decided, Answer) and decided.status >= 400 and self._credentials.shown:
            self.sightings.refused(self._credentials.shown, decided.code, now_s)
        if isinstance(decided, Answer):
            return decided.beside(besides(head, self._origins))
        if decided.upload is not None:
            decided.upload.besides = besides(head, self._origins)
        return decided

    def _decide(self, head: Head, now_s: float) -> Admission | Answer:
        now_ms = self._clock.now_ms()
        decided = admit(
            head,
            credentials=self._credentials,
            bitmap=self._bitmap,
            now_ms=now_ms,
            bounds=self._bounds,
            stale=self._freshness.is_stale(),
        )
        if isinstance(decided, Answer):
            return decided
        if self.stopping:
            return answers.STOPPING
        if not self._health.up:
            return answers.STORE_DOWN
        if not self._rate.allows(decided.device, now_s):
            return answers.RATE_LIMITED
        if decided.limit_class:
            refusal = self.counts.admit(
                decided.device,
                decided.limit_class,
                # Of what comes in pieces as many as there is room for are taken: the rest fits tomorrow.
                min(head.content_length or 0, decided.piece_bytes or self.limits.max_chunk_bytes),
                now_ms,
                now_s,
            )
            if refusal is not None:
                return refusal
        return decided

    # --- a complete body ----------------------------------------------------------------------------------------

    def take(self, admission: Admission, body: Body, slot: Slot) -> Chunk | Admission | None:
        """Check a complete body and pack it, when that takes no waiting; the answer comes by itself.

        Returns:
            None when its memory has been given back, the chunk that is to wait for its data key or for room, or its
            admission, when it is an init segment, or fragments for which the connection knows none: `ingest.fragments`
            goes on with that.
        """
        data = body.data()
        try:
            found = media.inspect(data)
            known: KnownInit | None = None
            if found.media is media.Media.FMP4:
                in_use = slot.connection.init
                if found.is_init or in_use is None or not in_use.follow(admission.device, data):
                    return admission
                known = in_use.known
                found = media.fragment(data, known.movie, known.init.number)
            refusal = self.refusal(admission, data, found)
            if refusal is None:
                chunk = self.chunk(admission, data, found, slot)
                if known is not None:
                    chunk.init = known.init
                if not self._packer.pack_now(chunk, data, slot.complete_s):
                    return chunk
                self.packed(slot, chunk)
        finally:
            data.release()
        body.release()
        if refusal is not None:
            self.refuse(slot, refusal)
        return None

    def refusal(self, admission: Admission, data: memoryview, found: media.Found) -> Answer | None:
        """Why a complete body is not stored. What is stored counts from now on."""
        refusal = self.taken_back(admission) or self.wrong_with(admission, data, found)
        if refusal is None and admission.limit_class:
            refusal = self.counts.take(
                admission.device, admission.limit_class, len(data), self._clock.now_ms()
            )
        return refusal

    def taken_back(self, admission: Admission) -> Answer | None:
        """Why a body may no longer be taken, when it has taken its time."""
        now_ms = self._clock.now_ms()
        if 0 <= now_ms - admission.head_ms < ASKED_AGAIN_MS:
            return None
        stale = self._freshness.is_stale()
        return still_admitted(admission, bitmap=self._bitmap, now_ms=now_ms, stale=stale)

    def wrong_with(self, admission: Admission, data: memoryview, found: media.Found) -> Answer | None:
        """What is wrong with a complete body, if anything."""
        return _refusal(admission, data, found)

    def took(self, device: int, length: int, chunks: int = 1) -> None:
        """A resumable upload became so many chunks. `length`: its bytes; 0: it was stored before."""
        if length:
            self._stats.chunks += chunks
            self._stats.chunk_bytes += length
        self.sightings.seen(device, trio.current_time())

    def gather(self, wait: ForPacking, now_s: float) -> bool:
        """Whether a chunk that could not be packed waits for others of its day, so that its connection goes on."""
        if self.pack_gathered is None:
            return False
        return self.uploads.gather(wait.chunk, partial(self.pack_gathered, wait), now_s)

    def packed(self, slot: Slot, chunk: Chunk) -> None:
        """A chunk is in a segment, and its body's memory is free. One that may yet move on still counts as held: its
        plaintext takes memory again then."""
        if slot.data is None and not chunk.moves_left:
            slot.packed_bytes = chunk.length
            self.budget.packed_bytes += chunk.length

    def chunk(self, admission: Admission, data: memoryview, found: media.Found, slot: Slot) -> Chunk:
        now_ms = self._clock.now_ms()
        capture_ms = admission.capture_ms
        duration_ms = admission.duration_ms or found.duration_ms
        if capture_ms is None:
            capture_ms = slot.connection.arrivals.start_ms(
                admission.device, admission.head_ms, now_ms, duration_ms, found.facts
            )
            capture_ms = self.entitled_ms(admission.device, capture_ms, now_ms)
        moves = MAX_MOVES if admission.may_move else 0
        return chunk_at(capture_ms, duration_ms, admission, data, found, now_ms, moves, slot.done)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def is_entitled(self, device: int, capture_ms: int, now_ms: int) -> bool:
        """Whether a device may have recordings of this time."""
        today = max(now_ms // MS_PER_DAY, self._bitmap.least_day)
        return self._bitmap.probe(device, capture_ms // MS_PER_DAY, today)[5]

    def entitled_ms(self, device: int, start_ms: int, now_ms: int) -> int:
        """When a chunk is dated that began before midnight and came after it: at midnight, where a plan begins then.
        Its device was admitted for the day on which it came."""
        day = now_ms // MS_PER_DAY
        if start_ms // MS_PER_DAY == day:
            return start_ms
        entitled = self._bitmap.probe(device, start_ms // MS_PER_DAY, max(day, self._bitmap.least_day))[5]
        return start_ms if entitled else day * MS_PER_DAY

    def done(self, slot: Slot, outcome: Outcome, now_s: float) -> None:
        """A chunk was committed or lost. Its connection is flushed once for all of a group: see `flush`."""
        answer = slot.protocol.answer(outcome)
        if answer.status == 201:
            self._stats.chunks += 1
            self._stats.chunk_bytes += slot.charged - REQUEST_BYTES
        else:
            self.counts.give_back(slot.device, slot.charged - REQUEST_BYTES, self._clock.now_ms())
        if answer.status < 300:
            self._stats.acked((now_s - slot.complete_s) * 1000)
            self.sightings.seen(slot.device, now_s)
        self._finish(slot, answer, now_s)
        self._touched[slot.connection] = None

    def refuse(self, slot: Slot, refusal: Answer) -> None:
        self._finish(slot, refusal, slot.complete_s)
        slot.connection.flush()

    def _finish(self, slot: Slot, answer: Answer, now_s: float) -> None:
        self.budget.packed_bytes -= slot.packed_bytes
        slot.kept = REQUEST_BYTES
        self.budget.refund(slot.connection.account, slot.charged - REQUEST_BYTES)
        self.answered(answer, now_s, device=slot.device)
        slot.data = answer.render(close=slot.connection.ends_with(slot))

    def flush(self) -> None:
        """Send the answers of a group of chunks: one send per connection, however many of its chunks."""
        touched, self._touched = self._touched, {}
        for connection in touched:
            connection.flush()


def _refusal(admission: Admission, data: memoryview, found: media.Found) -> Answer | None:
    """What is wrong with a complete body, if anything."""
    if not len(data):
        return answers.EMPTY
    if found.media is media.Media.UNKNOWN:
        return answers.unknown_media(found.what)
    claimed_ms = admission.duration_ms or 0
    if claimed_ms and abs(found.duration_ms - claimed_ms * 1000) < claimed_ms * 100:
        return answers.malformed(
            f"Clip-Duration-Ms: {claimed_ms}, and the media plays {found.duration_ms} ms: it is in milliseconds"
        )
    if admission.digest is not None:
        algorithm, expected = admission.digest
        if _DIGESTS[algorithm](data) != expected:
            return answers.DIGEST_MISMATCH
    if found.missing:  # of what arrived as it was sent: sending it again would not help
        return answers.unplayable(found.missing, found.what)
    return None
