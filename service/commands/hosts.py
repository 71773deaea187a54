"""`hosts`, `host invite`, `host join`: the machines that serve one home."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from retention.witness import MAX_OFFSET_MS
from service import terminal
from service.folder import open_folder
from service.joining import invite, join, kept_apart
from service.terminal import DEFAULT_DATA, Data, Json
from storage.rows.hosts import HostRow
from storage.urls import without_password

host_app = typer.Typer(
    help="Another machine for this home: its invitation, and joining.", no_args_is_help=True
)


def hosts(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the hosts that serve this home: name, release, when home last heard each, how far it is, its load and clock.

    seen: when home heard it last, in UTC, by home's clock. change: the last change of rights that it has; behind: how
    many it lacks. lag: between the two last times that it asked home. load: of its cores, in the last minute. clock: by
    how much its clock is off home's; with more than a minute it sweeps, renews and settles nothing.

    state: serves; or silent, when home has not heard it for [hosts] max_stale_s: it was killed, frozen or cut off, and
    serves nothing. One that stops as it should leaves the list; a silent one leaves after [hosts] forget_s, an hour.
    Where home is this data folder there is one host, and nothing to list.
    """
    with open_folder(data) as opened:
        rows, now_ms = opened.catalog.hosts()
        newest = opened.catalog.newest_change()
    found = [_document(row, now_ms, newest) for row in rows]

    def human() -> None:
        if not opened.has_hosts:
            print("home is this data folder: it has one host")
            return
        columns = ("name", "release", "seen", "change", "behind", "lag", "load", "clock", "state")
        if not found:
            print("no host serves this home now: clipkeep serve")
            return
        title = f"{len(found)} host{'s' if len(found) > 1 else ''}"
        terminal.table(title, columns, [[host[f"_{column}"] for column in columns] for host in found])

    document = [{key: value for key, value in host.items() if key[0] != "_"} for host in found]
    terminal.report({"hosts": document, "newest_change": newest}, json, human)


def _document(row: HostRow, now_ms: int, newest: int) -> dict[str, Any]:
    silent_ms = max(0, now_ms - row.asked_ms)
    state = "serves" if silent_ms <= row.max_stale_ms else "silent"
    behind = max(0, newest - row.applied)
    return {
        "host": row.host,
        "name": row.name,
        "release": row.release,
        "registered_ms": row.registered_ms,
        "last_seen_ms": row.asked_ms,
        "silent_ms": silent_ms,
        "applied_change": row.applied,
        "behind": behind,
        "lag_ms": row.lag_ms,
        "load_pct": row.load_pct,
        "max_stale_s": row.max_stale_ms / 1000,
        "clock_offset_ms": row.offset_ms,
        "state": state,
        "_name": terminal.visible(row.name),
        "_release": terminal.visible(row.release),
        "_seen": f"{datetime.fromtimestamp(row.asked_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}",
        "_change": row.applied,
        "_behind": behind,
        "_lag": f"{row.lag_ms / 1000:.2f} s",
        "_load": f"{row.load_pct} %",
        "_clock": f"{row.offset_ms / 1000:+.1f} s",
        "_state": f"{state}, clock is off" if abs(row.offset_ms) > MAX_OFFSET_MS else state,
    }


def host_invite(
    out: Annotated[Path, typer.Option("--out", help="The file to write; it must not be there.")],
    hours: Annotated[
        float, typer.Option("--hours", help="For how long a host may join with it.", min=0.01, max=24 * 366)
    ] = 24.0,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Write what another machine needs to serve this home: its addresses, this folder's config.toml, and the wrapping
    keys. Catalog and vault are on servers then, and the objects in a store that every host reaches.

    Whoever reads the file can read all recordings, as long as the keys are not rotated, whatever --hours says. It is
    written for its owner alone (mode 0600). Take it to the machine over a safe way, run `clipkeep host join FILE --data
    DIR` there, and delete it. What is in the environment (PGPASSWORD, AWS_*, CLIPKEEP_*) is not in it, but for the
    addresses: set it there, too.
    """
    with open_folder(data) as opened:
        made = invite(opened, out, hours=hours)
        warnings = kept_apart(opened.config)
    ends = datetime.fromtimestamp(made.expires_ms / 1000, UTC)
    document = {"invitation": str(out), "expires": ends.isoformat(timespec="seconds"), "warnings": warnings}

    def human() -> None:
        print(
            f"wrote {out}, good until {ends:%Y-%m-%d %H:%M} UTC. It has the keys of all recordings: delete it after use"
        )

    terminal.report(document, json, human)
    for warning in warnings:
        terminal.say(f"warning: {warning}")


def host_join(
    file: Annotated[Path, typer.Argument(help="What `clipkeep host invite` wrote.")],
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Make this machine's data folder from an invitation. Then: `clipkeep serve`, and delete the file.
    When this was killed, run it again.

    Passwords and credentials that the addresses lack come from the environment, as on the other hosts (PGPASSWORD,
    PGSERVICEFILE, AWS_*). What is to differ on this machine, such as its name in `clipkeep hosts` ([hosts] name), is
    changed in its config.toml.
    """
    config = join(data, file, environ=os.environ)
    document = {"data": str(data), "catalog": without_password(config.home.catalog)}

    def human() -> None:
        print(f"{data} is a host of this home. Start it: clipkeep serve --data {data}. Then delete {file}")

    terminal.report(document, json, human)


def register(app: typer.Typer) -> None:
    app.command()(hosts)
    host_app.command("invite")(host_invite)
    host_app.command("join")(host_join)
    app.add_typer(host_app, name="host")
