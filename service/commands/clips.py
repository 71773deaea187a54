"""`device keep`, `clips`, `unkeep`: ranges of one device that stay beyond their expiry."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service import terminal
from service.agreement import clips
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.shares import MAX_NUMBER
from service.commands.showing import next_after, next_page
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Device, Json, Reason
from storage.days import MAX_TIME_MS
from storage.rows.clips import ClipRow


def keep(
    device: Device,
    from_ms: Annotated[
        int, typer.Option("--from", help="First capture time, Unix ms.", min=0, max=MAX_TIME_MS)
    ],
    to_ms: Annotated[
        int, typer.Option("--to", help="The capture time behind the last, Unix ms.", min=1, max=MAX_TIME_MS)
    ],
    name: Annotated[str, typer.Option("--name", help="What its owner calls it.")] = "",
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Keep a range of recordings beyond its expiry, for as long as a plan of the device runs.

    A running service copies it, in seconds or minutes: `device clips` says how far it is. An account keeps at most
    `[agreement] max_kept_bytes`, a device at most `max_clips_per_device` clips.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        gap_ms = opened.config.api.gap_ms
        row = clips.keep(opened.desk, actor, device, from_ms, to_ms, name=name, gap_ms=gap_ms)
    terminal.report(_shown(row), json)


def clips_list(
    device: Device,
    after: Annotated[
        int, typer.Option("--after", help="Only clips with higher numbers.", min=0, max=MAX_NUMBER)
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=100_000)] = 100,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List a device's kept clips by number: 100, unless --limit says otherwise, and how to see more."""
    with open_folder(data) as opened:
        found = clips.listed(opened.desk, acting(opened, as_), device, after=after, limit=limit)
    rows = [_shown(row) for row in found]
    columns = ["clip", "name", "from_ms", "to_ms", "state", "chunks", "bytes"]

    def draw() -> None:
        heads = [name.replace("_", " ") for name in columns]
        terminal.table("clips", heads, [[row[name] for name in columns] for row in rows])
        next_page(rows, limit, "clip")

    terminal.report({"clips": rows, "next": next_after(rows, limit, "clip")}, json, draw)


def unkeep(
    device: Device,
    number: Annotated[
        int, typer.Option("--clip", help="Number of the clip, see `device clips`.", min=1, max=MAX_NUMBER)
    ],
    reason: Reason,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Delete a kept clip, for ever: its key is destroyed at once, its objects go with the next sweep."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        clips.drop(opened.desk, actor, device, number, why=reason)
        terminal.report({"device": device, "clip": number, "deleted": True}, json)


def register(device_app: typer.Typer) -> None:
    device_app.command("keep")(keep)
    device_app.command("clips")(clips_list)
    device_app.command("unkeep")(unkeep)


def _shown(row: ClipRow) -> dict[str, Any]:
    """A clip for people and programs."""
    names = ("device", "name", "from_ms", "to_ms", "created_ms", "chunks", "bytes")
    return {"clip": row.clip_id, "state": row.state.value, **{name: getattr(row, name) for name in names}}
