"""`accounts`: those that nobody uses (agreement 6.1.2)."""

from __future__ import annotations

from typing import Annotated

import typer

from retention.operators import Act
from service import terminal
from service.agreement import standing
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.showing import After, Limit, counted, next_after, next_page, shown_on, when
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json

accounts_app = typer.Typer(help="All accounts: those that nobody uses.", no_args_is_help=True)


@accounts_app.command("dormant")
def accounts_dormant(
    suspend: Annotated[
        bool, typer.Option("--suspend", help="Suspend all of them that are not, and tell their owners.")
    ] = False,
    after: After = 0,
    limit: Limit = 100,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List accounts without a log-in, upload or playback for more than `[agreement] dormant_days` (365) days.

    Without --suspend nothing is changed. With it all dormant accounts are suspended, whatever --after and --limit say,
    each after one more look at it; nothing is erased. A suspended one that stays dormant is still listed: cancel it
    with `clipkeep account cancel`, or resume it when its owner comes back (agreement 6.1.2).
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason, act=Act.DECIDE if suspend else None)
        if suspend:
            opened.witness.require()
            with terminal.progress_bar() as progress:
                done = standing.suspend_dormant(
                    opened.desk, actor, lambda seen, of: progress("dormant accounts", seen, of)
                )
            terminal.report(
                {"suspended": done},
                json,
                lambda: print(
                    f"{counted(len(done), 'account')} suspended: {', '.join(map(str, done))}. Their owners are told."
                    if done
                    else "no account is dormant that is not suspended"
                ),
            )
            return
        found = standing.dormant(opened.desk, after=after, limit=limit)
    rows = [
        {
            "account": row.account,
            "created_ms": row.created_ms,
            "last_used_on": shown_on(row.last_used_on),
            "suspended": row.suspended,
        }
        for row in found
    ]

    def draw() -> None:
        cells = [
            [row.account, when(row.created_ms), shown_on(row.last_used_on) or "never", row.suspended]
            for row in found
        ]
        columns = ["account", "registered (UTC)", "last used", "suspended"]
        terminal.table("dormant accounts", columns, [[*row[:3], "yes" if row[3] else "no"] for row in cells])
        next_page(rows, limit, "account")
        if any(not row.suspended for row in found):
            print("nothing was changed: suspend them with --suspend")

    terminal.report({"accounts": rows, "next": next_after(rows, limit, "account")}, json, draw)


def register(app: typer.Typer) -> None:
    app.add_typer(accounts_app, name="accounts")
