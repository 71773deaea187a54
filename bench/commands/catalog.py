"""`bench catalog`: what commits cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.catalog import (
    CatalogSettings,
    ClosingResult,
    GrowthResult,
    RateResult,
    Result,
    growth,
    measure_catalog,
)
from bench.catalog_engines import ENGINES
from bench.console import (
    JsonOption,
    OutputOption,
    collected,
    document_of,
    errors_told,
    exit_as,
    hand_out,
    parse_counts,
    run_facts,
)
from bench.errors import BenchError
from bench.machine import Cores


def catalog(
    rows: Annotated[
        str, typer.Option(help="Chunk rows at which to measure, comma-separated.")
    ] = "1000000,10000000",
    devices: Annotated[int, typer.Option(help="Devices that the rows are of.")] = CatalogSettings.devices,
    commits: Annotated[int, typer.Option(help="Segments committed at each.")] = CatalogSettings.commits,
    engine: Annotated[str, typer.Option(help=f"{' or '.join(ENGINES)}.")] = CatalogSettings.engine,
    url: Annotated[
        str,
        typer.Option(
            help="A PostgreSQL server whose user may make databases, postgresql://user@host:port/postgres; without"
            " it one is started."
        ),
    ] = "",
    shared_buffers: Annotated[
        str, typer.Option(help="Of a PostgreSQL server that is started.")
    ] = CatalogSettings.shared_buffers,
    committers: Annotated[
        int, typer.Option(help="Processes that commit side by side; 0 leaves that part out.")
    ] = CatalogSettings.committers,
    seconds: Annotated[float, typer.Option(help="How long they are measured.")] = CatalogSettings.seconds,
    closed_rows: Annotated[
        int, typer.Option(help="Chunk rows of the day that is closed while they commit.")
    ] = CatalogSettings.closed_rows,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """What commits cost.

    What: CPU and elapsed time of the durable transaction that makes a segment
    of 190 chunks (64 KiB each) readable, in a catalog of a million chunk rows
    of one expiry day and in larger ones; how many chunks committers side by
    side commit in a second, at 190 and at 18 a commit; how long the closing of
    a day takes beside them, and how long they wait for it.

    How: one catalog in a temporary folder, or on a PostgreSQL server that is
    started there (durable: fsync and synchronous_commit on) or named by --url,
    filled through its own interface; medians over the segments committed at
    each size, their chunks of all devices in turn. Each committer is a process,
    and prepares its keys in blocks, as ingest does.

    Good: CPU, of client and server together, at ten million rows within 15 %
    of that at one million; on PostgreSQL and two cores 40,000 chunks/s at 190
    and 8,000 at 18; a day of a million chunks closed in 5 s, no wait for a lock
    longer than 100 ms.
    """
    with errors_told():
        if engine not in ENGINES:
            raise BenchError(f"is no engine; there are {' and '.join(ENGINES)}", subject=engine)
        settings = CatalogSettings(
            *(parse_counts(rows), devices, commits, committers, seconds, closed_rows),
            *(engine, url, shared_buffers),
        ).checked()
        cores = Cores((), ())
        facts = run_facts(cores)
        described: dict[str, Any] = {}
        results, ended = collected(measure_catalog(settings, described.update), cores, settings.steps())
        measured = [one.as_json() for one in results]
        hand_out(
            document_of("catalog", ended, facts, settings.as_json(), measured, catalog=described),
            output,
            as_json,
        )
    if not as_json and results:
        _print(Console(), results, described)
    exit_as(ended)


def _print(console: Console, results: list[Result], described: dict[str, Any]) -> None:
    said = ", ".join(f"{name} {value}" for name, value in described.items() if name != "engine")
    console.print(f"{described['engine']}{': ' if said else ''}{said}", highlight=False, markup=False)
    for table in (
        _growth(one for one in results if isinstance(one, GrowthResult)),
        _rates(one for one in results if isinstance(one, RateResult)),
        _closings(one for one in results if isinstance(one, ClosingResult)),
    ):
        if table.row_count:
            console.print(table)
    if (grown := growth(results)) is not None:
        console.print(f"CPU of a commit, both sides, at the most rows over the least: {grown:.2f} times")


def _growth(results: Any) -> Table:
    table = _table(
        "a commit of one segment",
        *("rows", "CPU µs", "server µs", "elapsed µs", "p99", "kept B/row", "log B/chunk"),
    )
    for one in results:
        table.add_row(
            *(f"{one.rows:,}", f"{one.cpu_us:.0f}", _number(one.server_cpu_us), f"{one.elapsed_us:.0f}"),
            *(f"{one.elapsed_p99_us:.0f}", f"{one.kept_bytes:.1f}", _number(one.log_bytes)),
        )
    return table


def _rates(results: Any) -> Table:
    table = _table(
        "committers side by side",
        *("chunks a commit", "commits/s", "chunks/s", "CPU µs/chunk", "server µs/chunk", "p99 µs"),
        *("kept B/row", "log B/chunk"),
    )
    for one in results:
        table.add_row(
            *(str(one.chunks), f"{one.commits_per_s:.0f}", f"{one.chunks_per_s:,.0f}", f"{one.cpu_us:.1f}"),
            *("-" if one.server_cpu_us is None else f"{one.server_cpu_us:.1f}", f"{one.elapsed_p99_us:.0f}"),
            *(f"{one.kept_bytes:.1f}", _number(one.log_bytes)),
        )
    return table


def _closings(results: Any) -> Table:
    table = _table(
        "closing a day beside them",
        *("rows", "closed s", "table gone s", "commits/s", "longest commit ms", "longest lock wait ms"),
    )
    for one in results:
        table.add_row(
            *(f"{one.rows:,}", f"{one.closed_s:.2f}", f"{one.dropped_s:.2f}", f"{one.commits_per_s:.0f}"),
            *(f"{one.longest_ms:.0f}", f"{one.lock_wait_ms:.0f}"),
        )
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
