"""Payment methods of an account: set up, shown, chosen for what is charged, removed (agreement 7.2).

The payer is the account. A gateway keeps the method, and here is its name there. Where a gateway keeps methods, a
charge names one that the account has set up, so nobody pays with another's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from retention.payments import method_may_follow
from service.agreement.desk import SYSTEM, Actor, Desk, account_of, require_open
from service.agreement.errors import Conflict, Unprocessable
from service.agreement.payments import (
    CustomerNeeded,
    Method,
    PaymentDeclined,
    checked_method,
    checked_reference,
)
from storage.catalog.books import Books
from storage.errors import NotFound
from storage.rows.accounts import MethodRow, MethodState, SubscriptionRow

if TYPE_CHECKING:
    from service.agreement.gateway.told import MethodTold


def set_up(desk: Desk, actor: Actor, account: int, reference: str) -> MethodRow:
    """A new method. The row comes first, then the gateway; killed in between, `refresh` or the same call finishes it.

    Args:
        reference: new for each; the same one is the same method.

    Returns:
        It: USABLE, or PENDING with the page on which its owner enters it, or without one when the gateway did not
        answer.

    Raises:
        NotFound, Forbidden: the account; PaymentDeclined: the gateway refused.
        Conflict: `too_many_methods`, `account_closing`, `reference_taken`.
        PaymentUnavailable: it is not known; the same call again ends it.
    """
    checked_reference(reference)

    def begin(books: Books) -> None:
        require_open(account_of(books, actor, account))
        there = books.method(reference)
        if there is None:
            _require_room(desk, books, account)
            books.add_method(MethodRow(reference, account, MethodState.PENDING, desk.now_ms()))
        elif there.account != account:
            raise Conflict("choose another reference", subject=reference, code="reference_taken")

    desk.write(begin)
    return _asked(desk, account, reference, lambda: desk.gateway.set_up_method(reference))


def refresh(desk: Desk, actor: Actor, account: int, reference: str) -> MethodRow:
    """One method; while it is to be entered, the gateway is asked how far it has come. Raises as `set_up`; NotFound."""
    with desk.reading() as books:
        row = _mine(books, actor, account, reference)
    if row.state is not MethodState.PENDING:
        return row

    def ask() -> Method:
        return desk.gateway.look_up_method(reference) or desk.gateway.set_up_method(reference)

    return _asked(desk, account, reference, ask)


def methods_of(desk: Desk, actor: Actor, account: int) -> list[MethodRow]:
    """The newest first; the gateway is not asked. Raises NotFound."""
    with desk.reading() as books:
        account_of(books, actor, account)
        return books.methods_of(account, limit=desk.payments.max_methods + 1)


def use(desk: Desk, actor: Actor, account: int, reference: str, *, plan_id: int | None = None) -> list[int]:
    """Charge what renews itself to this method from now on: all plans of the account, or one. A charge that failed is
    tried again at once; one that is under way stays with the method that it was made with.

    Returns:
        The numbers of the plans that were changed.

    Raises:
        NotFound: the account, the method, or the plan among its own; Conflict: `method_not_usable`.
    """

    def change(books: Books) -> list[int]:
        row = _mine(books, actor, account, reference)
        if row.state is not MethodState.USABLE:
            raise _not_usable(row)
        plans = _renewing(books, account, plan_id)
        for plan in plans:
            books.put_subscription(replace(plan, method=row.method, retry_at_ms=0, failed_charges=0))
        done = [plan.plan_id for plan in plans]
        desk.record(books, actor, account, "method_chosen", facts={"method": reference, "plans": done})
        return done

    return desk.write(change)


def remove(desk: Desk, actor: Actor, account: int, reference: str) -> None:
    """The gateway keeps it no longer; then it is gone here too. Safe to repeat.

    Raises:
        NotFound; Conflict: `method_in_use`, a plan that renews itself is charged to it; PaymentUnavailable.
    """
    with desk.reading() as books:
        row = _mine(books, actor, account, reference)
        _require_unused(books, row)
    desk.gateway.remove_method(reference, row.method)

    def drop(books: Books) -> None:
        _require_unused(books, row)
        if books.method(reference) is not None:
            books.drop_method(reference)
            desk.record(books, actor, account, "method_removed", facts={"method": reference})

    desk.write(drop)


def charged_to(desk: Desk, books: Books, account: int, method: str) -> str:
    """The gateway's name of what a purchase is to be charged to.

    Args:
        method: the reference of one of the account's methods; where the gateway keeps none, any name for it.

    Raises:
        Unprocessable: `unknown_method`, `bad_method`; Conflict: `method_not_usable`.
    """
    checked_method(method)
    row = books.method(method)
    if row is not None and row.account == account:
        if row.state is not MethodState.USABLE:
            raise _not_usable(row)
        return row.method
    if desk.gateway.keeps_methods:
        raise Unprocessable(
            "the account has no such payment method; set one up first",
            subject=method[:40],
            code="unknown_method",
        )
    return method


def hear(desk: Desk, told: MethodTold) -> bool:
    """Take in what the gateway reports. Returns whether the method is known."""
    with desk.reading() as books:
        row = books.method(told.reference)
    if row is None:
        return False
    if told.outcome == "usable":
        _keep(desk, row.reference, Method(told.method, told.label or told.method))
    elif told.outcome == "needs_customer":
        _keep(desk, row.reference, CustomerNeeded(told.url, told.expires_ms or 0))
    elif told.outcome in ("failed", "removed"):
        _keep(desk, row.reference, PaymentDeclined(told.detail))
    return True


# --- steps ------------------------------------------------------------------------------------------------------------


def _asked(desk: Desk, account: int, reference: str, ask: Callable[[], Method]) -> MethodRow:
    found: Method | CustomerNeeded | PaymentDeclined
    try:
        found = ask()
    except (CustomerNeeded, PaymentDeclined) as error:
        found = error
    kept = _keep(desk, reference, found)
    if kept is None:
        raise NotFound("this method was removed", subject=reference)
    if kept.state is MethodState.FAILED and isinstance(found, PaymentDeclined):
        raise found
    return kept


def _keep(desk: Desk, reference: str, found: Method | CustomerNeeded | PaymentDeclined) -> MethodRow | None:
    """Note how far it has come, by the table; what leads nowhere from there changes nothing."""

    def keep(books: Books) -> MethodRow | None:
        row = books.method(reference)
        if row is None or row.state is not MethodState.PENDING:
            return row
        if isinstance(found, CustomerNeeded):
            row = replace(row, url=found.url, until_ms=found.until_ms)
        else:
            usable = isinstance(found, Method)
            after = MethodState.USABLE if usable else MethodState.FAILED
            assert method_may_follow(row.state, after)
            row = replace(row, state=after, url="", until_ms=None)
            if isinstance(found, Method):
                row = replace(row, method=checked_method(found.name), label=found.label)
            what = "method_added" if usable else "method_failed"
            desk.record(books, SYSTEM, row.account, what, facts={"method": reference})
        books.put_method(row)
        return row

    return desk.write(keep)


def _require_room(desk: Desk, books: Books, account: int) -> None:
    """One that failed, or was not entered while its page was there, makes room for a new one."""
    most = desk.payments.max_methods
    rows = books.methods_of(account, limit=most + 1)
    gone = [row for row in rows if _is_dead(desk, row)]
    for row in gone:
        books.drop_method(row.reference)
    if len(rows) - len(gone) >= most:
        raise Conflict(
            f"an account has at most {most} payment methods; remove one first",
            subject=f"account {account}",
            code="too_many_methods",
        )


def _is_dead(desk: Desk, row: MethodRow) -> bool:
    over = row.until_ms is not None and desk.now_ms() > row.until_ms
    return row.state is MethodState.FAILED or (row.state is MethodState.PENDING and over)


def _mine(books: Books, actor: Actor, account: int, reference: str) -> MethodRow:
    account_of(books, actor, account)
    row = books.method(reference)
    if row is None or row.account != account:
        raise NotFound("the account has no such payment method", subject=reference[:40])
    return row


def _renewing(books: Books, account: int, plan_id: int | None) -> list[SubscriptionRow]:
    plans = [row for row in books.subscriptions_of(account) if row.renews]
    if plan_id is None:
        return plans
    found = [row for row in plans if row.plan_id == plan_id]
    if not found:
        raise NotFound("no such plan of this account renews itself", subject=f"plan {plan_id}")
    return found


def _require_unused(books: Books, row: MethodRow) -> None:
    users = [plan.plan_id for plan in _renewing(books, row.account, None) if plan.method == row.method]
    if row.method and users:
        named = ", ".join(map(str, users[:10]))
        raise Conflict(
            f"plans {named} are charged to it; choose another method for them, or cancel them",
            subject=row.reference,
            code="method_in_use",
        )


def _not_usable(row: MethodRow) -> Conflict:
    return Conflict(
        f"this method is {row.state}; finish entering it at its url, or set up another one",
        subject=row.reference,
        code="method_not_usable",
    )
