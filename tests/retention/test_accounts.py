"""The life of an account: which step leads where, and which are refused (agreement 3.3, 6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retention import accounts
from retention.history import account_facts, replay, standing_of
from storage.errors import CallerError
from storage.rows.accounts import AccountRow, AccountState, ClosingState, EventRow

NEW = AccountRow(
    5, "owner", "Ada", 1000, email="ada@example.org", mobile="+491712345678", password_hash="$argon2id$"
)
ACTIVE = accounts.activate(NEW, now_ms=2000)
REQUESTED = accounts.request_closing(ACTIVE, now_ms=3000, reason="moving")
APPROVED = accounts.approve_closing(REQUESTED)
CANCELLED = accounts.take_effect(APPROVED, on=20_000)
OPERATORS = AccountRow(1, "operator", "", 0, AccountState.ACTIVE)

STEPS: dict[str, Callable[[AccountRow], AccountRow]] = {
    "activate": lambda row: accounts.activate(row, now_ms=10),
    "suspend": lambda row: accounts.suspend(row, now_ms=20, why="false data"),
    "resume": accounts.resume,
    "trial": lambda row: accounts.use_trial(row, now_ms=30),
    "request": lambda row: accounts.request_closing(row, now_ms=40, reason="moving"),
    "order": lambda row: accounts.order_closing(row, now_ms=50, reason="6.1.4"),
    "approve": accounts.approve_closing,
    "reject": accounts.reject_closing,
    "withdraw": accounts.withdraw_closing,
    "effect": lambda row: accounts.take_effect(row, on=20_000),
}


def refusal(step: str, row: AccountRow) -> str:
    with pytest.raises(CallerError) as caught:
        STEPS[step](row)
    return caught.value.code


def test_the_way_from_registration_to_the_end() -> None:
    assert (ACTIVE.state, ACTIVE.activated_ms) == (AccountState.ACTIVE, 2000)
    assert (REQUESTED.closing, REQUESTED.closing_by, REQUESTED.closing_ms) == ("requested", "owner", 3000)
    assert REQUESTED.closing_reason == "moving"
    assert (APPROVED.closing, APPROVED.state) == (ClosingState.APPROVED, AccountState.ACTIVE)
    assert CANCELLED.state is AccountState.CANCELLED


def test_once_effective_nothing_but_number_kind_state_and_day_is_left() -> None:
    """6.5.1, 6.5.3."""
    assert AccountRow(5, "owner", "", 0, AccountState.CANCELLED, cancelled_on=20_000) == CANCELLED


@pytest.mark.parametrize("step", STEPS)
def test_a_cancelled_account_does_nothing_any_more(step: str) -> None:
    """6.5.1, 6.5.6."""
    assert refusal(step, CANCELLED) == "account_cancelled"


def test_suspension_can_be_lifted_and_changes_nothing_else() -> None:
    """3.3."""
    for row in (NEW, ACTIVE, REQUESTED, APPROVED):
        suspended = STEPS["suspend"](row)
        assert (suspended.suspended_ms, suspended.suspend_reason) == (20, "false data")
        assert STEPS["resume"](suspended) == row
        assert refusal("suspend", suspended) == "already_suspended"
        assert refusal("resume", row) == "not_suspended"


def test_an_account_has_one_trial() -> None:
    """7.1."""
    used = STEPS["trial"](ACTIVE)
    assert used.trial_ms == 30
    assert refusal("trial", used) == "trial_used"
    assert refusal("trial", REQUESTED) == refusal("trial", APPROVED) == "account_closing"


@pytest.mark.parametrize(
    ("row", "step", "code"),
    [
        (ACTIVE, "activate", "already_activated"),
        (REQUESTED, "request", "already_requested"),
        (APPROVED, "request", "already_requested"),
        (APPROVED, "order", "already_approved"),
        (ACTIVE, "approve", "not_requested"),
        (ACTIVE, "reject", "not_requested"),
        (ACTIVE, "withdraw", "not_requested"),
        (APPROVED, "approve", "already_approved"),
        (APPROVED, "reject", "already_approved"),
        (APPROVED, "withdraw", "already_approved"),
        (ACTIVE, "effect", "not_approved"),
        (REQUESTED, "effect", "not_approved"),
        (OPERATORS, "suspend", "operator_account"),
        (OPERATORS, "request", "operator_account"),
        (OPERATORS, "order", "operator_account"),
    ],
)
def test_steps_that_do_not_lead_anywhere_from_there(row: AccountRow, step: str, code: str) -> None:
    assert refusal(step, row) == code


def test_a_request_that_was_withdrawn_or_rejected_leaves_no_trace_in_the_row() -> None:
    """6.3, 6.4."""
    assert accounts.withdraw_closing(REQUESTED) == ACTIVE
    assert accounts.reject_closing(REQUESTED) == ACTIVE
    assert STEPS["request"](accounts.reject_closing(REQUESTED)).closing is ClosingState.REQUESTED


def test_an_operator_cancels_an_account_without_a_request_or_over_one() -> None:
    """6.1, 6.1.4."""
    for row in (NEW, ACTIVE, REQUESTED):
        ordered = STEPS["order"](row)
        assert (ordered.closing, ordered.closing_by, ordered.closing_reason) == (
            "approved",
            "operator",
            "6.1.4",
        )
        assert accounts.take_effect(ordered, on=3).cancelled_on == 3


def test_while_it_is_closing_nothing_new_begins() -> None:
    accounts.require_open(ACTIVE)
    for row, code in (
        (REQUESTED, "account_closing"),
        (APPROVED, "account_closing"),
        (CANCELLED, "account_cancelled"),
    ):
        with pytest.raises(CallerError) as caught:
            accounts.require_open(row)
        assert caught.value.code == code


def test_dormant_is_unused_for_more_than_365_days() -> None:
    """6.1.2: last used 365 days ago is not, 366 days ago is."""
    today = 20_000
    before = accounts.dormant_before_day(today, 365)
    assert not today - 365 < before
    assert today - 366 < before


def test_addresses_are_reserved_through_the_tenth_day_and_free_on_the_eleventh() -> None:
    """6.5.2."""
    last = accounts.reserved_until_day(20_000, 10)
    assert 20_000 + 10 <= last < 20_000 + 11


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=30))
def test_whatever_was_tried_the_history_tells_how_it_stands(steps: list[str]) -> None:
    row, events = NEW, [EventRow(1, 5, None, "registered", "owner", "", account_facts(NEW), 0)]
    for number, step in enumerate(steps, start=2):
        try:
            row = STEPS[step](row)
        except CallerError:
            continue
        events.append(EventRow(number, 5, None, step, "owner", "", account_facts(row), 0))
    assert replay(events).standing == standing_of(row)
    assert row.closing is ClosingState.NONE or (row.closing_ms is not None and row.closing_by)
    assert (row.state is AccountState.CANCELLED) == (row.cancelled_on is not None)
    assert replace(row, state=AccountState.NEW) == NEW or row != NEW
    for text in ("Ada", "ada@example.org", "+491712345678", "argon2id", "moving"):
        assert text not in str(events)
