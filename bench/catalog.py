"""What commits cost: as the catalog grows, with committers side by side, and while a day is closed.

Only the catalog is here: a segment's rows as ingest makes them, in one durable transaction a segment, from devices in
turn, so that every row goes to another place of its table, as those of a fleet do. No HTTP, no store.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.catalog_engines import Engine, engine_of
from bench.committers import CLASS_DAYS, DAY_MS, Committed, Segments, committing
from bench.procfs import spent_s
from bench.run import check_bounds

SEGMENT_ROWS = 190
"""Chunks of 64 KiB in a segment of 12 MiB."""
LINGER_ROWS = 18
"""Of one that its linger sealed."""
CLOSED_ROWS = 1_000_000
"""Chunk rows of the day that is closed."""
FILL_ROWS = 5_000
"""Rows of a transaction while the catalog is filled: many devices' neighbours at once, for it to be quick."""
WATCH_S = 0.01
"""Between two looks at who waits for a lock."""


@dataclass(frozen=True)
class CatalogSettings:
    """What `catalog` runs with: rows at which it measures, ascending; devices that they are of; commits measured at
    each; processes that commit side by side, 0 for none, and for how many seconds.

    `url` and `shared_buffers` are of PostgreSQL: see `engine_of`."""

    rows: tuple[int, ...] = (1_000_000, 10_000_000)
    devices: int = 1000
    commits: int = 1000
    committers: int = 4
    seconds: float = 10.0
    closed_rows: int = CLOSED_ROWS
    engine: str = "sqlite"
    url: str = field(default="", repr=False)
    shared_buffers: str = "1GB"

    def checked(self) -> CatalogSettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds; 100 million rows are 10 to 15 GB of disk.
        """
        check_bounds(
            [
                *(("rows", count, SEGMENT_ROWS, 100_000_000) for count in self.rows),
                ("number of rows", len(self.rows), 1, 8),
                ("devices", self.devices, SEGMENT_ROWS, 20_000),
                ("commits", self.commits, 1, 10_000),
                ("committers", self.committers, 0, 32),
                ("seconds", self.seconds, 0.1, 600),
                ("closed rows", self.closed_rows, SEGMENT_ROWS, 100_000_000),
            ]
        )
        return self

    def as_json(self) -> dict[str, Any]:
        """All but the address, which may hold a password."""
        return {name: value for name, value in asdict(self).items() if name != "url"}

    def steps(self) -> list[str]:
        """What each result is called while it is measured."""
        growing = [f"filling up to {count:,} rows, then committing" for count in sorted(self.rows)]
        if not self.committers:
            return growing
        rates = [
            f"{self.committers} committers, {chunks} chunks a commit"
            for chunks in (SEGMENT_ROWS, LINGER_ROWS)
        ]
        return [*growing, *rates, f"closing a day of {self.closed_rows:,} chunks while they commit"]


@dataclass(frozen=True, slots=True)
class GrowthResult:
    """Commits of one segment each by one process. Times in µs: medians of CPU and elapsed time of this process, p99 of
    the latter; `server_cpu_us` is the mean of the server's processes that serve connections (None: not on this
    machine); `kept_bytes` are of a row with its index, or of SQLite's whole file; `log_bytes` of the write-ahead log
    for each chunk."""

    rows: int
    commits: int
    cpu_us: float
    server_cpu_us: float | None
    elapsed_us: float
    elapsed_p99_us: float
    kept_bytes: float
    log_bytes: float | None
    kind: str = "growth"

    @property
    def both_us(self) -> float:
        return self.cpu_us + (self.server_cpu_us or 0.0)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RateResult:
    """Committers side by side, the preparing of their keys included. CPU in µs a chunk, the server's of all of its
    processes; see `GrowthResult`."""

    chunks: int
    commits_per_s: float
    chunks_per_s: float
    cpu_us: float
    server_cpu_us: float | None
    elapsed_p99_us: float
    kept_bytes: float
    log_bytes: float | None
    kind: str = "rate"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ClosingResult:
    """Closing a day while others commit to another one. `closed_s`: until nothing of it is served any more;
    `dropped_s`: until its table is gone too. `longest_ms` of a commit of those seconds, `lock_wait_ms` the longest
    that was seen of a wait for a lock, looked for every 10 ms."""

    rows: int
    closed_s: float
    dropped_s: float
    commits_per_s: float
    longest_ms: float
    lock_wait_ms: float
    kind: str = "closing"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Result = GrowthResult | RateResult | ClosingResult


def measure_catalog(
    settings: CatalogSettings, described: Callable[[dict[str, Any]], None] = lambda engine: None
) -> Generator[Result, None, None]:
    """Fill one catalog, and measure whenever it has as many rows as asked for; then with committers side by side.

    Args:
        described: told the engine's settings.
    """
    with (
        tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name,
        engine_of(
            settings.engine, Path(name), url=settings.url, shared_buffers=settings.shared_buffers
        ) as engine,
    ):
        described(engine.describe())
        bench = _Bench(engine, settings)
        for rows in sorted(settings.rows):
            bench.fill(rows)
            yield bench.growth()
        if settings.committers:
            for chunks in (SEGMENT_ROWS, LINGER_ROWS):
                yield bench.rate(chunks)
            yield bench.closing()
        bench.catalog.close()


class _Bench:
    """A catalog with chunks of devices 1 to `devices`: each has one every 4 s."""

    def __init__(self, engine: Engine, settings: CatalogSettings) -> None:
        from storage.rows.devices import PlanRow

        self._engine = engine
        self._settings = settings
        self._day = int(time.time() * 1000) // DAY_MS
        self.catalog = engine.open()
        plan = PlanRow(0, "monthly", self._day, None, CLASS_DAYS)
        self.catalog.add_devices(settings.devices, account=1, plans=[plan], now_ms=self._day * DAY_MS)
        self._segments = self._on(self._day)
        self._rows = 0
        self._turn_of_rates = 0

    def _on(self, day: int) -> Segments:
        return Segments(self.catalog, day, first=1, devices=self._settings.devices)

    def fill(self, rows: int) -> None:
        """Add rows up to so many in all."""
        self._rows += self._filled(self._segments, rows - self._rows)

    def _filled(self, segments: Segments, rows: int) -> int:
        """Add rows device by device: the way that is quick, into the same tree."""
        devices = self._settings.devices
        each = max(0, rows) // devices
        first = -(-segments.place // devices)
        for device in range(1, devices + 1):
            for start in range(first, first + each, FILL_ROWS):
                count = min(FILL_ROWS, first + each - start)
                made = segments.made(np.full(count, device), np.arange(start, start + count))
                self.catalog.commit([made], now_ms=segments.now_ms)
        segments.place = (first + each) * devices
        return each * devices

    def growth(self) -> GrowthResult:
        commits = self._settings.commits
        cpu_us, elapsed_us = [], []
        before, log_before = self._engine.serving_cpu_s(), self._engine.log_bytes()
        for _ in range(commits):
            segment = self._segments.next(SEGMENT_ROWS)
            began_s, cpu_s = time.perf_counter(), time.thread_time()
            self.catalog.commit([segment], now_ms=self._segments.now_ms)
            cpu_us.append((time.thread_time() - cpu_s) * 1e6)
            elapsed_us.append((time.perf_counter() - began_s) * 1e6)
        after, log_after = self._engine.serving_cpu_s(), self._engine.log_bytes()
        self._rows += commits * SEGMENT_ROWS
        return GrowthResult(
            rows=self._rows,
            commits=commits,
            cpu_us=statistics.median(cpu_us),
            server_cpu_us=None if after is None or before is None else spent_s(before, after) / commits * 1e6,
            elapsed_us=statistics.median(elapsed_us),
            elapsed_p99_us=float(np.quantile(elapsed_us, 0.99)),
            kept_bytes=self._engine.size_bytes(self._segments.expires_on) / self._rows,
            log_bytes=None
            if log_after is None or log_before is None
            else (log_after - log_before) / commits / SEGMENT_ROWS,
        )

    def rate(self, chunks: int) -> RateResult:
        """Into a day of its own: the next one."""
        counted: list[tuple[float | None, int | None]] = []

        def count(from_s: float, to_s: float) -> None:
            time.sleep(max(0.0, from_s - time.time()))
            before = self._counters()
            time.sleep(max(0.0, to_s - time.time()))
            counted.append(self._since(before))

        done = self._committing(chunks, count)
        [(server_s, log_bytes)] = counted
        total = sum(one.chunks for one in done)
        day = self._day + 1 + CLASS_DAYS + 1
        return RateResult(
            chunks=chunks,
            commits_per_s=sum(one.commits for one in done) / self._settings.seconds,
            chunks_per_s=total / self._settings.seconds,
            cpu_us=sum(one.cpu_s for one in done) / total * 1e6,
            server_cpu_us=None if server_s is None else server_s / total * 1e6,
            elapsed_p99_us=float(np.quantile(_elapsed_s(done), 0.99)) * 1e6,
            kept_bytes=self._engine.size_bytes(day) / self._rows_of(day),
            log_bytes=None if log_bytes is None else log_bytes / total,
        )

    def closing(self) -> ClosingResult:
        """Close a day before all others, while commits go to the next one."""
        yesterday = self._on(self._day - 1)
        rows = self._filled(yesterday, self._settings.closed_rows)
        day = yesterday.expires_on
        taken_s: list[float] = []
        waits_ms = [0.0]

        def close(from_s: float, to_s: float) -> None:
            time.sleep(max(0.0, from_s + self._settings.seconds / 4 - time.time()))
            closing = threading.Thread(target=self._close, args=(day, taken_s), daemon=True)
            closing.start()
            while time.time() < to_s or closing.is_alive():
                waits_ms.append(self._engine.lock_wait_ms())
                time.sleep(WATCH_S)
            closing.join()

        done = self._committing(SEGMENT_ROWS, close)
        closed_s, dropped_s = taken_s
        return ClosingResult(
            rows=rows,
            closed_s=closed_s,
            dropped_s=dropped_s,
            commits_per_s=sum(one.commits for one in done) / self._settings.seconds,
            longest_ms=max(_elapsed_s(done)) * 1e3,
            lock_wait_ms=max(waits_ms),
        )

    def _close(self, day: int, taken_s: list[float]) -> None:
        now_ms = day * DAY_MS + 1
        fence = self.catalog.acquire_lease("sweep", holder="bench", ttl_ms=600_000, now_ms=now_ms)
        assert fence is not None
        began_s = time.perf_counter()
        self.catalog.close_day(day, fence=fence, now_ms=now_ms, delete_after_ms=now_ms)
        taken_s.append(time.perf_counter() - began_s)
        while self._engine.has_table(day):
            time.sleep(WATCH_S)
            self.catalog.record_sweep({}, now_ms=now_ms)  # as the next pass does, for what had readers
        taken_s.append(time.perf_counter() - began_s)

    def _committing(self, chunks: int, meanwhile: Callable[[float, float], None]) -> list[Committed]:
        self._turn_of_rates += 5_000  # more than a committer comes to
        return committing(
            self._engine.address,
            self._engine.file,
            self._day + 1,
            committers=self._settings.committers,
            devices=self._settings.devices,
            chunks=chunks,
            turn=self._turn_of_rates,
            seconds=self._settings.seconds,
            meanwhile=meanwhile,
        )

    def _rows_of(self, day: int) -> int:
        if self._engine.is_one_file:
            return self.catalog.totals().chunks
        return sum(held.chunks for held in self.catalog.open_days(day) if held.expires_on == day)

    def _counters(self) -> tuple[float | None, int | None]:
        return self._engine.server_cpu_s(), self._engine.log_bytes()

    def _since(self, before: tuple[float | None, int | None]) -> tuple[float | None, int | None]:
        cpu_s, log_bytes = self._counters()
        return (
            None if cpu_s is None or before[0] is None else cpu_s - before[0],
            None if log_bytes is None or before[1] is None else log_bytes - before[1],
        )


def _elapsed_s(done: Sequence[Committed]) -> list[float]:
    return [one for committed in done for one in committed.elapsed_s]


def growth(results: Sequence[Result]) -> float | None:
    """How many times as much CPU, of both sides, a commit takes at the most rows as at the least."""
    grown = [one for one in results if isinstance(one, GrowthResult)]
    return grown[-1].both_us / grown[0].both_us if grown else None
