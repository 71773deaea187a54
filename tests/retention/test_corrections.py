"""Untrue data: what follows what, and on which day (agreement 6.1.1)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from retention.corrections import FOLLOWS, Pace, Step, ask, step_due, take, without
from storage.days import ms_of_day
from storage.errors import Conflict
from storage.rows.people import CorrectionRow, CorrectionState

TODAY = 20_000
PACE = Pace(within_days=14, remind_days=7, cancel_days=30)
S = CorrectionState


def asked(**pace: int) -> CorrectionRow:
    return ask(
        5,
        ("email", "name"),
        "it bounces",
        today=TODAY,
        now_ms=ms_of_day(TODAY),
        pace=replace(PACE, **pace),  # type: ignore[arg-type]
    )


def days(row: CorrectionRow, *, told_on: int | None = TODAY, through: int = 100) -> list[tuple[int, Step]]:
    """Which steps the days bring, when the clock alone goes on."""
    steps = []
    for today in range(TODAY, TODAY + through):
        while (step := step_due(row, today=today, told_on=told_on, pace=PACE)) is not None:
            steps.append((today - TODAY, step))
            row = take(row, step, today=today, now_ms=ms_of_day(today), pace=PACE)
    return steps


def test_days_bring_a_reminder_a_suspension_and_a_cancellation() -> None:
    row = asked()
    assert (row.state, row.due_on, row.fields) == (S.NOTIFIED, TODAY + 14, "name email")
    assert days(row) == [(7, Step.REMIND), (15, Step.SUSPEND), (45, Step.CANCEL)]


def test_the_last_day_is_the_owners_whole() -> None:
    row = take(asked(), Step.REMIND, today=TODAY + 7, now_ms=0, pace=PACE)
    assert step_due(row, today=TODAY + 14, told_on=TODAY, pace=PACE) is None
    assert step_due(row, today=TODAY + 15, told_on=TODAY, pace=PACE) is Step.SUSPEND


def test_who_was_not_told_is_not_suspended_and_who_was_told_late_has_time() -> None:
    assert days(asked(), told_on=None) == [(7, Step.REMIND)]
    assert days(asked(), told_on=TODAY + 20)[1:] == [(27, Step.SUSPEND), (57, Step.CANCEL)]


@pytest.mark.parametrize("remind_days", [0, 14, 20])
def test_without_room_for_a_reminder_there_is_none(remind_days: int) -> None:
    assert [step for _, step in days(asked(remind_days=remind_days))] == [Step.SUSPEND, Step.CANCEL]


def test_a_service_that_was_off_suspends_without_a_late_reminder() -> None:
    assert step_due(asked(), today=TODAY + 16, told_on=TODAY, pace=PACE) is Step.SUSPEND
    suspended = take(asked(), Step.SUSPEND, today=TODAY + 60, now_ms=0, pace=PACE)
    assert suspended.next_on == TODAY + 90, "the days before a cancellation begin with the suspension"


@pytest.mark.parametrize(("state", "step"), list(product(S, Step)))
def test_what_does_not_follow_is_refused(state: CorrectionState, step: Step) -> None:
    row = replace(asked(), state=state)
    if step in FOLLOWS[state]:
        after = take(row, step, today=TODAY, now_ms=7, pace=PACE)
        assert after.state is FOLLOWS[state][step]
        over = not FOLLOWS[after.state]
        assert (after.next_on is None, after.ended_ms) == (over, 7 if over else None)
    else:
        with pytest.raises(Conflict) as caught:
            take(row, step, today=TODAY, now_ms=7, pace=PACE)
        assert caught.value.code == "correction_over"


def test_what_is_over_stays_so() -> None:
    ends = {state for state, follows in FOLLOWS.items() if not follows}
    assert ends == {S.CANCELLED, S.CORRECTED, S.WITHDRAWN}
    assert all({Step.CORRECT, Step.WITHDRAW} <= set(FOLLOWS[state]) for state in set(S) - ends)


def test_fields_go_one_by_one() -> None:
    row = asked()
    assert without(row, "mobile").fields == "name email"
    assert without(without(row, "name"), "email").fields == ""
