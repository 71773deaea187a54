"""A real small world for playback and its API: catalog, keys and bitmap on disk, segments in a store in memory."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trio
from argon2.profiles import CHEAPEST
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ingest.media import Media
from retention.bitmap import PRESENT, EntitlementBitmap, Row
from retention.entitlements import Entitlements
from retention.erasure import mark_terminated
from retention.tokens import mint_viewer_token
from retention.witness import ClockWitness
from service.agreement import packages, privacy, versions
from service.agreement.desk import Desk
from service.agreement.gateway.recording import RecordFiles, RecordingGateway
from service.config import AgreementSettings, NoticeSettings, RetentionSettings
from service.playback import (
    Page,
    Playback,
    PlaybackServices,
    Refused,
    Viewer,
)
from storage.checksums import crc32, crc64nvme
from storage.clock import ClockMark
from storage.days import MAX_TIME_MS, MS_PER_DAY, month_of_day, ms_of_day
from storage.faults import Fault, FaultyStore, no_faults
from storage.keys import KeyId, KeyStore
from storage.media_facts import NOTHING_KNOWN, MediaFacts
from storage.memory import MemoryStore
from storage.rows.devices import PlanRow
from storage.rows.recordings import PreparedKey, SegmentCommit, Verdict
from storage.segment import SegmentWriter, buffer_bytes
from tests.servers.catalogs import make_catalog

TODAY = 20_640
"""The world's day at first: its clock stands at noon."""
NOON_MS = ms_of_day(TODAY) + MS_PER_DAY // 2
RETENTION_DAYS = 7
EXPIRES_ON = TODAY + RETENTION_DAYS + 1
CHUNK_MS = 4000
HOUR_MS = 3_600_000


class HandClock:
    """A clock that stands still until it is set."""

    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def mark(self) -> ClockMark:
        return ClockMark(self.ms, self.ms, 1)


@dataclass(frozen=True, slots=True)
class Clip:
    """A chunk to be stored."""

    capture_ms: int
    data: bytes
    media: Media = Media.MPEG_TS
    duration_ms: int = CHUNK_MS
    expires_on: int = EXPIRES_ON
    facts: MediaFacts = NOTHING_KNOWN


