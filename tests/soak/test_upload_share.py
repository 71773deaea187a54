"""A hundred resumable uploads at once beside full load by PUT: what they take from it.

Held against a hundred connections more that PUT the same bytes, and against what each connection's share would be of
what the worker takes by PUT alone. What a gigabyte costs is printed, and how full the byte budget was.
"""

from __future__ import annotations

import re
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

import pytest

from bench.children import pinned
from bench.clipkeep_server import ClipkeepServer
from bench.machine import share_out, usable_cpus
from bench.servers import Running
from bench.stage import CHILD_TIMEOUT_S, LoadSettings, Stage, stage
from bench.wire import TUS_PATCH
from service.config import IngestSettings

pytestmark = pytest.mark.soak
MIB = 1024 * 1024
FULL = LoadSettings(256 * 1024, 64, seconds=4.0, warmup=1.5)
"""By PUT: as much as one worker takes."""
MORE = LoadSettings(4 * MIB, 100, seconds=30.0, warmup=3.0)
ROUNDS = 3
LEAST_SHARE = 0.75
"""Of its share that is left to the full load: rounds spread by a tenth, and what an upload costs besides is its CPU."""


@dataclass(frozen=True)
class Seen:
    """The full load, and what was beside it."""

    mb_per_s: float
    cpu_s_per_gb: float
    """Of all bytes that came."""
    more_mb_per_s: float
    most_in_use_bytes: int
    acks_ms: float


@contextmanager
def watched(running: Running) -> Iterator[list[int]]:
    """Bytes of the budget that were in use, a few times a second."""
    found: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.2):
            with urllib.request.urlopen(f"http://127.0.0.1:{running.api_port}/metrics", timeout=30) as reply:
                text = reply.read().decode()
            found.extend(
                int(float(n)) for n in re.findall(r"^clipkeep_ingest_budget_bytes\{.*\} (\S+)$", text, re.M)
            )

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def seen(on: Stage, running: Running, more: Running | None) -> Seen:
    with watched(running) as in_use:
        if more is None:
            result, used = on.observe(running, FULL)
            more_bytes = 0.0
        else:
            with on.loading(more, MORE, "more") as child:
                child.event(CHILD_TIMEOUT_S + MORE.warmup + 30, "warm")
                result, used = on.observe(running, FULL, also=[child])
                child.interrupt()
                beside = child.event(CHILD_TIMEOUT_S, "result")
                assert not beside["errors"], beside
                more_bytes = beside["bytes"] / beside["window_s"]
    assert not result["errors"], result
    mb_per_s = result["bytes"] / result["window_s"] / 1e6
    total_gb = (mb_per_s / 1e3 + more_bytes / 1e9) * result["window_s"]
    return Seen(
        mb_per_s, used.server_cpu_s / total_gb, more_bytes / 1e6, max(in_use), result["ack_ms"]["p50"]
    )


def test_they_take_the_share_of_as_many_connections() -> None:
    cores = share_out(usable_cpus(), 1)
    found: dict[str, list[Seen]] = defaultdict(list)
    server = ClipkeepServer()
    with (
        pinned(cores.load),
        stage(cores) as on,
        on.serving(server, devices=400) as running,
    ):
        tus = replace(
            running,
            target=replace(running.target, dialect=TUS_PATCH, uploads="/v1/devices/{device}/uploads"),
        )
        for _ in range(ROUNDS):
            for name, more in (("alone", None), ("beside 100 by PUT", running), ("beside 100 by tus", tus)):
                found[name].append(seen(on, running, more))
    for name, rounds in found.items():
        print(
            f"\n{name}: PUT {median(s.mb_per_s for s in rounds):.0f} MB/s"
            f" ({', '.join(f'{s.mb_per_s:.0f}' for s in rounds)}), p50 {median(s.acks_ms for s in rounds):.0f} ms;"
            f" the others {median(s.more_mb_per_s for s in rounds):.0f} MB/s;"
            f" {median(s.cpu_s_per_gb for s in rounds):.2f} CPU-s/GB;"
            f" budget {max(s.most_in_use_bytes for s in rounds) / MIB:.0f} MiB"
        )
    by_put, by_tus = found["beside 100 by PUT"], found["beside 100 by tus"]
    left = median(s.mb_per_s for s in by_tus)
    share = (
        median(s.mb_per_s for s in found["alone"]) * FULL.connections / (FULL.connections + MORE.connections)
    )
    print(f"left to PUT beside tus: {left:.0f} MB/s; its share by connections: {share:.0f} MB/s")
    assert left >= LEAST_SHARE * share
    assert left >= LEAST_SHARE * median(s.mb_per_s for s in by_put)
    most = max(s.most_in_use_bytes for rounds in found.values() for s in rounds)
    assert most <= IngestSettings().budget_bytes
