"""What a worker reads back of what was stored below capture time 0: init segments, and parts of resumable uploads."""

from __future__ import annotations

from functools import partial

import trio

from ingest.keyring import Keyring
from storage.catalog.reading import ReadingCatalog
from storage.days import month_of_day
from storage.errors import CorruptError, ObjectMissing
from storage.objects import ObjectStore
from storage.rows.recordings import ChunkRow
from storage.segment import TAG_BYTES, decrypt_chunk
from storage.vault import KeyId


class StoredBelow:
    """Rows by capture time, and their bytes.

    Args:
        threads: what blocks runs in these.
    """

    def __init__(
        self, store: ObjectStore, catalog: ReadingCatalog, keyring: Keyring, threads: trio.CapacityLimiter
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._keyring = keyring
        self._threads = threads

    async def row(self, device: int, capture_ms: int, expires_on: int) -> ChunkRow | None:
        """What is stored at that time, which is below 0; None: nothing is."""
        look = partial(self._catalog.init, device, -capture_ms, expires_on)
        return await trio.to_thread.run_sync(look, limiter=self._threads)

    async def rows(
        self, device: int, from_ms: int, to_ms: int, expires_on: int, *, limit: int
    ) -> list[ChunkRow]:
        """What is stored at from_ms <= time < to_ms, which are below 0, in this order; at most `limit`."""
        look = partial(self._catalog.parts, device, from_ms, to_ms, expires_on, limit=limit)
        return await trio.to_thread.run_sync(look, limiter=self._threads)

    async def read(self, row: ChunkRow) -> bytes:
        """Its bytes.

        Raises:
            KeyDestroyed: the device's recordings are being erased.
            CorruptError, WorldError: it can't be read now.
        """
        key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
        cipher = self._keyring.cached(key_id) or await self._keyring.load(key_id)
        get = partial(self._store.get_range, row.segment_key, row.offset, row.length + TAG_BYTES)
        try:
            stored = await trio.to_thread.run_sync(get, limiter=self._threads)
        except ObjectMissing as error:
            raise CorruptError("its segment is not in the store", code=error.code) from error
        return decrypt_chunk(cipher, row.nonce, stored, device=row.device, capture_ms=row.capture_ms)
