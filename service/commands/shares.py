"""`device share`, `shares`, `unshare`: links to a range of one device's recordings."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service import terminal
from service.agreement import shares
from service.commands.acting import BUILT_IN, As, Why, acting
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Device, Json, Reason
from storage.days import MAX_TIME_MS
from storage.rows.shares import ShareRow

MAX_HOURS = 24 * 3660
MAX_NUMBER = 2**63 - 1


def share(
    device: Device,
    from_ms: Annotated[
        int, typer.Option("--from", help="First capture time, Unix ms.", min=0, max=MAX_TIME_MS)
    ],
    to_ms: Annotated[
        int, typer.Option("--to", help="The capture time behind the last, Unix ms.", min=1, max=MAX_TIME_MS)
    ],
    hours: Annotated[
        float, typer.Option("--hours", help="How long it may be used.", min=0.01, max=MAX_HOURS)
    ] = 168.0,
    url: Annotated[
        str, typer.Option("--url", help="Where people reach the API port, for the address that is shown.")
    ] = "http://127.0.0.1:8081",
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Make a link: whoever has its token watches what begins in the range, and nothing else.

    It lasts at most `[agreement] max_share_days`, a device has at most `max_shares_per_device`. It ends before its time
    when it is revoked, and with all that ends viewers' tokens. The token is shown this once.

    Example: `clipkeep device share --device 1 --from 1782907200000 --to 1782907260000 --hours 24`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row, token = shares.create(opened.desk, actor, device, from_ms, to_ms, hours=hours)
    playlist = f"{url.rstrip('/')}/v1/devices/{device}/playlist.m3u8?token={token}"
    document = {**_shown(row, "live"), "token": token, "playlist": playlist}

    def draw() -> None:
        print(token)
        terminal.say(f"link {row.share_id}: {playlist}")

    terminal.report(document, json, draw)


def shares_list(device: Device, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List a device's links: range, end, state, and how often each was opened. Revoked ones are gone."""
    with open_folder(data) as opened:
        found = shares.listed(opened.desk, acting(opened, as_), device)
    rows = [_shown(row, state) for row, state in found]
    columns = ["share", "from_ms", "to_ms", "expires_ms", "state", "opens"]

    def draw() -> None:
        heads = [name.replace("_", " ") for name in columns]
        terminal.table("links", heads, [[row[name] for name in columns] for row in rows])

    terminal.report({"shares": rows}, json, draw)


def unshare(
    device: Device,
    number: Annotated[
        int, typer.Option("--share", help="Number of the link, see `device shares`.", min=1, max=MAX_NUMBER)
    ],
    reason: Reason,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """End a link: no host gives anything by it two seconds later."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        shares.revoke(opened.desk, actor, device, number, why=reason)
        terminal.report({"device": device, "share": number, "revoked": True}, json)


def _shown(row: ShareRow, state: str) -> dict[str, Any]:
    """A link for people and programs."""
    names = ("device", "from_ms", "to_ms", "created_ms", "expires_ms", "opens", "opened_ms")
    return {"share": row.share_id, "state": state, **{name: getattr(row, name) for name in names}}


def register(device_app: typer.Typer) -> None:
    device_app.command("share")(share)
    device_app.command("shares")(shares_list)
    device_app.command("unshare")(unshare)
