"""`account`: who owns devices, by what addresses they are reached, and whether they may go on."""

from __future__ import annotations

import sys
from secrets import token_urlsafe
from typing import Annotated, Any

import typer

from service import terminal
from service.agreement import closing, devices, records, registration, sessions, standing
from service.agreement.desk import OPERATOR, Desk
from service.agreement.passwords import MAX_PASSWORD_BYTES
from service.commands import account_records, closings, consents
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.showing import (
    Account,
    After,
    Limit,
    account_facts,
    facts,
    next_after,
    next_page,
    shown_account,
    state_of,
    titled,
    when,
)
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json, Reason
from storage.errors import CallerError
from storage.rows.accounts import AccountRow, AccountState, ClosingState

account_app = typer.Typer(
    help="Accounts: register, look at, suspend and resume; their history; their cancellation.",
    no_args_is_help=True,
)

Code = Annotated[
    str, typer.Option("--code", help="As the owner reads it in the notice, such as K7QM-2X9R-TBD4.")
]


@account_app.command("add")
def account_add(
    accepts: Annotated[
        int,
        typer.Option(
            "--accepts",
            help="The version of the agreement that the owner has accepted: see `clipkeep agreement show`.",
            min=1,
            max=1 << 31,
        ),
    ],
    email: Annotated[str | None, typer.Option("--email", help="The owner's e-mail address.")] = None,
    mobile: Annotated[
        str | None, typer.Option("--mobile", help="The owner's number, as +491712345678.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What the account is called; may be left out.")] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the owner's password from the first line of stdin.")
    ] = False,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Register an account for an owner, who has accepted the agreement.

    It needs an e-mail address, a mobile number, or both. Each gets its own code; with one the owner activates the
    account, over HTTP or by you: `clipkeep account activate`. Without --password-stdin nobody knows its password, and
    the owner sets one after that, with the code of `clipkeep account password-reset`. Owners who
    register over HTTP need none of this.

    Example: `clipkeep account add --email ada@example.org --name Ada --accepts 1`
    """
    password = _first_line() if password_stdin else token_urlsafe(32)
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        opened.settle_numbers()
        row = registration.register(
            opened.desk,
            email=email,
            mobile=mobile,
            password=password,
            name=name,
            accepts_version=accepts,
            client=None,
            actor=actor,
        )
    terminal.report(
        shown_account(row),
        json,
        lambda: _told(
            row,
            f"A code is on its way to its addresses. Next: clipkeep account activate --account {row.account} --code …",
        ),
    )


@account_app.command("activate")
def account_activate(
    account: Account,
    code: Code,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Activate an account with the code of one of its addresses, which it then has: it may have devices and plans.

    Bind the other address with its own code: `clipkeep account confirm`.
    For an owner who tells you the code; over HTTP owners do it themselves. A code lasts `[agreement] code_minutes`;
    a lost or old one is replaced by `clipkeep account send-code`.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = registration.activate(opened.desk, account, code, actor=actor)
    _report(row, json, f"It may have devices now: clipkeep device add --account {account}")


@account_app.command("send-code")
def account_send_code(
    account: Account, reason: Why = "", as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Send the activation codes to the account's addresses again: the same ones as long as they are good.

    It goes out with the next `clipkeep notices send`, which a running service does by itself.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        registration.resend_code(opened.desk, account, None, actor=actor)
        row = records.account(opened.desk, actor, account)
    _report(
        row, json, f"The code is on its way. Next: clipkeep account activate --account {account} --code …"
    )


@account_app.command("password-reset")
def account_password_reset(
    account: Account, reason: Why = "", as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Send a code for a new password to all addresses of the account, for an owner who asks you for it.

    The owner sets the password with it over HTTP (`PUT /v1/password-resets`), and all sessions end. The old password
    works until then: when somebody else has it, `clipkeep account suspend` first.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = sessions.send_reset(opened.desk, actor, account)
    _report(row, json, "A code for a new password is on its way to its addresses.")


@account_app.command("update")
def account_update(
    account: Account,
    name: Annotated[str | None, typer.Option("--name", help="Its new name.")] = None,
    email: Annotated[
        str | None, typer.Option("--email", help="Its new e-mail address; an empty one removes it.")
    ] = None,
    mobile: Annotated[
        str | None, typer.Option("--mobile", help="Its new mobile number; an empty one removes it.")
    ] = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Correct the name of an account, or ask for another address; what is left out stays.

    A code goes to a new address, which counts from `clipkeep account confirm` on, and the old address is told then. The
    only address of an account can't be removed. That something was changed is kept in its history, not what.
    """
    if name is None and email is None and mobile is None:
        raise CallerError("say what is to be changed: --name, --email or --mobile", code="bad_usage")
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = registration.update(opened.desk, actor, account, name=name, email=email, mobile=mobile)
    sent = [
        kind for kind, text in (("email", email), ("mobile", mobile)) if text and text != getattr(row, kind)
    ]
    _report(
        row,
        json,
        *(
            f"A code is on its way to the new address. Next: clipkeep account confirm --account {account}"
            f" --kind {kind} --code …"
            for kind in sent
        ),
    )


