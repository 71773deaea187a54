"""A data folder with a clock set by hand: what the tests of retention act on and look into."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from retention import numbers
from retention.bitmap import ERASED, SUSPENDED, TERMINATED, EntitlementBitmap
from retention.entitlements import Entitlements
from retention.erasure import mark_renewed, mark_terminated
from retention.reopening import reopen
from retention.sweep import Lease, Sweep, SweepLimits, highwater, is_ours
from retention.witness import SETTLED_MS, ClockWitness
from storage.catalog import Catalog
from storage.checksums import crc32, crc64nvme
from storage.clock import ClockMark
from storage.days import MS_PER_DAY, day_of_ms, month_of_day, ms_of_day
from storage.errors import CorruptError
from storage.faults import FaultyStore
from storage.keys import KeyId, KeyStore
from storage.local import LocalStore
from storage.memory import MemoryStore
from storage.objects import ObjectStore
from storage.open_catalog import open_catalog
from storage.rows.devices import DeviceFacts, PlanRow
from storage.rows.recordings import ChunkRow, PreparedKey, SegmentCommit, Verdict
from storage.segment import TAG_BYTES, SegmentWriter, buffer_bytes, decrypt_chunk, parse_segment
from tests.ingest.world import video
from tests.servers.catalogs import catalog_of, make_catalog

TODAY = 20_254  # 2025-06-15
NOON = ms_of_day(TODAY) + MS_PER_DAY // 2
HOUR = 3_600_000
WEEK = 7
ROWS = 100

SLACK_MS, DELAY_MS, TTL_MS, GRACE_DAYS, SKEW_MS, LEASE_MS, RETRY_MS = (
    *(900_000, 3_600_000, 600_000),
    *(3, 300_000, 60_000, 300_000),
)
LIMITS = SweepLimits(
    expiry_slack_ms=SLACK_MS,
    delete_delay_ms=DELAY_MS,
    prepare_ttl_ms=TTL_MS,
    lapse_grace_days=GRACE_DAYS,
    max_clock_skew_ms=SKEW_MS,
    max_rest_ms=24 * HOUR,
    bulk_limit=1000,
    lease_ms=LEASE_MS,
    retry_ms=RETRY_MS,
    rewrite_bytes=1 << 30,
)

_nonces = itertools.count(time.time_ns())


class HandClock:
    """Time passes when it is told to."""

    def __init__(self, ms: int = NOON) -> None:
        self.ms = ms
        self.jumped_ms = 0

    def now_ms(self) -> int:
        return self.ms

    def mark(self) -> ClockMark:
        return ClockMark(self.ms, SETTLED_MS + self.ms - self.jumped_ms, 1)

    def jump(self, by_ms: int) -> None:
        """Somebody sets the wall clock."""
        self.ms += by_ms
        self.jumped_ms += by_ms


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder in memory, where the system has that: fsync is what these tests would wait for most."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="clipkeep-test-", dir=memory) as folder:
        yield Path(folder)


@dataclass(frozen=True, slots=True)
class Kept:
    """A chunk whose bytes an attacker has copied, with all that is needed to read them but the key."""

    device: int
    capture_ms: int
    key_id: KeyId
    nonce: bytes
    stored: bytes


def content(device: int, capture_ms: int) -> bytes:
    """Two packets of MPEG-TS: in the first a frame starts, and the second says whose it is."""
    return video(188) + b"\x47\x1f\xff\x10" + f"{device} at {capture_ms}, ".encode().ljust(184, b".")


class World:
    """See the module docstring.

    Args:
        folder: empty, or one that another World made: a crashed process is then looked at by the next.
        local: objects in the folder instead of in memory.
        address: of a catalog that is not the folder's usual one.
    """

    def __init__(
        self, folder: Path, *, clock_ms: int = NOON, local: bool = False, address: str | None = None
    ) -> None:
        new = not (folder / "keys").exists()
        if new:
            with KeyStore.create(folder / "keys") as vault:
                make_catalog(folder, vault).close()
            EntitlementBitmap.create(folder / "entitlements.bitmap", ROWS)
        self.folder = folder
        self.clock = HandClock(clock_ms)
        self.vault = KeyStore.open(folder / "keys")
        self.catalog: Catalog = (
            open_catalog(address, folder, self.vault) if address else catalog_of(folder, self.vault)
        )
        self.vault.keep_from(self.catalog.first_key_month)
        self.bitmap = EntitlementBitmap.open(folder / "entitlements.bitmap", writable=True)
        self.memory = MemoryStore()
        inner: ObjectStore = LocalStore(folder / "objects", create=new) if local else self.memory
        self.store = FaultyStore(inner, sleep=time.sleep)
        self.kept: list[Kept] = []
        if new:
            self.catalog.note_clock(self.clock.mark())  # as `init` does
            self.entitlements.recover()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bitmap.close()
        self.catalog.close()
        self.vault.close()

    @property
    def entitlements(self) -> Entitlements:
        return Entitlements(self.catalog, self.bitmap, self.clock)

    @property
    def witness(self) -> ClockWitness:
        return ClockWitness(
            self.catalog,
            self.clock,
            self.store,
            max_skew_ms=LIMITS.max_clock_skew_ms,
            max_rest_ms=LIMITS.max_rest_ms,
        )

    # --- devices ----------------------------------------------------------------------------------------------

    def add(self, *plans: PlanRow) -> int:
        """A device; without a plan one that is entitled from 100 days ago on, with a week of storage."""
        rows = plans or (monthly(TODAY - 100),)
        return self.entitlements.add_devices(1, account=1, plans=rows)[0].device

    def change(self, device: int, change: Callable[[DeviceFacts], DeviceFacts]) -> DeviceFacts:
        return self.entitlements.change(device, change, what="test")

    def renew(self, device: int, plan: PlanRow) -> DeviceFacts:
        """As `plan start` does."""
        return self.change(device, lambda facts: replace(mark_renewed(facts), plans=(*facts.plans, plan)))

    def terminate(self, device: int, *, erase: bool = False) -> DeviceFacts:
        """As `device terminate` does, killed before it destroys keys."""
        return self.change(device, lambda f: mark_terminated(f, now_ms=self.clock.ms, erase=erase))

    # --- chunks -----------------------------------------------------------------------------------------------

    def keep(self, chunks: Iterable[tuple[int, int]], *, expires_on: int | None = None) -> str:
        """Store (device, capture_ms) chunks in one segment, as ingest does; return its key."""
        commit, prepared = self.put(chunks, expires_on=expires_on)
        [verdicts] = self.catalog.commit([commit], now_ms=self.clock.ms)
        assert set(verdicts.tolist()) == {Verdict.STORED}
        return prepared.key

    def put(
        self, chunks: Iterable[tuple[int, int]], *, expires_on: int | None = None
    ) -> tuple[SegmentCommit, PreparedKey]:
        """Store an object that is not committed yet."""
        chunks = list(chunks)
        if expires_on is None:
            expires_on = max(day_of_ms(capture_ms) for _, capture_ms in chunks) + WEEK + 1
        [prepared] = self.catalog.prepare(
            worker="w0", class_days=31, expires_on=expires_on, count=1, now_ms=self.clock.ms
        )
        writer = SegmentWriter(bytearray(buffer_bytes(1000 * len(chunks))))
        for device, capture_ms in chunks:
            key_id = KeyId(device, self.catalog.device(device).erase_epoch, month_of_day(expires_on))
            data = content(device, capture_ms)
            writer.append(
                AESGCM(self.vault.ensure([key_id])[key_id]),
                next(_nonces).to_bytes(12, "little"),
                data,
                device=device,
                capture_ms=capture_ms,
                epoch=key_id.epoch,
                duration_ms=2000,
                crc32=crc32(data),
                crc64=crc64nvme(data),
                media=1,
            )
        index = writer.index()
        body, crc = writer.seal(class_days=31, expires_on=expires_on, segment_id=prepared.segment_id)
        self.store.inner.put(prepared.key, body, crc)
        self._copy(bytes(body), index, expires_on)
        return SegmentCommit(prepared.segment_id, expires_on, len(body), crc, index), prepared

    def _copy(self, body: bytes, index: np.ndarray, expires_on: int) -> None:
        for row in index:
            stop = int(row["offset"]) + int(row["length"]) + TAG_BYTES
            key_id = KeyId(int(row["device"]), int(row["epoch"]), month_of_day(expires_on))
            stored = body[int(row["offset"]) : stop]
            self.kept.append(
                Kept(key_id.device, int(row["capture_ms"]), key_id, row["nonce"].tobytes(), stored)
            )

    def copy_objects(self, known: set[str]) -> None:
        """Let the attacker copy all objects but the known ones."""
        for key in self.objects() - known:
            size = self.store.inner.head(key).size_bytes
            body = self.store.inner.get_range(key, 0, size)
            footer, index = parse_segment(body)
            self._copy(body, index, footer.expires_on)

    def leave_deletion_unfinished(self, device: int, from_ms: int, to_ms: int) -> None:
        """As `recordings delete` of a long range does that was killed right after it was recorded."""
        with self.catalog.db.hold() as connection:  # type: ignore[attr-defined]
            connection.execute(
                "INSERT INTO deletions (device, from_ms, to_ms, reason, who, chunks, at_ms)"
                " VALUES (?, ?, ?, ?, 'test', 0, ?)",
                (device, from_ms, to_ms, b"", self.clock.ms),
            )
            connection.execute("UPDATE devices SET has_deletions = 1 WHERE device = ?", (device,))

    def read(self, device: int, capture_ms: int) -> bytes | None:
        """The chunk, asked for as playback asks; None when it is not served."""
        today = self.entitlements.today()
        flags, _, _, _, today_ok, _, _ = self.bitmap.probe(device, today, today)
        if not today_ok or flags & (SUSPENDED | TERMINATED | ERASED):
            return None
        row = self.catalog.chunk(device, capture_ms)
        return None if row is None or row.expires_on <= today else self.decrypted(row)

    def decrypted(self, row: ChunkRow) -> bytes | None:
        key_id = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
        key = self.vault.get_each([key_id])[key_id]
        if not isinstance(key, bytes):
            return None
        stored = self.store.inner.get_range(row.segment_key, row.offset, row.length + TAG_BYTES)
        return decrypt_chunk(AESGCM(key), row.nonce, stored, device=row.device, capture_ms=row.capture_ms)

    def serves(self, device: int, *captures_ms: int) -> list[bool]:
        """For each capture whether it is served, byte for byte."""
        found = [self.read(device, capture_ms) for capture_ms in captures_ms]
        for capture_ms, data in zip(captures_ms, found, strict=True):
            assert data in (None, content(device, capture_ms))
        return [data is not None for data in found]

    def attacked(self, copies: Iterable[Kept] | None = None) -> set[tuple[int, int]]:
        """(device, capture_ms) of all that can be decrypted from copied bytes and whatever keys are left."""
        found = set()
        for kept in self.kept if copies is None else copies:
            key = self.vault.get_each([kept.key_id])[kept.key_id]
            if isinstance(key, bytes):
                try:
                    decrypt_chunk(
                        AESGCM(key),
                        kept.nonce,
                        kept.stored,
                        device=kept.device,
                        capture_ms=kept.capture_ms,
                    )
                except CorruptError:
                    continue
                found.add((kept.device, kept.capture_ms))
        return found

    # --- sweeps -----------------------------------------------------------------------------------------------

    def sweep(self, **changed: Any) -> Sweep:
        """A sweep; keywords change its limits, or its parts `catalog`, `store` and `vault`."""
        parts = {
            name: changed.pop(name, getattr(self, name)) for name in ("catalog", "store", "vault", "bitmap")
        }
        return Sweep(clock=self.clock, limits=replace(LIMITS, **changed), sleep=self.sleep, **parts)

    def reopen(self) -> int:
        """As `catalog reopen` does, and the processes that come after it."""
        lease = Lease(self.catalog, self.clock, ttl_ms=LEASE_MS)
        begun = reopen(
            self.catalog,
            self.vault,
            self.bitmap,
            self.clock,
            lease,
            through=day_of_ms(self.clock.ms),
            delete_delay_ms=DELAY_MS,
        )
        self.witness.note(accept=True)
        self.vault.keep_from(self.catalog.first_key_month)
        return begun

    def sleep(self, seconds: float) -> None:
        self.clock.ms += round(seconds * 1000)

    def sound(self) -> None:
        """Catalog and store agree, both ways, and every row reads as its chunk, where there is a key for it."""
        assert not list(self.catalog.broken_rows())
        states = self.states()
        assert {key for key, state in states.items() if state == "COMMITTED"} <= self.objects() <= set(states)
        for day in {row.expires_on for row in self.catalog.segments()}:
            for row in self.catalog.day_rows(day):
                assert self.decrypted(row) in (None, content(row.device, row.capture_ms))

    def objects(self) -> set[str]:
        """Keys of segments; beside them is only the mark of how far the catalog was."""
        found = {info.key for info in self.store.inner.list("")} - {highwater.KEY, numbers.KEY}
        assert all(map(is_ours, found))
        return found

    def states(self) -> dict[str, str]:
        """Key to the state that the catalog says."""
        return {row.key: row.state.name for row in self.catalog.segments()}

    def state(self) -> dict[str, Any]:
        """Everything that lasts, to say that nothing changed."""
        devices = self.catalog.devices()
        return {
            "objects": self.objects(),
            "mark": highwater.read_mark(self.store.inner),
            "segments": self.catalog.segments(),
            "rows": [list(self.catalog.day_rows(row.expires_on)) for row in self.catalog.segments()],
            "devices": devices,
            "bitmap": [self.bitmap.read(facts.device) for facts in devices],
            "header": (self.bitmap.last_change, self.bitmap.closed_through, self.bitmap.unfinished),
            "keys": self.vault.count(),
            "totals": self.catalog.totals(),
            "reports": self.catalog.last_sweep(),
            "changes": self.catalog.newest_change(),
        }


def monthly(starts_on: int, ends_on: int | None = None, days: int = WEEK) -> PlanRow:
    return PlanRow(0, "monthly", starts_on, ends_on, days)
