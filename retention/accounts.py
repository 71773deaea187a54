"""The life of an account, from registration to the end of its cancellation (agreement 1.2, 3.3, 6). Pure.

    NEW → ACTIVE           the code that was sent to its address came back
    suspended, resumed     by an operator, at any time; it says nothing of the state and erases nothing
    NONE → REQUESTED → APPROVED → CANCELLED (6.4)
                           requested by the owner, and withdrawn until it is approved; approved or rejected by an
                           operator, who may also order it (6.1); effective when the notices are delivered

Each step takes a row and returns the next; a step that is not possible from there is refused. When an owner may ask
for it (6.2, 6.3) is in `eligibility.py`.
"""

from __future__ import annotations

from dataclasses import replace

from storage.errors import Conflict, Unprocessable
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, AccountState, ClosingState


def activate(row: AccountRow, *, now_ms: int) -> AccountRow:
    """Its address is proved (6.2.1).

    Raises:
        CallerError: `already_activated`, `account_cancelled`.
    """
    _require_there(row)
    if row.state is not AccountState.NEW:
        raise Conflict("it is active; log in", subject=_subject(row), code="already_activated")
    return replace(row, state=AccountState.ACTIVE, activated_ms=now_ms)


def suspend(row: AccountRow, *, now_ms: int, why: str) -> AccountRow:
    """No log-in, upload or playback until it is resumed (3.3, 6.1). Nothing is erased by it.

    Raises:
        CallerError: `already_suspended`, `account_cancelled`, `operator_account`.
    """
    _require_owner(row)
    if row.suspended_ms is not None:
        raise Conflict(
            "it is suspended already; resume it first to give another reason",
            subject=_subject(row),
            code="already_suspended",
        )
    return replace(row, suspended_ms=now_ms, suspend_reason=why)


def resume(row: AccountRow) -> AccountRow:
    """Raises:
    CallerError: `not_suspended`, `account_cancelled`.
    """
    _require_there(row)
    if row.suspended_ms is None:
        raise Conflict("it is not suspended", subject=_subject(row), code="not_suspended")
    return replace(row, suspended_ms=None, suspend_reason="")


def use_trial(row: AccountRow, *, now_ms: int) -> AccountRow:
    """Its one trial begins (7.1); what becomes of the device changes nothing about that.

    Raises:
        CallerError: `trial_used`, `account_cancelled`, `account_closing`.
    """
    require_open(row)
    if row.trial_ms is not None:
        raise Conflict("each account has one trial, and yours was used; buy a plan", code="trial_used")
    return replace(row, trial_ms=now_ms)


def request_closing(row: AccountRow, *, now_ms: int, reason: str) -> AccountRow:
    """The owner asks for cancellation (6.2). Whether the owner may is for `eligibility` to say, before.

    Raises:
        CallerError: `already_requested`, `account_cancelled`, `operator_account`.
    """
    _require_owner(row)
    if row.closing is not ClosingState.NONE:
        raise Conflict(
            f"the cancellation is {row.closing} already", subject=_subject(row), code="already_requested"
        )
    return replace(
        row,
        closing=ClosingState.REQUESTED,
        closing_ms=now_ms,
        closing_reason=reason,
        closing_by="owner",
    )


def order_closing(row: AccountRow, *, now_ms: int, reason: str) -> AccountRow:
    """An operator cancels the account (6.1): nobody has to approve it, and an owner's request is overtaken.

    Raises:
        CallerError: `already_approved`, `account_cancelled`, `operator_account`.
    """
    _require_owner(row)
    if row.closing is ClosingState.APPROVED:
        raise _approved(row)
    return replace(
        row,
        closing=ClosingState.APPROVED,
        closing_ms=now_ms,
        closing_reason=reason,
        closing_by="operator",
    )


def approve_closing(row: AccountRow) -> AccountRow:
    """An operator consents (6.2, 6.4); it takes effect with the delivery of the notices.

    Raises:
        CallerError: `not_requested`, `already_approved`, `account_cancelled`.
    """
    _require_requested(row)
    return replace(row, closing=ClosingState.APPROVED)


def reject_closing(row: AccountRow) -> AccountRow:
    """An operator refuses (6.3); the owner may ask again.

    Raises:
        CallerError: `not_requested`, `already_approved`, `account_cancelled`.
    """
    _require_requested(row)
    return _no_closing(row)


def withdraw_closing(row: AccountRow) -> AccountRow:
    """The owner takes the request back, until it is approved: then the notices are on their way.

    Raises:
        CallerError: `not_requested`, `already_approved`, `account_cancelled`.
    """
    _require_requested(row)
    return _no_closing(row)


def take_effect(row: AccountRow, *, on: int) -> AccountRow:
    """The cancellation takes effect on day number `on` (6.4, 6.5): for good, and the row keeps no more than its
    number, kind, state and that day.

    Raises:
        CallerError: `not_approved`, `account_cancelled`.
    """
    _require_there(row)
    if row.closing is not ClosingState.APPROVED:
        raise Conflict("its cancellation is not approved", subject=_subject(row), code="not_approved")
    return AccountRow(row.account, row.kind, "", 0, AccountState.CANCELLED, cancelled_on=on)


def require_open(row: AccountRow) -> None:
    """Raises:
    CallerError: `account_closing`: its cancellation is requested or approved, so nothing new begins (6.3.2, 6.3.3);
        `account_cancelled`.
    """
    _require_there(row)
    if row.closing is not ClosingState.NONE:
        raise Conflict(
            f"the cancellation of this account is {row.closing}; withdraw it first",
            subject=_subject(row),
            code="account_closing",
        )


def dormant_before_day(today: int, dormant_days: int) -> int:
    """Return the day number before which an account must have been made and last used to be dormant today: unused
    for more than `dormant_days` (6.1.2)."""
    return today - dormant_days


def reserved_until_day(effective_on: int, reserve_days: int) -> int:
    """Return the last day number on which the addresses of a cancelled account can't be used (6.5.2): with 10 days
    they can from the 11th day after it took effect."""
    return effective_on + reserve_days


def _no_closing(row: AccountRow) -> AccountRow:
    return replace(row, closing=ClosingState.NONE, closing_ms=None, closing_reason="", closing_by="")


def _require_there(row: AccountRow) -> None:
    if row.state is AccountState.CANCELLED:
        raise Conflict(
            "this account was cancelled for good; register a new one",
            subject=_subject(row),
            code="account_cancelled",
        )


def _require_owner(row: AccountRow) -> None:
    _require_there(row)
    if row.account == OPERATOR_ACCOUNT or row.kind == "operator":
        raise Unprocessable(
            "the operators' own account can't be suspended or cancelled",
            subject=_subject(row),
            code="operator_account",
        )


def _require_requested(row: AccountRow) -> None:
    _require_there(row)
    if row.closing is ClosingState.APPROVED:
        raise _approved(row)
    if row.closing is not ClosingState.REQUESTED:
        raise Conflict("nobody asked for its cancellation", subject=_subject(row), code="not_requested")


def _approved(row: AccountRow) -> Conflict:
    return Conflict(
        "its cancellation is approved and takes effect when the notices are delivered",
        subject=_subject(row),
        code="already_approved",
    )


def _subject(row: AccountRow) -> str:
    return f"account {row.account}"