@account_app.command("confirm")
def account_confirm(
    account: Account,
    kind: Annotated[str, typer.Option("--kind", help="Which address: email or mobile.")],
    code: Code,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Bind a new address to its account, with the code that `clipkeep account update` sent there."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = registration.confirm_address(opened.desk, account, kind, code, actor=actor)
    _report(row, json)


@account_app.command("list")
def account_list(
    state: Annotated[
        AccountState | None,
        typer.Option("--state", help="Only those: new (not activated), active, cancelled."),
    ] = None,
    waiting: Annotated[
        ClosingState | None,
        typer.Option("--closing", help="Only those whose cancellation is requested or approved."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Only the one with this e-mail address or mobile number."),
    ] = None,
    after: After = 0,
    limit: Limit = 100,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List accounts by number; with --closing those that wait for your answer, or for the delivery of a notice.

    `clipkeep account list --closing requested` is what there is to approve or to reject; `clipkeep account list
    --address ada@example.org` says whose address that is.
    """
    if sum(asked is not None for asked in (state, waiting, address)) > 1 or waiting is ClosingState.NONE:
        raise CallerError(
            "give one of --state, --closing (requested or approved) and --address", code="bad_usage"
        )
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        desk = opened.desk
        if address is not None:
            found = sessions.find(desk, actor, address)
            rows = [] if found is None else [found]
        elif waiting is not None:
            rows = closing.under_way(desk, actor, waiting, after=after, limit=limit)
        else:
            rows = records.accounts(desk, actor, state=state, after=after, limit=limit)
    shown = [shown_account(row) for row in rows]

    def draw() -> None:
        columns = ["account", "name", "e-mail", "mobile", "state", "registered (UTC)"]
        cells = [
            [r.account, r.name, r.email, r.mobile, state_of(r), when(r.created_ms or None)] for r in rows
        ]
        terminal.table("accounts", columns, cells)
        next_page(shown, limit, "account")

    terminal.report({"accounts": shown, "next": next_after(shown, limit, "account")}, json, draw)


@account_app.command("show")
def account_show(account: Account, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show one account: its addresses, its devices, and how it stands with its cancellation.

    What keeps its owner from cancelling it is listed with what to do about it, and blocks with the numbers by which
    `clipkeep account unblock` lifts them. Of a cancelled account only the number and the day are left.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        row = records.account(opened.desk, actor, account)
        document = shown_account(row) | _around(opened.desk, row)
    terminal.report(document, json, lambda: _draw(row, document))


@account_app.command("suspend")
def account_suspend(
    account: Account, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Suspend an account: its owner can't log in, its devices can neither upload nor be played back, from now on.

    For false data, a violation of the rules, an authority's demand (agreement 3.3, 6.1). Nothing is erased by it, no
    date moves, and monthly plans are not charged meanwhile. The owner is told the reason. `account resume` lifts it.

    Example: `clipkeep account suspend --account 7 --reason "the address is not yours"`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = standing.suspend(opened.desk, actor, account, reason)
    _report(row, json, "In force now, for log-ins and for all its devices. The owner is told.")


@account_app.command("resume")
def account_resume(
    account: Account, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Lift the suspension of an account. The owner is told the reason; plans that ended meanwhile stay ended."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = standing.resume(opened.desk, actor, account, reason)
    _report(row, json, "In force now. The owner is told.")


# --- for people ---------------------------------------------------------------------------------------------------


def _first_line() -> str:
    """A password from stdin, without its line break."""
    line = sys.stdin.buffer.readline(MAX_PASSWORD_BYTES + 3).rstrip(b"\r\n")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise CallerError("the password on stdin is not UTF-8 text", code="bad_password") from error


def _report(row: AccountRow, json: bool, *sentences: str) -> None:
    terminal.report(shown_account(row), json, lambda: _told(row, *sentences))


def _told(row: AccountRow, *sentences: str) -> None:
    facts(titled(row), account_facts(row))
    for sentence in sentences:
        print(sentence)


def _around(desk: Desk, row: AccountRow) -> dict[str, Any]:
    """What is shown of an account beside its row."""
    on_file = devices.devices_of(desk, OPERATOR, row.account, limit=_SHOWN_DEVICES)
    how_far = closing.progress(desk, OPERATOR, row.account)
    blocks = records.blocks(desk, OPERATOR, row.account)
    owner = row.kind == "owner" and row.state is not AccountState.CANCELLED
    return {
        "devices": [
            {
                "device": found.facts.device,
                "state": found.state,
                "entitled_through": found.entitled_through and found.entitled_through.isoformat(),
            }
            for found in on_file
        ],
        "blocks": [
            {"block": block.block_id, "kind": str(block.kind), "detail": block.detail, "at_ms": block.at_ms}
            for block in blocks
            if block.lifted_ms is None
        ],
        "reasons": [
            {"code": reason.code, "detail": reason.detail, "what_to_do": reason.what_to_do}
            for reason in (how_far.blocks if owner else ())
        ],
        "accepted": [
            {"version": one.version, "how": one.how, "at_ms": one.at_ms}
            for one in records.acceptances(desk, OPERATOR, row.account)
        ],
        "undelivered": [
            {"notice": notice.notice_id, "channel": notice.channel, "state": str(notice.state)}
            for notice in how_far.waits_for
        ],
    }


_SHOWN_DEVICES = 1000
"""Of an account, in `account show`; `device list` has all."""


def _draw(row: AccountRow, document: dict[str, Any]) -> None:
    facts(titled(row), account_facts(row))
    if row.state is AccountState.CANCELLED:
        print("Nothing else of it is left.")
        return
    if document["devices"]:
        cells = [[d["device"], d["state"], d["entitled_through"]] for d in document["devices"]]
        if len(cells) == _SHOWN_DEVICES:
            print(f"its first {_SHOWN_DEVICES} devices; `clipkeep device list` has all")
        terminal.table("devices", ["device", "state", "entitled through"], cells)
    if document["accepted"]:
        cells = [[a["version"], a["how"], when(a["at_ms"])] for a in document["accepted"]]
        terminal.table("versions of the agreement that it accepted", ["version", "how", "at (UTC)"], cells)
    if document["blocks"]:
        cells = [[b["block"], b["kind"], b["detail"], when(b["at_ms"])] for b in document["blocks"]]
        terminal.table("blocks against its cancellation", ["block", "kind", "detail", "since (UTC)"], cells)
    if document["undelivered"]:
        cells = [[n["notice"], n["channel"], n["state"]] for n in document["undelivered"]]
        terminal.table("its cancellation waits for these notices", ["notice", "channel", "state"], cells)
    elif document["reasons"]:
        cells = [[r["code"], r["detail"], r["what_to_do"]] for r in document["reasons"]]
        terminal.table("its owner can't cancel it now", ["code", "why", "what the owner is told"], cells)


def register(app: typer.Typer) -> None:
    closings.add_to(account_app)
    account_records.add_to(account_app)
    consents.add_to(account_app)
    app.add_typer(account_app, name="account")
