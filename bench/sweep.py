"""What a sweep costs: expiry beside list-compare-delete, the lapse scan, the destruction of a device's keys."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.expiry import CLASS_DAYS, FIRST_DAY, ModelStore, Shape, make_catalog
from bench.procfs import PROC
from retention.bitmap import PRESENT, EntitlementBitmap
from retention.header import HEADER_BYTES
from retention.row import ROW, Row, pack
from retention.sweep import Sweep, SweepLimits
from storage.clock import ClockMark
from storage.days import MS_PER_DAY, ms_of_day
from storage.keys import MAX_IDS_PER_CALL, KeyId, KeyStore
from storage.objects import DELETE_BATCH_KEYS
from storage.open_catalog import SQLITE, open_catalog

SLACK_MS, DELAY_MS = 900_000, 3_600_000
LIMITS = SweepLimits(
    expiry_slack_ms=SLACK_MS,
    delete_delay_ms=DELAY_MS,
    prepare_ttl_ms=600_000,
    lapse_grace_days=3,
    max_clock_skew_ms=300_000,
    max_rest_ms=24 * 3_600_000,
    bulk_limit=1000,
    lease_ms=600_000,
    retry_ms=300_000,
)
GRACE_DAYS = 3
LAPSED_EVERY = 1000
"""One device in so many has lapsed."""
SCANS = 7
ONE_BY_ONE = 200
"""Single deletes that are timed; the rest is arithmetic."""
MONTHS = 12
"""Months of keys of each device: more than a year of video."""
DESTROYED = 20


@dataclass(frozen=True)
class SweepSettings:
    days: int = 30
    segments: int = 20_000
    chunks: int = 1_000_000
    devices: int = 10_000_000
    key_devices: int = 10_000
    latency_ms: float = 20.0

    def checked(self) -> SweepSettings:
        """
        Raises:
            BenchError: a figure is out of bounds.
        """
        if not (1 <= self.days <= 100 and 1 <= self.segments <= self.chunks <= 10_000_000):
            raise BenchError("1 to 100 days, 1 segment to 10 million chunks a day", subject="sweep")
        if not (1 <= self.devices <= 20_000_000 and DESTROYED <= self.key_devices <= 1_000_000):
            raise BenchError("1 to 20 million devices, 20 to 1 million with keys", subject="sweep")
        if not 0 <= self.latency_ms <= 1000:
            raise BenchError("latency is 0 to 1000 ms", subject="sweep")
        return self

    @property
    def shape(self) -> Shape:
        return Shape(self.days, self.segments, self.chunks)

    @property
    def steps(self) -> list[str]:
        """What happens, in order: a result each."""
        fill = [f"filling day {day + 1} of {self.days}" for day in range(self.days)]
        return [
            *fill,
            "expiring a day",
            "listing, comparing, deleting",
            "scanning for lapses",
            "destroying keys",
        ]


Figures = dict[str, Any]


def measure_sweep(settings: SweepSettings) -> Generator[Figures, None, None]:
    """Do all steps in a temporary folder: yields the figures of each, nothing for those that only fill."""
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
        folder = Path(name)
        first = True
        for _ in make_catalog(folder / "catalog.db", settings.shape):
            if not first:
                yield {}
            first = False
        yield {}
        yield _apart(expire, folder, settings)
        (folder / "catalog.db").unlink()
        yield _apart(list_and_delete, folder, settings)
        yield lapse_scan(folder, settings.devices)
        yield key_destruction(folder, settings.key_devices)


def _apart(step: Callable[[Path, SweepSettings], Figures], folder: Path, settings: SweepSettings) -> Figures:
    """Run in a process of its own, so that its peak of memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(step, folder, settings).result()


class _Clock:
    def __init__(self, ms: int) -> None:
        self.ms = ms

    def now_ms(self) -> int:
        return self.ms

    def mark(self) -> ClockMark:
        return ClockMark(self.ms, self.ms, 1)


