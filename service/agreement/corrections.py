"""Untrue data of an account: its owner is asked to correct them, reminded, suspended and cancelled (agreement 6.1.1).

What follows what, and when, is in `retention.corrections`. A request stops when all that it named was changed, by the
owner or an operator: a suspension that it made is lifted then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retention import corrections as rule
from retention.accounts import resume as resumed
from retention.accounts import suspend as suspended
from retention.corrections import FIELDS, Pace, Step
from retention.history import account_facts
from service.agreement import closing
from service.agreement.desk import SYSTEM, Actor, Desk, account_of, require_not_closing
from service.agreement.errors import Conflict, Forbidden, Unprocessable
from service.agreement.outbox import addresses_of, tell
from service.agreement.texts import one_line
from storage.catalog.books import Books
from storage.days import day_of_ms, to_date
from storage.errors import NotFound
from storage.rows.accounts import OPERATOR_ACCOUNT, AccountRow, AccountState, ClosingState, NoticeState
from storage.rows.people import CorrectionRow

PURPOSE = "correction"
"""Of the notices of a request."""
PAGE = 100


def ask(
    desk: Desk,
    actor: Actor,
    account: int,
    fields: Sequence[str],
    detail: str,
    *,
    within_days: int | None = None,
) -> CorrectionRow:
    """Ask the owner to correct what is untrue or missing, by a day that the notice names.

    Args:
        fields: some of "name", "email", "mobile".
        detail: what is wrong with them; the owner reads it.
        within_days: until the last day; None: `correction_days`.

    Raises:
        Forbidden: `operators_only`, `not_activated`; NotFound; Unprocessable: `bad_fields`, `bad_text`,
            `operator_account`, `no_address`: nobody could be told.
        Conflict: `correction_open`, there is one; `account_closing`, `account_cancelled`.
    """
    actor.require_operator()
    detail = one_line(detail, "the detail")
    if not fields or not set(fields) <= set(FIELDS):
        raise Unprocessable(f"name what is to be corrected: some of {', '.join(FIELDS)}", code="bad_fields")
    pace = pace_of(desk, within_days)

    def work(books: Books) -> CorrectionRow:
        row = account_of(books, actor, account)
        _require_may_be_asked(books, row)
        made = books.add_correction(
            rule.ask(account, tuple(fields), detail, today=desk.today(), now_ms=desk.now_ms(), pace=pace)
        )
        desk.record(books, actor, account, "correction_asked", why=detail, facts=_facts(made))
        _tell(desk, books, row, made, "correction-asked")
        return made

    return desk.write(work)


def withdraw(desk: Desk, actor: Actor, account: int, why: str) -> CorrectionRow:
    """Take the request back; a suspension that it made is lifted, and the owner told.

    Raises:
        Forbidden: `operators_only`; NotFound: also `no_correction`, none is open; Unprocessable: `bad_text`.
    """
    actor.require_operator()
    why = one_line(why, "the reason")

    def work(books: Books) -> CorrectionRow:
        row = account_of(books, actor, account)
        found = open_of(books, account)
        if found is None:
            raise NotFound(
                "nothing is asked to be corrected", subject=f"account {account}", code="no_correction"
            )
        return _ended(desk, books, actor, row, found, Step.WITHDRAW, why)

    return desk.change(work)


def changed(desk: Desk, books: Books, actor: Actor, row: AccountRow, field: str) -> AccountRow:
    """Something of the account was changed: what was asked of it is done. Inside `Desk.change`.

    Returns:
        The account as it is then: without the suspension that the request made.
    """
    found = open_of(books, row.account)
    if found is None or field not in found.fields.split():
        return row
    found = rule.without(found, field)
    if found.fields:
        books.put_correction(found)
        return row
    _ended(desk, books, actor, row, found, Step.CORRECT, "")
    return books.account(row.account)


def resumed_by_hand(desk: Desk, books: Books, actor: Actor, account: int, why: str) -> None:
    """An operator lifts the suspension: a request that made it goes no further."""
    found = open_of(books, account)
    if found is not None and found.suspended_ms is not None:
        _end(desk, books, actor, found, Step.WITHDRAW, why)


def listed(
    desk: Desk,
    actor: Actor,
    *,
    account: int | None = None,
    open_only: bool = False,
    after: int = 0,
    limit: int = 100,
) -> list[CorrectionRow]:
    """Requests by number: of one account, or, for operators, of all. Raises NotFound; Forbidden `operators_only`."""
    with desk.reading() as books:
        if account is None:
            actor.require_operator()
        else:
            account_of(books, actor, account)
        return books.corrections(account=account, open_only=open_only, after=after, limit=limit)


def step_due(desk: Desk, *, limit: int = 10_000) -> dict[str, int]:
    """Take the steps that are due: each in a transaction that looks again, so several may do it at once, and any may be
    killed. The caller has seen to it that the clock may be believed.

    Returns:
        How many of each.
    """
    with desk.together() as desk:
        return _step_due(desk, limit)


def _step_due(desk: Desk, limit: int) -> dict[str, int]:
    done = {str(step): 0 for step in (Step.REMIND, Step.SUSPEND, Step.CANCEL)}
    after = looked = 0
    while looked < limit:
        with desk.reading() as books:
            due = books.corrections_due(on=desk.today(), after=after, limit=PAGE)
        if not due:
            break
        for found in due:
            step = desk.change(lambda books, found=found: _step(desk, books, found))  # type: ignore[misc]
            if step is not None:
                done[step] += 1
        after, looked = due[-1].correction_id, looked + len(due)
    return done


def open_of(books: Books, account: int) -> CorrectionRow | None:
    """The request that is open, of which an account has one at most."""
    found = books.corrections(account=account, open_only=True, limit=1)
    return found[0] if found else None


def pace_of(desk: Desk, within_days: int | None = None) -> Pace:
    settings = desk.settings
    within = settings.correction_days if within_days is None else within_days
    return Pace(within, settings.correction_remind_days, settings.correction_cancel_days)


# --- one step -----------------------------------------------------------------------------------------------------


def _step(desk: Desk, books: Books, seen: CorrectionRow) -> Step | None:
    found = open_of(books, seen.account)
    if found is None or found.correction_id != seen.correction_id:
        return None
    pace, today = pace_of(desk), desk.today()
    step = rule.step_due(found, today=today, told_on=_told_on(books, found), pace=pace)
    if step is None:
        return None
    row = books.account(found.account)
    after = rule.take(found, step, today=today, now_ms=desk.now_ms(), pace=pace)
    if step is Step.SUSPEND:
        after = _suspend(desk, books, row, after)
    books.put_correction(after)
    if step is Step.REMIND:
        desk.record(books, SYSTEM, row.account, "correction_reminded", facts=_facts(after))
        _tell(desk, books, row, after, "correction-reminded")
    elif step is Step.CANCEL and row.closing is not ClosingState.APPROVED:
        closing.order_in(desk, books, SYSTEM, row.account, _why(after))
    return step


def _suspend(desk: Desk, books: Books, row: AccountRow, after: CorrectionRow) -> CorrectionRow:
    """One that was suspended for something else stays so, and is not told again."""
    if row.suspended_ms is not None:
        return after
    row = suspended(row, now_ms=desk.now_ms(), why=_why(after))
    books.put_account(row)
    desk.record(
        books, SYSTEM, row.account, "suspended", why=_why(after), facts=_facts(after) | account_facts(row)
    )
    assert after.next_on is not None, "a cancellation follows"
    cancel_on = to_date(after.next_on)
    tell(
        desk,
        books,
        row,
        "correction-suspended",
        account=row.account,
        fields=", ".join(after.fields.split()),
        detail=after.detail,
        due_on=to_date(after.due_on),
        cancel_on=cancel_on,
    )
    return replace(after, suspended_ms=row.suspended_ms)


def _ended(
    desk: Desk, books: Books, actor: Actor, row: AccountRow, found: CorrectionRow, step: Step, why: str
) -> CorrectionRow:
    """It ended well: the suspension that it made is lifted."""
    after = _end(desk, books, actor, found, step, why)
    if found.suspended_ms is not None and row.suspended_ms == found.suspended_ms:
        row = replace(resumed(row), used_on=desk.today())
        books.put_account(row)
        why = why or "its data were corrected"
        desk.record(books, actor, row.account, "resumed", why=why, facts=account_facts(row))
        tell(desk, books, row, "resumed", account=row.account, reason=why)
    return after


def _end(desk: Desk, books: Books, actor: Actor, found: CorrectionRow, step: Step, why: str) -> CorrectionRow:
    after = rule.take(found, step, today=desk.today(), now_ms=desk.now_ms(), pace=pace_of(desk))
    books.put_correction(after)
    what = "corrected" if step is Step.CORRECT else "correction_withdrawn"
    desk.record(books, actor, found.account, what, why=why, facts={"correction": found.correction_id})
    return after


def _told_on(books: Books, found: CorrectionRow) -> int | None:
    """The day on which the first notice of the request reached an address."""
    notices = books.notices(account=found.account, purpose=PURPOSE, state=NoticeState.DELIVERED, limit=1000)
    days = [
        day_of_ms(notice.settled_ms)
        for notice in notices
        if notice.created_ms >= found.asked_ms and notice.settled_ms is not None and notice.channel != "push"
    ]
    return min(days, default=None)


def _require_may_be_asked(books: Books, row: AccountRow) -> None:
    subject = f"account {row.account}"
    if row.account == OPERATOR_ACCOUNT:
        raise Unprocessable(
            "the operators' own account has no owner", subject=subject, code="operator_account"
        )
    if row.state is AccountState.NEW:
        raise Forbidden("it was never activated", subject=subject, code="not_activated")
    require_not_closing(row)
    if row.state is AccountState.CANCELLED:
        raise Conflict("it was cancelled, for good", subject=subject, code="account_cancelled")
    if not addresses_of(row):
        raise Unprocessable("it has no address to be told at", subject=subject, code="no_address")
    if open_of(books, row.account) is not None:
        raise Conflict(
            "there is a request already; withdraw that first", subject=subject, code="correction_open"
        )


def _tell(desk: Desk, books: Books, row: AccountRow, found: CorrectionRow, template: str) -> None:
    tell(
        desk,
        books,
        row,
        template,
        account=row.account,
        fields=", ".join(found.fields.split()),
        detail=found.detail,
        due_on=to_date(found.due_on),
    )


def _why(found: CorrectionRow) -> str:
    return f"data were not corrected by {to_date(found.due_on)}: {', '.join(found.fields.split())}"


def _facts(found: CorrectionRow) -> dict[str, object]:
    return {
        "correction": found.correction_id,
        "fields": found.fields.split(),
        "due_on": to_date(found.due_on).isoformat(),
    }