class World:
    """A service's data with one device, number 1, entitled from yesterday for a month."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock(NOON_MS)
        self.vault = KeyStore.create(folder / "keys")
        self.catalog = make_catalog(folder, self.vault)
        EntitlementBitmap.create(folder / "bitmap", 1000)
        self.bitmap = EntitlementBitmap.open(folder / "bitmap", writable=True)
        self.folder = folder
        self.objects = MemoryStore()
        self.store = FaultyStore(self.objects, sleep=time.sleep)
        self.block_keys = 1
        """Segment keys that are prepared at once: a worker's are BLOCK_KEYS, used one after the other."""
        self._prepared: list[PreparedKey] = []
        assert self.add_device() == 1

    def close(self) -> None:
        self.bitmap.close()
        self.catalog.close()
        self.vault.close()

    @property
    def witness(self) -> ClockWitness:
        return ClockWitness(self.catalog, self.clock, self.store, max_skew_ms=300_000, max_rest_ms=MS_PER_DAY)

    def services(self, **limits: Any) -> PlaybackServices:
        return PlaybackServices(**self.parts(), **limits)

    def parts(self) -> dict[str, Any]:
        return {
            "catalog": self.catalog,
            "store": self.store,
            "vault": self.vault,
            "bitmap": self.bitmap,
            "clock": self.clock,
            "token_secret": self.vault.token_secret,
        }

    def desk(self, **settings: Any) -> Desk:
        """The agreement's use cases on this world, with cheap password hashes and the shipped agreement published."""
        made = Desk(
            catalog=self.catalog,
            entitlements=Entitlements(self.catalog, self.bitmap, self.clock),
            vault=self.vault,
            clock=self.clock,
            settings=AgreementSettings(**settings),
            notices=NoticeSettings(),
            gateway=RecordingGateway(RecordFiles(self.folder / "payments")),
            address_secret=bytes(32),
            random_bytes=secrets.token_bytes,
            hashing=CHEAPEST,
        )
        versions.ensure(self.catalog, now_ms=self.clock.ms)
        privacy.ensure(self.catalog, now_ms=self.clock.ms)
        packages.ensure(
            self.catalog, made.settings, RetentionSettings(default_days=RETENTION_DAYS), now_ms=self.clock.ms
        )
        return made

    def add_device(self, days: int = 30) -> int:
        plan = PlanRow(0, "monthly", TODAY - 1, TODAY - 2 + days, RETENTION_DAYS)
        facts = self.catalog.add_devices(1, account=1, plans=[plan], now_ms=NOON_MS)[0]
        row = Row(
            PRESENT, RETENTION_DAYS, TODAY - 1, facts.token_generation, facts.erase_epoch, (1 << days) - 1
        )
        with self.bitmap.locked():
            self.bitmap.write(facts.device, row)
        return facts.device

    def change(self, device: int = 1, **fields: int) -> None:
        """Another bitmap row for a device."""
        row = self.bitmap.read(device)
        assert row is not None
        with self.bitmap.locked():
            self.bitmap.write(device, replace(row, **fields))

    def terminate(self, device: int = 1) -> None:
        """As `clipkeep device terminate --erase` does, by the same path, and the sweep's next step: no keys."""
        facts = Entitlements(self.catalog, self.bitmap, self.clock).change(
            device, lambda facts: mark_terminated(facts, now_ms=self.clock.ms, erase=True), what="test"
        )
        self.vault.destroy_device(device, below_epoch=facts.erase_epoch)

    def delete(self, clip: Clip) -> None:
        """As `clipkeep recordings delete` does."""
        times = clip.capture_ms, clip.capture_ms + 1
        self.catalog.delete_range(
            1, *times, reason="r", who="w", now_ms=self.clock.ms, delete_after_ms=self.clock.ms
        )

    def token(self, device: int = 1, hours: float = 24, generation: int | None = None) -> str:
        row = self.bitmap.read(device)
        now_generation = row.token_generation if row else 1
        return mint_viewer_token(
            self.vault.token_secret,
            device,
            now_generation if generation is None else generation,
            int(self.clock.ms / 1000 + hours * 3600),
        )

    def viewer(self, device: int = 1) -> Viewer:
        return Viewer(device, self.token(device))

    def keep(self, *clips: Clip, device: int = 1, epoch: int = 0, verdict: Verdict = Verdict.STORED) -> None:
        """Store chunks of one expiry day as ingest does: a segment, its object, its commit with this verdict."""
        expires_on = clips[0].expires_on
        key_id = KeyId(device, epoch, month_of_day(expires_on))
        cipher = AESGCM(self.vault.ensure([key_id])[key_id])
        size = sum(len(clip.data) + 16 for clip in clips)
        writer = SegmentWriter(
            bytearray(buffer_bytes(size, max(len(clip.data) for clip in clips)) + 64 * 300)
        )
        for number, clip in enumerate(clips):
            writer.append(
                cipher,
                (number + 1).to_bytes(4, "little") + time.time_ns().to_bytes(8, "little"),
                clip.data,
                device=device,
                capture_ms=clip.capture_ms,
                epoch=epoch,
                duration_ms=clip.duration_ms,
                crc32=crc32(clip.data),
                crc64=crc64nvme(clip.data),
                media=clip.media,
                facts=clip.facts.pack(),
            )
        index = writer.index()
        if not self._prepared:
            self._prepared = self.catalog.prepare(
                worker="w",
                class_days=RETENTION_DAYS,
                expires_on=expires_on,
                count=self.block_keys,
                now_ms=self.clock.ms,
            )
        prepared = self._prepared.pop(0)
        body, crc = writer.seal(
            class_days=RETENTION_DAYS, expires_on=expires_on, segment_id=prepared.segment_id
        )
        self.store.put(prepared.key, body, crc)
        commit = SegmentCommit(prepared.segment_id, expires_on, len(body), crc, index)
        verdicts = self.catalog.commit([commit], now_ms=self.clock.ms)[0]
        assert set(verdicts.tolist()) == {verdict}

    def during_next_fetch(self, act: Callable[[], object]) -> None:
        """Do something while the next chunk is on its way out of the store."""

        def plan(op: str, key: str, nth: int) -> Fault | None:
            if op == "get_range":
                self.store.plan = no_faults
                act()
            return None

        self.store.plan = plan


def clips(count: int, *, start_ms: int = NOON_MS - HOUR_MS, size: int = 1880, **more: Any) -> list[Clip]:
    """Contiguous chunks of different content."""
    return [
        Clip(start_ms + i * CHUNK_MS, (b"G" + i.to_bytes(4, "big") + bytes(183)) * (size // 188), **more)
        for i in range(count)
    ]


@asynccontextmanager
async def playing(world: World, **limits: Any) -> AsyncIterator[Playback]:
    playback = Playback(world.services(**limits))
    async with trio.open_nursery() as nursery:
        await nursery.start(playback.run)
        yield playback
        assert playback.memory.held == 0
        assert playback.exports.under_way.held == 0
        nursery.cancel_scope.cancel()


async def fetched(playback: Playback, viewer: Viewer, capture_ms: int) -> bytes:
    read = await playback.chunks.read(viewer, await playback.chunks.find(viewer, capture_ms))
    data = read.data
    read.release()
    return data


@contextmanager
def refused(code: str) -> Iterator[None]:
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code


def captures(page: Page) -> list[int]:
    return [row.capture_ms for _, rows in page.spans for row in rows]


async def listed(playback: Playback, viewer: Viewer, limit: int = 1000) -> list[int]:
    return await playback.listings.page(viewer, 0, MAX_TIME_MS, limit=limit, finish=captures)


async def exported(playback: Playback, viewer: Viewer, write: Callable[[bytes], Any] | None = None) -> bytes:
    export = await playback.exports.plan(viewer, 0, MAX_TIME_MS)
    parts: list[bytes] = []

    async def keep(data: bytes) -> None:
        parts.append(data)
        if write is not None:
            await write(data)

    try:
        await export.open()
        await export.stream(keep)
    finally:
        export.close()
    data = b"".join(parts)
    assert len(data) == export.length_bytes
    return data
