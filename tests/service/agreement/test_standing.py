"""Suspension and dormancy: agreement 3.3, 6.1.1 to 6.1.3."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retention.bitmap import SUSPENDED
from service.agreement import closing, registration, sessions, standing
from service.agreement.desk import OPERATOR, SYSTEM
from service.agreement.errors import Conflict, Forbidden, Unauthorized, Unprocessable
from storage.days import day_of_ms
from storage.errors import NotFound
from tests.retention.world import NOON, TODAY
from tests.service.agreement.office import EMAIL, PASSWORD, Office, owner, refused


def test_a_suspended_account_does_nothing_and_loses_nothing(office: Office) -> None:
    row = office.active()
    device = office.device(row.account)
    office.keep([(device, NOON)])
    assert office.serves(device, NOON) == [True]
    suspended = standing.suspend(office.desk, OPERATOR, row.account, "an authority's demand")
    assert (suspended.suspended_ms, suspended.suspend_reason) == (office.clock.ms, "an authority's demand")
    assert office.serves(device, NOON) == [False]
    flags = office.bitmap.read(device).flags  # type: ignore[union-attr]
    assert flags & SUSPENDED
    assert office.catalog.device(device).account_suspended
    with refused(Forbidden, "account_suspended"):
        office.log_in()
    [notice] = office.notices(row.account, "suspended")
    assert "an authority's demand" in notice.body
    standing.resume(office.desk, OPERATOR, row.account, "lifted")
    assert office.serves(device, NOON) == [True]
    assert office.told(row.account)[-2:] == ["suspended", "resumed"]
    assert [e.why for e in office.events(row.account)][-2:] == ["an authority's demand", "lifted"]


def test_a_device_that_was_suspended_for_itself_stays_so(office: Office) -> None:
    row = office.active()
    device = office.device(row.account)
    office.keep([(device, NOON)])
    office.change(device, lambda f: replace(f, suspended=True))
    standing.suspend(office.desk, OPERATOR, row.account, "x")
    standing.resume(office.desk, OPERATOR, row.account, "x")
    assert office.serves(device, NOON) == [False]


def test_what_is_refused(office: Office) -> None:
    row = office.active()
    for act in (standing.suspend, standing.resume):
        with refused(Forbidden, "operators_only"):
            act(office.desk, owner(row), row.account, "x")
        with refused(NotFound, "not_found"):
            act(office.desk, OPERATOR, 999, "x")
        with refused(Unprocessable, "bad_text"):
            act(office.desk, OPERATOR, row.account, "a\x07b")
        with refused(Unprocessable, "bad_text"):
            act(office.desk, OPERATOR, row.account, " ")
    with refused(Unprocessable, "operator_account"):
        standing.suspend(office.desk, OPERATOR, 1, "x")
    with refused(Conflict, "not_suspended"):
        standing.resume(office.desk, OPERATOR, row.account, "x")
    standing.suspend(office.desk, OPERATOR, row.account, "x")
    with refused(Conflict, "already_suspended"):
        standing.suspend(office.desk, OPERATOR, row.account, "x")


def test_a_cancelled_account_is_not_suspended(office: Office) -> None:
    row = office.approved()
    office.deliver()
    with refused(Conflict, "account_cancelled"):
        standing.suspend(office.desk, OPERATOR, row.account, "x")


# --- dormant ------------------------------------------------------------------------------------------------------


def test_an_account_is_dormant_after_more_than_365_days_without_use(office: Office) -> None:
    row = office.active()
    office.later(days=365)
    assert standing.dormant(office.desk) == []
    office.later(days=1)
    [found] = standing.dormant(office.desk)
    assert (found.account, found.last_used_on, found.suspended) == (row.account, TODAY, False)


@pytest.mark.parametrize("use", ["log-in", "playback", "upload"])
def test_any_use_keeps_an_account_awake(office: Office, use: str) -> None:
    row = office.active()
    device = office.device(row.account)
    office.later(days=200)
    if use == "log-in":
        office.log_in()
    elif use == "playback":
        office.catalog.note_used([device], day_of_ms(office.clock.ms))
    else:
        office.keep([(device, office.clock.ms)])
    office.later(days=365)
    assert standing.dormant(office.desk) == []
    office.later(days=1)
    assert [d.last_used_on for d in standing.dormant(office.desk)] == [TODAY + 200]


def test_dormant_accounts_are_suspended_and_told_and_once(office: Office) -> None:
    sleepers = [
        office.active(f"a{n}@example.org", client=f"c{n}").account for n in range(standing.PAGE_ACCOUNTS + 2)
    ]
    office.later(days=366)
    awake = office.active()
    assert standing.suspend_dormant(office.desk, SYSTEM) == sleepers
    assert standing.suspend_dormant(office.desk, SYSTEM) == []
    assert all(d.suspended for d in standing.dormant(office.desk, limit=1000))
    assert office.row(awake.account).suspended_ms is None
    assert len(office.notices(purpose="suspended")) == len(sleepers)
    assert office.events(sleepers[0])[-1].who == "system"
    standing.resume(office.desk, OPERATOR, sleepers[0], "the owner came back")
    assert standing.suspend_dormant(office.desk, OPERATOR) == [], "awake from today on"


def test_who_logs_in_while_the_dormant_are_suspended_is_left_alone(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = office.active()
    office.later(days=366)
    found = standing.dormant(office.desk)
    office.log_in()
    monkeypatch.setattr(standing, "_all_dormant", lambda desk: iter(found))
    assert standing.suspend_dormant(office.desk, OPERATOR) == []
    assert office.row(row.account).suspended_ms is None


def test_a_page_of_the_dormant(office: Office) -> None:
    accounts = [office.active(f"a{n}@example.org").account for n in range(5)]
    office.later(days=366)
    page = standing.dormant(office.desk, after=accounts[1], limit=2)
    assert [d.account for d in page] == accounts[2:4]


def test_owners_suspend_nobody(office: Office) -> None:
    with refused(Forbidden, "operators_only"):
        standing.suspend_dormant(office.desk, owner(office.active()))


def test_a_suspended_owner_can_still_be_cancelled_by_the_operator(office: Office) -> None:
    row = office.active()
    standing.suspend(office.desk, OPERATOR, row.account, "dormant")
    closing.close_by_operator(office.desk, OPERATOR, row.account, "dormant for long")
    office.deliver()
    with refused(Unauthorized, "bad_credentials"):
        sessions.log_in(office.desk, EMAIL, PASSWORD, "c")
    with refused(NotFound, "not_found"):
        registration.update(office.desk, OPERATOR, row.account, name="x")
