"""`account consents`, `account consent`, `partners`: what owners say of what is not owed (agreement 2.6, 2.7)."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import typer

from service import terminal
from service.agreement import consents, sharing
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.showing import Account, counted, when
from service.folder import open_folder, private
from service.terminal import DEFAULT_DATA, Data, Json, Reason
from storage.errors import CallerError, WorldError

partners_app = typer.Typer(
    help="Partners that are given data of owners who consented: list them, export.", no_args_is_help=True
)


def account_consents(
    account: Account, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """List what an owner has said of what is not owed: advertisements, and data given to partners."""
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        found = consents.said(opened.desk, actor, account)
    rows = [
        {
            "subject": one.subject,
            "fields": list(one.fields),
            "given": one.given,
            "how": one.how,
            "at_ms": one.at_ms,
        }
        for one in found
    ]

    def draw() -> None:
        words = {None: "nothing said", True: "yes", False: "no"}
        cells = [
            [one.subject, " ".join(one.fields), words[one.given], one.how, when(one.at_ms)] for one in found
        ]
        terminal.table("consents", ["subject", "data", "said", "how", "at (UTC)"], cells)

    terminal.report({"account": account, "consents": rows}, json, draw)


def account_consent(
    account: Account,
    subject: Annotated[str, typer.Option("--to", help="advertisements, or partner:NAME.")],
    given: Annotated[bool, typer.Option("--yes/--no", help="What the owner has said.")],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Note what an owner has said by phone or letter; owners say it over HTTP themselves.

    Example: `clipkeep account consent --account 7 --to advertisements --no`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        consents.say(opened.desk, actor, account, subject, given)
    document = {"account": account, "subject": subject, "given": given}
    terminal.report(document, json, lambda: print(f"{subject}: {'yes' if given else 'no'}"))


@partners_app.command("list")
def partners_list(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the partners of `[agreement] partners`, and what each is given of owners who consent to it."""
    with open_folder(data) as opened:
        found = sharing.partners(opened.desk)
    rows = [{"partner": name, "fields": list(fields)} for name, fields in found.items()]
    cells = [[name, " ".join(fields)] for name, fields in found.items()]
    terminal.report(
        {"partners": rows}, json, lambda: terminal.table("partners", ["partner", "is given"], cells)
    )


@partners_app.command("export")
def partners_export(
    partner: Annotated[str, typer.Argument(help="Its name in `[agreement] partners`.")],
    to: Annotated[Path, typer.Option("--to", help="A new file, CSV.")],
    reason: Reason,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Write what a partner is given into a file: of active accounts whose owners consented to this one.

    Each account's history says that its data were given, which, to whom and why, before they are in the file. Nothing
    else is ever given to anybody (agreement 2.7).

    Example: `clipkeep partners export weather --to weather.csv --reason "monthly delivery"`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        fields = sharing.partners(opened.desk).get(partner, ())
        try:
            with open(to, "x", encoding="utf-8", newline="", opener=private) as file:
                writer = csv.DictWriter(file, fields or ("account",))
                writer.writeheader()
                count = sharing.share(opened.desk, actor, partner, reason, writer.writerows)
        except FileExistsError:
            raise CallerError(
                "there is a file of this name; name a new one", subject=str(to), code="exists"
            ) from None
        except CallerError:
            to.unlink()
            raise
        except OSError as error:
            raise WorldError(
                f"it can't be written: {error.strerror or error}", subject=str(to), code="folder_unavailable"
            ) from error
    document = {"partner": partner, "accounts": count, "to": str(to)}
    terminal.report(document, json, lambda: print(f"{counted(count, 'account')} in {to}"))


def add_to(account_app: typer.Typer) -> None:
    """Mount the commands among those of `clipkeep account`."""
    account_app.command("consents")(account_consents)
    account_app.command("consent")(account_consent)


def register(app: typer.Typer) -> None:
    app.add_typer(partners_app, name="partners")
