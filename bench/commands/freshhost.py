"""`bench fresh-host`: how long a host takes that has lost all, or is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.catalog_engines import ENGINES
from bench.console import (
    JsonOption,
    OutputOption,
    errors_told,
    exit_as,
    measured_on_all_cores,
)
from bench.errors import BenchError
from bench.freshhost import FreshHostResult, FreshHostSettings, measure_fresh_host
from bench.results import MB


def fresh_host(
    devices: Annotated[int, typer.Option(help="Devices in the catalog.")] = FreshHostSettings.devices,
    workers: Annotated[int, typer.Option(help="Ingest processes.")] = FreshHostSettings.workers,
    engine: Annotated[
        list[str] | None,
        typer.Option(help=f"{' or '.join(ENGINES)}; repeat for more.  [default: all of them]"),
    ] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """How long a host takes to start that has no entitlement bitmap.

    What: seconds from `clipkeep serve` to ready (`/readyz` says 200), CPU and
    memory of the service, CPU of PostgreSQL beside it.

    How: a catalog in a temporary folder, or on a durable PostgreSQL server that
    is started there, gets a million devices with a plan each, which began on
    365 different days. The bitmap is removed, the service is started, and
    `/readyz` is asked until it says 200. All cores may be used.

    Good: a million devices under 40 s on two cores that nobody else uses.
    """
    with errors_told():
        for name in engine or ():
            if name not in ENGINES:
                raise BenchError(f"is no engine; there are {' and '.join(ENGINES)}", subject=name)
        settings = FreshHostSettings(devices, workers, tuple(engine or ENGINES)).checked()
        results, ended = measured_on_all_cores(
            "fresh-host",
            measure_fresh_host(settings),
            asdict(settings),
            settings.steps(),
            FreshHostResult.as_json,
            output=output,
            print_json=as_json,
        )
    if not as_json and results:
        Console().print(_table(results))
    exit_as(ended)


def _table(results: Sequence[FreshHostResult]) -> Table:
    table = Table(title="from start to ready, without a bitmap", title_justify="left")
    for heading in ("engine", "devices", "ready s", "CPU s", "PostgreSQL CPU s", "others' CPU s", "peak MB"):
        table.add_column(heading, justify="right")
    for one in results:
        server = "-" if one.server_cpu_s is None else f"{one.server_cpu_s:.1f}"
        table.add_row(
            *(one.engine, f"{one.devices:,}", f"{one.ready_s:.1f}", f"{one.cpu_s:.1f}", server),
            *(f"{one.others_cpu_s:.1f}", f"{one.peak_memory_bytes / MB:.0f}"),
        )
    return table
