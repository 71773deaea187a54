"""`bench idle` and `bench entitlement`: what connections and devices cost in memory."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated

import typer
from rich.console import Console

from bench.console import (
    COMPLETE,
    JsonOption,
    OnlyOption,
    OutputOption,
    WorkersOption,
    chosen_servers,
    collected,
    document_of,
    errors_told,
    exit_as,
    hand_out,
    print_notes,
    promises_of,
    run_facts,
    skipped_notes,
)
from bench.entitlement import EntitlementResult, measure_entitlement
from bench.idle import IdleSettings, measure_idle
from bench.machine import Cores, share_out, usable_cpus
from bench.tables import entitlement_table, idle_table


def idle(
    connections: Annotated[int, typer.Option(help="Idle keep-alive connections.")] = IdleSettings.connections,
    workers: WorkersOption = 1,
    only: OnlyOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Memory that idle connections cost.

    What: resident memory of all of a server's processes (RSS, and PSS, which
    counts shared pages once), with thousands of idle keep-alive connections
    against none.

    How: a freshly started server takes some thousand small chunks to be warm;
    memory is read; then every connection sends one small chunk, gets its ack
    and idles; memory is read again.

    Good: 2,000 connections under 100 MB more than none, so under 50 KB each.
    """
    with errors_told():
        settings = IdleSettings(connections, workers).checked()
        servers, skipped = chosen_servers(only, ["clipkeep"])
        cores = share_out(usable_cpus(), workers)
        facts = run_facts(cores)
        names = [f"idle connections: {server.name}" for server in servers]
        results, ended = collected(measure_idle(settings, servers, cores), cores, names)
        promises = promises_of(servers)
        document = document_of(
            "idle",
            ended,
            facts,
            {"connections": connections, "workers": workers},
            [one.as_json() for one in results],
            skipped=skipped,
            promises=promises,
        )
        hand_out(document, output, as_json)
    if not as_json:
        Console().print(idle_table(results))
        print_notes(skipped_notes(skipped), promises)
    exit_as(ended)


def entitlement(
    rows: Annotated[int, typer.Option(help="Devices in the bitmap (64 bytes each).")] = 1_000_000,
    checks: Annotated[int, typer.Option(help="Checks, of random devices.")] = 1_000_000,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time of one entitlement check, as admission asks it before every chunk.

    What: nanoseconds of one look into the entitlement bitmap: the device's
    flags, and the bits of the capture day and of today.

    How: a bitmap of a million devices in a temporary folder, asked for random
    devices in batches of 1000; the best batch, the median and the 99th
    percentile, the loop around the call included.

    Good: a median under 1000 ns, also with ten million devices.
    """
    with errors_told():
        cores = Cores((), ())
        facts = run_facts(cores)
        results, ended = collected(_one(rows, checks), cores, ["writing rows, then asking"])
        settings = {"rows": rows, "checks": checks}
        document = document_of("entitlement", ended, facts, settings, [one.as_json() for one in results])
        hand_out(document, output, as_json)
    if not as_json and ended == COMPLETE:
        Console().print(entitlement_table(results[0]))
    exit_as(ended)


def _one(rows: int, checks: int) -> Generator[EntitlementResult, None, None]:
    yield measure_entitlement(rows, checks)
