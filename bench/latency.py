"""Acknowledgement latency at a fixed arrival rate, against a store that takes its time.

Per run and server: first the closed loop finds the top load with this store; then chunks arrive at a share of
it, whether or not the server keeps up (`bench.openload`: latency counts from when a chunk was meant to be
sent); then a few cameras on a few connections show the least that an ack takes: the store's answer, and the
linger of the segment that waits to be filled.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench.machine import Cores
from bench.results import MB
from bench.run import KIB, SLACK, STEP_OVERHEAD_S, check_bounds
from bench.servers import Running, Server
from bench.stage import LoadSettings, Stage, stage

SHARE, FEW = "share", "few"
MIN_RATE_PER_S = 1.0


@dataclass(frozen=True)
class LatencySettings:
    """What `latency` runs with. `share` is of the top load; `rate_per_s` instead of it is absolute."""

    size_bytes: int = 256 * KIB
    connections: int = 512
    share: float = 0.5
    rate_per_s: float | None = None
    few_connections: int = 10
    few_rate_per_s: float = 10.0
    latency_ms: float = 150.0
    runs: int = 3
    seconds: float = 10.0
    warmup: float = 2.0
    devices: int = 2000
    workers: int = 1

    def checked(self) -> LatencySettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds.
        """
        check_bounds(
            [
                ("size", self.size_bytes, 188, 16 * KIB * KIB),
                ("connections", self.connections, 1, 10_000),
                ("share", self.share, 0.01, 2),
                ("rate", self.rate_per_s or MIN_RATE_PER_S, MIN_RATE_PER_S, 100_000),
                ("few-connections", self.few_connections, 1, 1000),
                ("few-rate", self.few_rate_per_s, MIN_RATE_PER_S, 10_000),
                ("latency-ms", self.latency_ms, 0, 10_000),
                ("runs", self.runs, 1, 50),
                ("seconds", self.seconds, 0.2, 120),
                ("warmup", self.warmup, 0, 60),
                ("devices", self.devices, 1, 1_000_000),
                ("workers", self.workers, 1, 64),
            ]
        )
        return self


@dataclass(frozen=True, slots=True)
class LatencyMeasurement:
    """One run of one server under one kind of load.

    `ack_ms` and `curve_ms` (at `bench.load.CURVE`) count from when a chunk was meant to be sent; `late_ms` is how
    much of that went by before it could be. `server_busy` is the share of its cores that the server used.
    """

    server: str
    kind: str
    run: int
    connections: int
    size_bytes: int
    rate_per_s: float
    top_mb_per_s: float
    mb_per_s: float
    chunks: int
    errors: Mapping[str, int]
    ack_ms: Mapping[str, float]
    late_ms: Mapping[str, float]
    curve_ms: Sequence[float]
    server_busy: float
    others_cpu_s: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def latency_steps(settings: LatencySettings, servers: Sequence[Server]) -> list[str]:
    """Name what `measure_latency` yields, in order."""
    return [
        f"run {run}: {server.name}: {what}"
        for run in range(1, settings.runs + 1)
        for server in servers
        for what in ("a share of its top load", "a few cameras")
    ]


def measure_latency(
    settings: LatencySettings, servers: Sequence[Server], cores: Cores
) -> Generator[LatencyMeasurement, None, None]:
    """Measure each server in turn, in every run.

    Raises:
        BenchError: a process did not start, or did not behave.
    """
    step_s = 3 * (settings.seconds + settings.warmup) + STEP_OVERHEAD_S
    deadline_s = time.monotonic() + step_s * settings.runs * len(servers) * SLACK
    with stage(cores, settings.latency_ms) as on:
        for run in range(1, settings.runs + 1):
            for server in servers:
                if time.monotonic() > deadline_s:
                    return
                with on.serving(server, devices=settings.devices, workers=settings.workers) as running:
                    yield from _measure_server(settings, on, running, server.name, run)


def _measure_server(
    settings: LatencySettings, on: Stage, running: Running, name: str, run: int
) -> Generator[LatencyMeasurement, None, None]:
    top = LoadSettings(settings.size_bytes, settings.connections, settings.seconds / 2, settings.warmup)
    result, _ = on.observe(running, top)
    top_per_s = result["chunks"] / result["window_s"]
    rate = settings.rate_per_s or max(MIN_RATE_PER_S, top_per_s * settings.share)
    share = replace(top, seconds=settings.seconds, rate_per_s=rate)
    few = replace(share, connections=settings.few_connections, rate_per_s=settings.few_rate_per_s)
    for kind, load in ((SHARE, share), (FEW, few)):
        result, used = on.observe(running, load)
        assert load.rate_per_s is not None
        yield LatencyMeasurement(
            server=name,
            kind=kind,
            run=run,
            connections=load.connections,
            size_bytes=settings.size_bytes,
            rate_per_s=load.rate_per_s,
            top_mb_per_s=top_per_s * settings.size_bytes / MB,
            mb_per_s=result["bytes"] / MB / result["window_s"],
            chunks=result["chunks"],
            errors=result["errors"],
            ack_ms=result["ack_ms"],
            late_ms=result["late_ms"],
            curve_ms=result["curve_ms"],
            server_busy=used.server_cpu_s / (load.seconds * on.server_cores),
            others_cpu_s=used.others_cpu_s,
        )


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Medians over the runs of one server under one kind of load; errors are added up."""

    server: str
    kind: str
    runs: int
    connections: int
    rate_per_s: float
    mb_per_s: float
    server_busy: float
    ack_ms: Mapping[str, float]
    late_p99_ms: float
    curve_ms: Sequence[float]
    errors: int


def summarise_latency(measurements: Sequence[LatencyMeasurement]) -> list[LatencySummary]:
    """Group by kind of load and server, in order of appearance."""
    groups: dict[tuple[str, str], list[LatencyMeasurement]] = {}
    for one in measurements:
        groups.setdefault((one.kind, one.server), []).append(one)
    return [
        LatencySummary(
            server=group[0].server,
            kind=group[0].kind,
            runs=len(group),
            connections=group[0].connections,
            rate_per_s=statistics.median(one.rate_per_s for one in group),
            mb_per_s=statistics.median(one.mb_per_s for one in group),
            server_busy=statistics.median(one.server_busy for one in group),
            ack_ms={name: statistics.median(one.ack_ms[name] for one in group) for name in group[0].ack_ms},
            late_p99_ms=statistics.median(one.late_ms["p99"] for one in group),
            curve_ms=[
                statistics.median(points) for points in zip(*(one.curve_ms for one in group), strict=True)
            ],
            errors=sum(sum(one.errors.values()) for one in group),
        )
        for group in groups.values()
    ]
