"""Kept clips on an owner's pages, and a day as a list."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from service.keeping import Keeping
from service.pages.day import lines
from storage.days import MS_PER_DAY
from storage.rows.clips import ClipRow, ClipState
from tests.service.api.office import Person
from tests.service.api.server import Server
from tests.service.pages import people
from tests.service.pages.visitor import Shown, Visitor
from tests.service.world import CHUNK_MS, NOON_MS, World, clips

BEGIN_MS = clips(1)[0].capture_ms
CHUNKS = 5


@dataclass(frozen=True)
class Home:
    """An owner with a camera that recorded five chunks."""

    server: Server
    visitor: Visitor
    ada: Person
    device: int

    @property
    def page(self) -> str:
        return f"/cameras/{self.device}"

    def keep(self, count: int = 2, first: int = 0, **fields: str) -> Shown:
        """Send the form of the range of so many chunks."""
        from_ms = BEGIN_MS + first * CHUNK_MS
        shown = self.visitor.get(f"{self.page}/range?from={from_ms}&to={from_ms + count * CHUNK_MS}")
        return self.visitor.fill(shown, f"{self.page}/clips", **fields)

    def copied(self, world: World) -> None:
        keeping = Keeping(world.catalog, world.store, world.vault, world.clock)
        while keeping.run():
            pass

    @property
    def names(self) -> list[str]:
        return [clip["name"] for clip in self.ada.get(f"/v1/devices/{self.device}/clips")["items"]]


def moved_in(server: Server, world: World) -> Home:
    visitor, ada = people.owner(server)
    device = ada.add_device()
    ada.buy(device)
    stored = [replace(clip, expires_on=NOON_MS // MS_PER_DAY + 8) for clip in clips(CHUNKS)]
    world.keep(*stored, device=device)
    return Home(server, visitor, ada, device)


@pytest.fixture
def home(server: Server, world: World) -> Home:
    return moved_in(server, world)


def test_a_range_is_kept_played_and_deleted(home: Home, world: World) -> None:
    done = home.keep(name="The fox")
    assert done.goes_to == f"{home.page}/clips?said=kept"
    page = home.visitor.follow(done)
    assert "This range is kept" in page.html.text
    assert "Being copied" in page.html.text
    home.copied(world)
    page = home.visitor.get(f"{home.page}/clips")
    assert "The fox" in page.html.text
    assert "3.76 kB of the 10.7 GB" in page.html.text
    assert f"{home.page}?at={BEGIN_MS}&clip=1" in page.html.links
    [download] = [link for link in page.html.links if "clip.ts?" in link]
    assert len(home.server.get(download, token=None).body) == 2 * 1880
    assert home.visitor.fill(page, f"{home.page}/clips/delete").status == 422, "the box was not ticked"
    done = home.visitor.fill(page, f"{home.page}/clips/delete", sure="1")
    assert "The kept clip is gone" in home.visitor.follow(done).html.text
    assert home.names == []
    assert home.server.get(download, token=None).status == 404


def test_what_can_not_be_kept_is_said_in_words(home: Home, world: World) -> None:
    assert home.keep().status == 303
    for refused, status, words in (
        (home.keep(), 409, "kept already, all of it"),
        (home.keep(count=1, first=1), 409, "kept already, all of it"),
        (home.keep(first=-500), 404, "no recordings in this range"),
        (home.keep(first=3000), 422, "recorded before now"),
    ):
        assert refused.status == status, words
        assert words in refused.html.text
        assert refused.form(f"{home.page}/clips").fields["from"], "the form is there again"
    assert home.keep(count=3, first=1).status == 303, "a part of it may be kept"
    shown = home.visitor.get(f"{home.page}/range?from={BEGIN_MS}&to={BEGIN_MS + 9}")
    assert "Of this range is kept already" in shown.html.text
    assert len(home.names) == 2


@pytest.mark.parametrize(
    ("setting", "words"), [("max_kept_bytes", "no room left"), ("max_clips_per_device", "as many kept clips")]
)
def test_the_bounds_of_what_is_kept_are_said_in_words(world: World, setting: str, words: str) -> None:
    with Server(world, settings={setting: {"max_kept_bytes": 2 * 1880}.get(setting, 1)}) as server:
        home = moved_in(server, world)
        assert home.keep().status == 303
        refused = home.keep(first=3)
        assert refused.status == 409
        assert words in refused.html.text


def test_a_deletion_says_what_becomes_of_kept_clips_before_it_is_confirmed(home: Home, world: World) -> None:
    home.keep(name="The fox")
    home.keep(first=3, name="The hen")
    home.copied(world)
    whole = home.visitor.get(f"{home.page}/range?from={BEGIN_MS}&to={BEGIN_MS + CHUNK_MS}")
    assert "1 kept clip has something of this range: The fox" in whole.html.text
    delete = f"{home.page}/delete"
    assert home.visitor.fill(whole, delete, sure="1", clips="keep").status == 303
    assert home.names == ["The fox", "The hen"]
    rest = home.visitor.get(f"{home.page}/range?from={BEGIN_MS}&to={NOON_MS}")
    assert "2 kept clips have something of this range: The fox, The hen" in rest.html.text
    assert home.visitor.fill(rest, delete, sure="1", clips="delete").status == 303
    assert home.names == []


def test_a_timeline_is_told_what_is_kept_and_what_is_deleted(home: Home, world: World) -> None:
    home.keep(name="The fox")
    day = NOON_MS // MS_PER_DAY * MS_PER_DAY
    asked = f"{home.page}/marks?from={day}&to={day + MS_PER_DAY}"
    told = json.loads(home.visitor.get(asked).source)
    clip = {"clip": 1, "name": "The fox", "from": BEGIN_MS, "to": BEGIN_MS + 2 * CHUNK_MS, "ready": False}
    assert told == {"kept": [clip], "deleted": []}
    home.copied(world)
    whole = home.visitor.get(f"{home.page}/range?from={BEGIN_MS - 5}&to={BEGIN_MS + 20_000}")
    home.visitor.fill(whole, f"{home.page}/delete", sure="1", clips="keep")
    told = json.loads(home.visitor.get(asked).source)
    assert told == {"kept": [clip | {"ready": True}], "deleted": [[BEGIN_MS - 5, BEGIN_MS + 20_000]]}
    days = json.loads(home.visitor.get(f"{home.page}/days?starts={day},{day + MS_PER_DAY}").source)
    assert days == {"days": [False], "kept": [True]}
    bob, _ = people.owner(home.server, "bob")
    for path in ("/marks?from=0&to=9", "/list", "/clips"):
        assert bob.get(f"{home.page}{path}").status == 404
    for path in ("clips", "clips/delete"):
        assert home.visitor.post(f"{home.page}/{path}", {"form": "A" * 86}).status == 403
        form = bob.get("/account").form("/account/name").fields["form"]
        fields = {"form": form, "from": "1", "to": "9", "clip": "1", "sure": "1"}
        assert bob.post(f"{home.page}/{path}", fields).status == 404
    world.clock.ms += 60 * MS_PER_DAY
    shown = Visitor(home.server)
    shown.cookies = dict(home.visitor.cookies)
    assert shown.get(asked).status in (303, 403), "a plan that is over shows nothing"


def test_a_day_as_a_list_has_a_page_of_rows_at_a_time(
    home: Home, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.keep(name="The <fox>")
    shown = home.visitor.get(f"{home.page}/list")
    assert shown.html.text.count("recorded") == 3, "before it, itself, after it"
    assert "kept clip: The <fox>" in shown.html.text
    assert f"{home.page}?at={BEGIN_MS}" in shown.html.links
    monkeypatch.setattr("service.pages.recordings.MAX_LINES", 1)
    shown = home.visitor.get(f"{home.page}/list")
    [more] = [link for link in shown.html.links if f"/list?from={BEGIN_MS}&" in link]
    assert "recorded" in home.visitor.get(more).html.text


def test_the_lines_of_a_day_tell_every_moment_once() -> None:
    clip = ClipRow(1, 2, 3, 0, 5, 5, 90, "", 0, ClipState.READY, 1, 1, 90)
    found = lines([(0, 10), (30, 40)], [(10, 20), (38, 50)], [clip], 0, 100)
    told = [(line.from_ms, line.to_ms, line.what) for line in found]
    assert told == [
        (0, 10, "recorded"),
        (5, 90, "kept"),
        (10, 20, "deleted"),
        (20, 30, "nothing"),
        (30, 40, "recorded"),
        (38, 50, "deleted"),
        (50, 100, "nothing"),
    ]
    assert lines([], [], [], 7, 7) == []
