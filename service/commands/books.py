"""`books check`: whether gateway, payments, plans and bitmap say the same."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from service import terminal
from service.agreement import auditing
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json

DEFAULT_DAYS = 62
"""Two months: what a gateway's operator can still be asked about."""

books_app = typer.Typer(help="The account books: whether they balance.", no_args_is_help=True)


@books_app.command("check")
def books_check(
    days: Annotated[
        int,
        typer.Option(
            "--days",
            help="Payments of so many last days are looked up at the payment gateway, one call each; 0: none.",
            min=0,
            max=36_500,
        ),
    ] = DEFAULT_DAYS,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Compare the payment gateway, payments, plans and the entitlement bitmap, both ways, and say what to do.

    Of every charge no more is given back than it was, and all of it when nothing was had for it. For every plan is kept
    what its days cost, by the fees of the day of purchase. What the books say was made is at the gateway, and what they
    say was refused is not; the recording gateway's list is compared the other way round, too. What the bitmap allows is
    what the plans say. Refunds that were refused, and what has been pending for two days, are named as well. Nothing is
    changed, and the service may run. Exit code 1: there are findings, or the gateway did not answer.
    """
    with open_folder(data) as opened:
        audit = auditing.check_books(opened.desk, opened.bitmap, days=days)

    def draw() -> None:
        columns = ["code", "of", "what", "what to do"]
        rows = [[f.code, f.subject, f.detail, f.what_to_do] for f in audit.findings]
        if rows:
            terminal.table(f"{audit.finding_count} findings", columns, rows)
        print(
            f"compared {audit.accounts} accounts, {audit.devices} devices and {audit.payments} payments; looked"
            f" {audit.asked} up at the gateway"
            + ("" if audit.listed is None else f", and {audit.listed} of its records in the books")
            + ("" if audit.finding_count else ": all of it agrees")
        )

    terminal.report(auditing.as_dict(audit), json, draw)
    if audit.unanswered:
        terminal.say(
            f"{audit.unanswered} payments could not be looked up: the gateway does not answer; try again"
        )
    if audit.finding_count or audit.unanswered:
        sys.exit(1)


def register(app: typer.Typer) -> None:
    app.add_typer(books_app, name="books")
