"""`method`: what an account pays with (agreement 7.2)."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

import typer

from service import terminal
from service.agreement import methods
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.showing import Account, when
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.rows.accounts import MethodRow

Method = Annotated[
    str, typer.Option(help="The method, as `clipkeep method list` names it.", show_default=False)
]

method_app = typer.Typer(help="Payment methods of an account: what it pays with.", no_args_is_help=True)


@method_app.command("list")
def method_list(account: Account, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the payment methods of an account, the newest first.

    The payment gateway keeps them; here is what their owner knows them by, and never a card's number. A `pending` one
    is entered by its owner at its url.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        found = methods.methods_of(opened.desk, actor, account)

    def draw() -> None:
        cells = [[row.reference, row.state, row.label, when(row.made_ms), row.url] for row in found]
        heads = ["method", "state", "label", "set up (UTC)", "url"]
        terminal.table(f"payment methods of account {account}", heads, cells)

    terminal.report({"account": account, "methods": [_shown(row) for row in found]}, json, draw)


@method_app.command("add")
def method_add(
    account: Account, reason: Why = "", as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Set up a new payment method, and tell where its owner enters it.

    With [payments] gateway = "http" a purchase names one of these. Send the url to the owner: the method is usable when
    it was entered there.
    """
    reference = f"method-{account}-{secrets.token_hex(8)}"
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = methods.set_up(opened.desk, actor, account, reference)

    def draw() -> None:
        terminal.say(f"{row.reference}: {row.state}. {row.url or row.label}")

    terminal.report(_shown(row), json, draw)


@method_app.command("use")
def method_use(
    account: Account,
    method: Method,
    plan: Annotated[
        int | None, typer.Option(help="One plan that renews itself; default: all of the account.", min=1)
    ] = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Charge the plans that renew themselves to another method from now on.

    A charge that failed is tried again at the next run of `clipkeep renew`.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        done = methods.use(opened.desk, actor, account, method, plan_id=plan)

    def draw() -> None:
        named = ", ".join(map(str, done)) or "none: no plan renews itself"
        terminal.say(f"charged to {method} from now on: {named}")

    terminal.report({"account": account, "method": method, "plans": done}, json, draw)


@method_app.command("remove")
def method_remove(
    account: Account,
    method: Method,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Remove a payment method, at the gateway too. One that a plan is charged to when it renews itself stays."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        methods.remove(opened.desk, actor, account, method)
    terminal.report({"removed": method}, json, lambda: terminal.say(f"{method} is removed"))


def _shown(row: MethodRow) -> dict[str, Any]:
    return {
        "method": row.reference,
        "state": str(row.state),
        "label": row.label,
        "url": row.url or None,
        "expires_ms": row.until_ms,
        "made_ms": row.made_ms,
    }


def register(app: typer.Typer) -> None:
    app.add_typer(method_app, name="method")
