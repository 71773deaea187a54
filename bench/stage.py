"""What every bench of uploads stands on: a null store, servers in turn, load generators, and what each used.

core(s) A   the server under test, with all its processes
core(s) B   load generators, null store, the harness
"""

from __future__ import annotations

import contextlib
import http.client
import json
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.certificates import ServedPair, make_pair
from bench.children import Child
from bench.load import DRAIN_S, WARM_LIMIT_S
from bench.machine import Cores, usable_cpus
from bench.procfs import children_cpu_s, machine_busy_s, session_cpu_s, session_memory
from bench.servers import START_TIMEOUT_S, Running, Server, Setup
from service.spawning import python_module

CHILD_TIMEOUT_S = 20.0


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
    argv = python_module("bench.nullstore", "--until-stdin-closes", "--latency-ms", str(latency_ms))
    with Child("nullstore", argv, cpus=cpus, folder=folder) as child:
        yield NullStoreClient(child, int(child.event(CHILD_TIMEOUT_S)["port"]))


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """What one load generator is started with; see `bench.generate`. Sizes in bytes, times in s."""

    size_bytes: int
    connections: int
    seconds: float
    warmup: float
    rate_per_s: float | None = None
    slow_bytes_per_s: float | None = None
    max_chunks: int | None = None
    handshakes_per_s: float | None = None

    def arguments(self) -> list[str]:
        more = {
            "--rate": self.rate_per_s,
            "--slow": self.slow_bytes_per_s,
            "--max-chunks": self.max_chunks,
            "--handshakes": self.handshakes_per_s,
        }
        return [
            *("--size", str(self.size_bytes), "--connections", str(self.connections)),
            *("--seconds", str(self.seconds), "--warmup", str(self.warmup)),
            *(word for option, value in more.items() if value is not None for word in (option, str(value))),
        ]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a measured window took. Times in CPU seconds; `others_cpu_s` is what the machine spent on anything
    but server, load and store; `peak_memory_bytes` and `server_cpu_s` are of the server's whole process tree."""

    server_cpu_s: float
    load_cpu_s: float
    store_cpu_s: float
    others_cpu_s: float
    store_calls: int
    peak_memory_bytes: int
    catalog_cpu_s: float = 0.0
    """Of the catalog's own server, which is not part of the server's tree."""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    server_cpu_s: float
    catalog_cpu_s: float
    store_cpu_s: float
    store_calls: int
    machine_s: float


class Stage:
    """One run of a bench: its temporary folder, its null store, its cores."""

    def __init__(
        self,
        root: Path,
        store: NullStoreClient,
        cores: Cores,
        latency_ms: float,
        tls: ServedPair | None = None,
    ) -> None:
        self.root = root
        self._tls = tls
        self.cores = cores
        self._store = store
        self._latency_s = latency_ms / 1000

    @property
    def store_port(self) -> int:
        return self._store.port

    @property
    def server_cores(self) -> int:
        return len(self.cores.server) or len(usable_cpus())

    @property
    def load_cores(self) -> int:
        return len(self.cores.load) or len(usable_cpus())

    @contextlib.contextmanager
    def serving(
        self, server: Server, *, devices: int, workers: int = 1, store_url: str | None = None
    ) -> Iterator[Running]:
        """Start a server afresh, so that its peak memory belongs to what follows.

        Raises:
            BenchError: it does not start, or breaks a promise.
        """
        folder = self.root / f"{server.name}-{devices}"
        folder.mkdir(exist_ok=True)
        setup = Setup(
            store_port=self._store.port,
            folder=folder,
            devices=devices,
            workers=workers,
            cpus=self.cores.server,
            latency_s=self._latency_s,
            store_url=store_url,
            tls=self._tls,
        )
        with server.start(setup) as running:
            yield running

    @contextlib.contextmanager
    def loading(self, running: Running, settings: LoadSettings, name: str = "load") -> Iterator[Child]:
        """Start a load generator; it begins at once."""
        target = self.root / f"{name}-target.json"
        running.target.write(target)
        argv = python_module("bench.generate", "--target", str(target), *settings.arguments())
        with Child(name, argv, cpus=self.cores.load, folder=self.root) as load:
            yield load

    def observe(
        self, running: Running, settings: LoadSettings, also: Sequence[Child] = ()
    ) -> tuple[dict[str, Any], Usage]:
        """Run one load and return its result and what its window took.

        Counters are read as the window opens and closes, a few ms apart from it. `also` are other generators
        that run beside it; their CPU time is counted with the load's.

        Raises:
            BenchError: the generator failed.
        """
        with self.loading(running, settings) as load:
            load.event(CHILD_TIMEOUT_S + START_TIMEOUT_S + settings.warmup + WARM_LIMIT_S, "warm")
            beside_s = sum(session_cpu_s(child.session) for child in also)
            before = self._snapshot(running)
            load.event(CHILD_TIMEOUT_S + settings.seconds, "measured")
            after = self._snapshot(running)
            beside_s = sum(session_cpu_s(child.session) for child in also) - beside_s
            peak_bytes = sum(session_memory(session).peak_bytes for session in running.sessions)
            result = load.event(CHILD_TIMEOUT_S + DRAIN_S, "result")
        return result, _usage(before, after, result["cpu_s"] + beside_s, peak_bytes)

    def _snapshot(self, running: Running) -> _Snapshot:
        stats = self._store.stats()
        return _Snapshot(
            sum(map(session_cpu_s, running.sessions)),
            0.0 if running.catalog_server is None else children_cpu_s(running.catalog_server),
            stats["cpu_s"],
            stats["calls_total"],
            machine_busy_s(),
        )


def _usage(before: _Snapshot, after: _Snapshot, load_cpu_s: float, peak_memory_bytes: int) -> Usage:
    server_cpu_s = after.server_cpu_s - before.server_cpu_s
    store_cpu_s = after.store_cpu_s - before.store_cpu_s
    catalog_cpu_s = after.catalog_cpu_s - before.catalog_cpu_s
    ours_s = server_cpu_s + catalog_cpu_s + store_cpu_s + load_cpu_s
    return Usage(
        server_cpu_s=server_cpu_s,
        load_cpu_s=load_cpu_s,
        store_cpu_s=store_cpu_s,
        others_cpu_s=max(0.0, after.machine_s - before.machine_s - ours_s),
        store_calls=after.store_calls - before.store_calls,
        peak_memory_bytes=peak_memory_bytes,
        catalog_cpu_s=catalog_cpu_s,
    )


@contextlib.contextmanager
def stage(cores: Cores, latency_ms: float = 0.0, *, tls: bool = False) -> Generator[Stage, None, None]:
    """Set a stage for one bench; leaving it ends every process and removes every file.

    The caller pins itself to `cores.load` before it starts a thread or calls this.
    """
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
        root = Path(name)
        with null_store(root, cores.load, latency_ms) as store:
            yield Stage(root, store, cores, latency_ms, make_pair(root) if tls else None)
