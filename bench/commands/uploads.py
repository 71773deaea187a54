"""`bench ingest` and `bench compare`: uploads, what they cost, and what they cost elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.clipkeep_server import ClipkeepHosts, ClipkeepOnPostgres, ClipkeepServer
from bench.console import (
    JsonOption,
    OnlyOption,
    OutputOption,
    RunsOption,
    SecondsOption,
    ShortOption,
    WarmupOption,
    chosen_servers,
    collected,
    cores_text,
    errors_told,
    exit_as,
    given,
    hand_out,
    parse_counts,
    parse_sizes,
    print_notes,
    promises_of,
    run_facts,
)
from bench.errors import BenchError
from bench.machine import share_out, usable_cpus
from bench.results import Measurement, catalog_ratios, hosts_ratios, uploads_document
from bench.run import SLACK, IngestSettings, Step, forecast_s, measure, plan
from bench.servers import Server
from bench.tables import duration_text, size_text, upload_notes, upload_tables

SHORT: Mapping[str, Any] = {"runs": 3, "seconds": 2.0, "warmup": 1.0}
SHORT_COMPARE: Mapping[str, Any] = {"runs": 2, "seconds": 2.0, "warmup": 0.5}

SPEAKING_TLS = ("clipkeep", "nginx-default", "nginx-relay")
"""Those that `compare --tls` measures."""

SizesOption = Annotated[str, typer.Option(help="Chunk sizes, comma-separated.")]
ConnectionsOption = Annotated[
    str,
    typer.Option(help="Connections kept busy: each sends a chunk, waits for its ack, sends the next."),
]
DevicesOption = Annotated[int, typer.Option(help="Devices that send, in turn.")]
LatencyOption = Annotated[float, typer.Option(help="What the null store takes for each answer.")]


def ingest(
    sizes: SizesOption = "1MiB,256KiB,64KiB",
    connections: ConnectionsOption = "256",
    workers: Annotated[str, typer.Option(help="Worker processes, each with a core of its own.")] = "1",
    runs: RunsOption = None,
    seconds: SecondsOption = None,
    warmup: WarmupOption = None,
    devices: DevicesOption = IngestSettings.devices,
    store: Annotated[
        str | None,
        typer.Option(
            help="Instead of the null store: file:///path or s3://bucket/prefix, with your AWS settings. "
            "What is put there stays there."
        ),
    ] = None,
    latency_ms: LatencyOption = 0.0,
    catalog: Annotated[
        str,
        typer.Option(
            help="sqlite, or postgresql: both in turn, and what a gigabyte costs with PostgreSQL over SQLite."
        ),
    ] = "sqlite",
    hosts: Annotated[
        int,
        typer.Option(
            help="Also so many hosts over one home on PostgreSQL, and one, in turn, on the same cores.",
            min=1,
            max=16,
        ),
    ] = 1,
    short: ShortOption = False,
    only: OnlyOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Throughput of uploads, and what each gigabyte costs, by size, connections, workers.

    What: MPEG-TS chunks by PUT with a token and a length, acknowledged with
    201 once they are in the store and in the catalog, with encryption,
    checksums and durable commits on: the defaults of `serve`.

    How: the server under test on one core per worker; load generator and a
    null store (it counts and forgets) on the others. Each step starts a fresh
    server. Lists of --connections and --workers are combined with each size.
    CPU time and peak memory are those of all of a server's processes. With
    --catalog postgresql a durable PostgreSQL server shares the service's cores;
    its CPU is told apart. With --hosts 3 three hosts over one home share those
    cores, each with so many workers, beside one over such a home.

    Good, with one worker: under 1 CPU-s/GB at 1 MiB, under 150 store calls per
    1000 chunks, no errors; with two workers, CPU-s/GB within 10 % of one; on
    PostgreSQL 1.05 times SQLite's, 1.5 times with PostgreSQL's own; three hosts
    1.15 times one. A
    note below the table says when the load generator was the limit, or when
    other work on the machine disturbed a run.

    Ctrl-C ends it and shows what was measured so far.
    """
    with errors_told():
        settings = IngestSettings(
            sizes=parse_sizes(sizes),
            connections=parse_counts(connections),
            workers=parse_counts(workers),
            devices=devices,
            latency_ms=latency_ms,
            store_url=store,
            **given(SHORT, short, runs=runs, seconds=seconds, warmup=warmup),
        ).checked()
        if catalog not in ("sqlite", "postgresql"):
            raise BenchError("is no catalog; there are sqlite and postgresql", subject=catalog)
        servers, skipped = chosen_servers(only, ["clipkeep"])
        if catalog == "postgresql":
            servers = [*servers, ClipkeepOnPostgres()]
        if hosts > 1:
            servers = [*servers, ClipkeepHosts(1), ClipkeepHosts(hosts)]
        _run("ingest", settings, servers, skipped, output, as_json)


