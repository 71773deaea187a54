"""`corrections`: owners are asked to correct untrue data, and what follows when they don't (agreement 6.1.1)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from service import terminal
from service.agreement import corrections
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.plans import MAX_NUMBER
from service.commands.showing import Account, After, Limit, facts, next_after, next_page, shown_on, when
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json, Reason
from storage.rows.people import CorrectionRow

MAX_DAYS = 3650

corrections_app = typer.Typer(
    help="Untrue data of owners: ask for a correction, and what follows without one.", no_args_is_help=True
)


class Field(StrEnum):
    NAME = "name"
    EMAIL = "email"
    MOBILE = "mobile"


@corrections_app.command("ask")
def corrections_ask(
    account: Account,
    field: Annotated[
        list[Field],
        typer.Option("--field", help="What is untrue or missing: name, email or mobile; may be repeated."),
    ],
    detail: Annotated[str, typer.Option("--detail", help="What is wrong with it: the owner reads this.")],
    within_days: Annotated[
        int | None,
        typer.Option(
            "--within-days",
            help="How long the owner has. Default: `[agreement] correction_days`.",
            min=1,
            max=MAX_DAYS,
        ),
    ] = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Ask an owner to correct the data of the account by a day; the notice says what, and what follows (6.1.1).

    Without a correction the owner is reminded, the account suspended after that day, and its cancellation ordered
    `[agreement] correction_cancel_days` later. A running service takes these steps, or `clipkeep corrections step`.
    It stops by itself when all that was named is changed, by the owner or with `clipkeep account update`.

    Example: `clipkeep corrections ask --account 7 --field name --detail "we need your real name"`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason or detail)
        row = corrections.ask(
            opened.desk, actor, account, [str(one) for one in field], detail, within_days=within_days
        )
    terminal.report(_shown(row), json, lambda: _draw(row))


@corrections_app.command("list")
def corrections_list(
    account: Annotated[
        int | None, typer.Option("--account", help="Only those of this account.", min=1, max=MAX_NUMBER)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    after: After = 0,
    limit: Limit = 100,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List requests to correct data by number: those that are open, unless --all says otherwise."""
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        rows = corrections.listed(
            opened.desk, actor, account=account, open_only=not everything, after=after, limit=limit
        )
    shown = [_shown(row) for row in rows]

    def draw() -> None:
        columns = ["correction", "account", "state", "to be corrected", "by", "next step", "why"]
        cells = [
            [
                *(r.correction_id, r.account, r.state, r.fields),
                shown_on(r.due_on),
                shown_on(r.next_on),
                r.detail,
            ]
            for r in rows
        ]
        terminal.table("corrections", columns, cells)
        next_page(shown, limit, "correction")

    terminal.report({"corrections": shown, "next": next_after(shown, limit, "correction")}, json, draw)


@corrections_app.command("withdraw")
def corrections_withdraw(
    account: Account, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Take a request back: the data are right, or enough was said. A suspension that it made is lifted."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = corrections.withdraw(opened.desk, actor, account, reason)
    terminal.report(_shown(row), json, lambda: _draw(row))


@corrections_app.command("step")
def corrections_step(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Take the steps that are due: remind, suspend, order cancellations. Safe to repeat, and beside a running service.

    A running service does so by itself; this is for a folder that nothing serves, for cron. Nobody is suspended whom no
    notice of the request has reached. It refuses where this host's clock may be wrong (design.md, A wrong clock).
    """
    with open_folder(data) as opened:
        opened.witness.require()
        done = corrections.step_due(opened.desk)
    terminal.report(
        done,
        json,
        lambda: print(f"{done['remind']} reminded, {done['suspend']} suspended, {done['cancel']} cancelled"),
    )


def _shown(row: CorrectionRow) -> dict[str, Any]:
    return {
        "correction": row.correction_id,
        "account": row.account,
        "state": str(row.state),
        "fields": row.fields.split(),
        "detail": row.detail,
        "asked_ms": row.asked_ms,
        "due_on": shown_on(row.due_on),
        "next_on": shown_on(row.next_on),
        "ended_ms": row.ended_ms,
    }


def _draw(row: CorrectionRow) -> None:
    facts(
        f"correction {row.correction_id} of account {row.account}",
        [
            ("state", row.state),
            ("to be corrected", row.fields),
            ("why", row.detail),
            ("asked at (UTC)", when(row.asked_ms)),
            ("last day", shown_on(row.due_on)),
            ("next step", shown_on(row.next_on)),
            ("over since (UTC)", when(row.ended_ms)),
        ],
    )


def register(app: typer.Typer) -> None:
    app.add_typer(corrections_app, name="corrections")
