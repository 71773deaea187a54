"""What a fresh host costs: `serve` over a catalog of many devices and without a bitmap, from its start to ready."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.catalog_engines import POSTGRES
from bench.clipkeep_server import ClipkeepOnPostgres, ClipkeepServer
from bench.procfs import children_cpu_s, machine_busy_s, session_cpu_s, session_memory
from bench.run import check_bounds
from bench.servers import Setup
from service.folder import Opened, open_folder
from storage.days import MS_PER_DAY
from storage.open_catalog import SQLITE
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.devices import PlanRow

DEVICES_AT_ONCE = 10_000
"""Added in one transaction."""
SETS_OF_PLANS = 365
"""The plans begin on so many days: a row is compiled once for each."""
RETENTION_DAYS = 30
PLAN_DAYS = 365
READY_WITHIN_S = 900.0


@dataclass(frozen=True)
class FreshHostSettings:
    """What `fresh-host` runs with."""

    devices: int = 1_000_000
    workers: int = 1
    engines: Sequence[str] = (SQLITE, POSTGRES)

    def checked(self) -> FreshHostSettings:
        """Return self when it can be run.

        Raises:
            BenchError: out of bounds.
        """
        check_bounds([("devices", self.devices, 1, 10_000_000), ("workers", self.workers, 1, 64)])
        return self

    def steps(self) -> list[str]:
        return [f"{engine}: adding {self.devices:,} devices, then a start" for engine in self.engines]


@dataclass(frozen=True, slots=True)
class FreshHostResult:
    """One start. `server_cpu_s` is of PostgreSQL, None without; `others_cpu_s` is what the machine spent on anything
    else meanwhile. `peak_memory_bytes` is of all of the service's processes, each at its most."""

    engine: str
    devices: int
    ready_s: float
    cpu_s: float
    server_cpu_s: float | None
    others_cpu_s: float
    peak_memory_bytes: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_fresh_host(settings: FreshHostSettings) -> Generator[FreshHostResult, None, None]:
    """Start a service over each engine.

    Raises:
        BenchError: there is no such engine here, or the service did not become ready within `READY_WITHIN_S`.
    """
    for engine in settings.engines:
        with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
            yield _one(engine, settings, Path(name))


def _one(engine: str, settings: FreshHostSettings, folder: Path) -> FreshHostResult:
    objects = folder / "objects"
    objects.mkdir()
    setup = Setup(
        store_port=0,
        folder=folder,
        devices=1,
        workers=settings.workers,
        cpus=(),
        store_url=objects.as_uri(),
    )
    server = ClipkeepOnPostgres() if engine == POSTGRES else ClipkeepServer()
    with server.home(setup) as home:
        with open_folder(home.data) as opened:
            _add_devices(opened, settings.devices - 1)  # its command has made the first
        (home.data / "entitlements.bitmap").unlink()
        database_s = 0.0 if home.catalog_server is None else children_cpu_s(home.catalog_server)
        machine_s, began_s = machine_busy_s(), time.monotonic()
        with server.serving(setup, home.data, within_s=READY_WITHIN_S) as running:
            ready_s = time.monotonic() - began_s
            cpu_s = session_cpu_s(running.session)
            if home.catalog_server is not None:
                database_s = children_cpu_s(home.catalog_server) - database_s
            others_s = machine_busy_s() - machine_s - cpu_s - database_s
            memory = session_memory(running.session)
    return FreshHostResult(
        engine=engine,
        devices=settings.devices,
        ready_s=ready_s,
        cpu_s=cpu_s,
        server_cpu_s=None if home.catalog_server is None else database_s,
        others_cpu_s=max(0.0, others_s),
        peak_memory_bytes=memory.peak_bytes,
    )


def _add_devices(opened: Opened, count: int) -> None:
    """Add devices with a plan of a year each, which began on one day of the last."""
    now_ms = opened.clock.now_ms()
    today = now_ms // MS_PER_DAY
    opened.settle_numbers(device=count, plan=count)
    at_once = min(DEVICES_AT_ONCE, max(1, -(-count // SETS_OF_PLANS)))
    for turn, first in enumerate(range(0, count, at_once)):
        number = min(at_once, count - first)
        starts_on = today - turn % SETS_OF_PLANS
        plan = PlanRow(0, "annual", starts_on, starts_on + PLAN_DAYS, RETENTION_DAYS, None)
        opened.catalog.add_devices(number, account=OPERATOR_ACCOUNT, plans=[plan], now_ms=now_ms)
