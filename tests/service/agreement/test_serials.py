"""“One legal device” (agreement 7.1): serials by a list or a pattern, and one trial for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.agreement import closing, devices, equipping, purchases, serials
from service.agreement.desk import OPERATOR, Actor, Desk
from service.agreement.equipping import Grant
from service.agreement.errors import Conflict, TooMany, Unprocessable
from service.config_text import load_config
from storage.errors import CallerError, WorldError
from tests.retention.world import fast_folder
from tests.service.agreement.money_world import MoneyWorld
from tests.service.agreement.office import Office, owner, refused


@pytest.fixture
def office() -> Iterator[Office]:
    with (
        fast_folder() as folder,
        Office(folder, settings={"serial_pattern": "CK-[0-9]{4}", "serial_failures": 100}) as made,
    ):
        yield made


def with_list(office: Office, path: Path, **more: Any) -> Desk:
    return office.parts(settings=replace(office.desk.settings, serial_list=str(path), **more))


def add(desk: Desk, who: Actor, serial: str | None) -> int:
    return devices.add_device(desk, who, who.account, serial).device


def test_a_serial_is_required_where_a_pattern_or_a_list_says_so(office: Office, tmp_path: Path) -> None:
    ada = owner(office.active())
    listed = tmp_path / "serials"
    listed.write_text("CK-0001\r\nCK-0002\nCK-00033")
    both, alone = with_list(office, listed), with_list(office, listed, serial_pattern="")
    for desk in (office.desk, both, alone):
        with refused(Unprocessable, "serial_required"):
            add(desk, ada, None)
    for serial in ("CK-1", "XCK-0001", "CK-0001 ", "", "ü", "x" * 65):
        with refused(Unprocessable, "bad_serial"):
            add(office.desk, ada, serial)
    for serial in ("CK-0003", "K-0002", "CK-000", "0001"):
        with refused(Unprocessable, "bad_serial"):
            add(alone, ada, serial)
    with refused(Unprocessable, "bad_serial"):
        add(both, ada, "CK-00033")  # listed, and not of the pattern
    assert add(both, ada, "CK-0001") < add(alone, ada, "CK-00033") < add(office.desk, ada, "CK-9999")
    listed.write_text("CK-0004\n")
    assert add(alone, ada, "CK-0004"), "the list is read anew"
    with refused(WorldError, "serials_unavailable"):
        add(with_list(office, tmp_path / "nowhere"), ada, "CK-0005")
    listed.write_text("")
    with refused(Unprocessable, "bad_serial"):
        add(alone, ada, "CK-0006")


@pytest.mark.parametrize("at", [0, 1, 99_999, 100_000, 149_999])
def test_a_list_of_many_lines_is_read_in_parts(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(serials, "_READ_BYTES", 1000)
    lines = [f"AB-{number:06}" for number in range(150_000)]
    listed = tmp_path / "serials"
    listed.write_bytes(b"\r\n".join(line.encode() for line in lines))
    ada = owner(office.active())
    desk = with_list(office, listed, serial_pattern="")
    for part in ("AB-", "1", lines[at][:-1], lines[at][1:], f"{lines[at]}0"):
        with refused(Unprocessable, "bad_serial"):
            add(desk, ada, part)
    assert add(desk, ada, lines[at])


def test_the_list_is_read_outside_of_transactions(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody's commits waited meanwhile: for a second, when a letter was looked for in a list of millions."""
    ada = owner(office.active())
    checked = serials.checked
    writing: list[int] = []

    def other_writes(desk: Desk, account: int, serial: str | None) -> str | None:
        desk.write(lambda books: writing.append(books.newest_account()))
        return checked(desk, account, serial)

    monkeypatch.setattr(serials, "checked", other_writes)
    add(office.desk, ada, "CK-0001")
    equipping.equip(office.desk, OPERATOR, ada.account, 1, None, "CK-0002")
    assert len(writing) == 2


def test_small_and_capital_letters_are_the_same_serial() -> None:
    """Each way to write it had a trial of its own."""
    settings = {"serial_pattern": "(?i)CK-[0-9A-F]{4}"}
    with fast_folder() as folder, Office(folder, settings=settings) as office:
        ada, bob = (owner(office.active(f"{name}@example.org")) for name in ("ada", "bob"))
        device = add(office.desk, ada, "ck-00af")
        for way in ("CK-00AF", "Ck-00aF"):
            with refused(Conflict, "serial_taken"):
                add(office.desk, bob, way)
        purchases.start_trial(office.desk, ada, device)
        devices.terminate(office.desk, ada, device, why="sold")
        again = add(office.desk, bob, "CK-00Af")
        with refused(Conflict, "serial_trial_used"):
            purchases.start_trial(office.desk, bob, again)
        with office.catalog.books() as books:
            assert books.serial_of(again) == "CK-00AF"


