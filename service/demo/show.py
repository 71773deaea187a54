"""What the person sees: acts and progress on stderr, the table on stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

PLAIN_WIDTH = 110
"""Columns of a table that goes to a file or a pipe."""
LINE_EVERY_S = 3.0
"""Where there is no terminal, progress is a line now and then."""

Update = Callable[[str, int], None]
"""(name, done)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that the demo checked."""

    what: str
    expected: str
    seen: str
    ok: bool


class Show:
    """Tells the story and keeps the score."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._began_s = time.monotonic()
        self._console = Console(stderr=True, highlight=False)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def ok(self) -> bool:
        """Whether all that was checked was right, and something was checked."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def act(self, title: str) -> None:
        self._console.print(f"\n[bold]{escape(title)}[/]  [dim]{self.seconds:.0f} s[/]", soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print("  " + escape(text), soft_wrap=True)

    def check(self, what: str, expected: str, seen: str, ok: bool) -> None:
        """Note one result, right or wrong; wrong ones do not end the show."""
        self.rows.append(Row(what, expected, seen, ok))
        colour, mark = ("green", "ok") if ok else ("bold red", "FAILED")
        self._console.print(f"  [{colour}]{mark}[/] {escape(what)}: {escape(seen)}", soft_wrap=True)

    @contextmanager
    def progress(self, totals: dict[str, int]) -> Iterator[Update]:
        """Bars on a terminal, else a line every LINE_EVERY_S. `totals`: by name."""
        if not self._console.is_terminal:
            yield self._lines(totals)
            return
        columns = (TextColumn("  {task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True) as bars:
            tasks = {name: bars.add_task(escape(name), total=total) for name, total in totals.items()}

            def update(name: str, done: int) -> None:
                bars.update(tasks[name], completed=done)

            yield update

    def _lines(self, totals: dict[str, int]) -> Update:
        done_by_name = dict.fromkeys(totals, 0)
        said_s = time.monotonic()

        def update(name: str, done: int) -> None:
            nonlocal said_s
            done_by_name[name] = done
            if time.monotonic() - said_s >= LINE_EVERY_S:
                said_s = time.monotonic()
                self.say(f"{sum(done_by_name.values())} of {sum(totals.values())} chunks")

        return update

    def table(self) -> None:
        """Print the score on stdout."""
        out = Console(highlight=False)
        if not out.is_terminal:
            out = Console(highlight=False, width=PLAIN_WIDTH)
        title = f"Clipkeep demo: {self._verdict()}, {self.seconds:.0f} s"
        drawn = Table("what", "expected", "seen", "ok", title=title, title_justify="left")
        for row in self.rows:
            mark = "[green]ok[/]" if row.ok else "[bold red]FAILED[/]"
            drawn.add_row(escape(row.what), escape(row.expected), escape(row.seen), mark)
        out.print()
        out.print(drawn)

    def document(self) -> dict[str, Any]:
        """The score for programs."""
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "checks": [asdict(row) for row in self.rows],
        }

    def _verdict(self) -> str:
        failed = sum(not row.ok for row in self.rows)
        return f"{len(self.rows)} checks, " + ("all good" if self.ok else f"{failed} FAILED")
