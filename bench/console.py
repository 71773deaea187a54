"""What the commands share with a terminal: options, progress, errors, the JSON document and how it ended."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

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
from bench.errors import BenchError
from bench.machine import Cores, describe
from bench.servers import Server, choose, peers_folder, split_available
from bench.tables import promise_lines

COMPLETE = "complete"
INTERRUPTED = "interrupted"
OUT_OF_TIME = "stopped at its time bound"
INTERRUPTED_EXIT = 130
REFRESHES_PER_S = 2
"""The progress is drawn on the load's core: seldom enough not to be noticed there."""
_UNITS = {"mib": 1024 * 1024, "m": 1024 * 1024, "kib": 1024, "k": 1024, "b": 1, "": 1}

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", help="Also write the JSON document to this file, e.g. results.json."),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", help="Measure only this server (repeat for more); see `clipkeep bench peers`."),
]
WorkersOption = Annotated[
    int, typer.Option(help="Worker processes of the server, each with a core of its own.")
]
RunsOption = Annotated[int | None, typer.Option(help="Runs; medians are shown.  [default: 5; short: fewer]")]
SecondsOption = Annotated[float | None, typer.Option(help="Measured time of a step.  [default: 5; short: 2]")]
WarmupOption = Annotated[float | None, typer.Option(help="Time before it.  [default: 1.5; short: 1]")]
ShortOption = Annotated[bool, typer.Option("--short", help="A first impression in a few minutes.")]

T = TypeVar("T")


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


def parse_counts(text: str) -> tuple[int, ...]:
    """Parse `1,2,4`.

    Raises:
        BenchError: a part is not a whole number.
    """
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not part.isdecimal():
            raise BenchError("is not a number; write 256 or 16,64,256", subject=repr(part))
    return tuple(int(part) for part in parts)


def given(short: Mapping[str, Any], is_short: bool, **values: Any) -> dict[str, Any]:
    """Return the settings that were said, over those of the short form when it was asked for."""
    said = {name: value for name, value in values.items() if value is not None}
    return {**(short if is_short else {}), **said}


def chosen_servers(
    only: Sequence[str] | None, default: Sequence[str], *, tus: bool = False
) -> tuple[list[Server], dict[str, str]]:
    """Return the servers to measure, and by name why others are skipped. An empty default means all; with `tus`, of
    those that speak it.

    Raises:
        BenchError: a name is unknown, or none of them can start here.
    """
    servers, skipped = split_available(choose(only or default, peers_folder(), tus=tus))
    if not servers:
        raise BenchError(
            "; ".join(f"{name}: {reason}" for name, reason in skipped.items()), subject="nothing to measure"
        )
    return servers, skipped


def promises_of(servers: Iterable[Server]) -> dict[str, tuple[str, ...]]:
    """Return what each server that was started promises."""
    return {server.name: server.promises for server in servers if server.promises}


def document_of(
    bench: str,
    ended: str,
    facts: Mapping[str, Any],
    settings: Mapping[str, Any],
    measurements: Sequence[Mapping[str, Any]],
    **more: Any,
) -> dict[str, Any]:
    """Build the one JSON document of a bench run. `ended` is `complete` or why it stopped before."""
    return {
        "bench": bench,
        "ended": ended,
        **facts,
        "settings": dict(settings),
        **more,
        "measurements": list(measurements),
    }


def run_facts(cores: Cores) -> dict[str, Any]:
    """Return what is recorded with every result: when, where, with what, on which cores."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    shared = {"server": list(cores.server), "load": list(cores.load)}
    return {"started_at": started_at, **describe(), "pinned_cores": shared}


def collected(
    running: Generator[T, None, None],
    cores: Cores,
    steps: Sequence[str],
    told: Callable[[T], str] | None = None,
) -> tuple[list[T], str]:
    """Run a bench to its end, to Ctrl-C (or SIGTERM), or to its own time bound, with progress on stderr.

    Args:
        running: yields a result per step.
        cores: of the bench; this process stays on those of the load.
        steps: what each step is called while it runs.
        told: makes a line of each result, printed as it comes.

    Returns:
        What there is, and how it ended.
    """
    results: list[T] = []
    # Pinned before the progress thread starts, so that it stays off the server's core.
    with _interruptible(), pinned(cores.load), _progress() as progress:
        task = progress.add_task(steps[0], total=len(steps))
        try:
            with contextlib.closing(running):
                for one in running:
                    results.append(one)
                    done = len(results)
                    progress.update(task, completed=done, description=steps[min(done, len(steps) - 1)])
                    if told is not None:
                        progress.console.print(told(one), highlight=False, markup=False)
        except KeyboardInterrupt:
            return results, INTERRUPTED
    return results, COMPLETE if len(results) == len(steps) else OUT_OF_TIME


def measured_on_all_cores(
    bench: str,
    running: Generator[T, None, None],
    settings: Mapping[str, Any],
    steps: Sequence[str],
    as_json: Callable[[T], Mapping[str, Any]],
    *,
    output: Path | None,
    print_json: bool,
) -> tuple[list[T], str]:
    """Run a bench that pins nobody, and hand its document out. Returns as `collected`."""
    cores = Cores((), ())
    facts = run_facts(cores)
    results, ended = collected(running, cores, steps)
    hand_out(
        document_of(bench, ended, facts, settings, [as_json(one) for one in results]), output, print_json
    )
    return results, ended


def hand_out(document: Mapping[str, Any], output: Path | None, as_json: bool) -> None:
    """Write the document where it was asked for.

    Raises:
        BenchError: the file cannot be written.
    """
    text = json.dumps(document, indent=2)
    if output is not None:
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(text + "\n")
        except OSError as error:
            raise BenchError(f"cannot be written: {error.strerror}", subject=str(output)) from error
    if as_json:
        typer.echo(text)


def print_notes(notes: Iterable[str], promises: Mapping[str, Sequence[str]] | None = None) -> None:
    """Print what a reader must know, then under which promises each server was measured."""
    console = Console()
    for note in notes:
        console.print(f"· {note}", highlight=False, markup=False)
    for line in promise_lines(promises or {}):
        console.print(line, highlight=False, markup=False)


def skipped_notes(skipped: Mapping[str, str]) -> list[str]:
    return [f"skipped {name}: {reason}" for name, reason in skipped.items()]


def exit_as(ended: str, *, failed: bool = False) -> None:
    """Leave with 130 after an interrupt, 1 after a failure."""
    if ended == INTERRUPTED:
        raise typer.Exit(INTERRUPTED_EXIT)
    if failed:
        raise typer.Exit(1)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        refresh_per_second=REFRESHES_PER_S,
    )


def cores_text(cores: Cores) -> str:
    if not cores.server:
        return "too few cores to keep server and load apart: figures will be low"
    server, load = (", ".join(map(str, cpus)) for cpus in (cores.server, cores.load))
    return f"server on core {server}, load and store on {load}"


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """Tell a person what went wrong in a line or two, never by a traceback."""
    try:
        yield
    except BenchError as error:
        Console(stderr=True).print(
            f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        raise typer.Exit(1) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end a bench as Ctrl-C does: with its children ended and its results shown."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
