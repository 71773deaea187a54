"""`operator` and `operator-token`: who runs the service, by name and role, and who may ask over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from retention.operators import MAY, OperatorRole
from service import terminal
from service.agreement import operators
from service.agreement.operators import MAX_HOURS, MAX_NAME_CHARS, Listed
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.plans import MAX_NUMBER, shown_instant
from service.commands.showing import counted
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.rows.operators import OperatorTokenRow

operator_app = typer.Typer(
    help="Operators: people and programs that run the service, by name and role; their tokens.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Option("--name", help="The operator's name, as histories show it.")]
RoleOption = Annotated[
    OperatorRole,
    typer.Option(
        "--role",
        help="support: looks, watches, cares for accounts, suspends; money: looks, grants, credits, refunds; auditor:"
        " looks; admin: everything.",
    ),
]
Hours = Annotated[float, typer.Option("--hours", help="How long it lasts.", min=0.01, max=MAX_HOURS)]


@operator_app.command("add")
def operator_add(
    name: Annotated[
        str,
        typer.Option("--name", help=f"Up to {MAX_NAME_CHARS} characters; never given to another one again."),
    ],
    role: RoleOption,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Add an operator. What it does from now on, with `--as` or a token of its own, is in the histories by this name.

    Owners see there who changed something, watched, or made a viewer token, and why. `--as` says a name, and proves
    nothing: whoever may run commands on the data folder may do everything anyway. Over HTTP the token proves it.

    Example: `clipkeep operator add --name eve --role support`
    """
    with open_folder(data) as opened:
        row = operators.add(opened.desk, acting(opened, as_, reason), name, role)
    document = {"operator": row.name, "role": row.role}
    terminal.report(
        document,
        json,
        lambda: print(
            f"{row.name} ({row.role}). A token for the API: clipkeep operator token --name {row.name}"
        ),
    )


@operator_app.command("list")
def operator_list(
    every: Annotated[bool, typer.Option("--all", help="Those too that were ended.")] = False,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List operators with their roles, and the numbers by which `clipkeep operator revoke` ends their tokens.

    `system` is built in: whoever runs a command without --as, and the tokens of `clipkeep operator-token`.
    """
    with open_folder(data) as opened:
        acting(opened, as_)
        found = operators.listed(opened.desk, ended=every)

    def draw() -> None:
        cells = [
            [one.name, one.role, "yes" if one.row and one.row.ended_ms else "", *_tokens_of(one)]
            for one in found
        ]
        terminal.table("operators", ["name", "role", "ended", "token", "good until (UTC)"], cells)

    terminal.report({"operators": [_shown(one) for one in found]}, json, draw)


@operator_app.command("role")
def operator_role(
    name: Name,
    role: RoleOption,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Give an operator another role: in force at once, for the tokens that there are too."""
    with open_folder(data) as opened:
        row = operators.give_role(opened.desk, acting(opened, as_, reason), name, role)
    terminal.report(
        {"operator": row.name, "role": row.role, "may": sorted(MAY[role])},
        json,
        lambda: print(f"{row.name} is {row.role} now"),
    )


@operator_app.command("token")
def operator_new_token(
    name: Name,
    hours: Hours = 24.0,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print a bearer token of an operator for the API. It may what the role may, and is not shown again.

    Give each tool and person one of their own, for as short as will do; `clipkeep operator revoke` ends a single one.
    Where something is changed or watched, a request says why: `Clipkeep-Reason: lost%20its%20password`.

    Example: `curl -H "Authorization: Bearer $(clipkeep operator token --name eve --hours 8)"
    http://127.0.0.1:8081/v1/accounts`
    """
    with open_folder(data) as opened:
        token, row = operators.token(opened.desk, acting(opened, as_, reason), name, hours)
    _report_token(token, row, json)


@operator_app.command("revoke")
def operator_revoke(
    number: Annotated[
        int, typer.Option("--token", help="The token's number, see `operator list`.", min=1, max=MAX_NUMBER)
    ],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """End one token of an operator, at once. Viewer tokens that were made with it last as long as they say: a new
    token for the device (`clipkeep device new-token`) voids those."""
    with open_folder(data) as opened:
        operators.revoke(opened.desk, acting(opened, as_, reason), number)
    terminal.report({"revoked": number}, json, lambda: print(f"token {number} is void from now on"))


@operator_app.command("end")
def operator_end(
    name: Name,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """End an operator, for good: all tokens are void, and no command runs with --as of this name.

    The name stays in the histories, and is never given to another one.
    """
    with open_folder(data) as opened:
        row = operators.end(opened.desk, acting(opened, as_, reason), name)
    terminal.report(
        {"operator": row.name, "ended_ms": row.ended_ms},
        json,
        lambda: print(f"{row.name} may do nothing any more"),
    )


def operator_token(
    hours: Hours = 24.0,
    revoke_all: Annotated[
        bool, typer.Option("--revoke-all", help="End all operators' tokens at once, and make none.")
    ] = False,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print a bearer token of the built-in operator, `system`, which may everything: for a tool of this host.

    It is not shown again. For people make operators with names, roles and tokens of their own: `clipkeep operator`.
    --revoke-all ends the tokens of all operators.

    Example: `curl -H "Authorization: Bearer $(clipkeep operator-token --hours 1)" http://127.0.0.1:8081/v1/accounts`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        if revoke_all:
            ended = operators.revoke_all(opened.desk, actor)
            terminal.report(
                {"revoked": ended}, json, lambda: print(f"void from now on: {counted(ended, 'token')}")
            )
            return
        token, row = operators.token(opened.desk, actor, BUILT_IN, hours)
    _report_token(token, row, json)


def _report_token(token: str, row: OperatorTokenRow, json: bool) -> None:
    document = {"token": token, "number": row.token_id, "expires_ms": row.expires_ms}

    def draw() -> None:
        print(token)
        terminal.say(
            f"token {row.token_id}: it lasts until {shown_instant(row.expires_ms)}, and is not shown again"
        )

    terminal.report(document, json, draw)


def _shown(one: Listed) -> dict[str, Any]:
    return {
        "operator": one.name,
        "role": str(one.role),
        "ended_ms": one.row and one.row.ended_ms,
        "tokens": [{"number": row.token_id, "expires_ms": row.expires_ms} for row in one.tokens],
    }


def _tokens_of(one: Listed) -> tuple[str, str]:
    """A line for each token, in two columns."""
    numbers = "\n".join(str(row.token_id) for row in one.tokens)
    return numbers, "\n".join(shown_instant(row.expires_ms) or "" for row in one.tokens)


def register(app: typer.Typer) -> None:
    app.add_typer(operator_app, name="operator")
    app.command("operator-token")(operator_token)
