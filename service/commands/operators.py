"""`operator-token`: who may ask over HTTP what this command line may."""

from __future__ import annotations

from typing import Annotated

import typer

from service import terminal
from service.agreement import sessions
from service.agreement.sessions import MAX_OPERATOR_HOURS
from service.commands.plans import shown_instant
from service.commands.showing import counted
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json


def operator_token(
    hours: Annotated[
        float, typer.Option("--hours", help="How long it lasts.", min=0.01, max=MAX_OPERATOR_HOURS)
    ] = 24.0,
    revoke_all: Annotated[
        bool, typer.Option("--revoke-all", help="End all operators' tokens at once, and make none.")
    ] = False,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print a bearer token for the operators' part of the API: accounts, cancellations, notices, announcements.

    It is not shown again, and may all that operators may: give each tool and person one of their own, for as short as
    will do. Only its hash is kept, so a single one can't be revoked: --revoke-all ends all of them.

    Example: `curl -H "Authorization: Bearer $(clipkeep operator-token --hours 1)" http://127.0.0.1:8081/v1/accounts`
    """
    with open_folder(data) as opened:
        if revoke_all:
            ended = sessions.end_operator_tokens(opened.desk)
            terminal.report(
                {"revoked": ended}, json, lambda: print(f"void from now on: {counted(ended, 'token')}")
            )
            return
        token, session = sessions.operator_token(opened.desk, hours)
    document = {"token": token, "expires_ms": session.expires_ms}

    def draw() -> None:
        print(token)
        terminal.say(f"it lasts until {shown_instant(session.expires_ms)}, and is not shown again")

    terminal.report(document, json, draw)


def register(app: typer.Typer) -> None:
    app.command("operator-token")(operator_token)
