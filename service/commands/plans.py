"""`plan`: start, cancel and list the plans of a device, and what they cost."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer

from retention.fee_changes import first_day
from retention.money import Money
from retention.plans import denied_from_ms
from retention.subscriptions import Subscription
from service import terminal
from service.agreement import cancelling, devices, packages, purchases
from service.agreement.cancelling import Cancelled
from service.commands.acting import BUILT_IN, As, Why, acting
from service.commands.packages import PACKAGE_HEADS, package_row
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Device, Json
from storage.days import parse_date

MAX_NUMBER = (1 << 63) - 1

Package = Annotated[
    str,
    typer.Option("--plan", help="A package: trial, monthly, annual, or another of `clipkeep package list`."),
]
Retention = Annotated[
    int | None,
    typer.Option(
        "--retention-days", help="Days of storage; default: those of the package. A trial has its own."
    ),
]
StartsOn = Annotated[
    str | None,
    typer.Option("--starts-on", help="YYYY-MM-DD, UTC. Default today. A past date imports a running plan."),
]

plan_app = typer.Typer(help="Plans: start, cancel, list; what they cost.", no_args_is_help=True)


@plan_app.command("start")
def plan_start(
    device: Device,
    plan: Package,
    retention_days: Retention = None,
    starts_on: StartsOn = None,
    reason: Why = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Start a plan for a device, without a charge: from that day on it may record, and what it records may be watched.

    While another plan of the device runs, the new one starts the day after it ends; a trial is cut short by it, and
    what that recorded keeps its days of storage. An owner's device has its account's one trial (agreement 7.1).
    Owners pay for plans over HTTP; what is started here is a gift of the house, and nothing is ever refunded of it.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        opened.settle_numbers()
        started = purchases.grant(
            opened.desk,
            actor,
            device,
            plan,
            retention_days=retention_days,
            starts_on=None if starts_on is None else parse_date(starts_on, field="--starts-on"),
        )
        terminal.report(shown_plan(device, started.subscription), json)


@plan_app.command("cancel")
def plan_cancel(
    device: Device,
    plan: Annotated[
        int | None,
        typer.Option(
            "--plan", help="A plan's number, see `plan list`. Default: see above.", min=1, max=MAX_NUMBER
        ),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, in a few words: kept in the history.")] = "",
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Cancel a plan of the device: it goes on through the last day of what is paid for, and then lapses.

    Of a plan that runs and one that is to follow it, the one that follows is cancelled first, unless --plan says
    which. A plan that has not begun is refunded in full. Of one paid in full that runs, what is left of its fee after a
    monthly fee for each month begun is refunded, and it ends with that month; a monthly plan gives nothing back
    (agreement 8.2). `clipkeep refund quote` tells beforehand. Plans behind it move up.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        done = cancelling.cancel_of_device(opened.desk, actor, device, plan_id=plan, why=reason)
        terminal.report({**shown_plan(device, done.subscription), **_shown_refund(done)}, json)


@plan_app.command("list")
def plan_list(device: Device, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """List the plans of a device, ended and cancelled ones too: their days, what was paid, and when access ends.

    The number of a plan is what `clipkeep refund` asks for. A plan without a fee was started by an operator.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        standing = devices.show(opened.desk, actor, device)
    plans = [shown_plan(device, sub) for sub in standing.subscriptions]
    fees = [_shown_fees(sub) for sub in standing.subscriptions]

    def draw() -> None:
        columns = [
            "plan",
            "package",
            "kind",
            "first day",
            "last day",
            "access ends (UTC)",
            "renews",
            "fee",
            "next fee",
            "storage days",
        ]
        terminal.table(
            f"plans of device {device}",
            [*columns, "cancelled on"],
            [
                [
                    *(p["plan_id"], p["package"], p["plan"], p["starts_on"], p["ends_on"], p["denied_from"]),
                    *("yes" if p["renews"] else "no", *fee, p["retention_days"], p["cancelled_on"]),
                ]
                for p, fee in zip(plans, fees, strict=True)
            ],
        )

    terminal.report({"device": device, "plans": plans}, json, draw)


@plan_app.command("prices")
def plan_prices(data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show today's fees of the packages `monthly` and `annual`. `clipkeep package list` shows all that is sold.

    A plan keeps the fees of the day on which it was bought; `clipkeep package apply` tells monthly ones of another.
    """
    with open_folder(data) as opened:
        sold = {package.name: package for package in packages.listed(opened.desk)}
        currency = opened.config.agreement.currency
    fees = {
        name: shown_money(sold[name].prices[currency].fee)
        for name in (packages.MONTHLY, packages.ANNUAL)
        if name in sold and currency in sold[name].prices
    }
    monthly = sold.get(packages.MONTHLY)
    days = None if monthly is None else monthly.retention_days
    document = {"monthly": None, "annual": None, **fees, "retention_days": days}
    rows = [package_row(package) for package in sold.values()]
    terminal.report(document, json, lambda: terminal.table("prices", PACKAGE_HEADS, rows))


# --- for people and programs ------------------------------------------------------------------------------------------


def shown_money(money: Money) -> dict[str, Any]:
    return {"minor": money.minor, "currency": money.currency}


def shown_day(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def shown_instant(ms: int | None) -> str | None:
    """A Unix time in ms, at a full second, as people and programs read it."""
    return None if ms is None else datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_plan(device: int, sub: Subscription) -> dict[str, Any]:
    """A plan. `ends_on` is the last day that is certain, `denied_from` the instant at which access ends if nothing
    follows; None for one without an end, or without a day."""
    plan = sub.plan
    ends = plan.ends_on if plan.has_days else None
    return {
        "device": device,
        "plan_id": sub.plan_id,
        "plan": str(plan.kind),
        "package": plan.package,
        "package_version": plan.version,
        "starts_on": plan.starts_on.isoformat(),
        "ends_on": shown_day(plan.ends_on),
        "denied_from": None if ends is None else shown_instant(denied_from_ms(ends)),
        "renews": sub.renews or plan.ends_on is None,
        "retention_days": plan.retention_days,
        "cancelled_on": shown_day(plan.cancelled_on),
        "fee": None if sub.terms is None else shown_money(sub.terms.fee),
        "next_fee": None if sub.next_fee is None else shown_money(sub.next_fee.fee),
        "next_fee_from": shown_day(first_day(sub)),
    }


def _shown_fees(sub: Subscription) -> tuple[str | None, str | None]:
    """The fee, and the one that its owner was told of, for people."""
    fee = None if sub.terms is None else str(sub.terms.fee)
    return fee, None if sub.next_fee is None else f"{sub.next_fee.fee} from {first_day(sub)}"


def _shown_refund(done: Cancelled) -> dict[str, Any]:
    refund = done.cancellation.refund
    states = {str(row.state) for row in done.refunds}
    return {
        "refund": shown_money(refund) if refund else None,
        "refund_state": states.pop() if len(states) == 1 else ("pending" if states else None),
        "notes": [note.text for note in done.cancellation.change.notes],
    }


def register(app: typer.Typer) -> None:
    app.add_typer(plan_app, name="plan")
