"""`keys`: the vault by itself: rotate its wrapping key, show what is in it, back it up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from service import terminal
from service.folder import Opened, open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.clock import SystemClock
from storage.days import MS_PER_DAY

keys_app = typer.Typer(help="The vault: rotate, show, back up.", no_args_is_help=True)


@keys_app.command("rotate")
def keys_rotate(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Wrap every key of recordings and accounts with a new wrapping key, then destroy the old one.

    A running service goes on. When this was interrupted, run it again: it goes on where it stood. Every host takes the
    new key and drops the old one by itself; one that is away does so when it is back. Backups of the
    key store made before hold the old wrapping key, so they stay readable until they are deleted.
    """
    with (
        terminal.ended_cleanly(
            "run it again: it goes on where it stood, and the service reads all keys meanwhile"
        ),
        open_folder(data) as opened,
        terminal.progress_bar() as progress,
    ):
        done = opened.vault.rotate(progress)
    terminal.report(
        {
            "wrapping_key": _shown(done.wrapping_key_id),
            "resumed": done.resumed,
            "rewrapped_keys": done.rewrapped,
            "destroyed_wrapping_keys": [_shown(number) for number in done.retired],
            "waiting_for_hosts": list(done.waiting_for),
        },
        json,
    )
    for name in done.waiting_for:
        terminal.say(
            f"{name} still has the old wrapping key. It drops it when it is back. If it is gone for good, destroy its"
            f" keys/ and run `clipkeep keys forget-host {name}`. Until one of them no erasure counts as cleared"
        )


@keys_app.command("show")
def keys_show(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show what is in the vault, without secrets: keys by month, wrapping keys and the age of the current one."""
    with open_folder(data) as opened:
        document = _inventory(opened)
    terminal.report(document, json, lambda: _print_inventory(document))


@keys_app.command("forget-host")
def keys_forget_host(
    name: Annotated[str, typer.Argument(help="As `clipkeep keys show` lists it.")],
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Take a host that is gone for good, and whose keys/ was destroyed, from those that rotations have to reach.

    One that serves is refused: stop it first. Of several hosts with one name those that are away are taken. If its
    keys/ were not destroyed, or may have been copied, run `clipkeep keys rotate` afterwards.
    """
    with open_folder(data) as opened:
        opened.vault.forget_host(name)
    terminal.report({"forgotten": name}, json, lambda: print(f"no rotation waits for {name} any more"))


@keys_app.command("backup")
def keys_backup(
    to: Annotated[Path, typer.Option("--to", help="The folder to make; its parent is there already.")],
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Copy the key store, consistently, beside a running service. Keep the copy apart from catalog and objects.

    Who has it and the objects can read recordings, also those erased since. So delete it after [retention]
    key_backup_days: only then does an erasure count as cleared. `clipkeep serve` and `clipkeep sweep` repeat what a
    restored copy has not heard of.
    """
    with open_folder(data) as opened:
        opened.vault.backup(to)
        until_ms = SystemClock().now_ms() + opened.config.retention.key_backup_days * MS_PER_DAY
    document = {"backup": str(to), "delete_by": _time(until_ms)}
    terminal.report(document, json, lambda: print(f"made {to}; delete it by {document['delete_by']}"))


def _inventory(opened: Opened) -> dict[str, Any]:
    found = opened.vault.inventory()
    age_s = max(0.0, (SystemClock().now_ms() - found.rotated_ms) / 1000)
    return {
        "keys": sum(month.live for month in found.months.values()),
        "months": [
            {"month": month, "keys": count.live, "destroyed": count.destroyed}
            for month, count in found.months.items()
        ],
        "destroyed_through_month": found.month_floor or None,
        "erased_devices": found.erased_devices,
        "account_keys": found.account_keys,
        "wrapping_keys": [
            {"id": _shown(number), "current": number == found.current_wrapping_key, "keys": count}
            for number, count in found.wrapping_keys.items()
        ],
        "rotated_at": _time(found.rotated_ms),
        "rotated_days_ago": round(age_s / 86_400, 1),
        "rotation_unfinished": len(found.wrapping_keys) > 1,
        "hosts": [
            {
                "name": host.name,
                "wrapping_keys": [_shown(number) for number in host.wrapping_keys],
                "seen_at": _time(host.seen_ms),
                "serves": host.serves,
            }
            for host in opened.vault.hosts()
        ],
    }


def _print_inventory(document: dict[str, Any]) -> None:
    terminal.table(
        "data keys", ["month", "keys", "destroyed"], [list(row.values()) for row in document["months"]]
    )
    terminal.table(
        "wrapping keys",
        ["id", "current", "keys"],
        [[row["id"], _yes(row["current"]), row["keys"]] for row in document["wrapping_keys"]],
    )
    if document["hosts"]:
        rows = [
            [host["name"], ", ".join(host["wrapping_keys"]), host["seen_at"], _yes(host["serves"])]
            for host in document["hosts"]
        ]
        terminal.table("hosts", ["name", "wrapping keys", "seen", "serves"], rows)
    print(f"account keys: {document['account_keys']}")
    print(f"last rotated {document['rotated_at']}, {document['rotated_days_ago']} days ago")
    if document["rotation_unfinished"]:
        print("a rotation was interrupted: run `clipkeep keys rotate`")


def _yes(it_is: bool) -> str:
    return "yes" if it_is else "no"


def _shown(wrapping_key_id: int) -> str:
    return f"{wrapping_key_id:016x}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def register(app: typer.Typer) -> None:
    app.add_typer(keys_app, name="keys")
