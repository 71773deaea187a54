"""Reading one chunk: where it is, its bytes, and the last question before it is sent.

What `fetch` returns has been decrypted as what was asked for, device and time, and checked against its length
and CRC-32 (invariant 11), but it may be over by now: a store can take a minute, and a chunk that was read ahead
waits for its turn. So `confirm` comes after all waiting, right before the sending. It asks the catalog, which
knows of deleted ranges, and then the gate.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.keyring import Keyring
from service.playback.clip_keys import ClipKeys
from service.playback.gate import Gate, Viewer
from service.playback.refusals import expired, not_found
from service.playback.services import PlaybackServices
from service.playback.sharers import Sharers
from service.playback.sharing import Sharer, Shares
from storage.checksums import crc32
from storage.days import month_of_day
from storage.errors import CorruptError, KeyDestroyed, ObjectMissing
from storage.media_facts import unpack_facts
from storage.rows.clips import KEPT_DAY
from storage.rows.recordings import ChunkRow
from storage.segment import TAG_BYTES, decrypt_chunk
from storage.vault import KeyId

_log = structlog.get_logger("playback")


class ReadChunk:
    """A chunk's plaintext, checked. Its memory is charged until `release`, which may be called again."""

    def __init__(self, row: ChunkRow, data: bytes, memory: Shares, who: Sharer) -> None:
        self.row = row
        self.data = data
        self._memory: Shares | None = memory
        self._who = who

    def keep(self, start: int, stop: int) -> None:
        """Let go of all bytes but `start <= i < stop`, so that a part never costs more than the whole."""
        self.data = self.data[start:stop]

    def release(self) -> None:
        if self._memory is not None:
            self._memory.give(self._who, self.row.length)
        self._memory = None
        self.data = b""


