"""`bench against`: an operator's own deployment."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.against import AgainstSettings, measure_against, parse_url
from bench.console import (
    COMPLETE,
    JsonOption,
    OutputOption,
    collected,
    document_of,
    errors_told,
    exit_as,
    hand_out,
    parse_sizes,
    print_notes,
    run_facts,
)
from bench.machine import Cores
from bench.tables import against_table
from bench.wire import Target


def against(
    url: Annotated[str, typer.Argument(help="http://HOST:PORT of the ingest port.")],
    devices: Annotated[
        Path, typer.Option(help="File with what `clipkeep device add --count N --plan trial --json` printed.")
    ],
    size: Annotated[str, typer.Option(help="Chunk size.")] = "256KiB",
    chunks: Annotated[int, typer.Option(help="Upload no more than so many.")] = AgainstSettings.chunks,
    seconds: Annotated[float, typer.Option(help="Nor for longer.")] = AgainstSettings.seconds,
    connections: Annotated[int, typer.Option(help="Connections.")] = AgainstSettings.connections,
    rate: Annotated[
        float | None, typer.Option(help="Open loop: chunks per second. Default: a closed loop.")
    ] = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload to your own deployment, and say how it answered.

    What: throughput and percentiles of acks, with the network, the proxy and
    the store that you have. The chunks are real: they are kept, and paid for,
    until the plan of their devices ends; use devices made for this.

    How: random MPEG-TS chunks with real tokens, bounded in count and in time.
    In a closed loop every connection sends, waits for its ack, sends the next;
    with --rate chunks arrive at random at that mean rate, and latency counts
    from when each was meant to be sent. The service's CPU is not seen from here.

    Good: no errors, and a p99 that does not grow when --rate is doubled. Begin
    with few connections, and tell those who watch the alarms.

    Ctrl-C ends it and shows nothing: there is one step.
    """
    with errors_told():
        (size_bytes,) = parse_sizes(size)[:1]
        settings = AgainstSettings(size_bytes, chunks, seconds, connections, rate).checked()
        target = parse_url(url, devices)
        cores = Cores((), ())
        facts = run_facts(cores)
        steps = [f"up to {chunks} chunks, up to {seconds:g} s"]
        results, ended = collected(_one(settings, target), cores, steps)
        about = {**asdict(settings), "url": url, "devices": len(target.devices)}
        document = document_of("against", ended, facts, about, results)
        hand_out(document, output, as_json)
    failed = False
    for result in results:
        failed = bool(result["errors"]) or not result["chunks"]
        if not as_json:
            Console().print(against_table(result))
            kinds = ", ".join(f"{count} × {kind}" for kind, count in result["errors"].items())
            print_notes([f"errors: {kinds}"] if kinds else [])
    exit_as(ended, failed=failed and ended == COMPLETE)


def _one(settings: AgainstSettings, target: Target) -> Generator[dict[str, Any], None, None]:
    yield measure_against(settings, target)
