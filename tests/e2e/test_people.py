"""What an owner is asked, told and given: corrections (6.1.1), announcements (3.2), all that is kept (5)."""

from __future__ import annotations

import io
import json
import zipfile
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.customers import PASSWORD, Customer, Town
from tests.e2e.service import Service, until

pytestmark = pytest.mark.e2e
ADA = "ada@example.org"
DAY = timedelta(days=1)


def test_an_owner_is_asked_to_correct_told_of_maintenance_and_given_all_that_is_kept(
    service: Service,
) -> None:
    service.configure(agreement_correction_remind_days=1)
    service.init("--test-clock")
    town = Town(service, start := datetime.now(UTC).date() + DAY)
    ada, operator = town.move_in(ADA), town.operator()
    camera = ada.add_camera()
    ada.once(f"/v1/devices/{camera.number}/trial")
    chunk = camera.record()
    announced(town, operator, start)
    corrected(town, ada, operator, start)
    ada = town.log_in(ADA)
    files = downloaded(ada)
    assert [(row["state"], row["fields"]) for row in files["corrections"]] == [("corrected", "")]
    assert files["account"][0]["email"] == ADA
    assert {"log_ins", "identities", "history", "plans"} < files.keys()
    [recording] = files["recordings"]
    assert recording["from_ms"] == chunk
    clip = urlsplit(recording["clip"])
    assert ada.ask("GET", f"{clip.path}?{clip.query}").body == camera.body(chunk)
    town.move_to(start + timedelta(days=11))
    assert ada.get(f"{ada.home}/exports") == [], "gone after a week"


def announced(town: Town, operator: Customer, start: date) -> None:
    """A planned window is on a page for anybody until it is over, and its owner has mail of it."""

    def at(hour: int) -> int:
        return int(datetime(start.year, start.month, start.day, hour, tzinfo=UTC).timestamp() * 1000)

    asked = {
        "subject": "Maintenance",
        "body": "No playback for an hour.",
        "planned": {"from_ms": at(14), "until_ms": at(15)},
    }
    assert operator.ask("POST", "/v1/announcements", asked).status == 200
    town.read_mail(ADA, "Maintenance")
    until(lambda: [one["subject"] for one in shown(town)] == ["Maintenance"], "the page has it")
    town.move_to(start, hour=15.1)
    until(lambda: shown(town) == [], "it is over")


def shown(town: Town) -> list[dict[str, Any]]:
    return list(town.ask("GET", "/v1/announcements").json)


def corrected(town: Town, ada: Customer, operator: Customer, start: date) -> None:
    """Asked, reminded, suspended; and an operator's correction lifts that."""
    asked = {"fields": ["name"], "detail": "This is not your name.", "within_days": 2}
    assert operator.ask("POST", f"{ada.home}/corrections", asked).status == 201
    [told] = ada.get(f"{ada.home}/corrections")["items"]
    assert (told["state"], told["due_on"]) == ("notified", str(start + 2 * DAY))
    town.read_mail(ADA, "Correct the data")
    town.move_to(start + DAY)
    town.read_mail(ADA, "Still to be corrected")
    town.move_to(start + 3 * DAY)
    town.read_mail(ADA, "account was suspended")
    login = {"login": ADA, "password": PASSWORD}
    assert town.ask("POST", "/v1/sessions", login).is_refusal(403, "account_suspended")
    assert operator.ask("PATCH", ada.home, {"name": "Ada Lovelace"}).status == 200
    town.read_mail(ADA, "can be used again")


def downloaded(ada: Customer) -> dict[str, list[dict[str, Any]]]:
    """All that is kept: rows by the name of their file."""
    assert ada.ask("POST", f"{ada.home}/exports", key="all").status == 202
    [made] = until(
        lambda: [one for one in ada.get(f"{ada.home}/exports") if one["state"] == "ready"], "it is made"
    )
    ada.town.read_mail(ADA, "Your data are ready")
    said = ada.ask("GET", made["file"])
    assert said.status == 200
    with zipfile.ZipFile(io.BytesIO(said.body)) as archive:
        names = [name for name in archive.namelist() if name.endswith(".json")]
        return {name.removesuffix(".json"): json.loads(archive.read(name)) for name in names}