class _Timed:
    """Stands before the catalog and adds up what is spent in it."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.spent_s = 0.0
        self.longest: tuple[float, str] = (0.0, "")

    def __getattr__(self, name: str) -> Any:
        began_s = time.perf_counter()
        value = getattr(self._real, name)  # a property, too, is read here
        self._took(name, began_s)
        if not callable(value):
            return value

        def timed(*args: Any, **named: Any) -> Any:
            began_s = time.perf_counter()
            try:
                return value(*args, **named)
            finally:
                self._took(name, began_s)

        return timed

    def _took(self, name: str, began_s: float) -> None:
        took_s = time.perf_counter() - began_s
        self.spent_s += took_s
        self.longest = max(self.longest, (took_s, name))


def expire(folder: Path, settings: SweepSettings) -> Figures:
    """Two passes: one un-indexes the day, one deletes its objects after the delay."""
    store = ModelStore(settings.shape, latency_s=settings.latency_ms / 1000)
    EntitlementBitmap.create(folder / "small.bitmap", 1 << 16)
    clock = _Clock(ms_of_day(FIRST_DAY) + SLACK_MS)
    with (
        KeyStore.create(folder / "few-keys") as vault,
        EntitlementBitmap.open(folder / "small.bitmap", writable=True) as bitmap,
    ):
        catalog = _Timed(open_catalog(SQLITE, folder / "catalog.db"))
        sweep = Sweep(
            catalog=catalog,
            store=store,
            vault=vault,
            bitmap=bitmap,
            clock=clock,
            limits=LIMITS,
        )
        began_s = time.perf_counter()
        # The model's day is long ago, and its clock is moved by hand: it is taken to be right.
        unindexed = sweep.run(accept_clock=True)
        clock.ms += DELAY_MS
        deleted = sweep.run(accept_clock=True)
        took_s = time.perf_counter() - began_s
        catalog.close()
    chunks = settings.shape.chunks_per_segment * settings.segments
    if (unindexed.unindexed_chunks, deleted.deleted_objects) != (chunks, settings.segments):
        raise BenchError("the sweep did not expire just that day", subject="sweep")
    return {
        "what": "expiry",
        "seconds": took_s,
        "catalog_seconds": catalog.spent_s,
        "longest_catalog_seconds": catalog.longest[0],
        "longest_catalog_call": catalog.longest[1],
        "delete_calls": store.calls["delete_many"],
        "list_calls": store.calls["list"],
        "peak_memory_bytes": _peak_bytes(),
    }


def list_and_delete(folder: Path, settings: SweepSettings) -> Figures:
    """What people do today: list the bucket, compare ages, delete."""
    store = ModelStore(settings.shape, latency_s=settings.latency_ms / 1000)
    now_s = (ms_of_day(FIRST_DAY) + SLACK_MS) / 1000
    old: list[str] = []
    began_s = time.perf_counter()
    for info in store.list("v1/"):
        if now_s - info.modified_s > (CLASS_DAYS + 1) * MS_PER_DAY / 1000:
            old.append(info.key)
    listed_s = time.perf_counter() - began_s
    for start in range(0, len(old), DELETE_BATCH_KEYS):
        store.delete_many(old[start : start + DELETE_BATCH_KEYS])
    took_s = time.perf_counter() - began_s
    if len(store.deleted) != settings.segments:
        raise BenchError("the listing did not find just that day", subject="sweep")
    calls = dict(store.calls)
    sample = old[:ONE_BY_ONE]
    began_s = time.perf_counter()
    for key in sample:
        store.delete_many([key])
    each_s = (time.perf_counter() - began_s) / len(sample)
    return {
        "what": "list, compare, delete",
        "seconds": took_s,
        "seconds_one_by_one": listed_s + each_s * len(old),
        "delete_calls": calls["delete_many"],
        "list_calls": calls["list"],
        "peak_memory_bytes": _peak_bytes(),
    }


def lapse_scan(folder: Path, devices: int) -> Figures:
    """The nomination of lapsed devices from a bitmap of so many, as a sweep makes it."""
    path = folder / "large.bitmap"
    today = FIRST_DAY
    running = Row(PRESENT, 30, today - 200, 1, 0, (1 << 300) - 1)
    lapsed = replace(running, days=(1 << 100) - 1)
    rows = np.tile(np.frombuffer(pack(running), ROW), LAPSED_EVERY)
    rows[-1:] = np.frombuffer(pack(lapsed), ROW)
    EntitlementBitmap.create(path, devices + 1)
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + rows.itemsize)  # device 1
        for start in range(0, devices, LAPSED_EVERY):
            file.write(rows[: min(LAPSED_EVERY, devices - start)].tobytes())
    took_ms, cpu_ms = [], []
    with EntitlementBitmap.open(path) as bitmap:
        for _ in range(SCANS):
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            found = bitmap.ended_devices(today, GRACE_DAYS)
            took_ms.append(1000 * (time.perf_counter() - began_s))
            cpu_ms.append(1000 * (time.process_time() - began_cpu_s))
    path.unlink()
    if len(found) != devices // LAPSED_EVERY:
        raise BenchError("the scan did not find just those that lapsed", subject="sweep")
    return {
        "what": "lapse scan",
        "devices": devices,
        "lapsed": len(found),
        "first_ms": took_ms[0],
        "median_ms": statistics.median(took_ms),
        "best_ms": min(took_ms),
        "median_cpu_ms": statistics.median(cpu_ms),
    }


def key_destruction(folder: Path, devices: int) -> Figures:
    """Destroying all keys of one device, in a key store with so many devices with a year of keys each."""
    took_ms = []
    with KeyStore.create(folder / "many-keys") as vault:
        ids = [
            KeyId(device, 0, 2025 * 100 + month)
            for month in range(1, MONTHS + 1)
            for device in range(devices)
        ]
        for start in range(0, len(ids), MAX_IDS_PER_CALL):
            vault.ensure(ids[start : start + MAX_IDS_PER_CALL])
        for device in range(0, devices, max(1, devices // DESTROYED)):
            began_s = time.perf_counter()
            destroyed = vault.destroy_device(device, below_epoch=1)
            took_ms.append(1000 * (time.perf_counter() - began_s))
            if destroyed != MONTHS:
                raise BenchError("not all keys of the device were destroyed", subject="sweep")
    return {
        "what": "destroying a device's keys",
        "devices": devices,
        "keys_of_each": MONTHS,
        "median_ms": statistics.median(took_ms),
        "worst_ms": max(took_ms),
    }


def _peak_bytes() -> int:
    """Peak resident memory of this process. Linux's own word: the usual one includes the parent's."""
    try:
        status = (PROC / str(os.getpid()) / "status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
