"""What a commit costs as the catalog grows: the same segments into a catalog of a million chunk rows, and of many.

Only the catalog is here: a segment's rows as ingest makes them, in one durable transaction a segment, from devices in
turn, so that every row goes to another place of its table, as those of a fleet do. No HTTP, no store.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.run import check_bounds

if TYPE_CHECKING:
    from storage.rows.recordings import SegmentCommit
    from storage.sqlite import SqliteCatalog

SEGMENT_ROWS = 190
"""Chunks of 64 KiB in a segment of 12 MiB."""
FILL_ROWS = 5_000
"""Rows of a transaction while the catalog is filled: many devices' neighbours at once, for it to be quick."""
STEP_MS = 4_000
CLASS_DAYS = 30
DAY_MS = 86_400_000


@dataclass(frozen=True)
class CatalogSettings:
    """What `catalog` runs with: rows at which it measures, ascending; devices that they are of; commits measured."""

    rows: tuple[int, ...] = (1_000_000, 10_000_000)
    devices: int = 1000
    commits: int = 200

    def checked(self) -> CatalogSettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds; 100 million rows are about 10 GB of disk.
        """
        check_bounds(
            [
                *(("rows", count, SEGMENT_ROWS, 100_000_000) for count in self.rows),
                ("number of rows", len(self.rows), 1, 8),
                ("devices", self.devices, SEGMENT_ROWS, 20_000),
                ("commits", self.commits, 1, 10_000),
            ]
        )
        return self


@dataclass(frozen=True, slots=True)
class CatalogResult:
    """Medians over the commits of one segment each: CPU and elapsed time in µs, p99 of the latter; `file_bytes` of
    the catalog then, with its write-ahead log."""

    rows: int
    commits: int
    cpu_us: float
    elapsed_us: float
    elapsed_p99_us: float
    cpu_us_per_chunk: float
    file_bytes: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_catalog(settings: CatalogSettings) -> Generator[CatalogResult, None, None]:
    """Fill one catalog in a temporary folder, and measure whenever it has as many rows as asked for."""
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
        filling = _Filling(Path(name), settings.devices)
        for rows in sorted(settings.rows):
            filling.fill(rows)
            yield filling.measure(settings.commits)


class _Filling:
    """A catalog with chunks of devices 1 to `devices`, all of one expiry day: each has one chunk every 4 s."""

    def __init__(self, folder: Path, devices: int) -> None:
        from storage.rows.devices import PlanRow
        from storage.sqlite import SqliteCatalog

        self._path = folder / "catalog.db"
        self._now_ms = int(time.time() * 1000)
        today = self._now_ms // DAY_MS
        self._expires_on = today + CLASS_DAYS + 1
        self._catalog: SqliteCatalog = SqliteCatalog.create(self._path)
        plan = PlanRow(0, "monthly", today, None, CLASS_DAYS)
        self._catalog.add_devices(devices, account=1, plans=[plan], now_ms=self._now_ms)
        self._devices = devices
        self._start_ms = today * DAY_MS
        self.rows = 0

    def fill(self, rows: int) -> None:
        """Add rows device by device up to so many in all: the way that is quick, into the same tree."""
        each = max(0, rows - self.rows) // self._devices
        taken = self.rows // self._devices + 1
        for device in range(1, self._devices + 1):
            for start in range(0, each, FILL_ROWS):
                count = min(FILL_ROWS, each - start)
                turns = np.arange(taken + start, taken + start + count)
                self._commit(np.full(count, device), turns)
        self._turn = taken + each

    def measure(self, commits: int) -> CatalogResult:
        cpu_us, elapsed_us = [], []
        for number in range(commits):
            place = np.arange(number * SEGMENT_ROWS, (number + 1) * SEGMENT_ROWS)
            segment = self._segment(1 + place % self._devices, self._turn + place // self._devices)
            began_s, cpu_s = time.perf_counter(), time.thread_time()
            self._catalog.commit([segment], now_ms=self._now_ms)
            cpu_us.append((time.thread_time() - cpu_s) * 1e6)
            elapsed_us.append((time.perf_counter() - began_s) * 1e6)
            self.rows += SEGMENT_ROWS
        self._turn += -(-commits * SEGMENT_ROWS // self._devices)
        return CatalogResult(
            rows=self.rows,
            commits=commits,
            cpu_us=statistics.median(cpu_us),
            elapsed_us=statistics.median(elapsed_us),
            elapsed_p99_us=float(np.quantile(elapsed_us, 0.99)),
            cpu_us_per_chunk=statistics.median(cpu_us) / SEGMENT_ROWS,
            file_bytes=sum(path.stat().st_size for path in self._path.parent.glob(f"{self._path.name}*")),
        )

    def _commit(self, devices: np.ndarray, turns: np.ndarray) -> None:
        self._catalog.commit([self._segment(devices, turns)], now_ms=self._now_ms)
        self.rows += len(devices)

    def _segment(self, devices: np.ndarray, turns: np.ndarray) -> SegmentCommit:
        from storage.rows.recordings import SegmentCommit
        from storage.segment import INDEX_DTYPE

        index = np.zeros(len(devices), dtype=INDEX_DTYPE)
        index["device"] = devices
        # One expiry day holds what was captured in one day: the times of long fills lie closer together.
        index["capture_ms"] = self._start_ms + turns * STEP_MS % DAY_MS + turns * STEP_MS // DAY_MS
        index["length"] = 65_424
        index["nonce"] = np.frombuffer(os.urandom(12 * len(index)), dtype="V12")
        (key,) = self._catalog.prepare(
            worker="bench",
            class_days=CLASS_DAYS,
            expires_on=self._expires_on,
            count=1,
            now_ms=self._now_ms,
        )
        return SegmentCommit(key.segment_id, self._expires_on, 12 * 1024 * 1024, 0, index)


def growth(results: Sequence[CatalogResult]) -> float:
    """How many times as much CPU a commit takes at the most rows as at the least."""
    return results[-1].cpu_us / results[0].cpu_us
