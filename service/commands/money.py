"""`renew`: what is due is charged."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from service import terminal
from service.agreement import renewing
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, AcceptClock, Data, Json

MAX_LIMIT = 10_000_000


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


def register(app: typer.Typer) -> None:
    app.command("renew")(renew)
