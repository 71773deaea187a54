"""`device`, `recordings`, `viewer-token`: who may record, and who may look. Plans: `plans`; links: `shares`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from retention.entitlements import row_of
from retention.operators import Act
from retention.packages import newest
from retention.plans import Plan
from retention.subscriptions import begin
from retention.tokens import mint_device_token
from service import terminal
from service.agreement import devices as desk_devices
from service.agreement import kept as desk_kept
from service.agreement import naming, packages, recordings
from service.agreement.desk import Actor, Desk
from service.agreement.devices import MAX_VIEWER_HOURS, Standing
from service.agreement.equipping import Grant, equip
from service.commands import clips, shares
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.plans import MAX_NUMBER, Retention, StartsOn, shown_plan
from service.commands.showing import next_after, next_page, when
from service.config import Config
from service.folder import Opened, open_folder
from service.terminal import DEFAULT_DATA, MAX_DEVICE, Data, Device, Json, Reason
from storage.days import parse_date, to_date
from storage.errors import CallerError
from storage.rows.accounts import OPERATOR_ACCOUNT
from storage.rows.devices import DeviceFacts
from storage.rows.kept import KeptDay

MAX_ADDED = 1_000_000
MAX_MS = 253_402_300_800_000
"""The first millisecond of the year 10000: no capture time lies behind it."""

HOUR_MS = 3_600_000
MAX_SILENT_MIN = 366 * 24 * 60

device_app = typer.Typer(help="Devices: add, list, show, suspend, resume, terminate.", no_args_is_help=True)
recordings_app = typer.Typer(help="Recordings: delete a range.", no_args_is_help=True)


@device_app.command("add")
def device_add(
    count: Annotated[int, typer.Option("--count", help="How many devices.", min=1, max=MAX_ADDED)] = 1,
    plan: Annotated[
        str | None, typer.Option("--plan", help="Start a plan of this package for them at once.")
    ] = None,
    retention_days: Retention = None,
    starts_on: StartsOn = None,
    account: Annotated[
        int,
        typer.Option(
            "--account",
            help="Whose devices they are, see `account list`; default the operators' own.",
            min=1,
            max=MAX_NUMBER,
        ),
    ] = OPERATOR_ACCOUNT,
    serial: Annotated[
        str | None,
        typer.Option("--serial", help="What stands on the device; of an owner's, where it is required."),
    ] = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Add devices and print their tokens.

    A token is what the camera sends as `Authorization: Bearer TOKEN`, or as the password in
    `https://DEVICE:TOKEN@host/`. Without --plan a device may not record yet: see `clipkeep plan start`. An owner's
    account has at most `[agreement] max_devices_per_account` devices, and one trial, ever; with a trial for a second
    device nothing is added. A device is never moved to another account. Where `[agreement] serial_pattern` or
    `serial_list` is set, an owner's device is added by its --serial, one at a time.

    Example: `clipkeep device add --account 7 --plan annual`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        if plan is not None:
            acting(opened, as_, reason, act=Act.MONEY)
        if plan is None and (retention_days is not None or starts_on is not None):
            raise CallerError("--retention-days and --starts-on go with --plan", code="bad_usage")
        if serial is not None and (count != 1 or account == OPERATOR_ACCOUNT):
            raise CallerError("--serial goes with one device, and with --account", code="bad_usage")
        opened.settle_numbers(device=count, plan=count)
        if account == OPERATOR_ACCOUNT:
            plans = [] if plan is None else [row_of(_begin(opened, (), plan, retention_days, starts_on))]
            added = opened.entitlements.add_devices(count, account=OPERATOR_ACCOUNT, plans=plans)
            _note_added(opened.desk, actor, added)
        else:
            start = None if starts_on is None else parse_date(starts_on, field="--starts-on")
            grant = None if plan is None else Grant(plan, retention_days, start)
            added = equip(opened.desk, actor, account, count, grant, serial)
        secret = opened.vault.token_secret
        config = opened.config
        found = [
            {"device": f.device, "token": mint_device_token(secret, f.device, f.token_generation)}
            for f in added
        ]
    if count == 1:
        terminal.report(found[0], json)
        if not json:
            print(_sends_to(config, found[0]["device"]))
    else:
        lines = "\n".join(f"{d['device']} {d['token']}" for d in found)
        terminal.report({"devices": found}, json, lambda: print(lines))


def _sends_to(config: Config, device: object) -> str:
    """Where it sends to, as far as this host knows, for people; and whether that can be read on the way."""
    scheme = "https" if config.tls.certificate else "http"
    place = config.api.ingest_url.rstrip("/") or f"{scheme}://HOST:8080"
    line = f"it sends to: {place}/v1/devices/{device}/live"
    if place.startswith("https://"):
        return line
    return (
        f"{line}\nin clear: whoever is on the way can read its token and recordings; set [tls] certificate and key, or"
        " [api] ingest_url to the https:// address of what terminates TLS"
    )


@device_app.command("list")
def device_list(
    after: Annotated[
        int, typer.Option("--after", help="Only devices with higher numbers.", min=0, max=MAX_DEVICE)
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=100_000)] = 100,
    account: Annotated[
        int | None,
        typer.Option(
            "--account", help="Only those of this account, see `account list`.", min=1, max=MAX_NUMBER
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Only those with this text in their name or label; with --account."),
    ] = None,
    silent_min: Annotated[
        int | None,
        typer.Option(
            "--silent",
            help="Only those that may record today and uploaded nothing for so many minutes.",
            min=1,
            max=MAX_SILENT_MIN,
        ),
    ] = None,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List devices by number with their state, when they were last seen and what they were refused last: 100, unless
    --limit says otherwise, and how to see more.

    Names are sealed with the key of their account, so --name needs --account; `account list --address` finds the
    account of an e-mail address or mobile number.

    Example: `clipkeep device list --account 7 --name door`
    """
    if name is not None and (account is None or not name.strip()):
        raise CallerError("--name is a text, and goes with --account", code="bad_usage")
    if silent_min is not None and (account is not None or name is not None):
        raise CallerError("--silent goes without --account and --name", code="bad_usage")
    with open_folder(data) as opened:
        actor, desk = acting(opened, as_), opened.desk
        following: int | None = None
        if account is not None and name is not None:
            found, following = naming.named(desk, actor, account, name, after=after, limit=limit)
        elif account is not None:
            found = desk_devices.devices_of(desk, actor, account, after=after, limit=limit)
        elif silent_min is not None:
            found = desk_devices.silent(desk, silent_ms=silent_min * 60_000, after=after, limit=limit)
        else:
            found = desk_devices.all_devices(desk, after=after, limit=limit)
    rows = [_shown(one) for one in found]
    if name is None:
        following = next_after(rows, limit, "device")
    heads = ["device", "account", "name", "state", "entitled through", "last seen", "last refusal"]

    def draw() -> None:
        terminal.table("devices", heads, [_cells(standing) for standing in found])
        if name is None:
            next_page(rows, limit, "device")
        elif following is not None:
            print(f"there may be more: --after {following}")

    terminal.report({"devices": rows, "next": following}, json, draw)


