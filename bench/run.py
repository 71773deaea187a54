"""The harness of `ingest` and `compare`: servers in turn, same load, same store, same cores, and their cost.

Every step starts a fresh server, so that peak memory belongs to one chunk size. Servers alternate within a
run and the runs repeat, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.errors import BenchError
from bench.machine import share_out
from bench.results import Measurement
from bench.servers import Server
from bench.stage import LoadSettings, Stage, stage

KIB = 1024
STEP_OVERHEAD_S = 4.0
"""Starting a server, connecting, and ending it: a guess for the forecast."""
SLACK = 4.0
"""How much longer than forecast a whole bench may take before it stops with what it has."""


@dataclass(frozen=True)
class IngestSettings:
    """What `ingest` and `compare` run with. Sizes in bytes, times in s."""

    sizes: tuple[int, ...] = (1024 * KIB, 256 * KIB, 64 * KIB)
    connections: tuple[int, ...] = (256,)
    workers: tuple[int, ...] = (1,)
    runs: int = 5
    seconds: float = 5.0
    warmup: float = 1.5
    devices: int = 2000
    latency_ms: float = 0.0
    store_url: str | None = None
    tls: bool = False

    def checked(self) -> IngestSettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds; bounds keep a bench within a machine and an hour.
        """
        check_bounds(
            [
                *(("size", size, 188, 16 * KIB * KIB) for size in self.sizes),
                *(("connections", count, 1, 10_000) for count in self.connections),
                *(("workers", count, 1, 64) for count in self.workers),
                ("number of sizes", len(self.sizes), 1, 16),
                ("combinations", len(self.sizes) * len(self.connections) * len(self.workers), 1, 100),
                ("runs", self.runs, 1, 50),
                ("seconds", self.seconds, 0.2, 120),
                ("warmup", self.warmup, 0, 60),
                ("devices", self.devices, 1, 1_000_000),
                ("latency-ms", self.latency_ms, 0, 10_000),
            ]
        )
        return self

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check_bounds(bounds: Sequence[tuple[str, float, float, float]]) -> None:
    """Check (name, value, least, most), one after the other.

    Raises:
        BenchError: the first value that lies outside.
    """
    for name, value, low, high in bounds:
        if not low <= value <= high:
            raise BenchError(f"must be between {low:g} and {high:g}, not {value:g}", subject=name)


@dataclass(frozen=True, slots=True)
class Step:
    """One server at one size in one run; the first run is 1."""

    run: int
    size_bytes: int
    connections: int
    workers: int
    server: Server


def plan(settings: IngestSettings, servers: Sequence[Server]) -> list[Step]:
    """Order the steps: every other run has the servers reversed, so that none is always first."""
    return [
        Step(run, size, connections, workers, server)
        for run in range(1, settings.runs + 1)
        for workers in settings.workers
        for connections in settings.connections
        for size in settings.sizes
        for server in (servers if run % 2 else servers[::-1])
    ]


def forecast_s(settings: IngestSettings, servers: int) -> float:
    """Say how long it will take; `forecast_s * SLACK` is where it stops."""
    combinations = len(settings.sizes) * len(settings.connections) * len(settings.workers)
    return settings.runs * combinations * servers * (settings.seconds + settings.warmup + STEP_OVERHEAD_S)


def measure(
    settings: IngestSettings, servers: Sequence[Server], cpus: Sequence[int]
) -> Generator[Measurement, None, None]:
    """Run the steps of `plan` on these cores and yield each one's measurement as it is there.

    Closing the generator, or an exception in it (Ctrl-C), ends all processes; what was yielded stays good.
    It ends early, after a whole step, when `forecast_s * SLACK` is over. The caller pins itself to the load's
    cores before it starts a thread or calls this.

    Raises:
        BenchError: a process did not start, or did not behave.
    """
    deadline_s = time.monotonic() + forecast_s(settings, len(servers)) * SLACK
    with stage(share_out(cpus, max(settings.workers)), settings.latency_ms, tls=settings.tls) as on:
        for step in plan(settings, servers):
            if time.monotonic() > deadline_s:
                return
            on.cores = share_out(cpus, step.workers)
            yield _measure_step(step, settings, on)


def _measure_step(step: Step, settings: IngestSettings, on: Stage) -> Measurement:
    load = LoadSettings(step.size_bytes, step.connections, settings.seconds, settings.warmup)
    with on.serving(
        step.server, devices=settings.devices, workers=step.workers, store_url=settings.store_url
    ) as running:
        result, used = on.observe(running, load)
    return Measurement(
        server=step.server.name,
        size_bytes=step.size_bytes,
        connections=step.connections,
        workers=step.workers,
        run=step.run,
        window_s=result["window_s"],
        chunks=result["chunks"],
        body_bytes=result["bytes"],
        errors=result["errors"],
        ack_ms=result["ack_ms"],
        server_cores=on.server_cores,
        load_cores=on.load_cores,
        ciphers=tuple(result["ciphers"]),
        **asdict(used),
    )
