"""Continued use accepts the current agreement (11.2), and the notice before a trial ends (7.1)."""

from __future__ import annotations

from datetime import date

import pytest

from service.agreement import announcing, notices, purchases, records, standing, trials, versions
from service.agreement.desk import OPERATOR, Actor
from service.agreement.notices import deliver_now
from service.agreement.senders import FileSender
from service.housekeeping import Accepting, Uses
from service.playback.used import Used
from storage.contracts.blocks import writing_books
from storage.days import day_of_ms
from storage.rows.accounts import TRIAL_ENDING, AccountRow, NoticeLane, NoticeState
from tests.service.agreement.money_world import MoneyWorld
from tests.service.agreement.office import Office, owner


def accepted(office: Office, row: AccountRow) -> list[tuple[int, str]]:
    return [(one.version, one.how) for one in records.acceptances(office.desk, owner(row), row.account)]


@pytest.mark.parametrize("use", ["upload", "playback", "request", "nothing"])
def test_any_use_after_a_new_version_is_recorded_as_acceptance_once(office: Office, use: str) -> None:
    row = office.active()
    device = office.device(row.account)
    devices, accounts = Used(), Used()
    uses, accepting = Uses(office.desk, devices=devices, accounts=accounts), Accepting(office.desk)

    def make_use() -> None:
        today = day_of_ms(office.clock.ms)
        if use == "upload":
            office.keep([(device, office.clock.ms)])
        elif use == "playback":
            devices.note(device, today)
        elif use == "request":
            accounts.note(row.account, today)

    def turn() -> int:
        uses.note()
        return accepting()["accepted"]

    make_use()
    assert turn() == 0
    assert accepted(office, row) == [(1, "registered")]
    office.later(seconds=1)
    make_use()  # before the publication: noted after it, and no use of what was not there
    versions.publish(office.desk, OPERATOR, "The second agreement.")
    assert turn() == 0
    office.later(seconds=1)
    make_use()  # on the same day
    assert turn() == (use != "nothing")
    office.later(days=1)
    make_use()
    assert turn() == 0, "once"
    expected = [(1, "registered"), *([(2, "deemed")] if use != "nothing" else [])]
    assert accepted(office, row) == expected


