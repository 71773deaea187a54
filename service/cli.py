"""The command line. `clipkeep --help` is the table of contents; every command's `--help` teaches it."""

from __future__ import annotations

import json
import sys

import click
import typer

from bench.cli import app as bench_app
from service.commands import devices, folder, serving, sweeping
from storage.errors import ClipkeepError

app = typer.Typer(
    name="clipkeep",
    help="Keeps camera recordings for exactly as long as the owner's plan says.\n\n"
    "Start with `clipkeep init`, `clipkeep device add --plan trial`, `clipkeep serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
folder.register(app)
serving.register(app)
devices.register(app)
sweeping.register(app)
app.add_typer(bench_app, name="bench")


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    try:
        app(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except ClipkeepError as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": error.code, "detail": str(error)}))
        print(f"clipkeep: {error} ({error.code})", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
