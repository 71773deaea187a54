"""Untrue data: asked for, reminded, suspended, cancelled, and stopped by a correction (agreement 6.1.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retention.bitmap import SUSPENDED
from service.agreement import closing, corrections, registration, standing
from service.agreement.desk import OPERATOR
from service.agreement.errors import Conflict, Forbidden, Unprocessable
from service.housekeeping import corrections_by_clock
from storage.days import to_date
from storage.errors import ClipkeepError, NotFound
from storage.rows.accounts import AccountState, ClosingState
from storage.rows.people import CorrectionRow, CorrectionState
from tests.retention.world import NOON, TODAY
from tests.service.agreement.office import EMAIL, MOBILE, Office, owner, refused

S = CorrectionState


def ask(office: Office, account: int, *fields: str) -> CorrectionRow:
    return corrections.ask(office.desk, OPERATOR, account, fields or ("name",), "we need your real name")


def state(office: Office, account: int) -> CorrectionState:
    [row] = corrections.listed(office.desk, OPERATOR, account=account)
    return row.state


def a_day(office: Office, days: int = 1) -> dict[str, int]:
    """So many days pass; each has its chore, and the notices of it go out."""
    done: dict[str, int] = {}
    for _ in range(days):
        office.later(days=1)
        office.deliver()
        for step, count in corrections.step_due(office.desk).items():
            done[step] = done.get(step, 0) + count
        office.deliver()
    return {step: count for step, count in done.items() if count}


def test_an_owner_who_corrects_nothing_is_reminded_suspended_and_cancelled(office: Office) -> None:
    row = office.active()
    device = office.device(row.account)
    office.keep([(device, NOON)])
    asked = ask(office, row.account)
    assert (asked.state, asked.due_on) == (S.NOTIFIED, TODAY + 14)
    [told] = office.notices(row.account, "correction")
    assert to_date(TODAY + 14).isoformat() in told.subject
    assert "we need your real name" in told.body
    assert a_day(office, 7) == {"remind": 1}
    assert state(office, row.account) is S.REMINDED
    assert a_day(office, 7) == {}, "the last day is the owner's"
    assert a_day(office) == {"suspend": 1}
    assert office.serves(device, NOON) == [False]
    assert to_date(TODAY + 14).isoformat() in office.row(row.account).suspend_reason
    assert a_day(office, 29) == {}
    assert a_day(office) == {"cancel": 1}
    gone = office.row(row.account)
    assert (gone.state, gone.cancelled_on) == (AccountState.CANCELLED, TODAY + 45)
    assert corrections.listed(office.desk, OPERATOR) == [], "it went with the account"


def test_what_happened_is_in_the_history(office: Office) -> None:
    row = office.active()
    ask(office, row.account)
    office.deliver()
    a_day(office, 15)
    told = ["correction_asked", "correction_reminded", "suspended"]
    assert office.told(row.account)[-3:] == told
    assert [event.who for event in office.events(row.account)][-3:] == ["operator", "system", "system"]


def test_the_owners_own_change_stops_it(office: Office) -> None:
    row = office.active(EMAIL, MOBILE)
    ask(office, row.account, "name", "email")
    office.deliver()
    registration.update(office.desk, owner(row), row.account, name="Ada")
    assert state(office, row.account) is S.NOTIFIED, "that was its name before"
    registration.update(office.desk, owner(row), row.account, name="Ada Lovelace")
    registration.update(office.desk, owner(row), row.account, email="ada@new.example")
    [found] = corrections.listed(office.desk, owner(row), account=row.account)
    assert found.fields == "email", "one of two is corrected"
    code = office.code(row.account, "email")
    registration.confirm_address(office.desk, row.account, "email", code)
    assert state(office, row.account) is S.CORRECTED
    assert a_day(office, 60) == {}
    assert office.row(row.account).state is AccountState.ACTIVE


def test_an_address_that_is_removed_is_corrected(office: Office) -> None:
    row = office.active(EMAIL, MOBILE)
    ask(office, row.account, "mobile")
    registration.update(office.desk, owner(row), row.account, mobile="")
    assert state(office, row.account) is S.CORRECTED


def test_an_operators_correction_lifts_the_suspension_that_it_made(office: Office) -> None:
    row = office.active()
    device = office.device(row.account)
    ask(office, row.account)
    a_day(office, 15)
    assert office.bitmap.read(device).flags & SUSPENDED  # type: ignore[union-attr]
    registration.update(office.desk, OPERATOR, row.account, name="Ada Lovelace")
    assert not office.bitmap.read(device).flags & SUSPENDED  # type: ignore[union-attr]
    assert state(office, row.account) is S.CORRECTED
    assert office.told(row.account)[-2:] == ["corrected", "resumed"]
    assert office.notices(row.account, "resumed")
    assert a_day(office, 60) == {}


def test_a_suspension_for_something_else_stays(office: Office) -> None:
    row = office.active()
    ask(office, row.account)
    office.deliver()
    standing.suspend(office.desk, OPERATOR, row.account, "an authority's demand")
    a_day(office, 15)
    assert state(office, row.account) is S.SUSPENDED
    assert office.row(row.account).suspend_reason == "an authority's demand"
    registration.update(office.desk, OPERATOR, row.account, name="Ada Lovelace")
    assert office.row(row.account).suspended_ms is not None
    assert state(office, row.account) is S.CORRECTED


def test_a_request_is_taken_back(office: Office) -> None:
    row = office.active()
    ask(office, row.account)
    a_day(office, 15)
    done = corrections.withdraw(office.desk, OPERATOR, row.account, "it was true")
    assert (done.state, done.next_on) == (S.WITHDRAWN, None)
    assert office.row(row.account).suspended_ms is None
    with refused(NotFound, "no_correction"):
        corrections.withdraw(office.desk, OPERATOR, row.account, "again")
    assert ask(office, row.account).state is S.NOTIFIED, "another one may follow"


def test_who_is_resumed_by_hand_is_not_cancelled_later(office: Office) -> None:
    row = office.active()
    ask(office, row.account)
    a_day(office, 15)
    standing.resume(office.desk, OPERATOR, row.account, "seen a passport")
    assert state(office, row.account) is S.WITHDRAWN
    assert a_day(office, 60) == {}


def test_nobody_is_suspended_who_was_not_told(office: Office) -> None:
    row = office.active()
    ask(office, row.account)
    office.later(days=30)
    corrections.step_due(office.desk)
    assert office.row(row.account).suspended_ms is None, "the notice is still queued"
    office.deliver()
    assert a_day(office, 6) == {}
    assert a_day(office) == {"suspend": 1}


def test_a_cancellation_that_is_on_its_way_is_not_ordered_twice(office: Office) -> None:
    row = office.active()
    ask(office, row.account)
    a_day(office, 15)
    closing.close_by_operator(office.desk, OPERATOR, row.account, "an authority's demand")
    office.later(days=30)
    assert corrections.step_due(office.desk)["cancel"] == 1
    assert office.row(row.account).closing_reason == "an authority's demand"
    assert office.row(row.account).closing is ClosingState.APPROVED


def test_what_is_refused(office: Office) -> None:
    row = office.active()
    with refused(Forbidden, "operators_only"):
        corrections.ask(office.desk, owner(row), row.account, ("name",), "x")
    with refused(Forbidden, "operators_only"):
        corrections.listed(office.desk, owner(row))
    for fields in ((), ("password",)):
        with refused(Unprocessable, "bad_fields"):
            corrections.ask(office.desk, OPERATOR, row.account, fields, "x")
    with refused(Unprocessable, "operator_account"):
        ask(office, 1)
    with refused(NotFound, "not_found"):
        ask(office, 999)
    new = office.register("new@example.org")
    with refused(Forbidden, "not_activated"):
        ask(office, new.account)
    ask(office, row.account)
    with refused(Conflict, "correction_open"):
        ask(office, row.account)
    other = office.active("bob@example.org")
    with refused(NotFound, "not_found"):
        corrections.listed(office.desk, owner(other), account=row.account)


def test_a_clock_that_is_not_believed_suspends_nobody(office: Office) -> None:
    class Doubtful:
        def require(self) -> None:
            raise ClipkeepError("the clock went back")

    row = office.active()
    assert corrections_by_clock(office.desk, Doubtful()) == {}, "nothing is due"  # type: ignore[arg-type]
    ask(office, row.account)
    office.deliver()
    office.later(days=30)
    with pytest.raises(ClipkeepError, match="went back"):
        corrections_by_clock(office.desk, Doubtful())  # type: ignore[arg-type]
    assert office.row(row.account) == replace(row, name="Ada")
