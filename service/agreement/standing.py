"""Suspension of accounts, and of those nobody uses (agreement 3.3, 6.1.1 to 6.1.3).

A suspended account can't log in, and its devices can neither upload nor be played back. Nothing is erased by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from retention.accounts import dormant_before_day
from retention.accounts import resume as resumed
from retention.accounts import suspend as suspended
from retention.history import account_facts
from service.agreement import corrections
from service.agreement.desk import Actor, Desk, account_of
from service.agreement.outbox import tell
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.days import to_date
from storage.rows.accounts import AccountRow

PAGE_ACCOUNTS = 100


@dataclass(frozen=True, slots=True)
class Dormant:
    account: int
    created_ms: int
    last_used_on: int  # day number; 0: never
    suspended: bool


def suspend(desk: Desk, actor: Actor, account: int, why: str) -> AccountRow:
    """Suspend an account, and tell its owner why.

    Raises:
        Forbidden: `operators_only`; NotFound; Conflict: `already_suspended`, `account_cancelled`; Unprocessable:
        `operator_account`, `bad_text`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")
    return desk.change(lambda books: _suspend(desk, books, actor, account, why))


def resume(desk: Desk, actor: Actor, account: int, why: str) -> AccountRow:
    """Lift a suspension. Raises as `suspend`; Conflict `not_suspended`."""
    actor.require_operator()
    why = one_line(why, "the reason")

    def work(books: Books) -> AccountRow:
        # Used again from today on, else a dormant account would be suspended again tomorrow.
        row = replace(resumed(account_of(books, actor, account)), used_on=desk.today())
        books.put_account(row)
        desk.record(books, actor, account, "resumed", why=why, facts=account_facts(row))
        corrections.resumed_by_hand(desk, books, actor, account, why)
        tell(desk, books, row, "resumed", account=account, reason=why)
        return row

    return desk.change(work)


def dormant(desk: Desk, *, after: int = 0, limit: int = 100) -> list[Dormant]:
    """Accounts without log-in, upload or playback for more than `dormant_days` (6.1.2), numbered above `after`."""
    with desk.reading() as books:
        rows = books.unused_accounts(before_day=_unused_before(desk), after=after, limit=limit)
        return [
            Dormant(
                row.account, row.created_ms, books.last_used_on(row.account), row.suspended_ms is not None
            )
            for row in rows
        ]


def suspend_dormant(
    desk: Desk, actor: Actor, progress: Callable[[int, int], None] = lambda done, of: None
) -> list[int]:
    """Suspend all accounts that are dormant and not suspended, and tell their owners. Returns their numbers.

    Each in a transaction of its own, which looks again: who logs in meanwhile is left alone.

    Args:
        progress: called with how many were looked at, of how many.
    """
    actor.require_operator()
    found = [one.account for one in _all_dormant(desk) if not one.suspended]
    done = []
    with desk.together() as together:
        for number, account in enumerate(found, start=1):
            if _suspend_if_dormant(together, actor, account):
                done.append(account)
            progress(number, len(found))
    return done


def _all_dormant(desk: Desk) -> Iterator[Dormant]:
    after = 0
    while page := dormant(desk, after=after, limit=PAGE_ACCOUNTS):
        yield from page
        after = page[-1].account


def _suspend_if_dormant(desk: Desk, actor: Actor, account: int) -> bool:
    def work(books: Books) -> bool:
        before_day = _unused_before(desk)
        still = books.unused_accounts(before_day=before_day, after=account - 1, limit=1)
        if not still or still[0].account != account or still[0].suspended_ms is not None:
            return False
        used_on = books.last_used_on(account)
        since = f"since {to_date(used_on)}" if used_on else "since it was registered"
        _suspend(desk, books, actor, account, f"not used {since}")
        return True

    return desk.change(work)


def _unused_before(desk: Desk) -> int:
    """Used last before this day is unused for more than `dormant_days`."""
    return dormant_before_day(desk.today(), desk.settings.dormant_days)


def _suspend(desk: Desk, books: Books, actor: Actor, account: int, why: str) -> AccountRow:
    row = suspended(account_of(books, actor, account), now_ms=desk.now_ms(), why=why)
    books.put_account(row)
    desk.record(books, actor, account, "suspended", why=why, facts=account_facts(row))
    tell(desk, books, row, "suspended", account=account, reason=why)
    return row
