"""`account cancel`, `request`, `withdraw`, `approve`, `reject`, `block`, `unblock`: the end of an account."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service import terminal
from service.agreement import closing, records
from service.agreement.consequences import Consequences, of_closing
from service.agreement.desk import OPERATOR, Desk
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.plans import MAX_NUMBER
from service.commands.showing import Account, account_facts, counted, facts, shown_account, titled
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json, Reason
from storage.rows.accounts import AccountRow, BlockKind

MAX_DETAIL_HELP = "What it is about, in a few words; its owner reads it."


def cancel(
    account: Account,
    reason: Reason,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")
    ] = False,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Cancel an account as its operator, for good: nobody has to ask or to approve, and no condition is asked for.

    For false data, dormancy, an owner too young, an authority's demand (agreement 6.1). A notice with the reason goes
    to each of its addresses, and the cancellation takes effect when the last one is delivered: its devices are denied,
    its recordings become unreadable, plans end without a refund, and everything about the account is erased. There is
    no way back from here. Look before with --dry-run. When an owner asks for it: `clipkeep account request`.

    Example: `clipkeep account cancel --account 7 --reason "not used since 2024" --dry-run`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        ahead = of_closing(opened.desk, actor, account)
        row = ahead.account
        if not dry_run:
            row = closing.close_by_operator(opened.desk, actor, account, reason)
    terminal.report(
        {**shown_account(row), "ahead": _shown(ahead), "dry_run": dry_run},
        json,
        lambda: _told_ahead(row, ahead, dry_run=dry_run),
    )


def request(
    account: Account, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """File an owner's request for the cancellation of an account, when it reached you by letter or phone.

    Owners do it over HTTP themselves. Refused with *all* reasons at once, each with what to do about it, when the
    conditions are not met (agreement 6.2, 6.3): 7 days old, activated, no plan that runs, no block. Until it is
    answered, with `account approve` or `account reject`, nothing new begins: no purchase, device or address.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = closing.request(opened.desk, actor, account, reason)
    _report(
        row,
        json,
        f"Next: clipkeep account approve --account {account}, or account reject with a reason; or account withdraw.",
    )


def withdraw(
    account: Account, reason: Why = "", as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Take an owner's request for cancellation back, for an owner who thought again; not once it was approved."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = closing.withdraw(opened.desk, actor, account)
    _report(row, json, "The account goes on as it was.")


def approve(
    account: Account, reason: Why = "", as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Consent to the cancellation that an owner asked for (agreement 6.4). There is no way back from here.

    The conditions are looked at again, and it is refused with all reasons when something came up since. Notices go
    out, and it takes effect when the last one is delivered: then everything about the account is erased.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        ahead = _ahead_of_approval(opened.desk, account)
        row = closing.approve(opened.desk, actor, account)
    terminal.report(
        {**shown_account(row), "ahead": _shown(ahead)}, json, lambda: _told_ahead(row, ahead, dry_run=False)
    )


def reject(
    account: Account, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Refuse the cancellation that an owner asked for, and tell the owner why (agreement 6.3).

    The account goes on as it was, and its owner may ask again.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = closing.reject(opened.desk, actor, account, reason)
    _report(row, json, "The account goes on as it was. The owner is told why.")


def block(
    account: Account,
    kind: Annotated[
        BlockKind,
        typer.Option(
            "--kind",
            help="dispute (6.2.2), linked_account that must stay (6.2.3), balance (6.3.1), transaction that is not"
            " finished (6.3.2), other (6.3.4).",
        ),
    ],
    detail: Annotated[str, typer.Option("--detail", help=MAX_DETAIL_HELP)] = "",
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Keep an account from being cancelled by its owner, until the block is lifted.

    The owner sees it among the reasons when asking. A request that is there already can't be approved meanwhile.
    Operators' own `account cancel` is not kept by it.

    Example: `clipkeep account block --account 7 --kind dispute --detail "case 2026/114"`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason or detail)
        row = closing.add_block(opened.desk, actor, account, kind, detail)
    document = {"block": row.block_id, "account": account, "kind": str(kind), "detail": row.detail}
    terminal.report(
        document,
        json,
        lambda: print(
            f"account {account} can't be cancelled by its owner: {kind}. Lift it with: clipkeep account unblock --block"
            f" {row.block_id}"
        ),
    )


def unblock(
    block: Annotated[
        int,
        typer.Option("--block", help="The block's number, see `account show`.", min=1, max=MAX_NUMBER),
    ],
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Lift a block against the cancellation of an account: its owner may ask again, if nothing else is in the way."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = closing.lift_block(opened.desk, actor, block)
        left = len([b for b in records.blocks(opened.desk, actor, row.account) if b.lifted_ms is None])
    document = {"block": block, "account": row.account, "kind": str(row.kind), "blocks_left": left}
    rest = "no other block is left" if not left else f"{left} other blocks are left: see `account show`"
    terminal.report(
        document, json, lambda: print(f"account {row.account}: block {block} ({row.kind}) is lifted; {rest}")
    )


# --- what will happen ---------------------------------------------------------------------------------------------


def _ahead_of_approval(desk: Desk, account: int) -> Consequences | None:
    """None when it can't be approved: the approval itself says why."""
    row = records.account(desk, OPERATOR, account)
    return of_closing(desk, OPERATOR, account) if row.closing == "requested" else None


def _shown(ahead: Consequences | None) -> dict[str, Any] | None:
    if ahead is None:
        return None
    return {
        "notices": list(ahead.channels),
        "devices": ahead.devices,
        "plans": ahead.plans,
        "free_on": ahead.free_on.isoformat(),
    }


def _told_ahead(row: AccountRow, ahead: Consequences | None, *, dry_run: bool) -> None:
    facts(titled(row), account_facts(row))
    if ahead is None:
        return
    print("What would happen:" if dry_run else "What happens now:")
    if ahead.channels:
        print(
            f"  1. A notice goes to its {' and its '.join(ahead.channels)}. It takes effect with the last delivery."
        )
    else:
        print("  1. It has no address to tell: it takes effect at once.")
    print(
        f"  2. Then nobody can log in; denied for good: {counted(ahead.devices, 'device')}; ended without a refund:"
        f" {counted(ahead.plans, 'plan')}."
    )
    print("  3. Its recordings become unreadable; its payments, history and addresses are erased, for good.")
    print(
        f"  4. Its addresses can be used for another account from {ahead.free_on} (UTC) on, if that is today."
    )
    if dry_run:
        print("Nothing was changed: leave --dry-run out to do it.")
    else:
        print(
            "A running service sends the notices within a minute; else: clipkeep notices send. How far it is: clipkeep"
            f" account show --account {row.account}"
        )


def _report(row: AccountRow, json: bool, sentence: str) -> None:
    def told() -> None:
        facts(titled(row), account_facts(row))
        print(sentence)

    terminal.report(shown_account(row), json, told)


def add_to(account_app: typer.Typer) -> None:
    """Mount the commands among those of `clipkeep account`."""
    for name, command in (
        *(("cancel", cancel), ("request", request), ("withdraw", withdraw), ("approve", approve)),
        *(("reject", reject), ("block", block), ("unblock", unblock)),
    ):
        account_app.command(name)(command)