def compare(
    sizes: SizesOption = "1MiB,256KiB,64KiB",
    connections: Annotated[int, typer.Option(help="Connections kept busy.")] = 256,
    workers: Annotated[int, typer.Option(help="Worker processes, or threads, of each server.")] = 1,
    runs: RunsOption = None,
    seconds: SecondsOption = None,
    warmup: WarmupOption = None,
    devices: DevicesOption = IngestSettings.devices,
    latency_ms: LatencyOption = 0.0,
    tls: Annotated[
        bool, typer.Option("--tls", help="Over TLS: Clipkeep's own, beside nginx that terminates it.")
    ] = False,
    tus: Annotated[
        bool, typer.Option("--tus", help="Resumable uploads instead: creation, then one PATCH.")
    ] = False,
    short: ShortOption = False,
    only: OnlyOption = None,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Clipkeep beside what people use instead, in turn, in one run.

    What: the same chunks to Clipkeep, to a plain Starlette server, to
    @tus/server on Node, to tusd, and through nginx to the store: the floor,
    which looks at no byte. Throughput, CPU-seconds per GB of all of a server's
    processes, store calls per 1000 chunks, peak memory, acks.

    How: as `ingest`; the same load, null store and cores for all, which take
    turns at every size in every run. tus servers get one POST per chunk
    (creation with upload), the cheapest that tus allows. With --tus all that
    speak it, Clipkeep among them, get what its clients send by default: a POST
    that creates the upload, then a PATCH with all of its bytes; tusd also as it
    is by itself, with files for a store. What each server
    promises for its acknowledgement is printed below. A peer that is not
    installed is skipped by name: see `clipkeep bench peers`.

    With --tls Clipkeep speaks TLS on its ingest port, and nginx terminates TLS
    with the same certificate (ECDSA P-256) and relays to the store in clear;
    what they agree on with the load is told, and is the same. Others are left
    out.

    Good: CPU-s/GB at most 2.5, 1.6 and 2.2 times the relay's at 1 MiB, 256 KiB
    and 64 KiB; throughput at least 5, 9 and 10 times the Starlette server's.
    With --tls at most 1.6, 1.8 and 2.0 times the relay's CPU-s/GB.
    Only figures of one run may be compared.

    Ctrl-C ends it and shows what was measured so far.
    """
    with errors_told():
        settings = IngestSettings(
            sizes=parse_sizes(sizes),
            connections=(connections,),
            workers=(workers,),
            devices=devices,
            latency_ms=latency_ms,
            tls=tls,
            **given(SHORT_COMPARE, short, runs=runs, seconds=seconds, warmup=warmup),
        ).checked()
        if tls and tus:
            raise BenchError("goes in clear here: leave --tls out", subject="--tus")
        others = [name for name in only or [] if name not in SPEAKING_TLS]
        if tls and others:
            raise BenchError(
                f"has no TLS in this bench; these have: {', '.join(SPEAKING_TLS)}", subject=others[0]
            )
        servers, skipped = chosen_servers(only, SPEAKING_TLS if tls else [], tus=tus)
        _run("compare", settings, servers, skipped, output, as_json)


def _run(
    name: str,
    settings: IngestSettings,
    servers: Sequence[Server],
    skipped: Mapping[str, str],
    output: Path | None,
    as_json: bool,
) -> None:
    cpus = usable_cpus()
    cores = share_out(cpus, max(settings.workers))
    facts = run_facts(cores)
    steps = plan(settings, servers)
    forecast = forecast_s(settings, len(servers))
    Console(stderr=True).print(
        f"{len(steps)} steps, about {duration_text(forecast)}, at most {duration_text(forecast * SLACK)}; "
        f"{cores_text(cores)}"
    )
    names = [_step_text(step) for step in steps]
    measurements, ended = collected(measure(settings, servers, cpus), cores, names, _measured_text)
    promises = promises_of(servers)
    document = uploads_document(name, facts, settings.as_json(), measurements, skipped, promises, ended)
    hand_out(document, output, as_json)
    if not as_json:
        console = Console()
        for table in upload_tables(name, measurements):
            console.print(table)
        over = catalog_ratios(measurements, ClipkeepOnPostgres.name, ClipkeepServer.name)
        counts = sorted({server.hosts for server in servers if isinstance(server, ClipkeepHosts)})
        if len(counts) == 2:
            one, many = (ClipkeepHosts(count).name for count in counts)
            over = [*over, *hosts_ratios(measurements, many, one)]
        print_notes([*over, *upload_notes(measurements, skipped)], promises)
    exit_as(ended, failed=any(one.errors for one in measurements if one.server.startswith("clipkeep")))


def _step_text(step: Step) -> str:
    return f"run {step.run}: {step.server.name} at {size_text(step.size_bytes)}"


def _measured_text(one: Measurement) -> str:
    cost = "–" if one.cpu_s_per_gb is None else f"{one.cpu_s_per_gb:.2f}"
    errors = f", {sum(one.errors.values())} errors" if one.errors else ""
    where = f"{size_text(one.size_bytes)}, {one.connections} connections, workers: {one.workers}"
    return (
        f"run {one.run}: {one.server} at {where}: {one.mb_per_s:.0f} MB/s, "
        f"{cost} CPU-s/GB, ack p99 {one.ack_ms['p99']:.0f} ms{errors}"
    )
