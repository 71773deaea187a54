"""How accounts, notices and their dates are shown, to people and to programs. Names in JSON are those of the API."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.plans import MAX_NUMBER, shown_instant
from service.terminal import visible
from storage.days import to_date
from storage.errors import CallerError
from storage.rows.accounts import AccountRow, ClosingState, NoticeRow

MAX_PAGE = 100_000
MAX_TEXT_BYTES = 4_000_000
"""Of a text that is read from a file or stdin: more than any agreement or announcement may have."""

Account = Annotated[
    int, typer.Option("--account", help="The account's number, see `account list`.", min=1, max=MAX_NUMBER)
]
After = Annotated[
    int, typer.Option("--after", help="Only those with higher numbers: the next page.", min=0, max=MAX_NUMBER)
]
Limit = Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=MAX_PAGE)]


def shown_on(day: int | None) -> str | None:
    """A day number as a date; None for none, and for day 0, which stands for never."""
    return to_date(day).isoformat() if day else None


def when(ms: int | None) -> str | None:
    """A time (UTC) for a cell of a table: on a narrow terminal it becomes two lines, the day and the time."""
    instant = shown_instant(ms)
    return None if instant is None else instant.replace("T", " ").rstrip("Z")


def facts(title: str, pairs: Iterable[tuple[str, object]]) -> None:
    """Print one thing: its title, and below it a line for each fact that there is."""
    there = [(name, visible(str(value))) for name, value in pairs if value not in (None, "")]
    width = max((len(name) for name, _ in there), default=0)
    print(visible(title))
    for name, value in there:
        print(f"  {name:{width}}  {value}")


def next_after(rows: list[dict[str, Any]], limit: int, key: str) -> int | None:
    """What --after is for the next page, None after the last one. After a last page that is full comes an empty one."""
    return int(rows[-1][key]) if len(rows) == limit else None


def next_page(rows: list[dict[str, Any]], limit: int, key: str) -> None:
    """Say how to see more, when the page is full."""
    after = next_after(rows, limit, key)
    if after is not None:
        print(f"these are {limit}, and there may be more: --after {after}, or a larger --limit")


def text_of(path: Path, option: str) -> str:
    """The text of a file, or of stdin for `-`.

    Raises:
        CallerError: `bad_file`: it can't be read, is too large, or is not UTF-8.
    """
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            content = file.read(MAX_TEXT_BYTES + 1)
        if len(content) > MAX_TEXT_BYTES:
            raise CallerError(f"{option}: longer than {MAX_TEXT_BYTES} bytes", code="bad_file")
        return content.decode()
    except OSError as error:
        raise CallerError(
            f"{option}: cannot be read: {error.strerror or error}", subject=str(path), code="bad_file"
        ) from error
    except UnicodeDecodeError as error:
        raise CallerError(
            f"{option}: not UTF-8 text; write it in UTF-8", subject=str(path), code="bad_file"
        ) from error


def counted(count: int, what: str) -> str:
    """ "no plan", "1 plan", "2 plans"."""
    return f"{count or 'no'} {what}{'s' if count > 1 else ''}"


# --- accounts -----------------------------------------------------------------------------------------------------


def state_of(row: AccountRow) -> str:
    """In a word or two, what matters most first."""
    if row.cancelled_on is not None:
        return "cancelled"
    words = [] if row.suspended_ms is None else ["suspended"]
    if row.closing is not ClosingState.NONE:
        words.append(f"cancellation {row.closing}")
    return ", ".join(words) or {"new": "not activated"}.get(row.state, str(row.state))


def shown_account(row: AccountRow) -> dict[str, Any]:
    asked = row.closing is not ClosingState.NONE
    return {
        "account": row.account,
        "kind": row.kind,
        "name": row.name,
        "email": row.email,
        "mobile": row.mobile,
        "state": str(row.state),
        "created_ms": row.created_ms,
        "activated_ms": row.activated_ms,
        "suspended_ms": row.suspended_ms,
        "suspend_reason": row.suspend_reason,
        "trial_used": row.trial_ms is not None,
        "closing": {
            "state": str(row.closing),
            "requested_ms": row.closing_ms if asked else None,
            "reason": row.closing_reason,
            "by": row.closing_by,
        },
        "cancelled_on": shown_on(row.cancelled_on),
    }


def account_facts(row: AccountRow) -> list[tuple[str, object]]:
    """What is said of an account, a line each."""
    closing: object = None
    if row.closing is not ClosingState.NONE:
        closing = f"{row.closing}; asked for at {shown_instant(row.closing_ms)} by the {row.closing_by}"
    suspended = (
        None if row.suspended_ms is None else f"{shown_instant(row.suspended_ms)}: {row.suspend_reason}"
    )
    return [
        ("state", state_of(row)),
        ("e-mail", row.email),
        ("mobile", row.mobile),
        ("registered", shown_instant(row.created_ms or None)),
        ("activated", shown_instant(row.activated_ms or None)),
        ("trial begun", shown_instant(row.trial_ms)),
        ("suspended since", suspended),
        ("cancellation", closing),
        ("its reason", row.closing_reason),
        ("cancelled on", shown_on(row.cancelled_on)),
    ]


def titled(row: AccountRow) -> str:
    return f"account {row.account}" + (f": {row.name}" if row.name else "")


# --- notices ------------------------------------------------------------------------------------------------------


def shown_notice(row: NoticeRow) -> dict[str, Any]:
    """Without the body: it may hold a code, and is long."""
    return {
        "notice": row.notice_id,
        "account": row.account,
        "channel": row.channel,
        "address": row.address,
        "purpose": row.purpose,
        "subject": row.subject,
        "state": str(row.state),
        "attempts": row.attempts,
        "created_ms": row.created_ms,
        "next_ms": row.next_ms,
        "settled_ms": row.settled_ms,
        "error": row.error,
    }
