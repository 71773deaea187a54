"""`payments list`, `export` and `abandon`: payments of all accounts."""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from service import terminal
from service.agreement import exporting, open_purchases, records
from service.agreement.charging import money_of
from service.agreement.details import refusal_of
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.plans import MAX_NUMBER, shown_money
from service.commands.showing import After, Limit, next_after, next_page, when
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.days import parse_date
from storage.disk import is_full, make_room
from storage.errors import CallerError, WorldError
from storage.rows.accounts import PaymentKind, PaymentState

payments_app = typer.Typer(
    help="Payments of all accounts: what waits, what was refused, and a period as CSV.", no_args_is_help=True
)


@payments_app.command("list")
def payments_list(
    kind: Annotated[PaymentKind | None, typer.Option("--kind", help="Only those.")] = None,
    state: Annotated[PaymentState | None, typer.Option("--state", help="Only those.")] = None,
    older_than_h: Annotated[
        float | None,
        typer.Option(
            "--older-than-h", help="Only those made so many hours ago, or earlier.", min=0, max=10**7
        ),
    ] = None,
    after: After = 0,
    limit: Limit = 100,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List payments of all accounts, in order of number, with their age and why one was refused. For example

    clipkeep payments list --state pending --older-than-h 2     the gateway has not answered

    clipkeep payments list --kind refund --state failed         somebody has to see to it
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        found = records.all_payments(
            opened.desk,
            actor,
            kind=kind,
            state=state,
            older_than_ms=None if older_than_h is None else round(older_than_h * 3_600_000),
            after=after,
            limit=limit,
        )
        now_ms = opened.desk.now_ms()
    rows = []
    for row in found:
        refusal = refusal_of(row)
        rows.append(
            {
                "payment": row.payment_id,
                "account": row.account,
                "device": row.device,
                "plan_id": row.plan_id,
                "kind": str(row.kind),
                "amount": shown_money(money_of(row)),
                "state": str(row.state),
                "at_ms": row.at_ms,
                "age_s": max(0, (now_ms - row.at_ms) // 1000),
                "attempts": row.attempts,
                "reference": row.reference,
                "why": row.why,
                "refused": None if refusal is None else refusal.detail,
            }
        )

    def draw() -> None:
        columns = ["payment", "account", "at (UTC)", "age", "kind", "amount", "state", "reference", "why"]
        cells = [
            [
                *(r.payment_id, r.account, when(r.at_ms), _age(now_ms - r.at_ms), r.kind, money_of(r)),
                *(r.state, r.reference, shown["refused"] or r.why),
            ]
            for r, shown in zip(found, rows, strict=True)
        ]
        terminal.table("payments", columns, cells)
        next_page(rows, limit, "payment")

    terminal.report({"payments": rows, "next": next_after(rows, limit, "payment")}, json, draw)


@payments_app.command("export")
def payments_export(
    first: Annotated[str, typer.Option("--from", help="First day (UTC), as 2026-01-01.")],
    last: Annotated[str, typer.Option("--through", help="Last day (UTC), as 2026-01-31.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to make (0600); default: standard output.")
    ] = None,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
) -> None:
    """Write the payments of a period as CSV: those made on its days, by time; then what stays of closed accounts.

    Of a closed account's payments number, amount and day stay, and nothing of whose they were (agreement 6.5.4). The
    sum of `moved_minor` is what was kept. A text that a spreadsheet could take for a formula begins with an apostrophe.
    It is written as it is read, however long the period. Example:

    clipkeep payments export --from 2026-01-01 --through 2026-01-31 --out january.csv
    """
    period = (_day(first, "--from"), _day(last, "--through"))
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        lines = exporting.lines(opened.desk, actor, *period)
        if out is None:
            for line in lines:
                sys.stdout.write(line)
            return
        try:
            descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="utf-8", newline="") as file:
                file.writelines(lines)
        except FileExistsError as error:
            raise CallerError(
                "it is there already; name another file", subject=str(out), code="exists"
            ) from error
        except OSError as error:
            detail = make_room(out) if is_full(error) else str(error.strerror or error)
            raise WorldError(
                f"the file could not be written: {detail}", subject=str(out), code="os_error"
            ) from error


@payments_app.command("abandon")
def payments_abandon(
    device: Annotated[int, typer.Option("--device", help="Whose purchase it is.", min=1, max=MAX_NUMBER)],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Abandon a purchase of a device that the gateway has not answered: it is never charged, or given back if it was.

    While one is open, another purchase for the device waits for it; it expires after `purchase_ttl_h`. `abandoned`: the
    gateway has not said whether it was charged; `clipkeep renew` asks again.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        found = open_purchases.abandon(opened.desk, actor, device)
    rows = [
        {
            "payment": one.payment_id,
            "device": one.device,
            "package": one.package,
            "fee": shown_money(one.fee),
            "state": str(one.state),
        }
        for one in found
    ]
    terminal.report(
        {"purchases": rows},
        json,
        lambda: print(
            "\n".join(f"payment {one.payment_id}: {one.package}, {one.fee}: {one.state}" for one in found)
        ),
    )


def _day(text: str, option: str) -> date:
    return parse_date(text, field=option)


def _age(ms: int) -> str:
    minutes = max(0, ms) // 60_000
    hours, days = minutes // 60, minutes // 1440
    return f"{days} d" if days > 1 else f"{hours} h" if hours > 1 else f"{minutes} min"


def register(app: typer.Typer) -> None:
    app.add_typer(payments_app, name="payments")
