"""Who runs the service, and what each may do: roles, and the acts that they are for. Pure.

An operator is a person or a program. Each has a name, which the histories of accounts show, and one role.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType

from storage.errors import Conflict, NotFound, Unprocessable
from storage.rows.operators import OperatorRow

BUILT_IN = "system"
"""The operator whom commands act as unless `--as` names another, and whose tokens `operator-token` makes. Its role is
admin; it can't be ended, for whoever may run commands on the data folder may do all anyway."""
MAX_OPERATORS = 1000
"""Ended ones included: so many fit into one look at all of them."""


class Act(StrEnum):
    """What an operator may be allowed."""

    LOOK = "look"
    """See accounts, devices, plans, payments, notices and histories. It changes nothing, and nothing is noted of it."""
    WATCH = "watch"
    """See recordings: lists of them, playlists, chunks, clips; make viewer tokens."""
    CARE = "care"
    """Register, activate and correct accounts, send codes, add devices, hand out their tokens, confirm notices."""
    DECIDE = "decide"
    """Suspend and resume, set and lift blocks, decide on requests to cancel an account."""
    MONEY = "money"
    """Buy, grant and cancel plans; credits and refunds."""
    DESTROY = "destroy"
    """Terminate devices, delete recordings, cancel accounts whatever stands in the way."""
    PUBLISH = "publish"
    """Announcements, versions of the agreement, packages and prices."""
    APPOINT = "appoint"
    """Operators, their roles and tokens."""


class OperatorRole(StrEnum):
    SUPPORT = "support"
    MONEY = "money"
    ADMIN = "admin"
    AUDITOR = "auditor"


MAY: Mapping[OperatorRole, frozenset[Act]] = MappingProxyType(
    {
        OperatorRole.SUPPORT: frozenset((Act.LOOK, Act.WATCH, Act.CARE, Act.DECIDE)),
        OperatorRole.MONEY: frozenset((Act.LOOK, Act.MONEY)),
        OperatorRole.ADMIN: frozenset(Act),
        OperatorRole.AUDITOR: frozenset((Act.LOOK,)),
    }
)
"""What each role may do; the table of docs/operations.md."""


def roles_for(act: Act) -> list[OperatorRole]:
    """The roles that may do it."""
    return [role for role in OperatorRole if act in MAY[role]]


def named(operators: Iterable[OperatorRow], name: str) -> OperatorRow:
    """The operator of this name. Raises NotFound."""
    for row in operators:
        if row.name == name:
            return row
    raise NotFound(
        "there is no such operator; `clipkeep operator list` lists them", subject=f"operator {name}"
    )


def added(operators: Iterable[OperatorRow], name: str, role: OperatorRole, *, now_ms: int) -> OperatorRow:
    """A new operator.

    Raises:
        Conflict: `operator_exists`: the name is or was somebody's, and histories name it; `too_many_operators`.
    """
    there = list(operators)
    if name == BUILT_IN or any(row.name.casefold() == name.casefold() for row in there):
        raise Conflict(
            "this name is or was an operator's, and histories name it: choose another",
            subject=f"operator {name}",
            code="operator_exists",
        )
    if len(there) >= MAX_OPERATORS:
        raise Conflict(f"there are {MAX_OPERATORS} operators already", code="too_many_operators")
    return OperatorRow(0, name, role, now_ms)


def ended(row: OperatorRow, *, now_ms: int) -> OperatorRow:
    """Raises Conflict `operator_ended`."""
    require_going_on(row)
    return replace(row, ended_ms=now_ms)


def require_going_on(row: OperatorRow) -> None:
    """Raises Conflict `operator_ended`."""
    if row.ended_ms is not None:
        raise Conflict(
            "this operator was ended, for good", subject=f"operator {row.name}", code="operator_ended"
        )


def checked_role(text: str) -> OperatorRole:
    """Raises Unprocessable `bad_role`."""
    try:
        return OperatorRole(text)
    except ValueError:
        raise Unprocessable(f"a role is one of {', '.join(OperatorRole)}", code="bad_role") from None
