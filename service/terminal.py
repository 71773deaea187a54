"""What commands share: options, output, errors, progress. Reports go to stdout, everything else to stderr."""

from __future__ import annotations

import json
import signal
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from retention.money import Money

Data = Annotated[
    Path,
    typer.Option("--data", envvar="CLIPKEEP_DATA", help="The data folder, made by `clipkeep init`."),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Object store: file:///path or s3://bucket/prefix. Default: what `init` was given, else objects/ in"
        " the data folder. AWS_* variables, CLIPKEEP_S3_ENDPOINT and CLIPKEEP_S3_PACING apply.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout instead of a table.")]
AcceptClock = Annotated[
    bool,
    typer.Option(
        "--accept-clock",
        help="This host's clock is right, though it does not fit what is known of the time: say so once, never in a"
        " timer.",
    ),
]
MAX_DEVICE = (1 << 32) - 1
Device = Annotated[int, typer.Option("--device", help="The device number.", min=1, max=MAX_DEVICE)]
MAX_REASON_CHARACTERS = 500
"""A reason is a note beside the change, and the history is kept: no place for documents."""


def checked_reason(text: str) -> str:
    """A reason of some characters, at most MAX_REASON_CHARACTERS.

    Raises:
        typer.BadParameter: it is blank or longer.
    """
    if not text.strip() or len(text) > MAX_REASON_CHARACTERS:
        raise typer.BadParameter(f"write a few words, at most {MAX_REASON_CHARACTERS} characters")
    return text


Reason = Annotated[
    str, typer.Option("--reason", help="Why, in a few words: kept in the history.", callback=checked_reason)
]

DEFAULT_DATA = Path("clipkeep-data")
LINE_EVERY_S = 1.0
"""How often progress is told where there is no terminal: a log must not grow with the work."""
PIPED_WIDTH = 200
"""Columns of a table that goes into a file or a pipe: room for an object's key on one line."""


def report(document: Any, as_json: bool, human: Callable[[], None] | None = None) -> None:
    """Print one document: JSON for programs, else `human()`, else a line for each of its values that says anything."""
    if as_json:
        print(json.dumps(document, indent=2))
    elif human is not None:
        human()
    else:
        for key, value in document.items():
            if value is not None and value != []:
                print(f"{key.replace('_', ' ')}: {_told(value)}")


def _told(value: object) -> str:
    """A value of a document, for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "\n  ".join(["", *(_told(one) for one in value)])
    if isinstance(value, dict):
        if value.keys() == {"minor", "currency"}:
            return str(Money(**value))
        return ", ".join(
            f"{key.replace('_', ' ')} {_told(one)}" for key, one in value.items() if one is not None
        )
    return visible(str(value))


def visible(text: str) -> str:
    """Text as a terminal may be given it: what others wrote may hold control characters, which would act on it."""
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cs") else char for char in text)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on stdout."""
    drawn = Table()
    for column in columns:
        drawn.add_column(
            column, overflow="fold"
        )  # on a narrow terminal a cell gets more lines, and loses nothing
    for row in rows:
        drawn.add_row(*(Text("" if cell is None else visible(str(cell))) for cell in row))
    print(title)  # Rich would wrap it to the width of the table
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(drawn)


def say(text: str) -> None:
    """A line for the person, on stderr."""
    print(text, file=sys.stderr)


@contextmanager
def ended_cleanly(sentence: str) -> Iterator[None]:
    """SIGTERM, as a timer or a cluster sends it, ends the command as Ctrl-C does, by way of its clean-up; of either
    the person is told `sentence`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted: {sentence}")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


class _Lines:
    """Progress as JSON lines: at most one every LINE_EVERY_S, and the last word of each phase."""

    def __init__(self) -> None:
        self._last: tuple[str, int, int] | None = None
        self._told = True
        self._told_s = -LINE_EVERY_S

    def __call__(self, phase: str, done: int, of: int) -> None:
        if self._last == (phase, done, of):
            return  # who waits for something asks again and again
        if self._last is not None and self._last[0] != phase:
            self.flush()
            self._told_s = -LINE_EVERY_S
        self._last, self._told = (phase, done, of), False
        if time.monotonic() - self._told_s >= LINE_EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._last is None or self._told:
            return
        phase, done, of = self._last
        print(json.dumps({"phase": phase, "done": done, "of": of or None}), file=sys.stderr)
        self._told, self._told_s = True, time.monotonic()


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A (phase, done, of) callback, `of` 0 when nobody knows: bars on a terminal, JSON lines otherwise; both on
    stderr."""
    if not sys.stderr.isatty():
        lines = _Lines()
        try:
            yield lines
        finally:
            lines.flush()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def update(phase: str, done: int, of: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=of or None)
            bars.update(tasks[phase], completed=done, total=of or None)

        yield update
