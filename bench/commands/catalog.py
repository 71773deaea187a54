"""`bench catalog`: what a commit costs as the catalog grows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.catalog import CatalogResult, CatalogSettings, growth, measure_catalog
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
from bench.machine import Cores

MB = 1_000_000


def catalog(
    rows: Annotated[
        str, typer.Option(help="Chunk rows at which to measure, comma-separated.")
    ] = "1000000,10000000",
    devices: Annotated[int, typer.Option(help="Devices that the rows are of.")] = CatalogSettings.devices,
    commits: Annotated[int, typer.Option(help="Segments committed at each.")] = CatalogSettings.commits,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a commit costs as the catalog grows.

    What: CPU and elapsed time of the durable transaction that makes a segment
    of 190 chunks (64 KiB each) readable, in a catalog of a million chunk rows
    of one expiry day and in larger ones.

    How: one catalog in a temporary folder (100 bytes a row), filled through
    its own interface; medians over the segments committed at each size, their
    chunks of all devices in turn.

    Good: CPU at ten million rows within 15 % of that at one million.
    """
    with errors_told():
        settings = CatalogSettings(parse_counts(rows), devices, commits).checked()
        cores = Cores((), ())
        facts = run_facts(cores)
        steps = [f"filling up to {count:,} rows, then committing" for count in sorted(settings.rows)]
        results, ended = collected(measure_catalog(settings), cores, steps)
        document = document_of("catalog", ended, facts, asdict(settings), [one.as_json() for one in results])
        hand_out(document, output, as_json)
    if not as_json and results:
        Console().print(_table(results))
        Console().print(f"CPU of a commit at the most rows over the least: {growth(results):.2f} times")
    exit_as(ended)


def _table(results: list[CatalogResult]) -> Table:
    table = Table(title="catalog: a commit of one segment", title_justify="left")
    for heading in ("rows", "CPU µs", "per chunk", "elapsed µs", "p99", "file MB"):
        table.add_column(heading, justify="right")
    for one in results:
        table.add_row(
            f"{one.rows:,}",
            f"{one.cpu_us:.0f}",
            f"{one.cpu_us_per_chunk:.1f}",
            f"{one.elapsed_us:.0f}",
            f"{one.elapsed_p99_us:.0f}",
            f"{one.file_bytes / MB:.0f}",
        )
    return table
