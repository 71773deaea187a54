"""What the ingest tests stand on: a clock, video-like bytes, and the parts of a worker that can be told to fail."""

from __future__ import annotations

import random
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.account_keys import AccountKeys
from storage.days import MS_PER_DAY, month_of_day
from storage.errors import CatalogUnavailable, ClipkeepError
from storage.keys import KeyId
from storage.objects import ObjectStore
from storage.rows.recordings import ChunkRow, PreparedKey, SegmentCommit
from storage.segment import TAG_BYTES, decrypt_chunk
from storage.sql import SqlCatalog
from storage.sql.connection import Database
from tests.servers.catalogs import catalog_of, make_catalog

TODAY = 20_600
"""A day number in the middle of a month: 27 May 2026."""
NOW_MS = TODAY * MS_PER_DAY + MS_PER_DAY // 2
PACKET_BYTES = 188


@dataclass
class ManualClock:
    """Stands still until a test moves it."""

    ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.ms


def video(size: int = 4 * PACKET_BYTES, seed: int = 0) -> bytes:
    """`size` bytes of MPEG-TS: a frame that starts in the first packet, then null packets with noise in them."""
    data = bytearray(random.Random(seed).randbytes(size))
    for at in range(0, size, PACKET_BYTES):
        packet = b"\x47\x1f\xff\x10"
        data[at : at + 4] = packet[: size - at]
    pts = seed * 3600 % 2**33
    start = b"\x47\x41\x00\x10\0\0\1\xe0\0\0\x80\x80\5" + (
        0x21_0001_0001 | (pts >> 30) << 33 | (pts >> 15 & 0x7FFF) << 17 | (pts & 0x7FFF) << 1
    ).to_bytes(5, "big")
    data[: len(start)] = start[:size]
    return bytes(data)


def key_bytes(key_id: KeyId) -> bytes:
    """A data key that follows from its id: for tests that decrypt what they find."""
    return random.Random(repr(tuple(key_id))).randbytes(32)


@dataclass
class KeySource:
    """A key store in memory: what a `Keyring` fetches from."""

    faults: dict[int, ClipkeepError] = field(default_factory=dict)
    """By device."""
    fault: ClipkeepError | None = None

    def __call__(self, ids: Collection[KeyId]) -> Mapping[KeyId, bytes | ClipkeepError]:
        if self.fault is not None:
            raise self.fault
        return {key_id: self.faults.get(key_id.device, key_bytes(key_id)) for key_id in ids}


class FaultyCatalog(SqlCatalog):
    """A catalog that fails as told: `faults["commit"]` is "before" (nothing happened) or "after" (the answer was
    lost), until it is taken away."""

    def __init__(self, database: Database, keys: AccountKeys) -> None:
        super().__init__(database, keys)
        self.faults: dict[str, str] = {}
        self.commits: list[int] = []
        """How many segments each commit had."""
        self.asked_whole = 0
        """How often something was to be committed as a whole."""
        self.released: list[int] = []
        self.commit_open = threading.Event()
        """Cleared, it holds commits up."""
        self.commit_open.set()

    @classmethod
    def of(cls, folder: Path, *, made: bool = False, keep: bool = False) -> FaultyCatalog:
        """The one of a folder, open; made first where that is asked for."""
        whole = make_catalog(folder, None, keep=keep) if made else catalog_of(folder)
        assert isinstance(whole, SqlCatalog)
        return cls(whole.db, whole.keys)

    def prepare(
        self, *, worker: str, class_days: int, expires_on: int, count: int, now_ms: int
    ) -> list[PreparedKey]:
        self._fail("prepare", "before")
        keys = super().prepare(
            worker=worker, class_days=class_days, expires_on=expires_on, count=count, now_ms=now_ms
        )
        self._fail("prepare", "after")
        return keys

    def release(self, segment_ids: Sequence[int]) -> None:
        self._fail("release", "before")
        super().release(segment_ids)
        self.released += segment_ids

    def commit(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        assert self.commit_open.wait(10)
        self._fail("commit", "before")
        verdicts = super().commit(segments, now_ms=now_ms)
        self.commits.append(len(segments))
        self._fail("commit", "after")
        return verdicts

    def commit_whole(self, segments: Sequence[SegmentCommit], *, now_ms: int) -> list[np.ndarray]:
        self.asked_whole += 1
        assert self.commit_open.wait(10)
        self._fail("commit_whole", "before")
        verdicts = super().commit_whole(segments, now_ms=now_ms)
        self._fail("commit_whole", "after")
        return verdicts

    def _fail(self, what: str, when: str) -> None:
        if self.faults.get(what) == when:
            raise CatalogUnavailable("injected: the catalog does not answer")


def read_chunk(store: ObjectStore, row: ChunkRow) -> bytes:
    """What a reader gets for a chunk row, its key made by `key_bytes`.

    Invariant 11 on the way: it decrypts as the row's own device and time only.
    """
    stored = store.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
    cipher = AESGCM(key_bytes(KeyId(row.device, row.epoch, month_of_day(row.expires_on))))
    return decrypt_chunk(cipher, row.nonce, stored, device=row.device, capture_ms=row.capture_ms)
