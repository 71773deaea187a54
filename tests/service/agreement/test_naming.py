"""Names of devices: whose they are, what may stand in them, and finding a device by one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ingest import answers
from service.agreement import devices, naming
from service.agreement.desk import OPERATOR, Actor
from service.agreement.refused import WHY
from storage.errors import NotFound
from storage.rows.sightings import Refused
from tests.service.agreement.money_world import MoneyWorld
from tests.service.agreement.refusing import refused


@pytest.fixture
def ada(money: MoneyWorld) -> Actor:
    return money.add_owner()


def call(money: MoneyWorld, who: Actor, device: int, **texts: str | None) -> tuple[str, str]:
    name = naming.rename(money.desk, who, device, **texts).name
    assert devices.show(money.desk, who, device).name == name
    return name.name, name.label


def found(money: MoneyWorld, who: Actor, text: str, **page: int) -> list[int]:
    standings, _ = naming.named(money.desk, who, who.account, text, **page)
    return [standing.facts.device for standing in standings]


def test_a_device_is_called_what_its_owner_says(money: MoneyWorld, ada: Actor) -> None:
    device = money.add_device(ada)
    assert call(money, ada, device) == ("", "")
    assert call(money, ada, device, name=" Front door ", label="Elm Street 3") == (
        "Front door",
        "Elm Street 3",
    )
    assert call(money, OPERATOR, device, label="Elm Street 4") == ("Front door", "Elm Street 4")
    assert call(money, ada, device, name="") == ("", "Elm Street 4")
    assert call(money, ada, device, name="", label="") == ("", "")
    with money.desk.reading() as books:
        said = [row.facts for row in books.events_of(ada.account) if row.what == "device_renamed"]
        assert books.device_names([device]) == {}
    assert said == [
        {"name": "Front door", "label": "Elm Street 3"},
        {"name": "Front door", "label": "Elm Street 4"},
        {"name": "", "label": "Elm Street 4"},
        {"name": "", "label": ""},
    ]


@pytest.mark.parametrize("text", ["two\nlines", "turned \u202e round", "no\u200bwidth", "x" * 81])
def test_what_is_no_name(money: MoneyWorld, ada: Actor, text: str) -> None:
    device = money.add_device(ada)
    with refused(422, "bad_text"):
        call(money, ada, device, name=text)
    with refused(422, "bad_text"):
        call(money, ada, device, label=text * 3)
    assert call(money, ada, device, name="x" * 80, label="y" * 200) == ("x" * 80, "y" * 200)


def test_nobody_names_or_finds_anothers_device(money: MoneyWorld, ada: Actor) -> None:
    eve = money.add_owner("Eve")
    device = money.add_device(ada)
    call(money, ada, device, name="Front door")
    with pytest.raises(NotFound):
        call(money, eve, device, name="Eve's")
    with pytest.raises(NotFound):
        naming.named(money.desk, eve, ada.account, "door")
    assert found(money, eve, "door") == []
    standings, _ = naming.named(money.desk, OPERATOR, ada.account, "door")
    assert [standing.facts.device for standing in standings] == [device]


def test_a_device_is_found_by_a_part_of_its_name_or_label(
    money: MoneyWorld, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [money.add_device(ada) for _ in range(5)]
    money.add_device(ada)
    for number, name in zip(
        numbers, ("Front DOOR", "Straße", "back door", "Ｄoor of the barn", "roof"), strict=True
    ):
        call(money, ada, number, name=name)
    call(money, ada, numbers[4], label="above the door")
    doors = [numbers[at] for at in (0, 2, 3, 4)]
    assert found(money, ada, "Door") == doors
    assert found(money, ada, "STRASSE") == [numbers[1]]
    assert found(money, ada, "window") == []

    def pages() -> list[list[int]]:
        after: int | None = 0
        read = []
        while after is not None:
            standings, after = naming.named(money.desk, ada, ada.account, "door", after=after, limit=2)
            read.append([standing.facts.device for standing in standings])
        return read

    assert pages() == [doors[:2], doors[2:]]
    monkeypatch.setattr(naming, "MAX_SEARCHED", 1)
    assert pages() == [[numbers[0]], [], [numbers[2]], [numbers[3]], [numbers[4]]], "a page may be empty"


def test_a_list_says_when_devices_were_seen_and_what_they_were_refused(money: MoneyWorld, ada: Actor) -> None:
    first, second = (money.add_device(ada) for _ in range(2))
    call(money, ada, second, name="Barn")
    at_ms = money.desk.now_ms()
    money.catalog.note_sightings({second: at_ms}, {(second, "expired"): (2, at_ms + 1)})
    one, other = devices.devices_of(money.desk, ada, ada.account)
    assert (one.facts.device, one.name.name, one.seen.seen_ms, one.seen.refused) == (first, "", None, ())
    assert (other.name.name, other.seen.seen_ms) == ("Barn", at_ms)
    assert other.seen.refused == (Refused("expired", 2, at_ms + 1),)
    assert devices.show(money.desk, ada, second) == other
    assert devices.all_devices(money.desk, after=first, limit=1) == [other]


def test_a_list_takes_as_many_queries_for_many_devices_as_for_one(
    money: MoneyWorld, ada: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = money.catalog.db.read, []  # type: ignore[attr-defined]

    def counted() -> object:
        reads.append(1)
        return read()

    numbers = [money.add_device(ada) for _ in range(2)]
    for number in numbers:
        money.buy(ada, number, "monthly", f"r{number}")
    monkeypatch.setattr(money.catalog.db, "read", counted)  # type: ignore[attr-defined]
    counts = []
    for limit in (1, 2):
        reads.clear()
        assert len(devices.devices_of(money.desk, ada, ada.account, limit=limit)) == limit
        counts.append(len(reads))
    assert counts == [2, 2]


def test_silent_devices(money: MoneyWorld, ada: Actor) -> None:
    quiet, busy, without = (money.add_device(ada) for _ in range(3))
    for device in (quiet, busy):
        money.buy(ada, device, "monthly", f"r{device}")
    now_ms = money.desk.now_ms()
    money.catalog.note_sightings({quiet: now_ms - 600_001, busy: now_ms - 600_000, without: 0}, {})
    silent = devices.silent(money.desk, silent_ms=600_000)
    assert [standing.facts.device for standing in silent] == [quiet]


def test_each_refusal_of_the_ingest_port_is_explained() -> None:
    """But for those that say that it was not the device, or no request of one."""
    source = Path(answers.__file__).with_suffix(".py")
    text = (source.parent / "answers.py").read_text()
    codes = set(re.findall(r'\d{3},\s+"([a-z_]+)"', text))
    assert len(codes) > 25
    assert codes - WHY.keys() == {"not_found", "no_token", "bad_token", "head_too_large", "tls_required"}
    assert all(len(why) > 15 for why in WHY.values())
