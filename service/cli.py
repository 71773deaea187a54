"""The command line. `clipkeep --help` is the table of contents; every command's `--help` teaches it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType
from typing import Annotated

import structlog
import typer

from retention.eligibility import Reason
from service.compiled import COMPILED, stale_modules
from service.lazy import with_lazy_groups
from storage.errors import CallerError, ClipkeepError

_log = structlog.get_logger("supervisor")


def _bench() -> typer.Typer:
    from bench.cli import app as bench_app

    return bench_app


def _say_version(asked: bool) -> None:
    if asked:
        print(f"clipkeep {version('clipkeep')} (hot path: {'compiled' if COMPILED else 'Python'})")
        raise typer.Exit


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


COMMANDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "init": ("folder",),
        "config": ("folder",),
        "clock": ("folder",),
        "serve": ("serving",),
        "hosts": ("hosts",),
        "host": ("hosts",),
        "device": ("devices",),
        "viewer-token": ("devices",),
        "recordings": ("devices",),
        "package": ("packages",),
        "plan": ("plans",),
        "renew": ("money",),
        "refund": ("refunds",),
        "method": ("methods",),
        "payments": ("payments",),
        "books": ("books",),
        "account": ("accounts",),
        "accounts": ("dormancy",),
        "corrections": ("corrections",),
        "partners": ("consents",),
        "notices": ("notices",),
        "agreement": ("agreement",),
        "privacy": ("privacy",),
        "operator": ("operators",),
        "operator-token": ("operators",),
        "schedule": ("schedule",),
        "sweep": ("sweeping",),
        "check": ("sweeping",),
        "catalog": ("sweeping", "migrating", "granting", "copying", "reopening"),
        "sweeps": ("sweeps",),
        "erasure": ("erasure",),
        "keys": ("keys",),
        "backup": ("backups",),
        "restore": ("backups",),
        "store": ("store",),
        "demo": ("demo",),
    }
)
"""The modules of `service.commands` that have each command, or group of commands, in the order of `--help`."""


def application(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line, with these commands and those that their modules have besides."""
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
    app.callback()(_options)
    for module in dict.fromkeys(module for name in commands for module in COMMANDS[name]):
        import_module(f"service.commands.{module}").register(app)
    return app


@cache
def _command(commands: tuple[str, ...]) -> Callable[[], object]:
    """What parses them. Looking at all types of their parameters takes most of the time, and a process that runs many
    commands, as tests do, needs it once."""
    return typer.main.get_command(application(commands))


def _asked_for(arguments: Sequence[str]) -> Iterable[str]:
    """The commands that these arguments are about: one is loaded in half the time of all."""
    if not arguments or arguments[0].startswith("-"):
        return COMMANDS
    if arguments[0] == "bench":
        return ()
    return (arguments[0],) if arguments[0] in COMMANDS else COMMANDS


def main() -> None:
    """Run one command. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted."""
    try:
        _require_text(sys.argv[1:])
        if stale := stale_modules():
            print(
                f"clipkeep: {', '.join(stale)}: changed, but what was compiled before runs; `make native`",
                file=sys.stderr,
            )
        _command(
            tuple(_asked_for(sys.argv[1:]))
        )()  # prints wrong usage by itself, and always ends in SystemExit
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
