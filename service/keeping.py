"""Copying what owners keep: chunk by chunk out of the day's segments, into objects of the clip's own.

One clip at a time in each process, and by one process at a time: whoever copies it has claimed it (`ClipsCatalog`).
Every object is a step: prepared in the catalog, put, committed with the rows of its chunks and with how far the clip
is. So whoever is killed leaves the clip as it was after the last step, and a prepared key, which the sweep reclaims;
the next one goes on behind the last step. Nothing of a clip is served that was not committed. A clip that was deleted
meanwhile, or whose device was erased, refuses the commit.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.catalog.clips import ClipsCatalog, KeptObject
from storage.catalog.continuity import ContinuityCatalog
from storage.catalog.ingest import IngestCatalog
from storage.catalog.reading import ReadingCatalog
from storage.checksums import crc32, crc64nvme
from storage.clock import Clock
from storage.days import day_of_ms, month_of_day
from storage.errors import CorruptError, KeyDestroyed, ObjectMissing
from storage.media_facts import unpack_facts
from storage.objects import ObjectStore
from storage.rows.clips import KEPT_CLASS, KEPT_DAY, ClipRow, worker_of
from storage.rows.recordings import FMP4, ChunkRow, SegmentCommit
from storage.segment import NONCE_BYTES, TAG_BYTES, SegmentWriter, buffer_bytes, decrypt_chunk
from storage.vault import KeyId, Vault

CLAIM_MS = 120_000
"""For which a clip is left alone since its last step: twice the worst bounded put."""
TARGET_BYTES = 8 << 20
"""Of plaintext in an object, unless one chunk alone is more: a few dozen chunks. Held in memory, once as it is and once
encrypted."""
MAX_CHUNKS = 4096
"""In an object."""
STEPS_A_TURN = 8
"""Objects, after which another clip has its turn: 64 MiB, some seconds."""

_log = structlog.get_logger("keeping")


class KeepingCatalog(ClipsCatalog, ReadingCatalog, IngestCatalog, ContinuityCatalog, Protocol):
    """Clips, what they are copied from, and keys for their objects."""


class Step(NamedTuple):
    """The rows of one object; what was captured before `next_ms` is copied then; whether that is all."""

    rows: list[ChunkRow]
    next_ms: int
    done: bool


class Keeping:
    """Copies clips. Every method blocks. Not for two threads at once.

    Args:
        random_bytes: of a given length, unpredictable.
    """

    def __init__(
        self,
        catalog: KeepingCatalog,
        store: ObjectStore,
        vault: Vault,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._vault = vault
        self._clock = clock
        self._random_bytes = random_bytes

    def run(self) -> dict[str, int]:
        """Copy a part of the clip that waits for longest, all of it when it is small. Returns what was done, for the
        log.

        Raises:
            WorldError: store, catalog or vault can't be asked: another turn goes on, after CLAIM_MS at the latest.
        """
        now_ms = self._clock.now_ms()
        clip = self._catalog.claim_clip(now_ms=now_ms, until_ms=now_ms + CLAIM_MS)
        if clip is None:
            return {}
        objects = 0
        while clip is not None and objects < STEPS_A_TURN:
            step = self.next_step(clip)
            objects += 1
            clip = self.take(clip, step, release=objects == STEPS_A_TURN)
            if step.done:
                break
        return {"clip_objects": objects}

    def next_step(self, clip: ClipRow) -> Step:
        """What is to be copied next: what can be read now, and no more bytes than were reserved for the clip, whatever
        has come into its range since."""
        today = max(day_of_ms(self._clock.now_ms()), self._catalog.closed_through)
        room = clip.bytes - self._catalog.copied_bytes(clip.clip_id)
        page = self._catalog.chunks(clip.device, clip.next_ms, clip.to_ms, limit=MAX_CHUNKS)
        rows: list[ChunkRow] = []
        size_bytes = 0
        for row in page:
            if row.epoch != clip.epoch or row.expires_on <= today:
                continue
            if size_bytes + row.length > room:
                return Step(rows, clip.to_ms, True)
            if rows and size_bytes + row.length > TARGET_BYTES:
                return Step(rows, row.capture_ms, False)
            rows.append(row)
            size_bytes += row.length
        if len(page) == MAX_CHUNKS:
            return Step(rows, page[-1].capture_ms + 1, False)
        return Step(rows, clip.to_ms, True)

    def take(self, clip: ClipRow, step: Step, *, release: bool = False) -> ClipRow | None:
        """Copy what a step says. Returns the clip as it is then; None when it has ended or is somebody else's."""
        kept = self._put(clip, step.rows)
        now_ms = self._clock.now_ms()
        return self._catalog.commit_clip(
            clip,
            kept,
            next_ms=step.next_ms,
            done=step.done,
            now_ms=now_ms,
            until_ms=now_ms if release else now_ms + CLAIM_MS,
        )

    def _put(self, clip: ClipRow, rows: Sequence[ChunkRow]) -> KeptObject | None:
        """Copy these chunks into an object. None when there is none that can be read, or the clip has ended.

        Raises:
            KeyDestroyed: the vault has no key for it, as after a restore.
        """
        id_ = self._catalog.clip_key(clip.clip_id)
        if id_ is None or not rows:
            return None
        key = self._vault.account_keys([id_]).get(id_)
        if key is None:
            raise KeyDestroyed("its key is not in the vault", subject=f"clip {clip.clip_id}")
        read = [
            (row, data) for row in (*self._inits(clip, rows), *rows) if (data := self._read(row)) is not None
        ]
        if not read:
            return None
        cipher = AESGCM(key)
        size_bytes = sum(len(data) + TAG_BYTES for _, data in read)
        room = buffer_bytes(size_bytes, max(len(data) for _, data in read)) + 128 * len(read)
        writer = SegmentWriter(bytearray(room))
        for row, data in read:
            writer.append(
                cipher,
                self._random_bytes(NONCE_BYTES),
                data,
                device=row.device,
                capture_ms=row.capture_ms,
                epoch=row.epoch,
                duration_ms=row.duration_ms,
                crc32=row.crc32,
                crc64=crc64nvme(data),
                media=row.media,
                facts=bytes(row.facts),
            )
        index = writer.index()
        [prepared] = self._catalog.prepare(
            worker=worker_of(clip.clip_id),
            class_days=KEPT_CLASS,
            expires_on=KEPT_DAY,
            count=1,
            now_ms=self._clock.now_ms(),
        )
        body, crc = writer.seal(class_days=KEPT_CLASS, expires_on=KEPT_DAY, segment_id=prepared.segment_id)
        self._store.put(prepared.key, body, crc)
        segment = SegmentCommit(prepared.segment_id, KEPT_DAY, len(body), crc, index)
        return KeptObject(segment, [row for row, _ in read])

    def _inits(self, clip: ClipRow, rows: Sequence[ChunkRow]) -> list[ChunkRow]:
        """The init segments that these fragments name and the clip has not yet."""
        wanted = {unpack_facts(row.facts).parameters: row.expires_on for row in rows if row.media == FMP4}
        found = []
        for number, expires_on in wanted.items():
            if self._catalog.clip_init(clip.device, clip.clip_id, number) is None:
                init = self._catalog.init(clip.device, number, expires_on)
                found += [init] if init is not None else []
        return found

    def _read(self, row: ChunkRow) -> bytes | None:
        """A chunk's plaintext, checked; once more where a rewrite has moved it meanwhile. None when it is gone or can't
        be read: it is left out."""
        for _ in range(2):
            key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
            key = self._vault.get([key_id]).get(key_id)
            if key is None:
                return None
            try:
                stored = self._store.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
                data = decrypt_chunk(
                    AESGCM(key), row.nonce, stored, device=row.device, capture_ms=row.capture_ms
                )
                if len(data) == row.length and crc32(data) == row.crc32:
                    return data
            except (ObjectMissing, CorruptError):
                pass
            now = (
                self._catalog.chunk(row.device, row.capture_ms)
                if row.capture_ms >= 0
                else self._catalog.init(row.device, -row.capture_ms, row.expires_on)
            )
            if now is None or not now.is_same_chunk(row):
                return None
            row = now
        _log.error("not_kept", device=row.device, capture_ms=row.capture_ms, segment_id=row.segment_id)
        return None
