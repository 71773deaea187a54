"""What slow clients do to fast ones: hundreds of connections at a trickle, beside a few at full speed.

A server that holds a thread, an upload slot or another device's ack for every body under way shows it here.
Each server is measured twice in every run, freshly started: with the fast clients alone, and with the slow
ones beside them; every other run the other way round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.machine import Cores
from bench.results import MB
from bench.run import KIB, SLACK, STEP_OVERHEAD_S, check_bounds
from bench.servers import Server
from bench.stage import CHILD_TIMEOUT_S, LoadSettings, Stage, stage

SLOW_SETTLE_S = 2.0
"""After the slow ones are connected and part-way through their first chunks."""
SLOW_LIMIT_S = 300.0
"""They are told to stop long before."""


@dataclass(frozen=True)
class SlowSettings:
    """What `slow-clients` runs with. Sizes in bytes, times in s."""

    fast: int = 32
    slow: int = 500
    slow_bytes_per_s: float = 20_000.0
    size_bytes: int = 1024 * KIB
    slow_size_bytes: int = 64 * KIB
    runs: int = 3
    seconds: float = 5.0
    warmup: float = 1.5
    devices: int = 2000
    workers: int = 1
    latency_ms: float = 0.0

    def checked(self) -> SlowSettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds.
        """
        check_bounds(
            [
                ("fast", self.fast, 1, 10_000),
                ("slow", self.slow, 1, 10_000),
                ("slow-rate", self.slow_bytes_per_s, 100, 10_000_000),
                ("size", self.size_bytes, 188, 16 * KIB * KIB),
                ("slow-size", self.slow_size_bytes, 188, 16 * KIB * KIB),
                ("runs", self.runs, 1, 50),
                ("seconds", self.seconds, 0.2, 120),
                ("warmup", self.warmup, 0, 60),
                ("devices", self.devices, 1, 1_000_000),
                ("workers", self.workers, 1, 64),
                ("latency-ms", self.latency_ms, 0, 10_000),
            ]
        )
        return self


@dataclass(frozen=True, slots=True)
class SlowMeasurement:
    """The fast clients of one server, `slow` clients beside them (0: alone). Slow acks and errors are those of
    the slow clients, over all the time they ran."""

    server: str
    run: int
    slow: int
    mb_per_s: float
    ack_ms: Mapping[str, float]
    errors: Mapping[str, int]
    server_cpu_s: float
    window_s: float
    peak_memory_bytes: int
    slow_acks: int
    slow_errors: Mapping[str, int]
    others_cpu_s: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def slow_steps(settings: SlowSettings, servers: Sequence[Server]) -> list[str]:
    """Name what `measure_slow_clients` yields, in order."""
    return [
        f"run {run}: {server.name}, {slow} slow clients"
        for run in range(1, settings.runs + 1)
        for server in servers
        for slow in _order(settings, run)
    ]


def _order(settings: SlowSettings, run: int) -> tuple[int, int]:
    return (0, settings.slow) if run % 2 else (settings.slow, 0)


def measure_slow_clients(
    settings: SlowSettings, servers: Sequence[Server], cores: Cores
) -> Generator[SlowMeasurement, None, None]:
    """Measure each server in turn, in every run.

    Raises:
        BenchError: a process did not start, or did not behave.
    """
    step_s = settings.seconds + settings.warmup + STEP_OVERHEAD_S + SLOW_SETTLE_S
    deadline_s = time.monotonic() + step_s * 2 * settings.runs * len(servers) * SLACK
    with stage(cores, settings.latency_ms) as on:
        for run in range(1, settings.runs + 1):
            for server in servers:
                for slow in _order(settings, run):
                    if time.monotonic() > deadline_s:
                        return
                    yield _measure_one(settings, on, server, run, slow)


def _measure_one(settings: SlowSettings, on: Stage, server: Server, run: int, slow: int) -> SlowMeasurement:
    fast = LoadSettings(settings.size_bytes, settings.fast, settings.seconds, settings.warmup)
    beside = LoadSettings(
        settings.slow_size_bytes,
        max(1, slow),
        SLOW_LIMIT_S,
        SLOW_SETTLE_S,
        slow_bytes_per_s=settings.slow_bytes_per_s,
    )
    slow_result: dict[str, Any] = {"chunks": 0, "errors": {}}
    with on.serving(server, devices=settings.devices, workers=settings.workers) as running:
        if slow:
            with on.loading(running, beside, "slow") as child:
                child.event(CHILD_TIMEOUT_S + SLOW_SETTLE_S, "warm")
                result, used = on.observe(running, fast, also=[child])
                child.interrupt()
                slow_result = child.event(CHILD_TIMEOUT_S, "result")
        else:
            result, used = on.observe(running, fast)
    return SlowMeasurement(
        server=server.name,
        run=run,
        slow=slow,
        mb_per_s=result["bytes"] / MB / result["window_s"],
        ack_ms=result["ack_ms"],
        errors=result["errors"],
        server_cpu_s=used.server_cpu_s,
        window_s=result["window_s"],
        peak_memory_bytes=used.peak_memory_bytes,
        slow_acks=slow_result["chunks"],
        slow_errors=slow_result["errors"],
        others_cpu_s=used.others_cpu_s,
    )


@dataclass(frozen=True, slots=True)
class SlowSummary:
    """Fast clients alone and beside slow ones: medians over the runs of one server, and what became of the slow
    ones, added up. `throughput` and `p99` are with over without."""

    server: str
    runs: int
    alone_mb_per_s: float
    beside_mb_per_s: float
    alone_p99_ms: float
    beside_p99_ms: float
    throughput: float
    p99: float
    slow_acks: int
    slow_errors: int


def summarise_slow(measurements: Sequence[SlowMeasurement]) -> list[SlowSummary]:
    """One line per server that was measured both ways, in order of appearance."""
    found = []
    for server in dict.fromkeys(one.server for one in measurements):
        alone = [one for one in measurements if one.server == server and not one.slow]
        beside = [one for one in measurements if one.server == server and one.slow]
        if not alone or not beside:
            continue
        speeds = [statistics.median(one.mb_per_s for one in group) for group in (alone, beside)]
        tails = [statistics.median(one.ack_ms["p99"] for one in group) for group in (alone, beside)]
        found.append(
            SlowSummary(
                server=server,
                runs=len(beside),
                alone_mb_per_s=speeds[0],
                beside_mb_per_s=speeds[1],
                alone_p99_ms=tails[0],
                beside_p99_ms=tails[1],
                throughput=speeds[1] / speeds[0] if speeds[0] else 0.0,
                p99=tails[1] / tails[0] if tails[0] else 0.0,
                slow_acks=sum(one.slow_acks for one in beside),
                slow_errors=sum(sum(one.slow_errors.values()) for one in beside),
            )
        )
    return found
