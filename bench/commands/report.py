"""`bench report`: a page from the JSON of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.console import JsonOption, errors_told, hand_out
from bench.report import read_documents, write_report


def report(
    results: Annotated[list[Path], typer.Argument(help="Files that --output of the benches wrote.")],
    output: Annotated[
        Path, typer.Option("--output", help="page.html, or a folder: then each plot is a file too.")
    ] = Path("bench-results/report.html"),
    as_json: JsonOption = False,
) -> None:
    """A page with plots, from the results of benches.

    What: for each run its machine, commit, settings and promises, what makes it
    doubtful, plots (SVG, no script, nothing loaded from elsewhere), and all
    figures.

    How: run benches with --output FILE.json, then this with all of the files.
    With the results of `bench limits` among them, the limit is drawn beside
    CPU figures.

    Good: a page without red lines: a complete run on a quiet machine.
    """
    with errors_told():
        written = write_report(read_documents(results), output)
        hand_out({"written": [str(path) for path in written]}, None, as_json)
    if not as_json:
        typer.echo(f"wrote {written[0]}" + (f" and {len(written) - 1} plots" if written[1:] else ""))
