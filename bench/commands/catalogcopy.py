"""`bench catalog-copy`: how long an operator who outgrows SQLite stands still."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.catalogcopy import CatalogCopyResult, CatalogCopySettings, measure_catalog_copy
from bench.console import (
    JsonOption,
    OutputOption,
    errors_told,
    exit_as,
    measured_on_all_cores,
)
from bench.results import MB


def catalog_copy(
    chunks: Annotated[int, typer.Option(help="Chunks in the catalog.")] = CatalogCopySettings.chunks,
    devices: Annotated[int, typer.Option(help="Devices that they are of.")] = CatalogCopySettings.devices,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """How long `catalog copy` takes, from SQLite to a durable PostgreSQL.

    What: seconds from the start of the command to its end: rows copied, every
    row compared, recordings read and decrypted. CPU of the command and of
    PostgreSQL.

    How: a service takes a million chunks of 1 KiB of 10,000 devices into a
    temporary folder, and is stopped; the copy goes to a PostgreSQL server that
    is started there (fsync on). All cores may be used.

    Good: a million chunks under two minutes on two cores that nobody else uses.
    """
    with errors_told():
        settings = CatalogCopySettings(chunks, devices).checked()
        results, ended = measured_on_all_cores(
            "catalog-copy",
            measure_catalog_copy(settings),
            asdict(settings),
            settings.steps(),
            CatalogCopyResult.as_json,
            output=output,
            print_json=as_json,
        )
    if not as_json:
        for one in results:
            Console().print(_table(one))
    exit_as(ended)


def _table(one: CatalogCopyResult) -> Table:
    table = Table(title="catalog copy, from SQLite to PostgreSQL", title_justify="left")
    for heading in ("rows", "file MB", "s", "CPU s", "PostgreSQL CPU s", "others' CPU s", "recordings read"):
        table.add_column(heading, justify="right")
    table.add_row(
        *(f"{one.rows:,}", f"{one.file_bytes / MB:.0f}", f"{one.copied_s:.1f}", f"{one.cpu_s:.1f}"),
        *(f"{one.server_cpu_s:.1f}", f"{one.others_cpu_s:.1f}", str(one.recordings_read)),
    )
    return table