def test_accounts_are_looked_at_in_turns(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.housekeeping.ACCOUNTS_A_TURN", 2)
    rows = [office.active(f"a{n}@example.org", client=f"c{n}") for n in range(4)]
    versions.publish(office.desk, OPERATOR, "The second agreement.")
    with writing_books(office.catalog) as books:
        books.note_requests([row.account for row in rows], 1, version=2)
    accepting = Accepting(office.desk)
    assert [accepting()["accepted"] for _ in range(5)] == [1, 2, 1, 0, 0]


def test_a_code_waits_behind_no_announcement(office: Office) -> None:
    row = office.register()
    with writing_books(office.catalog) as books:
        notice = books.notices(account=row.account)[0]
        for n in range(150):
            books.add_notice(
                type(notice)(0, row.account, "email", notice.address, "announcement:x", f"n{n}", "b", 0)
            )
    files = FileSender(office.folder / "notices", "clipkeep@example.org")
    assert deliver_now(office.desk, {"email": files}, NoticeLane.CODES).delivered == 1
    assert office.notices(row.account, "activate")[0].state is NoticeState.DELIVERED
    assert deliver_now(office.desk, {"email": files}, NoticeLane.CODES).delivered == 0


def told(money: MoneyWorld, ada: Actor) -> list[str]:
    return [n.subject for n in money.notices(ada) if n.purpose == TRIAL_ENDING]


def test_the_end_of_a_trial_is_told_some_days_before_and_once(money: MoneyWorld) -> None:
    ada = money.add_owner()
    device = money.add_device(ada)
    purchases.start_trial(money.desk, ada, device)  # 31 January to 13 February
    money.pass_days(9)
    assert trials.tell_ending(money.desk) == 0
    money.pass_days(1)
    assert [trials.tell_ending(money.desk) for _ in range(3)] == [1, 0, 0]
    money.pass_days(3)
    assert trials.tell_ending(money.desk) == 0
    assert told(money, ada) == [f"Device {device}: the trial ends on 2025-02-13"]


def test_all_that_end_are_told_in_one_turn(money: MoneyWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not among the first of a transaction would else be told ten minutes later, or after the end."""
    monkeypatch.setattr(trials, "MAX_TOLD", 1)
    for name in ("Ada", "Bob", "Cid"):
        owner = money.add_owner(name)
        purchases.start_trial(money.desk, owner, money.add_device(owner))
    money.pass_days(10)
    assert [trials.tell_ending(money.desk) for _ in range(2)] == [3, 0]


def test_who_has_paid_or_lost_the_device_is_told_nothing(money: MoneyWorld) -> None:
    ada, bob, late = money.add_owner(), money.add_owner("Bob"), money.add_owner("Late")
    for owner_of in (ada, bob, late):
        purchases.start_trial(money.desk, owner_of, money.add_device(owner_of))
    money.pass_days(5)
    money.buy(ada, 1, "annual", "r1")
    money.terminate(2)
    money.pass_days(9)
    assert trials.tell_ending(money.desk) == 0, "nor who was not told in time, after the end"
    assert told(money, ada) == told(money, bob) == told(money, late) == []


def test_the_end_of_a_plan_is_told_some_days_before_and_once(money: MoneyWorld) -> None:
    ada = money.add_owner()
    device, other = money.add_device(ada), money.add_device(ada)
    money.buy(ada, device, "annual", "r1")  # 31 January 2025 to 30 January 2026
    money.buy(ada, other, "monthly", "r2")
    money.go(date(2026, 1, 26))
    assert trials.tell_ending(money.desk) == 0
    money.pass_days(1)
    assert [trials.tell_ending(money.desk) for _ in range(3)] == [1, 0, 0]
    [told_of] = [n for n in money.notices(ada) if n.purpose.startswith("plan_ending:")]
    assert told_of.subject == f"Device {device}: the plan ends on 2026-01-30"
    assert "Buy a plan before that" in told_of.body


def test_a_plan_that_another_one_follows_says_so(money: MoneyWorld) -> None:
    ada = money.add_owner()
    device = money.add_device(ada)
    money.buy(ada, device, "annual", "r1")
    money.buy(ada, device, "monthly", "r2")
    money.go(date(2026, 1, 28))
    assert trials.tell_ending(money.desk) == 1
    [told_of] = [n for n in money.notices(ada) if n.purpose.startswith("plan_ending:")]
    assert "Your next plan follows at once" in told_of.body


def test_no_receipt_waits_behind_an_announcement(office: Office) -> None:
    row = office.active()
    announcing.announce(office.desk, OPERATOR, "s", "b", reference="x")
    office.later(seconds=1)
    standing.suspend(office.desk, OPERATOR, row.account, "why")
    files = FileSender(office.folder / "notices", "clipkeep@localhost")
    done = deliver_now(office.desk, {"email": files}, NoticeLane.OWN)
    assert done.delivered == len(office.notices()) - 1
    [waits] = [n for n in office.notices() if n.state is NoticeState.QUEUED]
    assert waits.purpose == "announcement:x"
    assert deliver_now(office.desk, {"email": files}, NoticeLane.BULK).delivered == 1


def test_a_turn_sends_all_that_is_due_in_batches(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MAX_BATCH", 2)
    for number in range(5):
        office.active(f"a{number}@example.org", client=f"c{number}")
    announcing.announce(office.desk, OPERATOR, "s", "b", reference="x")
    files = FileSender(office.folder / "notices", "clipkeep@localhost")
    assert deliver_now(office.desk, {"email": files}, NoticeLane.BULK).delivered == 5
    assert deliver_now(office.desk, {"email": files}, NoticeLane.BULK).delivered == 0
