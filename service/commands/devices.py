"""`device`, `plan`, `recordings`, `viewer-token`: who may record, until when, and who may look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Annotated, Any

import typer

from retention.entitlements import plan_of, row_of
from retention.erasure import mark_renewed, mark_terminated
from retention.plans import Plan, PlanKind, cancel, period
from retention.subscriptions import begin
from retention.tokens import mint_device_token, mint_viewer_token
from service import terminal
from service.folder import Opened, open_folder
from service.terminal import DEFAULT_DATA, MAX_DEVICE, Data, Device, Json, Reason
from storage.catalog import DeviceFacts, EraseState, PlanRow
from storage.days import ms_of_day, parse_date, to_date
from storage.errors import CallerError

OPERATOR_ACCOUNT = 1
MAX_ADDED = 1_000_000
MAX_VIEWER_HOURS = 24 * 366
MAX_MS = 253_402_300_800_000
"""The first millisecond of the year 10000: no capture time lies behind it."""

Kind = Annotated[PlanKind, typer.Option("--plan", help="trial: 14 days, 7 days of storage; monthly; annual.")]
Retention = Annotated[
    int | None,
    typer.Option("--retention-days", help="Days of storage; default from config.toml; 7 for a trial."),
]
StartsOn = Annotated[
    str | None,
    typer.Option("--starts-on", help="YYYY-MM-DD, UTC. Default today. A past date imports a running plan."),
]

device_app = typer.Typer(help="Devices: add, list, show, suspend, resume, terminate.", no_args_is_help=True)
plan_app = typer.Typer(help="Plans: start and cancel.", no_args_is_help=True)
recordings_app = typer.Typer(help="Recordings: delete a range.", no_args_is_help=True)


@device_app.command("add")
def device_add(
    count: Annotated[int, typer.Option("--count", help="How many devices.", min=1, max=MAX_ADDED)] = 1,
    plan: Annotated[PlanKind | None, typer.Option("--plan", help="Start this plan for them at once.")] = None,
    retention_days: Retention = None,
    starts_on: StartsOn = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Add devices and print their tokens.

    A token is what the camera sends as `Authorization: Bearer TOKEN`, or as the password in
    `http://DEVICE:TOKEN@host/`. Without --plan a device may not record yet: see `clipkeep plan start`.
    """
    with open_folder(data) as opened:
        plans: Sequence[PlanRow] = ()
        if plan is not None:
            plans = [row_of(_begin(opened, (), plan, retention_days, starts_on))]
        elif retention_days is not None or starts_on is not None:
            raise CallerError("--retention-days and --starts-on go with --plan", code="bad_usage")
        added = opened.entitlements.add_devices(count, account=OPERATOR_ACCOUNT, plans=plans)
        secret = opened.key_store.token_secret
        found = [
            {"device": f.device, "token": mint_device_token(secret, f.device, f.token_generation)}
            for f in added
        ]
    if count == 1:
        terminal.report(found[0], json)
    else:
        lines = "\n".join(f"{d['device']} {d['token']}" for d in found)
        terminal.report({"devices": found}, json, lambda: print(lines))


@device_app.command("list")
def device_list(
    after: Annotated[
        int, typer.Option("--after", help="Only devices with higher numbers.", min=0, max=MAX_DEVICE)
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=100_000)] = 100,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """List devices with their state and plans."""
    with open_folder(data) as opened:
        rows = [_shown(opened, facts) for facts in opened.catalog.devices(after=after, limit=limit)]
    terminal.report(
        {"devices": rows},
        json,
        lambda: terminal.table(
            "devices",
            ["device", "state", "entitled through", "retention days"],
            [[r["device"], r["state"], r["entitled_through"], r["retention_days"]] for r in rows],
        ),
    )


