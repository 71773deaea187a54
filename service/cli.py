"""The command line. `clipkeep --help` is the table of contents; every command's `--help` teaches it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Annotated

import structlog
import typer

from retention.eligibility import Reason
from service.commands import (
    accounts,
    agreement,
    books,
    consents,
    copying,
    corrections,
    demo,
    devices,
    dormancy,
    erasure,
    folder,
    granting,
    keys,
    methods,
    migrating,
    money,
    notices,
    operators,
    packages,
    payments,
    plans,
    privacy,
    refunds,
    reopening,
    serving,
    store,
    sweeping,
    sweeps,
)
from service.compiled import COMPILED, stale_modules
from service.lazy import with_lazy_groups
from storage.errors import CallerError, ClipkeepError

_log = structlog.get_logger("supervisor")


def _bench() -> typer.Typer:
    from bench.cli import app as bench_app

    return bench_app


app = typer.Typer(
    name="clipkeep",
    cls=with_lazy_groups({"bench": _bench}),
    help="Keeps camera recordings for exactly as long as the owner's plan says.\n\n"
    "Start with `clipkeep init`, `clipkeep device add --plan trial`, `clipkeep serve`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"clipkeep {version('clipkeep')} (hot path: {'compiled' if COMPILED else 'Python'})")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the release, and whether the hot path is compiled.",
            callback=_say_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Options of the program itself, before any command."""


folder.register(app)
serving.register(app)
devices.register(app)
packages.register(app)
plans.register(app)
money.register(app)
refunds.register(app)
methods.register(app)
payments.register(app)
books.register(app)
accounts.register(app)
dormancy.register(app)
corrections.register(app)
consents.register(app)
notices.register(app)
agreement.register(app)
privacy.register(app)
operators.register(app)
sweeping.register(app)
migrating.register(app)
granting.register(app)
copying.register(app)
reopening.register(app)
sweeps.register(app)
erasure.register(app)
keys.register(app)
store.register(app)
demo.register(app)


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    try:
        _require_text(sys.argv[1:])
        if stale := stale_modules():
            print(
                f"clipkeep: {', '.join(stale)}: changed, but what was compiled before runs; `make native`",
                file=sys.stderr,
            )
        app()  # prints wrong usage by itself, and always ends in SystemExit
    except KeyboardInterrupt:  # between the moments in which the command itself listens
        sys.exit(130)
    except ClipkeepError as error:
        _refuse(error.code, str(error), reasons=getattr(error, "reasons", ()))
    except OSError as error:
        # What no command expected: above all a full disk, or a file that this user may not touch.
        where = f"{error.filename}: " if error.filename else ""
        _refuse("os_error", f"{where}the system refused: {error.strerror or error}")


def _require_text(arguments: list[str]) -> None:
    """Whatever is not text could be neither stored, nor printed as JSON: a reason, a URL, a folder's name."""
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError as error:  # bytes that were no UTF-8 come as lone surrogates
            raise CallerError(
                f"argument {number} is not UTF-8 text: {ascii(argument)[:60]}; write it in UTF-8",
                code="bad_usage",
            ) from error


def _refuse(code: str, detail: str, reasons: Sequence[Reason] = ()) -> None:
    if "--json" in sys.argv:
        more = {"reasons": [asdict(reason) for reason in reasons]} if reasons else {}
        print(json.dumps({"error": code, "detail": detail, **more}))
    elif reasons:
        # The detail has them all in a row; a person reads them better one by one.
        head = detail.partition(reasons[0].detail)[0].rstrip()
        detail = "\n".join([head, *(f"  - {reason.detail} {reason.what_to_do}" for reason in reasons)])
    if structlog.is_configured():  # the command has a log on stderr, and this is a line of it
        _log.error("cannot_serve", code=code, detail=detail)
    else:
        print(f"clipkeep: {detail} ({code})", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
