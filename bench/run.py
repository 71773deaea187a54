"""The harness of `ingest`: servers in turn, same load, same store, same cores, and what each cost.

    core(s) A   the server under test, with all its processes
    core(s) B   load generator, null store, this harness

Every step starts a fresh server, so that peak memory belongs to one chunk size. Servers alternate within a
run and the runs repeat, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.children import Child
from bench.errors import BenchError
from bench.load import DRAIN_S
from bench.machine import Cores, usable_cpus
from bench.procfs import machine_busy_s, session_cpu_s, session_memory
from bench.results import Measurement
from bench.servers import START_TIMEOUT_S, Running, Server, Setup

KIB = 1024
STEP_OVERHEAD_S = 4.0
"""Starting a server, connecting, and ending it: a guess for the forecast."""
SLACK = 2.0
"""How much longer than forecast a whole bench may take before it stops with what it has."""
CHILD_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class IngestSettings:
    """What `ingest` runs with. Sizes in bytes, times in s."""

    sizes: tuple[int, ...] = (1024 * KIB, 256 * KIB, 64 * KIB)
    connections: int = 256
    runs: int = 5
    seconds: float = 5.0
    warmup: float = 1.5
    devices: int = 2000
    workers: int = 1
    latency_ms: float = 0.0

    def checked(self) -> IngestSettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds; bounds keep a bench within a machine and an hour.
        """
        bounds: list[tuple[str, float, float, float]] = [
            *(("size", size, 188, 16 * KIB * KIB) for size in self.sizes),
            ("number of sizes", len(self.sizes), 1, 16),
            ("connections", self.connections, 1, 10_000),
            ("runs", self.runs, 1, 50),
            ("seconds", self.seconds, 0.2, 120),
            ("warmup", self.warmup, 0, 60),
            ("devices", self.devices, 1, 1_000_000),
            ("workers", self.workers, 1, 64),
            ("latency-ms", self.latency_ms, 0, 10_000),
        ]
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise BenchError(f"must be between {low:g} and {high:g}, not {value:g}", subject=name)
        return self

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Step:
    """One server at one size in one run; the first run is 1."""

    run: int
    size_bytes: int
    server: Server


def plan(settings: IngestSettings, servers: Sequence[Server]) -> list[Step]:
    """Order the steps: every other run has the servers reversed, so that none is always first."""
    return [
        Step(run, size, server)
        for run in range(1, settings.runs + 1)
        for size in settings.sizes
        for server in (servers if run % 2 else servers[::-1])
    ]


def forecast_s(settings: IngestSettings, servers: int) -> float:
    """Say how long it will take; `forecast_s * SLACK` is where it stops."""
    steps = settings.runs * len(settings.sizes) * servers
    return steps * (settings.seconds + settings.warmup + STEP_OVERHEAD_S)


class NullStoreClient:
    """The harness's side of `bench.nullstore`: where it is, what it counted."""

    def __init__(self, child: Child, port: int) -> None:
        self.port = port
        self.session = child.session

    def stats(self) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=CHILD_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("GET", "/_stats")
            document: dict[str, Any] = json.loads(connection.getresponse().read())
            return document


@contextlib.contextmanager
def null_store(folder: Path, cpus: Sequence[int], latency_ms: float) -> Iterator[NullStoreClient]:
    """Run a null store for the length of the context."""
    argv = [sys.executable, "-m", "bench.nullstore", "--until-stdin-closes", "--latency-ms", str(latency_ms)]
    with Child("nullstore", argv, cpus=cpus, folder=folder) as child:
        yield NullStoreClient(child, int(child.event(CHILD_TIMEOUT_S)["port"]))


def measure(
    settings: IngestSettings, servers: Sequence[Server], cores: Cores
) -> Generator[Measurement, None, None]:
    """Run the steps of `plan` and yield each one's measurement as it is there.

    Closing the generator, or an exception in it (Ctrl-C), ends all processes; what was yielded stays good.
    It ends early, after a whole step, when `forecast_s * SLACK` is over. The caller pins itself to
    `cores.load` before it starts a thread or calls this.

    Raises:
        BenchError: a process did not start, or did not behave.
    """
    deadline_s = time.monotonic() + forecast_s(settings, len(servers)) * SLACK
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clipkeep-bench-")))
        store = stack.enter_context(null_store(root, cores.load, settings.latency_ms))
        for step in plan(settings, servers):
            if time.monotonic() > deadline_s:
                return
            yield _measure_step(step, settings, cores, store, root)


def _measure_step(
    step: Step, settings: IngestSettings, cores: Cores, store: NullStoreClient, root: Path
) -> Measurement:
    folder = root / step.server.name
    folder.mkdir(exist_ok=True)
    setup = Setup(
        store_port=store.port,
        folder=folder,
        devices=settings.devices,
        workers=settings.workers,
        cpus=cores.server,
        latency_s=settings.latency_ms / 1000,
    )
    with step.server.start(setup) as running:
        target = folder / "target.json"
        running.target.write(target)
        argv = [
            *(sys.executable, "-m", "bench.load", "--target", str(target), "--size", str(step.size_bytes)),
            *("--connections", str(settings.connections)),
            *("--seconds", str(settings.seconds), "--warmup", str(settings.warmup)),
        ]
        with Child("load", argv, cpus=cores.load, folder=root) as load:
            return _observe(step, settings, cores, store, running, load)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    server_cpu_s: float
    store_cpu_s: float
    store_calls: int
    machine_s: float


def _snapshot(running: Running, store: NullStoreClient) -> _Snapshot:
    stats = store.stats()
    return _Snapshot(session_cpu_s(running.session), stats["cpu_s"], stats["calls_total"], machine_busy_s())


def _observe(
    step: Step, settings: IngestSettings, cores: Cores, store: NullStoreClient, running: Running, load: Child
) -> Measurement:
    """Read the counters as the load's window opens and closes; the two are a few ms apart from it."""
    load.event(CHILD_TIMEOUT_S + START_TIMEOUT_S + settings.warmup, "warm")
    before = _snapshot(running, store)
    load.event(CHILD_TIMEOUT_S + settings.seconds, "measured")
    after = _snapshot(running, store)
    memory = session_memory(running.session)
    result = load.event(CHILD_TIMEOUT_S + DRAIN_S, "result")
    server_cpu_s = after.server_cpu_s - before.server_cpu_s
    store_cpu_s = after.store_cpu_s - before.store_cpu_s
    ours_s = server_cpu_s + store_cpu_s + result["cpu_s"]
    return Measurement(
        server=step.server.name,
        size_bytes=step.size_bytes,
        run=step.run,
        window_s=result["window_s"],
        chunks=result["chunks"],
        body_bytes=result["bytes"],
        errors=result["errors"],
        ack_ms=result["ack_ms"],
        server_cpu_s=server_cpu_s,
        load_cpu_s=result["cpu_s"],
        store_cpu_s=store_cpu_s,
        others_cpu_s=max(0.0, after.machine_s - before.machine_s - ours_s),
        store_calls=after.store_calls - before.store_calls,
        peak_memory_bytes=memory.peak_bytes,
        server_cores=len(cores.server) or len(usable_cpus()),
        load_cores=len(cores.load) or len(usable_cpus()),
    )