@device_app.command("rename")
def device_rename(
    device: Device,
    name: Annotated[
        str | None, typer.Option("--name", help="What its owner calls it; the empty text takes it away.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Where it is, say; the empty text takes it away.")
    ] = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Name a device. Both texts are sealed with the key of its account, and go with it."""
    if name is None and label is None:
        raise CallerError("--name, --label, or both", code="bad_usage")
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        terminal.report(_shown(naming.rename(opened.desk, actor, device, name=name, label=label)), json)


@device_app.command("show")
def device_show(device: Device, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show one device: state, plans, and its token; with --as without the token."""
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        standing = desk_devices.show(opened.desk, actor, device)
        facts, document = standing.facts, _shown(standing)
        with opened.desk.reading() as books:
            document["serial"] = books.serial_of(device)
        if actor.operator == BUILT_IN:  # others are not told in passing: the API's page writes that down
            document["token"] = mint_device_token(
                opened.vault.token_secret, facts.device, facts.token_generation
            )
        terminal.report(document, json)


@device_app.command("kept")
def device_kept(device: Device, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Say how much is kept of a device: bytes and hours, by the day (UTC) on which they were recorded.

    It is counted from the catalog's rows, one for each upload, which takes a second or more where there are millions.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        while not (found := desk_kept.of_device(opened.desk, actor, device)).is_complete:
            pass  # each turn counts for a bounded time
    whole = found.devices[device]
    rows = [{"day": to_date(one.day).isoformat(), **_amount(one)} for one in found.days]

    def draw() -> None:
        cells = [
            [day, one.chunks, one.length_bytes, f"{one.duration_ms / HOUR_MS:.2f}"]
            for day, one in (
                *((to_date(one.day).isoformat(), one) for one in found.days),
                ("all", whole),
            )
        ]
        terminal.table(f"device {device}", ["day (UTC)", "chunks", "bytes", "hours"], cells)

    terminal.report({"device": device, **_amount(whole), "days": rows}, json, draw)


@device_app.command("suspend")
def device_suspend(
    device: Device, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Deny uploads and playback at once. Nothing is erased; `device resume` lifts it."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        terminal.report(_shown(desk_devices.suspend(opened.desk, actor, device, why=reason)), json)


@device_app.command("resume")
def device_resume(
    device: Device, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Lift a suspension."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        terminal.report(_shown(desk_devices.resume(opened.desk, actor, device, why=reason)), json)


@device_app.command("new-token")
def device_new_token(
    device: Device, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Void all tokens of a device, viewers' included, and print its new one."""
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        token = desk_devices.new_token(opened.desk, actor, device, why=reason)
        standing = desk_devices.show(opened.desk, actor, device)
        terminal.report({**_shown(standing), "token": token}, json)


@device_app.command("terminate")
def device_terminate(
    device: Device,
    reason: Reason,
    erase: Annotated[
        bool, typer.Option("--erase", help="Destroy the recordings' keys at once, without grace.")
    ] = False,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Deny uploads and playback for good, at once.

    The recordings' keys are destroyed after `lapse_grace_days`, or at once with --erase: then nobody can ever read
    them again, and their bytes go with their segments.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        standing, destroyed = desk_devices.terminate(opened.desk, actor, device, why=reason, erase=erase)
        terminal.report({**_shown(standing), "destroyed_keys": destroyed}, json)


@recordings_app.command("delete")
def recordings_delete(
    device: Device,
    from_ms: Annotated[int, typer.Option("--from", help="First capture time, Unix ms.", min=0, max=MAX_MS)],
    to_ms: Annotated[
        int, typer.Option("--to", help="The capture time behind the last, Unix ms.", min=1, max=MAX_MS)
    ],
    reason: Reason,
    keep_clips: Annotated[
        bool, typer.Option("--keep-clips", help="Leave kept clips that have something of it.")
    ] = False,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Delete a range of recordings: no longer served from now on, and refused when uploaded again. Kept clips that have
    something of it are deleted, too.

    Their bytes go with their segments; a segment in which nothing is left goes after the delete delay.
    """
    if to_ms <= from_ms:
        raise CallerError("--to must lie behind --from", code="bad_range")
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        delay_ms = round(opened.config.retention.delete_delay_s * 1000)
        gone = recordings.delete(
            opened.desk,
            actor,
            device,
            from_ms,
            to_ms,
            why=reason,
            delete_delay_ms=delay_ms,
            keep_clips=keep_clips,
        )
        terminal.report(
            {
                "device": device,
                "deleted_chunks": gone.chunks,
                "bytes": gone.size_bytes,
                "dead_segments": gone.dead_segments,
            },
            json,
        )


def viewer_token(
    device: Device,
    hours: Annotated[
        float, typer.Option("--hours", help="How long it may be used.", min=0.01, max=MAX_VIEWER_HOURS)
    ] = 24.0,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            help="Where people reach the API port, for the addresses that are shown; else `notices.public_url`, else"
            " this machine, by https where [tls] is set.",
        ),
    ] = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print a token with which a person or a player may watch one device's recordings.

    Beside it, on stderr, the addresses to open in a player: what is recorded now, and what was in the last hour. A
    recording of any time has `from` and `to`, in Unix ms or like 2026-07-01T12:00:00Z.

    Example: `ffplay "$(clipkeep viewer-token --device 1 --json | jq -r .last_hour)"`
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        token, expires_s = desk_devices.viewer_token(opened.desk, actor, device, hours=hours)
        now_ms, config = opened.clock.now_ms(), opened.config
    url = url or config.notices.public_url or f"http{'s' if config.tls.certificate else ''}://127.0.0.1:8081"
    playlist = f"{url.rstrip('/')}/v1/devices/{device}/playlist.m3u8"
    live = f"{playlist}?token={token}"
    last_hour = f"{playlist}?from={now_ms - HOUR_MS}&to={now_ms}&token={token}"
    document = {
        "token": token,
        "device": device,
        "expires_s": expires_s,
        "live": live,
        "last_hour": last_hour,
    }

    def draw() -> None:
        print(token)
        terminal.say(f"live:          {live}")
        terminal.say(f"the last hour: {last_hour}")

    terminal.report(document, json, draw)


def _note_added(desk: Desk, actor: Actor, added: Sequence[DeviceFacts]) -> None:
    """One line for all of them, which may be a million."""
    numbers = {"first": added[0].device, "last": added[-1].device, "count": len(added)}
    desk.write(lambda books: desk.record(books, actor, OPERATOR_ACCOUNT, "devices_added", facts=numbers))


def _begin(
    opened: Opened,
    plans: Sequence[Plan],
    package: str,
    retention_days: int | None,
    starts_on: str | None,
) -> Plan:
    with opened.catalog.books() as books:
        offer = newest(packages.all_of(books), package).offer(retention_days)
    return begin(
        plans,
        offer,
        today=to_date(opened.entitlements.today()),
        starts_on=None if starts_on is None else parse_date(starts_on, field="--starts-on"),
    )


def _shown(standing: Standing) -> dict[str, Any]:
    """A device for people and programs."""
    facts, through = standing.facts, standing.entitled_through
    return {
        "device": facts.device,
        "account": facts.account,
        "name": standing.name.name,
        "label": standing.name.label,
        "state": standing.state,
        "entitled_through": None if through is None else through.isoformat(),
        "retention_days": standing.retention_days,
        "erasure": facts.erase_state.name.lower(),
        "seen_ms": standing.seen.seen_ms,
        "refusals": [
            {"code": one.code, "count": one.count, "last_ms": one.last_ms} for one in standing.seen.refused
        ],
        "plans": [shown_plan(facts.device, sub) for sub in standing.subscriptions],
    }


def _amount(kept: KeptDay) -> dict[str, int]:
    return {"chunks": kept.chunks, "length_bytes": kept.length_bytes, "duration_ms": kept.duration_ms}


def _cells(standing: Standing) -> list[object]:
    """A device's line of a table."""
    facts, through, refused = standing.facts, standing.entitled_through, standing.seen.refused
    return [
        facts.device,
        facts.account,
        standing.name.name,
        standing.state,
        None if through is None else through.isoformat(),
        when(standing.seen.seen_ms),
        f"{refused[0].code} {when(refused[0].last_ms)}" if refused else None,
    ]


def register(app: typer.Typer) -> None:
    shares.register(device_app)
    clips.register(device_app)
    app.add_typer(device_app, name="device")
    app.add_typer(recordings_app, name="recordings")
    app.command("viewer-token")(viewer_token)
