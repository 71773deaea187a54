"""`privacy`: the versions of the privacy policy, which the agreement refers to (agreement 5)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service import terminal
from service.agreement import privacy
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.agreement import shown
from service.commands.plans import shown_instant
from service.commands.showing import text_of, when
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json

privacy_app = typer.Typer(
    help="The privacy policy: show, list and publish its versions.", no_args_is_help=True
)


@privacy_app.command("show")
def privacy_show(
    version: Annotated[
        int | None, typer.Option("--version", help="Which one; default the current.", min=1, max=1 << 31)
    ] = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print the privacy policy that anybody reads at `/v1/privacy-policy`, or an earlier version of it."""
    with open_folder(data) as opened:
        row = privacy.current(opened.desk, version)

    def draw() -> None:
        terminal.say(f"version {row.version}, published {shown_instant(row.published_ms)}")
        print(row.text)

    terminal.report({**shown(row), "text": row.text}, json, draw)


@privacy_app.command("list")
def privacy_list(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the versions of the privacy policy, oldest first; the last one is in force."""
    with open_folder(data) as opened:
        rows = privacy.published(opened.desk)
    cells = [[row.version, when(row.published_ms), len(row.text), row.sha256] for row in rows]
    columns = ["version", "published (UTC)", "characters", "SHA-256"]
    terminal.report(
        {"versions": [shown(row) for row in rows]},
        json,
        lambda: terminal.table("versions of the privacy policy", columns, cells),
    )


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
    is_new = row.version != before
    force = "is in force" if is_new else "is in force already"
    terminal.report({**shown(row), "new": is_new}, json, lambda: print(f"version {row.version} {force}"))


def register(app: typer.Typer) -> None:
    app.add_typer(privacy_app, name="privacy")
