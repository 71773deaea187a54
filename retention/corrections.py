"""Untrue data of an account: asked to be corrected, reminded of, suspended, cancelled (agreement 6.1.1). Pure.

Each state has the steps that may follow it in `FOLLOWS`, and whatever is not there is refused. The clock takes the
steps of `BY_TIME`, each on its day:

    NOTIFIED   remind on the day `remind_days` before the last one, else suspend after it
    REMINDED   suspend after the last day, and not before the owner was told for `remind_days`
    SUSPENDED  cancel `cancel_days` later

It stops at any time, when what was untrue was changed, or an operator takes the request back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from storage.errors import Conflict
from storage.rows.people import CorrectionRow, CorrectionState

FIELDS = ("name", "email", "mobile")
"""What of an account can be untrue."""


class Step(StrEnum):
    REMIND = "remind"
    SUSPEND = "suspend"
    CANCEL = "cancel"
    CORRECT = "correct"
    WITHDRAW = "withdraw"


S = CorrectionState
_ANY = {Step.CORRECT: S.CORRECTED, Step.WITHDRAW: S.WITHDRAWN}
FOLLOWS: Mapping[CorrectionState, Mapping[Step, CorrectionState]] = MappingProxyType(
    {
        S.NOTIFIED: {Step.REMIND: S.REMINDED, Step.SUSPEND: S.SUSPENDED, **_ANY},
        S.REMINDED: {Step.SUSPEND: S.SUSPENDED, **_ANY},
        S.SUSPENDED: {Step.CANCEL: S.CANCELLED, **_ANY},
        S.CANCELLED: {},
        S.CORRECTED: {},
        S.WITHDRAWN: {},
    }
)
BY_TIME: Mapping[CorrectionState, Step] = MappingProxyType(
    {S.NOTIFIED: Step.REMIND, S.REMINDED: Step.SUSPEND, S.SUSPENDED: Step.CANCEL}
)
"""The step that each state's day brings. A reminder that comes too late is left out."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each state lasts.

    Args:
        within_days: from the request to the last day for a correction.
        remind_days: before that day, of the reminder; 0: none.
        cancel_days: from the suspension to the order of the cancellation.
    """

    within_days: int
    remind_days: int
    cancel_days: int


def ask(
    account: int, fields: tuple[str, ...], detail: str, *, today: int, now_ms: int, pace: Pace
) -> CorrectionRow:
    """The owner is to correct `fields` (some of FIELDS) within `within_days`, the last day included."""
    due_on = today + pace.within_days
    remind_on = due_on - pace.remind_days
    next_on = remind_on if today < remind_on < due_on else due_on + 1
    listed = " ".join(field for field in FIELDS if field in fields)
    return CorrectionRow(0, account, S.NOTIFIED, listed, detail, now_ms, due_on, next_on)


def step_due(row: CorrectionRow, *, today: int, told_on: int | None, pace: Pace) -> Step | None:
    """The step that is to be taken today; None: not yet, or it is over.

    Args:
        told_on: the day on which a notice of the request reached an address of the owner; None: none has. Nobody is
            suspended who was not told ("upon receipt of App's notice"), and who was told late has time as well.
    """
    if row.next_on is None or today < row.next_on:
        return None
    step = BY_TIME[row.state]
    if step is Step.REMIND and today > row.due_on:
        step = Step.SUSPEND
    if step is Step.SUSPEND and (
        told_on is None or today < told_on + min(pace.remind_days, pace.within_days)
    ):
        return None
    return step


def take(row: CorrectionRow, step: Step, *, today: int, now_ms: int, pace: Pace) -> CorrectionRow:
    """The next row.

    Raises:
        CallerError: `correction_over`, this step does not follow from its state.
    """
    state = FOLLOWS[row.state].get(step)
    if state is None:
        raise Conflict(
            f"the request is {row.state}, and can't be changed any more",
            subject=f"correction {row.correction_id}",
            code="correction_over",
        )
    if not FOLLOWS[state]:
        return replace(row, state=state, next_on=None, ended_ms=now_ms)
    next_on = row.due_on + 1 if state is S.REMINDED else today + pace.cancel_days
    return replace(row, state=state, next_on=next_on)


def without(row: CorrectionRow, field: str) -> CorrectionRow:
    """The row when one of its fields was changed; it is to be corrected no longer when none is left."""
    return replace(row, fields=" ".join(one for one in row.fields.split() if one != field))
