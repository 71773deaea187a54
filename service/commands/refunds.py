"""`refund`: what a cancellation would give back, refunds by hand, credits, and refunds that were refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from secrets import token_hex
from typing import Annotated, Any

import typer

from retention.cancelling import Outcome
from retention.money import Money
from service import terminal
from service.agreement import cancelling, crediting, refunding
from service.agreement.charging import money_of
from service.commands.acting import BUILT_IN, As, acting
from service.commands.plans import MAX_NUMBER, shown_day, shown_instant, shown_money
from service.folder import open_folder
from service.terminal import DEFAULT_DATA, Data, Json
from storage.rows.accounts import PaymentRow, PaymentState

PlanNumber = Annotated[
    int, typer.Option("--plan", help="The plan's number, see `clipkeep plan list`.", min=1, max=MAX_NUMBER)
]

Minor = Annotated[
    int, typer.Option("--minor", help="The amount in minor units: 500 is 5.00 USD.", min=1, max=MAX_NUMBER)
]
Currency = Annotated[
    str | None, typer.Option("--currency", help="ISO 4217 code; default the one of config.toml.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, in a few words: kept in the history.")]
Refund = Annotated[
    str, typer.Option("--reference", help="Of the refused refund: `clipkeep payments list --state failed`.")
]
Entry = Annotated[
    str,
    typer.Option("--reference", help="Of the credit or the refund: `clipkeep account payments` shows it."),
]
refund_app = typer.Typer(
    help="Refunds: what a cancellation would give back, refunds by hand, credits, and what was refused.",
    no_args_is_help=True,
)


@refund_app.command("quote")
def refund_quote(plan: PlanNumber, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False) -> None:
    """Show both outcomes for a plan: of keeping it to its end, and of cancelling it now. Nothing is changed.

    Of an annual plan is refunded what is left of its fee after a monthly fee for each month begun, credits and earlier
    refunds (agreement 8.2.1), by the fees of the day of purchase. Access ends at 00:00 UTC after the last day.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_)
        device, found = cancelling.quote(opened.desk, actor, plan)
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


@refund_app.command("give")
def refund_give(
    plan: PlanNumber,
    minor: Minor,
    reason: Reason,
    other_means: Annotated[
        bool, typer.Option("--other-means", help="It was paid by other means: note it, and ask no gateway.")
    ] = False,
    currency: Currency = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Of the refund, so that it is given once if this is repeated."),
    ] = None,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Give back a part of what was paid for a plan, or all of it, by hand. The plan goes on as it was.

    It may be given before the plan begins, while it runs, and after it, up to what is left of what was paid. A later
    cancellation gives back as much less (agreement 8.2.1). Of a monthly plan the newest month is given back first; each
    month is a refund of its own. The owner is told, with the reason. Exit code 1: the gateway refused it; stderr says
    what to do. Example:

    clipkeep refund give --plan 7 --minor 500 --reason "two days without playback"
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        money = Money(minor, currency or opened.config.agreement.currency)
        name = reference or f"hand-{plan}-{token_hex(8)}"
        rows = refunding.give(
            opened.desk, actor, plan, money, why=reason, reference=name, otherwise=other_means
        )
    document = {
        "plan_id": plan,
        "refund": shown_money(money),
        "refunds": [_shown_payment(row) for row in rows],
    }
    terminal.report(document, json, lambda: print("\n".join(_told(row) for row in rows)))
    _end_refused(rows)


@refund_app.command("retry")
def refund_retry(
    reference: Refund, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Ask the payment gateway again for a refund that it refused: when the owner has another card, say.

    The refund gets a new reference, since a gateway has one answer for each. Exit code 1: it was refused again.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = refunding.retry(opened.desk, actor, reference, why=reason)
    terminal.report(_shown_payment(row), json, lambda: print(_told(row)))
    _end_refused([row])


@refund_app.command("paid")
def refund_paid(
    reference: Refund,
    reason: Annotated[
        str, typer.Option("--reason", help="How it was paid, in a few words: kept in the history.")
    ],
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Note that a refund which the payment gateway refused was paid by other means.

    `clipkeep renew` ends with exit code 1 until all of them are. Example:

    clipkeep refund paid --reference renewal-7-1767225600000-2026-02-01-0.r1 --reason "bank transfer of 3 March"
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = refunding.paid_otherwise(opened.desk, actor, reference, why=reason)
    terminal.report(_shown_payment(row), json, lambda: print(_told(row)))


@refund_app.command("credit")
def refund_credit(
    plan: PlanNumber,
    minor: Minor,
    reason: Reason,
    currency: Currency = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Of the credit, so that it is given once if this is repeated."),
    ] = None,
    as_: As = BUILT_IN,
    data: Data = DEFAULT_DATA,
    json: Json = False,
) -> None:
    """Note a credit that was given for a subscription: a later refund is lower by it (agreement 8.2.1).

    No money moves here. Until the plan is cancelled it can be taken back: `clipkeep refund take-back`.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        money = Money(minor, currency or opened.config.agreement.currency)
        name = reference or f"credit-{plan}-{token_hex(8)}"
        row = crediting.credit(opened.desk, actor, plan, money, why=reason, reference=name)
    document = {
        "plan_id": plan,
        "device": row.device,
        "credit": shown_money(money),
        "reference": row.reference,
    }
    terminal.report(document, json, lambda: print(f"plan {plan}: credit of {money} ({row.reference})"))


@refund_app.command("take-back")
def refund_take_back(
    reference: Entry, reason: Reason, as_: As = BUILT_IN, data: Data = DEFAULT_DATA, json: Json = False
) -> None:
    """Take back a credit, or the note that a refund was paid by other means, by a counter-entry.

    Until the plan is cancelled, for what that gives back is counted with it. A refund that the rules owe is owed on,
    and stands as `failed` again. One by hand that the gateway refused is given up. Money that left can't be taken back.
    """
    with open_folder(data) as opened:
        actor = acting(opened, as_, reason)
        row = crediting.take_back(opened.desk, actor, reference, why=reason)
    terminal.report(_shown_payment(row), json, lambda: print(_told(row)))


def _shown_payment(row: PaymentRow) -> dict[str, Any]:
    return {
        "reference": row.reference,
        "account": row.account,
        "device": row.device,
        str(row.kind): shown_money(money_of(row)),
        "state": str(row.state),
    }


_STATES = {
    PaymentState.PENDING: "the gateway has not answered, or the charge is disputed; `clipkeep renew` asks again",
    PaymentState.DONE: "paid back",
    PaymentState.FAILED: "refused by the payment gateway",
    PaymentState.PAID_OTHERWISE: "paid by other means",
    PaymentState.TAKEN_BACK: "taken back",
    PaymentState.VOID: "given up",
}


def _told(row: PaymentRow) -> str:
    return f"{row.kind} of {money_of(row)} ({row.reference}): {_STATES.get(row.state, row.state)}"


def _end_refused(rows: Sequence[PaymentRow]) -> None:
    failed = [row.reference for row in rows if row.state is PaymentState.FAILED]
    if failed:
        terminal.say(
            f"the payment gateway refused {', '.join(failed)}: ask again with `clipkeep refund retry`, note with"
            " `clipkeep refund paid` that it was paid by other means, or give it up with `clipkeep refund take-back`"
        )
        sys.exit(1)


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
    app.add_typer(refund_app, name="refund")
