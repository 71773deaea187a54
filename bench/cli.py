"""`clipkeep bench`: the table of contents. Tables go to stdout, progress to stderr; `--json` makes it one document."""

from __future__ import annotations

import typer

from bench.commands import (
    against,
    catalog,
    catalogcopy,
    freshhost,
    latency,
    limits,
    memory,
    peers,
    playback,
    report,
    sweep,
    uploads,
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Measure this machine before you buy more of it. Everything runs on 127.0.0.1, bounded in time.",
)
for command in (
    *(uploads.ingest, uploads.compare),
    *(latency.latency, latency.slow_clients),
    *(memory.idle, memory.entitlement, catalog.catalog, limits.limits, sweep.sweep),
    *(freshhost.fresh_host, catalogcopy.catalog_copy),
    *(playback.playback, against.against, report.report, peers.peers),
):
    app.command()(command)

if __name__ == "__main__":
    app()
