"""The command line. `clipkeep --help` is the table of contents; every command's `--help` teaches it."""

from __future__ import annotations

import json
import sys

import typer

from bench.cli import app as bench_app
from service.commands import (
    demo,
    devices,
    erasure,
    folder,
    keys,
    migrating,
    money,
    plans,
    serving,
    store,
    sweeping,
    sweeps,
)
from storage.errors import ClipkeepError

app = typer.Typer(
    name="clipkeep",
    help="Keeps camera recordings for exactly as long as the owner's plan says.\n\n"
    "Start with `clipkeep init`, `clipkeep device add --plan trial`, `clipkeep serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)
folder.register(app)
serving.register(app)
devices.register(app)
plans.register(app)
money.register(app)
sweeping.register(app)
migrating.register(app)
sweeps.register(app)
erasure.register(app)
keys.register(app)
store.register(app)
demo.register(app)
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    try:
        app()  # prints wrong usage by itself, and always ends in SystemExit
    except ClipkeepError as error:
        _refuse(error.code, str(error))
    except OSError as error:
        # What no command expected: above all a full disk, or a file that this user may not touch.
        where = f"{error.filename}: " if error.filename else ""
        _refuse("os_error", f"{where}the system refused: {error.strerror or error}")


def _refuse(code: str, detail: str) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": code, "detail": detail}))
    print(f"clipkeep: {detail} ({code})", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
