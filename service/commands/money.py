"""`renew` and `refund`: what is due is charged, and what a cancellation would give back."""

from __future__ import annotations

import sys
from dataclasses import asdict
from secrets import token_hex
from typing import Annotated, Any

import typer

from retention.cancelling import Outcome
from retention.money import Money
from service import terminal
from service.agreement import cancelling, renewing
from service.agreement.desk import OPERATOR
from service.commands.plans import MAX_NUMBER, shown_day, shown_instant, shown_money
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, AcceptClock, Data, Json

MAX_LIMIT = 10_000_000
PlanNumber = Annotated[
    int, typer.Option("--plan", help="The plan's number, see `clipkeep plan list`.", min=1, max=MAX_NUMBER)
]

refund_app = typer.Typer(
    help="Refunds: what a cancellation would give back; credits that lower it.", no_args_is_help=True
)


def renew(
    limit: Annotated[
        int, typer.Option("--limit", help="Subscriptions looked at, at most.", min=1, max=MAX_LIMIT)
    ] = renewing.DEFAULT_LIMIT,
    accept_clock: AcceptClock = False,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Charge the monthly plans that are due, finish what an earlier run left, and let lapse what ended unpaid.

    To be run from cron, every hour or so: it may be run at any time, from several hosts at once, and again after a
    crash, and charges each month once. A charge is made `charge_ahead_days` before the paid month ends; one that is
    declined is tried again after `charge_retry_h`, until that month ends, and then the plan lapses. One that is not
    answered is asked for again after `payment_retry_s`, doubling up to `payment_max_retry_s`. Exit code 1: the
    clock does not fit what is known of the time (nothing was done), payments wait for the gateway, a refund was
    refused and not paid otherwise, or there is more than --limit; stderr says what to do.
    """
    with open_folder(data) as opened:
        # A clock that is ahead charges months too early, and lets plans lapse.
        opened.witness.note(accept=accept_clock)
        report = renewing.renew(opened.desk, limit=limit)
    terminal.report(asdict(report), json)
    if report.refund_failed:
        terminal.say(
            f"{report.refund_failed} refunds were refused by the payment gateway: they stand as `failed` among the"
            " payments of their accounts; pay them by other means, then say so with `clipkeep refund paid`"
        )
    if report.waiting:
        terminal.say(f"{report.waiting} payments wait for the payment gateway: run this again later")
    elif not report.complete:
        terminal.say("there is more than --limit: run this again")
    if report.refund_failed or not report.complete:
        sys.exit(1)


@refund_app.command("quote")
def refund_quote(plan: PlanNumber, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show both outcomes for a plan: of keeping it to its end, and of cancelling it now. Nothing is changed.

    Of an annual plan is refunded what is left of its fee after a monthly fee for each month begun, credits and earlier
    refunds (agreement 8.2.1), by the fees of the day of purchase. Access ends at 00:00 UTC after the last day.
    """
    with open_folder(data) as opened:
        device, found = cancelling.quote(opened.desk, OPERATOR, plan)
    document = {
        "plan_id": plan,
        "device": device,
        "keep": _shown_outcome(found.keep),
        "cancel": _shown_outcome(found.cancel),
        "notes": [note.text for note in found.cancellation.change.notes],
    }
    rows = [_row("keep", found.keep), _row("cancel now", found.cancel)]

    def draw() -> None:
        columns = ["", "last day", "access ends (UTC)", "renews", "refund"]
        terminal.table(f"plan {plan} of device {device}", columns, rows)
        for note in found.cancellation.change.notes:
            print(note.text)

    terminal.report(document, json, draw)


@refund_app.command("credit")
def refund_credit(
    plan: PlanNumber,
    minor: Annotated[
        int,
        typer.Option("--minor", help="The amount in minor units: 500 is 5.00 USD.", min=1, max=MAX_NUMBER),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why, in a few words: kept in the history.")],
    currency: Annotated[
        str | None, typer.Option("--currency", help="ISO 4217 code; default the one of config.toml.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Of the credit, so that it is given once if this is repeated."),
    ] = None,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Note a credit that was given for a subscription: a later refund is lower by it (agreement 8.2.1).

    No money moves here. A credit can't be taken back.
    """
    with open_folder(data) as opened:
        money = Money(minor, currency or opened.config.agreement.currency)
        name = reference or f"credit-{plan}-{token_hex(8)}"
        row = cancelling.credit(opened.desk, OPERATOR, plan, money, why=reason, reference=name)
    document = {
        "plan_id": plan,
        "device": row.device,
        "credit": shown_money(money),
        "reference": row.reference,
    }
    terminal.report(document, json, lambda: print(f"plan {plan}: credit of {money} ({row.reference})"))


@refund_app.command("paid")
def refund_paid(
    reference: Annotated[
        str, typer.Option("--reference", help="Of the refused refund: `clipkeep account payments` shows it.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", help="How it was paid, in a few words: kept in the history.")
    ],
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Note that a refund which the payment gateway refused was paid by other means.

    `clipkeep renew` ends with exit code 1 until all of them are. Example:

    clipkeep refund paid --reference renewal-7-1767225600000-2026-02-01-0.r1 --reason "bank transfer of 3 March"
    """
    with open_folder(data) as opened:
        row = cancelling.paid_otherwise(opened.desk, OPERATOR, reference, why=reason)
    money = Money(row.minor, row.currency)
    document = {
        "reference": row.reference,
        "account": row.account,
        "device": row.device,
        "refund": shown_money(money),
        "state": str(row.state),
    }
    terminal.report(
        document, json, lambda: print(f"refund of {money} ({row.reference}): paid by other means")
    )


def _shown_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "last_day": shown_day(outcome.last_day),
        "denied_from": shown_instant(outcome.denied_from_ms),
        "renews": outcome.renews,
        "refund": shown_money(outcome.refund),
    }


def _row(name: str, outcome: Outcome) -> list[object]:
    ends = shown_instant(outcome.denied_from_ms) or ("another plan follows" if outcome.last_day else None)
    return [
        name,
        shown_day(outcome.last_day) or "none",
        ends,
        "yes" if outcome.renews else "no",
        outcome.refund,
    ]


def register(app: typer.Typer) -> None:
    app.command("renew")(renew)
    app.add_typer(refund_app, name="refund")