class ChunkReader:
    """Reads the chunks of one process: at most `store_threads` are fetched at once, all in `memory`. Both are shared
    out among viewers and their accounts.

    Every method raises Refused as `Gate.check` does, and WorldError when catalog, store or key store can't be
    asked. A cancelled one waits for its call under way, which its own time-outs bound.
    """

    def __init__(
        self, services: PlaybackServices, gate: Gate, keyring: Keyring, memory: Shares, sharers: Sharers
    ) -> None:
        self._catalog = services.catalog
        self._store = services.store
        self._gate = gate
        self._keyring = keyring
        self.memory = memory
        self._memory_wait_s = services.memory_wait_s
        self._answer_s = services.answer_s
        self.clip_keys = ClipKeys(services.catalog, services.vault)
        self._sharers = sharers
        self._lookups = services.shares(services.lookup_threads)
        self._lookup_limiter = trio.CapacityLimiter(services.lookup_threads)
        self._fetches = services.shares(services.store_threads)
        self._fetch_limiter = trio.CapacityLimiter(services.store_threads)

    async def sharer(self, viewer: Viewer) -> Sharer:
        """Whose share this viewer reads on; for those whom the gate has let in."""
        return await self._sharers.of(viewer)

    async def find(self, viewer: Viewer, capture_ms: int) -> ChunkRow:
        """The row of a chunk that may be read now.

        Raises:
            Refused: when there is none, `not_found`, or `expired` where one could only have expired.
        """
        grant = self._gate.ask(viewer)
        if not grant.shows(capture_ms):
            raise not_found()
        row = await self._look_up(viewer, capture_ms)
        if row is None:
            raise expired() if grant.is_past(capture_ms) else not_found()
        self._gate.check(viewer, row)
        return row

    async def readable(self, viewer: Viewer, row: ChunkRow) -> None:
        """As `read`, short of the bytes: whether there still is a key.

        Raises:
            KeyDestroyed: as `fetch`.
        """
        await self._cipher(viewer, row)
        await self.confirm(viewer, row)

    async def read(self, viewer: Viewer, row: ChunkRow) -> ReadChunk:
        """The plaintext of a chunk that `find` found, to be sent at once. The caller releases it.

        Raises:
            As `fetch` and `confirm`. None of the chunk leaves here then.
        """
        read = await self.fetch(viewer, row)
        try:
            await self.confirm(viewer, row)
        except BaseException:
            read.release()
            raise
        return read

    async def fetch(self, viewer: Viewer, row: ChunkRow) -> ReadChunk:
        """The plaintext of a chunk, to be sent after `confirm` and not before. The caller releases it.

        Raises:
            KeyDestroyed: nobody can read it any more.
            CorruptError: `chunk_corrupt`, what is stored is not this chunk; `object_missing`, its segment is gone.
                Logged.
            Refused: `overloaded`, no memory for it; and as `confirm` when that is why it can't be read.
        """
        who = await self._sharers.of(viewer)
        await self.memory.take(who, row.length, wait_s=self._memory_wait_s)
        return await self.fetch_charged(viewer, row, who)

    async def fetch_charged(self, viewer: Viewer, row: ChunkRow, who: Sharer) -> ReadChunk:
        """As `fetch`, when its memory was taken for this sharer. It is given back when this raises."""
        try:
            data = await self._decrypted(viewer, row)
        except BaseException:
            self.memory.give(who, row.length)
            raise
        return ReadChunk(row, data, self.memory, who)

    async def confirm(self, viewer: Viewer, row: ChunkRow) -> ChunkRow:
        """May this chunk be sent now? Nothing happens between the gate's answer and the return.

        Returns:
            Its row as it is now: a rewrite may have moved it to another segment.

        Raises:
            Refused: as `find`; what was deleted since it was found is `not_found`.
        """
        found = await self._look_up(viewer, row.capture_ms)
        self._gate.check(viewer, row)
        if found is None or not found.is_same_chunk(row):
            raise not_found()
        return found

    async def init(self, viewer: Viewer, row: ChunkRow) -> bytes:
        """The init segment that a chunk of fMP4 is read by, of at most `ingest.inits.MAX_INIT_BYTES`: to be sent, or
        used, after `confirm` of the chunk and not before.

        Raises:
            CorruptError: it is not there, or not what was stored.
            As `fetch`.
        """
        number = unpack_facts(row.facts).parameters
        if viewer.clip is None:
            look = partial(self._catalog.init, row.device, number, row.expires_on)
        else:
            look = partial(self._catalog.clip_init, row.device, viewer.clip, number)
        for is_last in (False, True):
            async with self._lookups.hold(await self._sharers.of(viewer), wait_s=self._answer_s):
                found = await trio.to_thread.run_sync(look, limiter=self._lookup_limiter)
            if found is None:
                await self.confirm(viewer, row)  # deleted or erased meanwhile: a better answer
                break
            try:
                cipher = await self._cipher(viewer, found)
                async with self._fetches.hold(await self._sharers.of(viewer)):
                    return await trio.to_thread.run_sync(
                        self._get, found, cipher, limiter=self._fetch_limiter
                    )
            except CorruptError:
                if is_last:  # else it may have been moved by a rewrite
                    raise
        place = {"segment_id": row.segment_id, "ordinal": row.ordinal}
        _log.error(
            "recording_corrupt",
            code="init_missing",
            device=row.device,
            capture_ms=row.capture_ms,
            **place,
        )
        raise CorruptError("its init segment is not stored", code="chunk_corrupt")

    async def _look_up(self, viewer: Viewer, capture_ms: int) -> ChunkRow | None:
        async with self._lookups.hold(await self._sharers.of(viewer), wait_s=self._answer_s):
            return await trio.to_thread.run_sync(
                self._row_of, viewer, capture_ms, limiter=self._lookup_limiter
            )

    def _row_of(self, viewer: Viewer, capture_ms: int) -> ChunkRow | None:
        """In a thread."""
        if viewer.clip is None:
            return self._catalog.chunk(viewer.device, capture_ms)
        found = self._catalog.clip_chunks(viewer.device, viewer.clip, capture_ms, capture_ms + 1, limit=1)
        return found[0] if found else None

    async def _cipher(self, viewer: Viewer, row: ChunkRow) -> AESGCM:
        if viewer.clip is not None:
            async with self._lookups.hold(await self._sharers.of(viewer), wait_s=self._answer_s):
                return await self.clip_keys.load(
                    KeyId(row.device, row.epoch, month_of_day(KEPT_DAY)),
                    viewer.clip,
                    limiter=self._lookup_limiter,
                )
        key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
        return self._keyring.cached(key_id) or await self._keyring.load(key_id)

    async def _decrypted(self, viewer: Viewer, row: ChunkRow, *, moved: bool = False) -> bytes:
        try:
            cipher = await self._cipher(viewer, row)
            async with self._fetches.hold(await self._sharers.of(viewer)):
                return await trio.to_thread.run_sync(self._get, row, cipher, limiter=self._fetch_limiter)
        except (CorruptError, KeyDestroyed) as error:
            now = await self.confirm(viewer, row)  # erased or swept meanwhile: no fault, and a better answer
            if now.segment_id != row.segment_id and not moved:
                return await self._decrypted(
                    viewer, now, moved=True
                )  # rewritten, and the old segment is gone
            if isinstance(error, CorruptError):
                place = {"segment_id": row.segment_id, "ordinal": row.ordinal}
                _log.error(
                    "recording_corrupt",
                    code=error.code,
                    device=row.device,
                    capture_ms=row.capture_ms,
                    **place,
                )
            raise

    def _get(self, row: ChunkRow, cipher: AESGCM) -> bytes:
        """In a thread: fetch, decrypt and check; once more when that fails, for the flip may have been on the way."""
        try:
            return self._get_once(row, cipher)
        except CorruptError as error:
            if error.code != "chunk_corrupt":
                raise
        data = self._get_once(row, cipher)
        _log.warning("read_again", segment_id=row.segment_id, ordinal=row.ordinal)
        return data

    def _get_once(self, row: ChunkRow, cipher: AESGCM) -> bytes:
        try:
            stored = self._store.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
            data = decrypt_chunk(cipher, row.nonce, stored, device=row.device, capture_ms=row.capture_ms)
        except ObjectMissing as error:
            raise CorruptError("its segment is not in the store", code=error.code) from error
        except CorruptError as error:
            raise _corrupt() from error
        if len(data) != row.length or crc32(data) != row.crc32:
            raise _corrupt()
        return data


def _corrupt() -> CorruptError:
    return CorruptError("what is stored is not this recording", code="chunk_corrupt")
