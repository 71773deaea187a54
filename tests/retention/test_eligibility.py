"""Everything that stands in the way of an account's cancellation, at once (agreement 6.2, 6.3)."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from retention.eligibility import ClosingFacts, cancellation_blocks
from storage.days import MS_PER_DAY, ms_of_day, to_day
from storage.rows.accounts import AccountRow, AccountState, BlockKind, BlockRow, CodeRow
from tests.retention.life import ANNUAL, DAY, MONTHLY, Life

TODAY = date(2025, 6, 15)
NOW_MS = ms_of_day(to_day(TODAY)) + MS_PER_DAY // 2
CREATED_MS = NOW_MS - 7 * MS_PER_DAY
ACCOUNT = AccountRow(5, "owner", "Ada", CREATED_MS, AccountState.ACTIVE)
CLEAR = ClosingFacts(ACCOUNT, NOW_MS, 7, {}, 0, 0, 0, (), ())


def codes(facts: ClosingFacts) -> list[str]:
    return [reason.code for reason in cancellation_blocks(facts)]


def block(kind: BlockKind, lifted_ms: int | None = None) -> BlockRow:
    return BlockRow(1, 5, kind, "case 17", "operator", 0, lifted_ms)


def code(purpose: str, expires_ms: int = NOW_MS + 1) -> CodeRow:
    return CodeRow(5, purpose, "x", b"", expires_ms)


def test_an_account_with_nothing_in_the_way_can_be_cancelled() -> None:
    assert codes(CLEAR) == []


def test_it_is_seven_days_old_to_the_millisecond() -> None:
    """6.2.1."""
    assert codes(replace(CLEAR, now_ms=NOW_MS)) == []
    [reason] = cancellation_blocks(replace(CLEAR, now_ms=NOW_MS - 1))
    assert reason.code == "too_young"
    assert "2025-06-15" in reason.what_to_do
    assert "12:00:00 UTC" in reason.what_to_do
    assert codes(replace(CLEAR, now_ms=CREATED_MS - MS_PER_DAY)) == ["too_young"]  # a clock set back
    assert codes(replace(CLEAR, now_ms=CREATED_MS, min_age_days=0)) == []


def test_the_moment_it_works_is_never_too_early() -> None:
    facts = replace(CLEAR, account=replace(ACCOUNT, created_ms=CREATED_MS + 1))
    [reason] = cancellation_blocks(facts)
    assert "12:00:01 UTC" in reason.what_to_do


def test_it_was_activated() -> None:
    """6.2.1."""
    assert codes(replace(CLEAR, account=replace(ACCOUNT, state=AccountState.NEW))) == ["not_activated"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (BlockKind.DISPUTE, "dispute"),
        (BlockKind.LINKED_ACCOUNT, "linked_account"),
        (BlockKind.BALANCE, "balance"),
        (BlockKind.TRANSACTION, "unfinished_transaction"),
        (BlockKind.OTHER, "other"),
    ],
)
def test_what_an_operator_set_blocks_until_it_is_lifted(kind: BlockKind, expected: str) -> None:
    """6.2.2, 6.2.3, 6.3.1, 6.3.2, 6.3.4."""
    [reason] = cancellation_blocks(replace(CLEAR, blocks=(block(kind),)))
    assert reason.code == expected
    assert "case 17" in reason.detail
    assert codes(replace(CLEAR, blocks=(block(kind, lifted_ms=1),))) == []


def test_a_charge_asked_back_from_the_bank_is_a_dispute_by_itself() -> None:
    """6.2.2."""
    assert codes(replace(CLEAR, open_disputes=1)) == ["dispute"]


def test_payments_under_way_are_unfinished_transactions() -> None:
    """6.3.2."""
    assert codes(replace(CLEAR, pending_payments=2)) == ["unfinished_transaction"]


def test_a_subscription_that_runs_or_is_to_come_is_ongoing_business() -> None:
    """6.3.3; each plan is named, with the day from which it is in nobody's way."""
    life = Life(TODAY)
    annual = life.buy(ANNUAL)
    life.buy(MONTHLY)
    facts = replace(CLEAR, subscriptions={7: life.subs, 3: ()})
    assert codes(facts) == ["ongoing_subscription"] * 2
    assert "Cancel the plan" in cancellation_blocks(facts)[0].what_to_do
    life.cancel(annual)
    life.cancel(2)
    [reason] = cancellation_blocks(replace(CLEAR, subscriptions={7: life.subs}))
    assert "2025-07-14 is over" in reason.what_to_do
    past = ms_of_day(to_day(date(2025, 7, 15)))
    assert codes(replace(CLEAR, subscriptions={7: life.subs}, now_ms=past)) == []
    assert codes(replace(CLEAR, subscriptions={7: life.subs}, now_ms=past - 1)) == ["ongoing_subscription"]


def test_a_trial_is_waited_for_and_a_grant_without_an_end_is_cancelled() -> None:
    life = Life(TODAY - DAY)
    life.trial()
    [reason] = cancellation_blocks(replace(CLEAR, subscriptions={7: life.subs}))
    assert "2025-06-27 is over" in reason.what_to_do
    life = Life(TODAY)
    life.grant(MONTHLY)
    [reason] = cancellation_blocks(replace(CLEAR, subscriptions={7: life.subs}))
    assert "Cancel the plan" in reason.what_to_do
    assert "without an end" in reason.detail


@pytest.mark.parametrize("purpose", ["email", "mobile", "password"])
def test_a_change_not_confirmed_is_ongoing_business(purpose: str) -> None:
    """6.3.3, until its code has run out."""
    assert codes(replace(CLEAR, codes=(code(purpose),))) == ["ongoing_change"]
    assert codes(replace(CLEAR, codes=(code(purpose, NOW_MS),))) == []
    assert codes(replace(CLEAR, codes=(code("activate"),))) == []


def test_all_reasons_are_named_at_once_each_with_what_to_do() -> None:
    life = Life(TODAY)
    life.buy(ANNUAL)
    facts = ClosingFacts(
        replace(ACCOUNT, state=AccountState.NEW, created_ms=NOW_MS),
        NOW_MS,
        7,
        {7: life.subs},
        1,
        2,
        1,
        tuple(block(kind) for kind in BlockKind),
        (code("email"),),
    )
    assert codes(facts) == [
        "not_activated",
        "too_young",
        "dispute",
        "dispute",
        "linked_account",
        "balance",
        "unfinished_transaction",
        "refund_failed",
        "unfinished_transaction",
        "ongoing_subscription",
        "ongoing_change",
        "other",
    ]
    for reason in cancellation_blocks(facts):
        assert reason.detail.endswith((".", "case 17"))
        assert reason.what_to_do.endswith(".")
