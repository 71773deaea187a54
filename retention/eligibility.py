"""Whether an owner may cancel the account, and everything that stands in the way (agreement 6.2, 6.3). Pure.

All reasons are named at once, each with what to do about it: whoever removes one should not meet the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from retention.plans import Plan, PlanKind
from retention.subscriptions import Subscription, ongoing
from storage.days import MS_PER_DAY, day_of_ms, to_date
from storage.rows.accounts import AccountRow, AccountState, BlockKind, BlockRow, CodeRow

CHANGES = {"email": "a new e-mail address", "mobile": "a new mobile number", "password": "a new password"}
"""Purposes of codes that are an ongoing change (6.3.3)."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the account can't be cancelled for now.

    Args:
        code: `not_activated` and `too_young` (6.2.1), `dispute` (6.2.2), `linked_account` (6.2.3), `balance`
            (6.3.1), `unfinished_transaction` and `refund_failed` (6.3.2), `ongoing_subscription` and
            `ongoing_change` (6.3.3), `other` (6.3.4).
        detail: what it is.
        what_to_do: about it.
    """

    code: str
    detail: str
    what_to_do: str


@dataclass(frozen=True, slots=True)
class ClosingFacts:
    """What the decision rests on.

    Args:
        min_age_days: 7 by 6.2.1.
        subscriptions: by device, of the account's devices that are not terminated.
        pending_payments: how many charges and refunds are not settled.
        failed_refunds: that the gateway refused, and nobody has paid by other means.
        open_disputes: how many charges are asked back from the bank, which has not decided.
        blocks: set by operators, lifted ones included.
        codes: that were sent and not used yet.
    """

    account: AccountRow
    now_ms: int
    min_age_days: int
    subscriptions: Mapping[int, Sequence[Subscription]]
    pending_payments: int
    failed_refunds: int
    open_disputes: int
    blocks: Sequence[BlockRow]
    codes: Sequence[CodeRow]


def cancellation_blocks(facts: ClosingFacts) -> list[Reason]:
    """Return every reason against cancelling the account now, in the order of the clauses; empty: it can be."""
    return [
        *_activation(facts),
        *_age(facts),
        *_disputes(facts),
        *_blocked(facts, BlockKind.DISPUTE),
        *_blocked(facts, BlockKind.LINKED_ACCOUNT),
        *_blocked(facts, BlockKind.BALANCE),
        *_payments(facts),
        *_blocked(facts, BlockKind.TRANSACTION),
        *_subscriptions(facts),
        *_changes(facts),
        *_blocked(facts, BlockKind.OTHER),
    ]


def _activation(facts: ClosingFacts) -> list[Reason]:
    if facts.account.state is not AccountState.NEW:
        return []
    return [
        Reason(
            "not_activated",
            "The account was never activated.",
            "Activate it with the code that was sent to you; ask for a new code if it is lost.",
        )
    ]


def _age(facts: ClosingFacts) -> list[Reason]:
    old_enough_ms = facts.account.created_ms + facts.min_age_days * MS_PER_DAY
    if facts.now_ms >= old_enough_ms:
        return []
    at = datetime.fromtimestamp(-(-old_enough_ms // 1000), UTC)
    return [
        Reason(
            "too_young",
            f"The account is less than {facts.min_age_days} days old.",
            f"Ask again on {at:%Y-%m-%d}, from {at:%H:%M:%S} UTC on.",
        )
    ]


_BLOCKS = {
    BlockKind.DISPUTE: ("dispute", "There is a dispute", "Settle the dispute with us; we then lift this."),
    BlockKind.LINKED_ACCOUNT: (
        "linked_account",
        "Another account depends on this one",
        "Have the other account separated or cancelled first; we then lift this.",
    ),
    BlockKind.BALANCE: (
        "balance",
        "The account has a balance",
        "Use it up, or have it paid out or waived; we then lift this.",
    ),
    BlockKind.TRANSACTION: (
        "unfinished_transaction",
        "A transaction is not finished",
        "Wait until it is finished, or contact us; we then lift this.",
    ),
    BlockKind.OTHER: ("other", "The account can't be cancelled for now", "Contact us; we can lift this."),
}


def _blocked(facts: ClosingFacts, kind: BlockKind) -> list[Reason]:
    code, what, what_to_do = _BLOCKS[kind]
    return [
        Reason(code, f"{what}: {block.detail}" if block.detail else f"{what}.", what_to_do)
        for block in facts.blocks
        if block.kind is kind and block.lifted_ms is None
    ]


def _disputes(facts: ClosingFacts) -> list[Reason]:
    if not facts.open_disputes:
        return []
    return [
        Reason(
            "dispute",
            f"{facts.open_disputes} of your payments are asked back from the bank, which has not decided.",
            "Wait for the bank's decision, or withdraw the dispute there; this then lifts itself.",
        )
    ]


def _payments(facts: ClosingFacts) -> list[Reason]:
    found = []
    if facts.pending_payments:
        under_way = Reason(
            "unfinished_transaction",
            f"{facts.pending_payments} of your payments or refunds are under way.",
            "Wait until they are settled, a few minutes as a rule, and ask again.",
        )
        found.append(under_way)
    if facts.failed_refunds:
        owed = Reason(
            "refund_failed",
            f"{facts.failed_refunds} refunds are owed to you, and the way that you paid by did not take them.",
            "Contact us about how to pay them; we then note that they are paid.",
        )
        found.append(owed)
    return found


def _subscriptions(facts: ClosingFacts) -> list[Reason]:
    today = to_date(day_of_ms(facts.now_ms))
    return [
        Reason("ongoing_subscription", *_ongoing(device, sub.plan))
        for device in sorted(facts.subscriptions)
        for sub in ongoing(facts.subscriptions[device], today)
    ]


def _ongoing(device: int, plan: Plan) -> tuple[str, str]:
    """What it is, and what to do."""
    through = f"through {plan.ends_on}" if plan.ends_on else "without an end"
    what = f"Device {device} has the {plan.name} plan from {plan.starts_on} {through}."
    if plan.kind is PlanKind.TRIAL or plan.cancelled_on is not None:
        return what, f"It ends by itself; ask again when {plan.ends_on} is over, at 00:00 UTC."
    return what, "Cancel the plan, and ask again when its last day is over."


def _changes(facts: ClosingFacts) -> list[Reason]:
    return [
        Reason(
            "ongoing_change",
            f"You asked for {CHANGES[code.purpose]}, and did not confirm it yet.",
            "Confirm it with the code that was sent, or wait until the code has run out.",
        )
        for code in facts.codes
        if code.purpose in CHANGES and code.expires_ms > facts.now_ms
    ]
