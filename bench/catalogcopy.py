"""What it takes to outgrow SQLite: `catalog copy` of many chunks to a durable PostgreSQL server."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.catalog_engines import started_postgres
from bench.clipkeep_server import SHARED_BUFFERS, ClipkeepServer, run_command
from bench.fill import fill
from bench.procfs import children_cpu_s, machine_busy_s
from bench.run import check_bounds
from bench.servers import Setup
from bench.wire import Target
from storage.days import MS_PER_DAY

CHUNK_BYTES = 1024
"""Small, for the catalog holds no chunk, only where it is."""
STEP_MS = 4000
COPY_WITHIN_S = 3600.0


@dataclass(frozen=True)
class CatalogCopySettings:
    """What `catalog-copy` runs with."""

    chunks: int = 1_000_000
    devices: int = 10_000

    def checked(self) -> CatalogCopySettings:
        """Return self when it can be run.

        Raises:
            BenchError: out of bounds.
        """
        check_bounds(
            [("chunks", self.chunks, 1, 100_000_000), ("devices", self.devices, 1, min(self.chunks, 100_000))]
        )
        return self

    def steps(self) -> list[str]:
        return [f"uploading {self.chunks:,} chunks of {self.devices:,} devices, then the copy"]


@dataclass(frozen=True, slots=True)
class CatalogCopyResult:
    """One copy, from the start of the command to its end: all rows compared, recordings read.

    Attributes:
        cpu_s: of the command.
        server_cpu_s: of PostgreSQL.
        others_cpu_s: what the machine spent on anything else meanwhile.
        recordings_read: how many were read and decrypted by the copy.
    """

    rows: int
    recordings_read: int
    file_bytes: int
    copied_s: float
    cpu_s: float
    server_cpu_s: float
    others_cpu_s: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_catalog_copy(settings: CatalogCopySettings) -> Generator[CatalogCopyResult, None, None]:
    """Fill a catalog through the service, and copy it.

    Raises:
        BenchError: there is no PostgreSQL here, or the copy failed.
    """
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
        folder = Path(name)
        objects = folder / "objects"
        objects.mkdir()
        setup = Setup(
            store_port=0,
            folder=folder,
            devices=settings.devices,
            workers=1,
            cpus=(),
            store_url=objects.as_uri(),
            starts_on=(datetime.now(UTC) - timedelta(days=1)).date().isoformat(),
        )
        server = ClipkeepServer()
        with server.home(setup) as home:
            with server.serving(setup, home.data) as running:
                _upload(running.target, settings)
            with started_postgres(SHARED_BUFFERS) as (url, postmaster):
                yield _copy(setup, home.data, url, postmaster)


def _upload(target: Target, settings: CatalogCopySettings) -> None:
    """All of the last day, so that none has lapsed."""
    each = -(-settings.chunks // settings.devices)
    step_ms = max(1, min(STEP_MS, MS_PER_DAY // 2 // each))
    start_ms = int(time.time() * 1000) - each * step_ms
    fill(
        target,
        target.devices,
        size_bytes=CHUNK_BYTES,
        count=settings.chunks,
        start_ms=start_ms,
        step_ms=step_ms,
    )


def _copy(setup: Setup, data: Path, url: str, postmaster: int) -> CatalogCopyResult:
    file_bytes = sum(path.stat().st_size for path in data.glob("catalog.db*"))
    database_s, machine_s, own_s = children_cpu_s(postmaster), machine_busy_s(), _children_s()
    began_s = time.monotonic()
    copy = ["catalog", "copy", "--data", str(data), "--to", url, "--json"]
    said = json.loads(run_command(setup, copy, within_s=COPY_WITHIN_S))
    copied_s = time.monotonic() - began_s
    database_s, own_s = children_cpu_s(postmaster) - database_s, _children_s() - own_s
    return CatalogCopyResult(
        rows=int(said["rows"]),
        recordings_read=int(said["recordings_read"]),
        file_bytes=file_bytes,
        copied_s=copied_s,
        cpu_s=own_s,
        server_cpu_s=database_s,
        others_cpu_s=max(0.0, machine_busy_s() - machine_s - database_s - own_s),
    )


def _children_s() -> float:
    """CPU of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