def test_who_guesses_at_serials_is_slowed_down(office: Office) -> None:
    ada, bob = (owner(office.active(f"{name}@example.org")) for name in ("ada", "bob"))
    office.desk = office.parts(settings=replace(office.desk.settings, serial_failures=3))
    for number in range(5):
        add(office.desk, ada, f"CK-000{number}")  # no failures
    add(office.desk, bob, "CK-0009")
    for serial in ("x", "CK-1", "CK-0009", "CK-0000"):
        with pytest.raises((Unprocessable, Conflict)):
            add(office.desk, ada, serial)
    with refused(TooMany, "slow_down"):
        add(office.desk, ada, "CK-0007")
    add(office.desk, bob, "CK-0008")
    assert devices.add_device(office.desk, OPERATOR, ada.account, "CK-0007"), "an operator is not slowed down"
    office.later(hours=1)
    add(office.desk, ada, "CK-0006")


def test_a_serial_is_of_one_device_at_a_time(office: Office) -> None:
    ada, bob = (owner(office.active(f"{name}@example.org")) for name in ("ada", "bob"))
    first = add(office.desk, ada, "CK-0001")
    for who in (ada, bob):
        with refused(Conflict, "serial_taken"):
            add(office.desk, who, "CK-0001")
    devices.terminate(office.desk, ada, first, why="sold")
    second = add(office.desk, bob, "CK-0001")
    with office.catalog.books() as books:
        assert books.serial_of(second) == "CK-0001"


def test_operators_add_by_serial_for_owners_and_without_for_themselves(office: Office) -> None:
    ada = owner(office.active())
    assert devices.add_device(office.desk, OPERATOR, 1).account == 1
    with refused(Unprocessable, "serial_required"):
        equipping.equip(office.desk, OPERATOR, ada.account, 2, None, "CK-0001")
    [facts] = equipping.equip(office.desk, OPERATOR, ada.account, 1, None, "CK-0001")
    assert facts.account == ada.account


def test_one_trial_for_each_serial_under_whatever_account(office: Office) -> None:
    ada, bob = (owner(office.active(f"{name}@example.org")) for name in ("ada", "bob"))
    device = add(office.desk, ada, "CK-0001")
    purchases.start_trial(office.desk, ada, device)
    office.later(days=20)
    closing.close_by_operator(office.desk, OPERATOR, ada.account, "gone")
    office.deliver()
    again = add(office.desk, bob, "CK-0001")
    with refused(Conflict, "serial_trial_used"):
        purchases.start_trial(office.desk, bob, again)
    assert office.row(bob.account).trial_ms is None, "the account's own trial is left"
    with refused(Conflict, "serial_trial_used"):
        purchases.grant(office.desk, OPERATOR, again, "trial")
    other = add(office.desk, bob, "CK-0002")
    purchases.start_trial(office.desk, bob, other)
    with refused(Conflict, "trial_used"):
        purchases.start_trial(office.desk, bob, add(office.desk, bob, "CK-0003"))


def test_a_refused_trial_uses_no_serial(office: Office) -> None:
    ada = owner(office.active())
    [first] = equipping.equip(office.desk, OPERATOR, ada.account, 1, Grant("trial"), "CK-0001")
    second = add(office.desk, ada, "CK-0002")
    with refused(Conflict, "trial_used"):
        purchases.start_trial(office.desk, ada, second)
    devices.terminate(office.desk, ada, second, why="sold")
    bob = owner(office.active("bob@example.org"))
    purchases.start_trial(office.desk, bob, add(office.desk, bob, "CK-0002"))
    assert first.account == ada.account


def test_a_device_from_before_serials_has_no_trial(office: Office) -> None:
    ada = owner(office.active())
    before = office.parts(settings=replace(office.desk.settings, serial_pattern=""))
    device = add(before, ada, None)
    with refused(Conflict, "no_serial"):
        purchases.start_trial(office.desk, ada, device)
    purchases.start_trial(before, ada, device)


def test_nothing_is_asked_where_nothing_is_configured(money: MoneyWorld) -> None:
    ada = money.add_owner()
    purchases.start_trial(money.desk, ada, money.add_device(ada))
    assert add(money.desk, ada, "any-serial")


@pytest.mark.parametrize("line", ['serial_pattern = "("', 'serial_list = "serials.txt"'])
def test_what_cannot_be_checked_is_refused_at_start(tmp_path: Path, line: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f"[agreement]\n{line}\n")
    with refused(CallerError, "bad_config"):
        load_config(config, {})
