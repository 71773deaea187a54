"""`clipkeep bench`: the commands. Tables go to stdout, progress to stderr; `--json` makes it one document."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from bench.children import pinned
from bench.entitlement import measure_entitlement
from bench.errors import BenchError
from bench.idle import IdleResult, IdleSettings, measure_idle
from bench.machine import Cores, describe, share_out, usable_cpus
from bench.results import Measurement, ingest_document
from bench.run import SLACK, IngestSettings, Step, forecast_s, measure, plan
from bench.servers import Server, choose, split_available
from bench.tables import (
    duration_text,
    entitlement_table,
    idle_table,
    ingest_notes,
    ingest_tables,
    size_text,
)

COMPLETE = "complete"
INTERRUPTED = "interrupted"
OUT_OF_TIME = "stopped at its time bound"
INTERRUPTED_EXIT = 130
REFRESHES_PER_S = 2
"""The progress is drawn on the load's core: seldom enough not to be noticed there."""
SHORT: Mapping[str, Any] = {"runs": 3, "seconds": 2.0, "warmup": 1.0}
_UNITS = {"mib": 1024 * 1024, "m": 1024 * 1024, "kib": 1024, "k": 1024, "b": 1, "": 1}

app = typer.Typer(
    no_args_is_help=True,
    help="Measure this machine before you buy more of it. Everything runs on 127.0.0.1, bounded in time.",
)

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", help="Also write the JSON document to this file, e.g. results.json."),
]
WorkersOption = Annotated[
    int, typer.Option(help="Worker processes of the server, each with a core of its own.")
]
PeersOption = Annotated[
    bool,
    typer.Option("--peers/--no-peers", help="Also measure what people use instead, in turn with Clipkeep."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="Measure only this server (repeat for more): clipkeep, starlette."),
]


def parse_sizes(text: str) -> tuple[int, ...]:
    """Parse `1MiB,256KiB,65536` into bytes.

    Raises:
        BenchError: a part is not a number with KiB, MiB, k, m or nothing behind it.
    """
    sizes = []
    for part in text.split(","):
        word = part.strip().lower()
        digits = word.rstrip("kmib ")
        unit = word[len(digits) :].strip()
        if not digits.isdecimal() or unit not in _UNITS:
            raise BenchError("is not a size; write 64KiB, 1MiB or a number of bytes", subject=repr(part))
        sizes.append(int(digits) * _UNITS[unit])
    return tuple(sizes)


@app.command()
def ingest(
    sizes: Annotated[str, typer.Option(help="Chunk sizes, comma-separated.")] = "1MiB,256KiB,64KiB",
    connections: Annotated[
        int,
        typer.Option(help="Connections kept busy: each sends a chunk, waits for its ack, sends the next."),
    ] = IngestSettings.connections,
    runs: Annotated[int | None, typer.Option(help="Runs; medians are shown.  [default: 5; short: 3]")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Measured time of a step.  [default: 5; short: 2]")
    ] = None,
    warmup: Annotated[float | None, typer.Option(help="Time before it.  [default: 1.5; short: 1]")] = None,
    devices: Annotated[int, typer.Option(help="Devices that send, in turn.")] = IngestSettings.devices,
    workers: WorkersOption = 1,
    short: Annotated[bool, typer.Option("--short", help="A first impression in a few minutes.")] = False,
    peers: PeersOption = True,
    only: OnlyOption = None,
    latency_ms: Annotated[float, typer.Option(help="What the store takes for each answer.")] = 0.0,
    output: OutputOption = None,
    as_json: JsonOption = False,
) -> None:
    """Throughput of uploads, and what each gigabyte costs.

    What: MPEG-TS chunks by PUT with a token and a length, acknowledged with
    201 once they are in the store and in the catalog, with encryption,
    checksums and durable commits on: the defaults of `serve`.

    How: the server under test on one core per worker; load generator and a
    null store (it counts and forgets) on the others. Servers take turns at
    every size, each freshly started, in every run. CPU time and peak memory
    are those of all of a server's processes.

    Good, with one worker: at least 4 times the plain Starlette server at every
    size, under 2 CPU-s/GB at 1 MiB, under 150 store calls per 1000 chunks, no
    errors. A note below the table says when the load generator was the limit,
    or when other work on the machine disturbed a run.

    Ctrl-C ends it and shows what was measured so far.
    """
    with _errors_told():
        given = {"runs": runs, "seconds": seconds, "warmup": warmup}
        chosen = {**(SHORT if short else {}), **{k: v for k, v in given.items() if v is not None}}
        settings = IngestSettings(
            sizes=parse_sizes(sizes),
            connections=connections,
            devices=devices,
            workers=workers,
            latency_ms=latency_ms,
            **chosen,
        ).checked()
        servers, skipped = _servers(only, peers)
        facts = _facts(share_out(usable_cpus(), workers))
        measurements, ended = _run_ingest(settings, servers)
        document = ingest_document(facts, settings.as_json(), measurements, skipped, ended)
        _hand_out(document, output, as_json)
    if not as_json:
        console = Console()
        for table in ingest_tables(measurements):
            console.print(table)
        for note in ingest_notes(measurements, skipped):
            console.print(f"· {note}", highlight=False, markup=False)
    _exit(ended, failed=any(one.errors for one in measurements))