@device_app.command("show")
def device_show(device: Device, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show one device: state, token, plans."""
    with open_folder(data) as opened:
        facts = opened.catalog.device(device)
        document = _shown(opened, facts)
        document["token"] = mint_device_token(
            opened.key_store.token_secret, facts.device, facts.token_generation
        )
        terminal.report(document, json)


@device_app.command("suspend")
def device_suspend(device: Device, reason: Reason, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Deny uploads and playback at once. Nothing is erased; `device resume` lifts it."""
    _change_device(data, device, lambda f: replace(f, suspended=True), f"suspended: {reason}", json)


@device_app.command("resume")
def device_resume(device: Device, reason: Reason, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Lift a suspension."""
    _change_device(data, device, lambda f: replace(f, suspended=False), f"resumed: {reason}", json)


@device_app.command("new-token")
def device_new_token(device: Device, reason: Reason, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Void all tokens of a device, viewers' included, and print its new one."""
    _change_device(
        data,
        device,
        lambda f: replace(f, token_generation=f.token_generation + 1),
        f"new token: {reason}",
        json,
        with_token=True,
    )


@device_app.command("terminate")
def device_terminate(
    device: Device,
    reason: Reason,
    erase: Annotated[
        bool, typer.Option("--erase", help="Destroy the recordings' keys with the next sweep, without grace.")
    ] = False,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Deny uploads and playback for good, at once.

    The recordings' keys are destroyed after `lapse_grace_days`, or at once with --erase: then nobody can ever read
    them again, and their bytes go with their segments.
    """
    with open_folder(data) as opened:
        now_ms = opened.clock.now_ms()

        def terminate(facts: DeviceFacts) -> DeviceFacts:
            return mark_terminated(facts, now_ms=now_ms, erase=erase)

        facts = opened.entitlements.change(device, terminate, what=f"terminated: {reason}")
        destroyed = 0
        if facts.erase_state is EraseState.ERASING:
            destroyed = opened.key_store.destroy_device(device, below_epoch=facts.erase_epoch)
        terminal.report({**_shown(opened, facts), "destroyed_keys": destroyed}, json)


@plan_app.command("start")
def plan_start(
    device: Device,
    plan: Kind,
    retention_days: Retention = None,
    starts_on: StartsOn = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Start a plan for a device: from that day on it may record, and what it records may be watched.

    While another plan of the device runs, the new one starts the day after it ends; during a trial at once.
    """
    with open_folder(data) as opened:

        def start(facts: DeviceFacts) -> DeviceFacts:
            if facts.terminated_ms is not None:
                raise CallerError(
                    "this device was terminated; add a new one", subject=f"device {device}", code="terminated"
                )
            begun = _begin(opened, [plan_of(p) for p in facts.plans], plan, retention_days, starts_on)
            return replace(mark_renewed(facts), plans=(*facts.plans, row_of(begun)))

        facts = opened.entitlements.change(device, start, what=f"plan started: {plan}")
        started = facts.plans[-1]
        terminal.report(_shown_plan(device, started), json)


@plan_app.command("cancel")
def plan_cancel(device: Device, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Cancel the device's plan: it goes on through the last day of its period, and then lapses.

    Of a plan that runs and one that is to follow it, the one that follows is cancelled first.
    """
    with open_folder(data) as opened:
        on = to_date(opened.entitlements.today())
        chosen: PlanRow | None = None

        def stop(facts: DeviceFacts) -> DeviceFacts:
            nonlocal chosen
            chosen = _to_cancel(facts, on)
            cancelled = row_of(cancel(plan_of(chosen), on), chosen.plan_id)
            return replace(facts, plans=tuple(cancelled if p is chosen else p for p in facts.plans))

        facts = opened.entitlements.change(device, stop, what="plan cancelled")
        assert chosen is not None, "the change was made"
        [cancelled] = [p for p in facts.plans if p.plan_id == chosen.plan_id]
        terminal.report(_shown_plan(device, cancelled), json)


def _to_cancel(facts: DeviceFacts, on: date) -> PlanRow:
    """The plan that ends last of those not ended or cancelled: a paid one, where there is one."""
    plans = [p for p in facts.plans if p.cancelled_on is None and not plan_of(p).has_ended(on)]
    if not plans:
        raise CallerError(
            "no plan of this device can be cancelled: none runs, or it is cancelled already",
            subject=f"device {facts.device}",
            code="no_running_plan",
        )
    return max(plans, key=lambda p: (p.kind != PlanKind.TRIAL, p.starts_on))


@recordings_app.command("delete")
def recordings_delete(
    device: Device,
    from_ms: Annotated[int, typer.Option("--from", help="First capture time, Unix ms.", min=0, max=MAX_MS)],
    to_ms: Annotated[
        int, typer.Option("--to", help="The capture time behind the last, Unix ms.", min=1, max=MAX_MS)
    ],
    reason: Reason,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Delete a range of recordings: no longer served from now on, and refused when uploaded again.

    Their bytes go with their segments; a segment in which nothing is left goes after the delete delay.
    """
    if to_ms <= from_ms:
        raise CallerError("--to must lie behind --from", code="bad_range")
    with open_folder(data) as opened:
        now_ms = opened.clock.now_ms()
        gone = opened.catalog.delete_range(
            device,
            from_ms,
            to_ms,
            reason=reason,
            who="operator",
            now_ms=now_ms,
            delete_after_ms=now_ms + round(opened.config.retention.delete_delay_s * 1000),
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
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Print a token with which a person or a player may watch one device's recordings."""
    if not math.isfinite(hours):
        raise CallerError("--hours is a number of hours", code="bad_usage")
    with open_folder(data) as opened:
        facts = opened.catalog.device(device)
        # By the time that readers are judged by: after a clock was set back that is the later day's.
        now_ms = max(opened.clock.now_ms(), ms_of_day(opened.entitlements.today()))
        expires_s = now_ms // 1000 + round(hours * 3600)
        token = mint_viewer_token(opened.key_store.token_secret, device, facts.token_generation, expires_s)
    terminal.report({"token": token, "device": device, "expires_s": expires_s}, json, lambda: print(token))


def _begin(
    opened: Opened,
    plans: Sequence[Plan],
    kind: PlanKind,
    retention_days: int | None,
    starts_on: str | None,
) -> Plan:
    return begin(
        plans,
        kind,
        today=to_date(opened.entitlements.today()),
        starts_on=None if starts_on is None else parse_date(starts_on, field="--starts-on"),
        retention_days=retention_days,
        default_retention_days=opened.config.retention.default_days,
    )


def _change_device(
    data: Any, device: int, change: Any, what: str, json: bool, *, with_token: bool = False
) -> None:
    with open_folder(data) as opened:
        facts = opened.entitlements.change(device, change, what=what)
        document = _shown(opened, facts)
        if with_token:
            document["token"] = mint_device_token(
                opened.key_store.token_secret, device, facts.token_generation
            )
        terminal.report(document, json)


def _shown(opened: Opened, facts: DeviceFacts) -> dict[str, Any]:
    """A device for people and programs."""
    on = to_date(opened.entitlements.today())
    running = [p for p in facts.plans if plan_of(p).runs(on)]
    state = "no plan"
    if facts.terminated_ms is not None:
        state = "terminated"
    elif facts.suspended:
        state = "suspended"
    elif running:
        state = "recording"
    elif facts.plans:
        state = "not started" if any(_is_to_come(p, on) for p in facts.plans) else "lapsed"
    through = [_through(p, on) for p in running]
    return {
        "device": facts.device,
        "account": facts.account,
        "state": state,
        "entitled_through": max(through).isoformat() if through else None,
        "retention_days": max((p.retention_days for p in running), default=None),
        "erasure": facts.erase_state.name.lower(),
        "plans": [_shown_plan(facts.device, p) for p in facts.plans],
    }


def _is_to_come(row: PlanRow, on: date) -> bool:
    return to_date(row.starts_on) > on and not plan_of(row).has_ended(to_date(row.starts_on))


def _through(row: PlanRow, on: date) -> date:
    """Last day that is certain: the plan's, or that of the period which renews itself."""
    return period(plan_of(row), on)[1] if row.ends_on is None else to_date(row.ends_on)


def _shown_plan(device: int, row: PlanRow) -> dict[str, Any]:
    return {
        "device": device,
        "plan": row.kind,
        "starts_on": to_date(row.starts_on).isoformat(),
        "ends_on": None if row.ends_on is None else to_date(row.ends_on).isoformat(),
        "renews": row.ends_on is None,
        "retention_days": row.retention_days,
        "cancelled_on": None if row.cancelled_on is None else to_date(row.cancelled_on).isoformat(),
    }


def register(app: typer.Typer) -> None:
    app.add_typer(device_app, name="device")
    app.add_typer(plan_app, name="plan")
    app.add_typer(recordings_app, name="recordings")
    app.command("viewer-token")(viewer_token)
