"""What anybody may read: made once in a while, whoever asks."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
import trio.testing
from fastapi import Response

from service.agreement import announcing, consents, my_data, privacy
from service.agreement.announcing import Window
from service.agreement.desk import OPERATOR
from service.api import public
from service.api.models.agreement import AgreementText
from service.api.public import FRESH_S, Public
from service.playback import Refused
from storage.errors import CatalogUnavailable, NotFound
from tests.service.api.office import add_owner
from tests.service.api.server import Server
from tests.service.world import HOUR_MS


def text_of(version: int, text: str = "x") -> AgreementText:
    return AgreementText(version=version, published_ms=0, sha256="", text=text)


class Making:
    """Counts how often a page is made."""

    def __init__(self, text: str = "x") -> None:
        self.made = 0
        self.text = text

    async def __call__(self) -> AgreementText:
        self.made += 1
        await trio.sleep(0.1)
        return text_of(self.made, self.text)


async def test_of_many_who_ask_at_once_one_makes_it(autojump_clock: trio.testing.MockClock) -> None:
    kept, making, answers = Public(), Making(), list[Response]()

    async def ask() -> None:
        answers.append(await kept.answer("x", making))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert making.made == 1
    assert len({answer.body for answer in answers}) == 1
    await trio.sleep(FRESH_S - 0.1)
    await ask()
    assert making.made == 1
    await trio.sleep(0.2)
    await ask()
    assert making.made == 2
    assert answers[-1].headers["cache-control"] == "public, max-age=5"


async def test_what_fails_is_not_kept(autojump_clock: trio.testing.MockClock) -> None:
    kept = Public()

    async def missing() -> AgreementText:
        raise NotFound("no such version")

    for _ in range(2):
        with pytest.raises(NotFound):
            await kept.answer("agreement 99", missing)
    assert kept.kept_bytes == 0


async def test_nobody_waits_for_all_who_wait_for_a_catalog_that_hangs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One after the other each waited until the catalog had not answered: the tenth for 200 s."""
    kept, told = Public(), list[str]()

    async def hangs() -> AgreementText:
        await trio.sleep(20)
        raise CatalogUnavailable("it does not answer")

    async def ask() -> None:
        try:
            await kept.answer("agreement", hangs)
        except (CatalogUnavailable, Refused) as error:
            told.append(type(error).__name__)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert told == [*["Refused"] * 9, "CatalogUnavailable"]
    assert trio.current_time() == pytest.approx(20)
    assert (await kept.answer("agreement", Making())).status_code == 200, "and then as before"


async def test_kept_pages_are_bounded(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "MAX_KEPT_BYTES", 10_000)
    kept, making = Public(), Making("y" * 3000)
    for number in range(20):
        await kept.answer(f"agreement {number}", making)
        assert kept.kept_bytes <= 10_000
    await kept.answer("agreement 19", making)
    assert making.made == 20
    await kept.answer("agreement 0", making)
    assert making.made == 21, "it had made way"


def test_what_is_planned_is_read_without_a_log_in(server: Server) -> None:
    now_ms = server.desk.now_ms()
    window = Window(now_ms + HOUR_MS, now_ms + 2 * HOUR_MS)
    announcing.announce(server.desk, OPERATOR, "Away", "An hour.", reference="r", window=window)
    reply = server.get("/v1/announcements", token=None)
    [shown] = reply.json
    assert shown == {
        "reference": "r",
        "subject": "Away",
        "body": "An hour.",
        "from_ms": window.from_ms,
        "until_ms": window.until_ms,
    }
    assert reply.headers["cache-control"] == "public, max-age=5"


def test_the_privacy_policy_is_read_in_versions(server: Server) -> None:
    privacy.publish(server.desk, OPERATOR, "Ours.")
    assert server.get("/v1/privacy-policy", token=None).json["text"] == "Ours."
    assert server.get("/v1/privacy-policy/1", token=None).json["text"] == privacy.shipped()
    assert server.get("/v1/privacy-policy/3", token=None).status == 404


def test_a_link_ends_advertisements_as_mail_programs_ask(server: Server) -> None:
    person = add_owner(server)
    consents.say(server.desk, OPERATOR, person.account, "advertisements", True)
    link = consents.unsubscribe_url(server.desk, person.account).removeprefix(server.desk.notices.public_url)
    page = server.get(link, token=None)
    assert page.status == 200
    assert b"<form method=post" in page.body
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert [one["given"] for one in person.get(f"{person.home}/consents")] == [True], "a look changes nothing"
    form = "application/x-www-form-urlencoded"
    reply = server.ask("POST", link, b"List-Unsubscribe=One-Click", Content_Type=form)
    assert reply.status == 200
    assert [one["how"] for one in person.get(f"{person.home}/consents")] == ["link"]
    assert server.ask("POST", link).status == 200, "again, and without a body"
    made_up = server.ask("POST", f"/v1/unsubscribe?token={'A' * 32}", b"x", Content_Type=form)
    assert (made_up.status, made_up.error) == (404, "unknown_link")
    reply = person.ask("PUT", f"{person.home}/consents/advertisements", {"given": True})
    assert reply.json[0]["given"] is True


def test_an_owner_downloads_all_that_is_kept(server: Server) -> None:
    person, other = add_owner(server), add_owner(server, "bob")
    asked = person.ask("POST", f"{person.home}/exports")
    assert (asked.status, asked.json["state"], asked.json["file"]) == (202, "queued", None)
    assert person.ask("POST", f"{person.home}/exports").error == "export_there"
    world = server.world
    assert my_data.make_next(server.desk, world.store, world.catalog, world.folder / "exports") == 1
    [made] = person.get(f"{person.home}/exports")
    reply = person.ask("GET", made["file"])
    assert (reply.status, reply.headers["content-type"]) == (200, "application/zip")
    assert len(reply.body) == made["length_bytes"]
    with zipfile.ZipFile(io.BytesIO(reply.body)) as archive:
        assert json.loads(archive.read("account.json"))[0]["email"] == "ada@example.org"
    assert other.ask("GET", made["file"]).status == 404
    assert server.get(made["file"], token=None).status == 401