def _run_ingest(settings: IngestSettings, servers: Sequence[Server]) -> tuple[list[Measurement], str]:
    """Measure with progress on stderr. Returns what there is, and how it ended."""
    cores = share_out(usable_cpus(), settings.workers)
    steps = plan(settings, servers)
    forecast = forecast_s(settings, len(servers))
    console = Console(stderr=True)
    console.print(
        f"{len(steps)} steps, about {duration_text(forecast)}, at most {duration_text(forecast * SLACK)}; "
        f"{_cores_text(cores)}"
    )
    measurements: list[Measurement] = []
    # Pinned before the progress thread starts, so that it stays off the server's core.
    with _interruptible(), pinned(cores.load), _progress(console) as progress:
        task = progress.add_task(_step_text(steps[0]), total=len(steps))
        try:
            with contextlib.closing(measure(settings, servers, cores)) as running:
                for one in running:
                    measurements.append(one)
                    done = len(measurements)
                    progress.update(
                        task, completed=done, description=_step_text(steps[min(done, len(steps) - 1)])
                    )
                    progress.console.print(_measured_text(one), highlight=False)
        except KeyboardInterrupt:
            return measurements, INTERRUPTED
    return measurements, COMPLETE if len(measurements) == len(steps) else OUT_OF_TIME


@app.command()
def idle(
    connections: Annotated[int, typer.Option(help="Idle keep-alive connections.")] = IdleSettings.connections,
    workers: WorkersOption = 1,
    peers: PeersOption = False,
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
    with _errors_told():
        settings = IdleSettings(connections, workers).checked()
        servers, skipped = _servers(only, peers)
        cores = share_out(usable_cpus(), workers)
        facts = _facts(cores)
        results: list[IdleResult] = []
        ended = COMPLETE
        with _interruptible(), pinned(cores.load), _progress(Console(stderr=True)) as progress:
            task = progress.add_task("idle connections", total=len(servers))
            try:
                with contextlib.closing(measure_idle(settings, servers, cores)) as running:
                    for one in running:
                        results.append(one)
                        progress.advance(task)
            except KeyboardInterrupt:
                ended = INTERRUPTED
        document = {
            "bench": "idle",
            "ended": ended,
            **facts,
            "settings": {"connections": connections, "workers": workers},
            "skipped": skipped,
            "measurements": [one.as_json() for one in results],
        }
        _hand_out(document, output, as_json)
    if not as_json:
        Console().print(idle_table(results))
        for name, reason in skipped.items():
            Console().print(f"· skipped {name}: {reason}", highlight=False, markup=False)
    _exit(ended, failed=False)


@app.command()
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
    with _errors_told():
        facts = _facts(Cores((), ()))
        with _interruptible(), _progress(Console(stderr=True)) as progress:
            task = progress.add_task("writing rows", total=rows)
            try:
                result = measure_entitlement(
                    rows, checks, lambda count: progress.update(task, completed=count)
                )
            except KeyboardInterrupt:
                raise typer.Exit(INTERRUPTED_EXIT) from None
            progress.update(task, completed=rows)
        settings = {"rows": rows, "checks": checks}
        measured = [result.as_json()]
        document = {
            "bench": "entitlement",
            "ended": COMPLETE,
            **facts,
            "settings": settings,
            "measurements": measured,
        }
        _hand_out(document, output, as_json)
    if not as_json:
        Console().print(entitlement_table(result))


def _servers(only: list[str] | None, peers: bool) -> tuple[list[Server], dict[str, str]]:
    servers, skipped = split_available(choose(only or ([] if peers else ["clipkeep"])))
    if not servers:
        raise BenchError(
            "; ".join(f"{name}: {reason}" for name, reason in skipped.items()), subject="nothing to measure"
        )
    return servers, skipped


def _facts(cores: Cores) -> dict[str, Any]:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    shared = {"server": list(cores.server), "load": list(cores.load)}
    return {"started_at": started_at, **describe(), "pinned_cores": shared}


def _hand_out(document: Mapping[str, Any], output: Path | None, as_json: bool) -> None:
    text = json.dumps(document, indent=2)
    if output is not None:
        try:
            output.write_text(text + "\n")
        except OSError as error:
            raise BenchError(f"cannot be written: {error.strerror}", subject=str(output)) from error
    if as_json:
        typer.echo(text)


def _exit(ended: str, *, failed: bool) -> None:
    if ended == INTERRUPTED:
        raise typer.Exit(INTERRUPTED_EXIT)
    if failed:
        raise typer.Exit(1)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        refresh_per_second=REFRESHES_PER_S,
    )


def _step_text(step: Step) -> str:
    return f"run {step.run}: {step.server.name} at {size_text(step.size_bytes)}"


def _measured_text(one: Measurement) -> str:
    cost = "–" if one.cpu_s_per_gb is None else f"{one.cpu_s_per_gb:.2f}"
    errors = f", {sum(one.errors.values())} errors" if one.errors else ""
    return (
        f"run {one.run}: {one.server} at {size_text(one.size_bytes)}: {one.mb_per_s:.0f} MB/s, "
        f"{cost} CPU-s/GB, ack p99 {one.ack_ms['p99']:.0f} ms{errors}"
    )


def _cores_text(cores: Cores) -> str:
    if not cores.server:
        return "too few cores to keep server and load apart: figures will be low"
    return f"server on core {_list(cores.server)}, load and store on {_list(cores.load)}"


def _list(cpus: Sequence[int]) -> str:
    return ", ".join(map(str, cpus))


@contextlib.contextmanager
def _errors_told() -> Iterator[None]:
    """Tell a person what went wrong in a line or two, never by a traceback."""
    try:
        yield
    except BenchError as error:
        Console(stderr=True).print(f"error: {error}", style="red", highlight=False, markup=False)
        raise typer.Exit(1) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end a bench as Ctrl-C does: with its children ended and its results shown."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    app()
