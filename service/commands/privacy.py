"""`privacy`: the versions of the privacy policy, which the agreement refers to (agreement 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.agreement import privacy
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.showing import text_of
from service.commands.versions import Version, report_published, report_text, report_versions
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json

privacy_app = typer.Typer(
    help="The privacy policy: show, list and publish its versions.", no_args_is_help=True
)


@privacy_app.command("show")
def privacy_show(
    version: Version = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print the privacy policy that anybody reads at `/v1/privacy-policy`, or an earlier version of it."""
    with open_folder(data) as opened:
        row = privacy.current(opened.desk, version)
    report_text(row, json)


@privacy_app.command("list")
def privacy_list(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the versions of the privacy policy, oldest first; the last one is in force."""
    with open_folder(data) as opened:
        rows = privacy.published(opened.desk)
    report_versions(rows, "versions of the privacy policy", json)


@privacy_app.command("publish")
def privacy_publish(
    file: Annotated[Path, typer.Option("--file", help="The text, in UTF-8; - for stdin.")],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Make a text the current privacy policy; the same text again changes nothing.

    The one that comes with Clipkeep says what the software keeps: publish your own before you register owners. Nobody
    has to accept it. A version is never changed or taken back. To tell the owners: `clipkeep notices announce`.

    Example: `clipkeep privacy publish --file privacy-2027.txt`
    """
    text = text_of(file, "--file")
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        before = privacy.current(opened.desk).version
        row = privacy.publish(opened.desk, actor, text)
    report_published(row, before, json)


def register(app: typer.Typer) -> None:
    app.add_typer(privacy_app, name="privacy")
