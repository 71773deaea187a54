"""`agreement`: the versions of the text that owners accept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.agreement import versions
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.showing import text_of
from service.commands.versions import Version, report_published, report_text, report_versions
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json

agreement_app = typer.Typer(
    help="The service agreement: show, list and publish its versions.", no_args_is_help=True
)


@agreement_app.command("show")
def agreement_show(
    version: Version = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print the text of the agreement that new accounts accept, or of an earlier version."""
    with open_folder(data) as opened:
        row = versions.current(opened.desk, version)
    report_text(row, json)


@agreement_app.command("list")
def agreement_list(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the versions of the agreement, oldest first; the last one is what new accounts accept."""
    with open_folder(data) as opened:
        rows = versions.published(opened.desk)
    report_versions(rows, "versions of the agreement", json)


@agreement_app.command("publish")
def agreement_publish(
    file: Annotated[Path, typer.Option("--file", help="The text, in UTF-8; - for stdin.")],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Make a text the current version of the agreement; the same text again changes nothing.

    From now on new accounts accept it. Who has an account and goes on using it is deemed to have accepted it, which is
    recorded at the next log-in and purchase; it blocks nobody (agreement 11.2, 11.4). A version is never changed or
    taken back: publish another one. To tell the owners: `clipkeep notices announce`.

    Example: `clipkeep agreement publish --file agreement-2027.txt`
    """
    text = text_of(file, "--file")
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        before = versions.current(opened.desk).version
        row = versions.publish(opened.desk, actor, text)
    report_published(row, before, json)


def register(app: typer.Typer) -> None:
    app.add_typer(agreement_app, name="agreement")
