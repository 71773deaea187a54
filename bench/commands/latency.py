"""`bench latency` and `bench slow-clients`: how long an acknowledgement takes, and who makes it longer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.commands.uploads import DevicesOption, LatencyOption
from bench.console import (
    JsonOption,
    OnlyOption,
    OutputOption,
    RunsOption,
    SecondsOption,
    ShortOption,
    WarmupOption,
    WorkersOption,
    chosen_servers,
    collected,
    document_of,
    errors_told,
    exit_as,
    given,
    hand_out,
    parse_sizes,
    print_notes,
    promises_of,
    run_facts,
    skipped_notes,
)
from bench.latency import (
    LatencyMeasurement,
    LatencySettings,
    latency_steps,
    measure_latency,
    summarise_latency,
)
from bench.load import CURVE
from bench.machine import share_out, usable_cpus
from bench.slowclients import (
    SlowMeasurement,
    SlowSettings,
    measure_slow_clients,
    slow_steps,
    summarise_slow,
)
from bench.tables import disturbed_note, latency_table, slow_table

SHORT_LATENCY: Mapping[str, Any] = {"runs": 1, "seconds": 4.0, "warmup": 1.0}
SHORT_SLOW: Mapping[str, Any] = {"runs": 1, "seconds": 3.0, "warmup": 1.0}

SizeOption = Annotated[str, typer.Option(help="Chunk size.")]


def latency(
    size: SizeOption = "256KiB",
    connections: Annotated[
        int, typer.Option(help="Chunks that may be under way at once.")
    ] = LatencySettings.connections,
    share: Annotated[float, typer.Option(help="Of the top load.")] = LatencySettings.share,
    rate: Annotated[float | None, typer.Option(help="Chunks per second instead of a share.")] = None,
    few_connections: Annotated[
        int, typer.Option(help="Connections of the few cameras.")
    ] = LatencySettings.few_connections,
    few_rate: Annotated[
        float, typer.Option(help="Their chunks per second.")
    ] = LatencySettings.few_rate_per_s,
    latency_ms: LatencyOption = LatencySettings.latency_ms,
    runs: RunsOption = None,
    seconds: SecondsOption = None,
    warmup: WarmupOption = None,
    devices: DevicesOption = LatencySettings.devices,
    workers: WorkersOption = 1,
    short: ShortOption = False,
    only: OnlyOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """How long an acknowledgement takes, at a fixed arrival rate.

    What: percentiles of the time from when a chunk was meant to be sent to its
    ack, against a store that takes 150 ms for each answer, as S3 does.

    How: an open loop: chunks arrive at random, at a mean rate, whether or not
    the server keeps up; one that waits for a connection waits in the figure
    (no coordinated omission). The rate is half of the top load that the closed
    loop has just found; then a few cameras on 10 connections.

    Good: at half of top load, p50 up to 300 ms and p99 up to 500 ms; a few
    cameras, p99 up to the store's time + 100 ms of linger + 20 ms.

    Ctrl-C ends it and shows what was measured so far.
    """
    with errors_told():
        (size_bytes,) = parse_sizes(size)[:1]
        settings = LatencySettings(
            size_bytes=size_bytes,
            connections=connections,
            share=share,
            rate_per_s=rate,
            few_connections=few_connections,
            few_rate_per_s=few_rate,
            latency_ms=latency_ms,
            devices=devices,
            workers=workers,
            **given(SHORT_LATENCY, short, runs=runs, seconds=seconds, warmup=warmup),
        ).checked()
        servers, skipped = chosen_servers(only, ["clipkeep"])
        cores = share_out(usable_cpus(), workers)
        facts = run_facts(cores)
        running = measure_latency(settings, servers, cores)
        measurements, ended = collected(running, cores, latency_steps(settings, servers), _latency_text)
        summaries, promises = summarise_latency(measurements), promises_of(servers)
        document = document_of(
            "latency",
            ended,
            facts,
            asdict(settings),
            [one.as_json() for one in measurements],
            skipped=skipped,
            promises=promises,
            curve_at=list(CURVE.values()),
            summary=[asdict(one) for one in summaries],
        )
        hand_out(document, output, as_json)
    if not as_json:
        Console().print(latency_table(summaries))
        others = [one.others_cpu_s for one in measurements]
        notes = disturbed_note(others, settings.seconds, len(usable_cpus()))
        print_notes([*skipped_notes(skipped), *notes], promises)
    exit_as(ended, failed=any(one.errors for one in measurements if one.server == "clipkeep"))


def slow_clients(
    slow: Annotated[int, typer.Option(help="Slow clients.")] = SlowSettings.slow,
    slow_rate: Annotated[
        float, typer.Option(help="Bytes per second of each of them.")
    ] = SlowSettings.slow_bytes_per_s,
    slow_size: Annotated[str, typer.Option(help="Size of their chunks.")] = "64KiB",
    fast: Annotated[int, typer.Option(help="Fast clients: a closed loop each.")] = SlowSettings.fast,
    size: SizeOption = "1MiB",
    runs: RunsOption = None,
    seconds: SecondsOption = None,
    warmup: WarmupOption = None,
    devices: DevicesOption = SlowSettings.devices,
    workers: WorkersOption = 1,
    latency_ms: LatencyOption = 0.0,
    short: ShortOption = False,
    only: OnlyOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """What slow clients cost the fast ones.

    What: throughput and p99 of 32 fast clients, alone and beside 500 clients
    that send at 20 KB/s each.

    How: every server freshly started, twice in each run: without slow clients
    and with them, in the other order every other run. The slow ones send their
    first chunks from random places on, so that they do not end together.

    Good: throughput and p99 of the fast ones within 20 % of those alone, and no
    error of a slow one.

    Ctrl-C ends it and shows what was measured so far.
    """
    with errors_told():
        (size_bytes,), (slow_size_bytes,) = parse_sizes(size)[:1], parse_sizes(slow_size)[:1]
        settings = SlowSettings(
            fast=fast,
            slow=slow,
            slow_bytes_per_s=slow_rate,
            size_bytes=size_bytes,
            slow_size_bytes=slow_size_bytes,
            devices=devices,
            workers=workers,
            latency_ms=latency_ms,
            **given(SHORT_SLOW, short, runs=runs, seconds=seconds, warmup=warmup),
        ).checked()
        servers, skipped = chosen_servers(only, [])
        cores = share_out(usable_cpus(), workers)
        facts = run_facts(cores)
        running = measure_slow_clients(settings, servers, cores)
        measurements, ended = collected(running, cores, slow_steps(settings, servers), _slow_text)
        summaries, promises = summarise_slow(measurements), promises_of(servers)
        document = document_of(
            "slow-clients",
            ended,
            facts,
            asdict(settings),
            [one.as_json() for one in measurements],
            skipped=skipped,
            promises=promises,
            summary=[asdict(one) for one in summaries],
        )
        hand_out(document, output, as_json)
    if not as_json:
        Console().print(slow_table(summaries, slow))
        others = [one.others_cpu_s for one in measurements]
        notes = disturbed_note(others, settings.seconds, len(usable_cpus()))
        print_notes([*skipped_notes(skipped), *notes], promises)
    ours = [one for one in measurements if one.server == "clipkeep"]
    exit_as(ended, failed=any(one.errors or one.slow_errors for one in ours))


def _latency_text(one: LatencyMeasurement) -> str:
    acks = f"p50 {one.ack_ms['p50']:.0f} ms, p99 {one.ack_ms['p99']:.0f} ms"
    errors = f", {sum(one.errors.values())} errors" if one.errors else ""
    where = f"{one.connections} connections, {one.rate_per_s:.0f} chunks/s"
    return f"run {one.run}: {one.server}, {where}: {acks}{errors}"


def _slow_text(one: SlowMeasurement) -> str:
    acks = f"{one.mb_per_s:.0f} MB/s, p99 {one.ack_ms['p99']:.0f} ms"
    errors = sum(one.errors.values()) + sum(one.slow_errors.values())
    told = f", {errors} errors" if errors else ""
    return f"run {one.run}: {one.server} beside {one.slow} slow clients: {acks}{told}"
