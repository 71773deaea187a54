"""`account events`, `account payments`: what happened to an account, and what was paid."""

from __future__ import annotations

import typer

from retention.money import Money
from service import terminal
from service.agreement import records
from service.commands.acting import BUILT_IN, As, acting
from service.commands.showing import Account, After, Limit, next_after, next_page, when
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json


def events(
    account: Account,
    after: After = 0,
    limit: Limit = 100,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List the history of an account, oldest first: what happened, by whom, to which device, and why.

    Operators are told by name: `system` is whoever ran a command without --as. `watched` and `viewer_token` say who
    could watch. It is append-only, and goes with the account. With --json each line has its facts: the state after it,
    until when somebody could watch.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        found = records.events(opened.desk, actor, account, after=after, limit=limit)
    rows = [
        {
            "event": row.event_id,
            "at_ms": row.at_ms,
            "what": row.what,
            "who": row.who,
            "operator": row.operator,
            "why": row.why,
            "device": row.device,
            "facts": row.facts,
        }
        for row in found
    ]

    def draw() -> None:
        columns = ["event", "at (UTC)", "what", "who", "device", "why"]
        cells = [[r.event_id, when(r.at_ms), r.what, r.operator or r.who, r.device, r.why] for r in found]
        terminal.table(f"history of account {account}", columns, cells)
        next_page(rows, limit, "event")

    terminal.report(
        {"account": account, "events": rows, "next": next_after(rows, limit, "event")}, json, draw
    )


def payments(
    account: Account,
    after: After = 0,
    limit: Limit = 100,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List the charges, refunds and credits of an account, oldest first, by the references the gateway knows them by.

    `pending` ones are finished by `clipkeep renew`; a refund that `failed` is to be paid by other means.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        found = records.payments(opened.desk, actor, account, after=after, limit=limit)
    rows = [
        {
            "payment": row.payment_id,
            "at_ms": row.at_ms,
            "kind": str(row.kind),
            "minor": row.minor,
            "currency": row.currency,
            "state": str(row.state),
            "plan_id": row.plan_id,
            "device": row.device,
            "why": row.why,
            "reference": row.reference,
        }
        for row in found
    ]

    def draw() -> None:
        columns = ["payment", "at (UTC)", "kind", "amount", "state", "device", "plan", "why", "reference"]
        cells = [
            [
                *(r.payment_id, when(r.at_ms), r.kind, Money(r.minor, r.currency), r.state),
                *(r.device, r.plan_id, r.why, r.reference),
            ]
            for r in found
        ]
        terminal.table(f"payments of account {account}", columns, cells)
        next_page(rows, limit, "payment")

    terminal.report(
        {"account": account, "payments": rows, "next": next_after(rows, limit, "payment")}, json, draw
    )


def add_to(account_app: typer.Typer) -> None:
    """Mount the commands among those of `clipkeep account`."""
    account_app.command("events")(events)
    account_app.command("payments")(payments)
