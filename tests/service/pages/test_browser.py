"""Player and timeline of a camera in a real Chromium, with the keyboard alone: recordings, gaps, what is kept and what
is deleted; and what axe says of the pages that show them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from service.keeping import Keeping
from storage.days import MS_PER_DAY
from tests.e2e.browser import chromium, looked_at, needs_axe
from tests.e2e.service import until
from tests.service.api.office import PASSWORD, Person, add_owner
from tests.service.api.server import Server
from tests.service.playback.test_mp4_export import recorded
from tests.service.world import HOUR_MS, NOON_MS, World

FIRST_MS, FOX_MS, GONE_MS, LAST_MS = (
    NOON_MS - 4 * HOUR_MS,
    NOON_MS - 3 * HOUR_MS,
    NOON_MS - 2 * HOUR_MS,
    NOON_MS - HOUR_MS,
)
"""A recording; one that is kept and then deleted; one that is deleted; another recording, which stays."""
EXPIRES_ON = NOON_MS // MS_PER_DAY + 8
FRAMES = "document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"

pytestmark = needs_axe


@dataclass(frozen=True)
class Scene:
    server: Server
    ada: Person
    device: int
    browser: Any

    @property
    def camera(self) -> str:
        return f"{self.server.base}/cameras/{self.device}"

    def page(self, **options: Any) -> Any:
        """Somebody who has just logged in."""
        page = self.browser.new_context(bypass_csp=True, timezone_id="UTC", **options).new_page()
        page.goto(f"{self.server.base}/log-in")
        page.get_by_label("E-mail address, mobile").fill("ada@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_label("Password").press("Enter")
        page.wait_for_url("**/cameras")
        return page

    def opened(self, query: str = "") -> Any:
        """The camera's page, with its timeline."""
        page = self.page()
        page.goto(f"{self.camera}{query}")
        page.wait_for_selector("[data-spans] rect", state="attached")
        return page


@pytest.fixture
def scene(server: Server, world: World) -> Iterator[Scene]:
    ada = add_owner(server)
    device = ada.add_device()
    ada.buy(device)
    path = f"/v1/devices/{device}"
    for at_ms in (FIRST_MS, FOX_MS, GONE_MS, LAST_MS):
        session = recorded("ts-h264-aac", at_ms, 10)
        world.keep(*(replace(clip, expires_on=EXPIRES_ON) for clip in session), device=device)
    asked = {"from": FOX_MS, "to": FOX_MS + 20_000, "name": "The fox"}
    assert ada.ask("POST", f"{path}/clips", asked).status == 201
    keeping = Keeping(world.catalog, world.store, world.vault, world.clock)
    while keeping.run():
        pass
    for from_ms, clips in ((FOX_MS, "keep"), (GONE_MS, "delete")):
        query = f"from={from_ms}&to={from_ms + HOUR_MS // 4}&clips={clips}&reason=x"
        assert ada.ask("DELETE", f"{path}/recordings?{query}").status == 200
    with chromium() as browser:
        yield Scene(server, ada, device, browser)


def at(page: Any) -> int:
    """Where the needle is, Unix ms."""
    timeline = page.get_by_role("slider", name="Time of the day")
    return NOON_MS - 12 * HOUR_MS + 1000 * int(timeline.get_attribute("aria-valuenow"))


def is_near(page: Any, ms: int, within_ms: int = 15_000) -> bool:
    return abs(at(page) - ms) < within_ms


def plays(page: Any, more: int = 10) -> bool:
    """Whether pictures come."""
    before = page.evaluate(FRAMES)
    until(lambda: page.evaluate(FRAMES) > before + more or page.evaluate(FRAMES) < before, "it plays")
    return True


def test_a_timeline_shows_what_is_kept_and_what_is_deleted(scene: Scene) -> None:
    page = scene.opened()
    assert page.locator("[data-spans] rect").count() == 2
    assert page.locator("[data-deleted] rect").count() == 2
    kept = page.get_by_role("list", name="Kept clips of this day").get_by_role("button", name="The fox")
    assert kept.count() == 1
    kept.focus()
    page.keyboard.press("Enter")
    assert plays(page)
    assert is_near(page, FOX_MS)
    assert page.locator("[data-clock]").inner_text().startswith("The fox, ")
    assert kept.get_attribute("aria-current") == "true"
    timeline = page.get_by_role("slider", name="Time of the day")
    timeline.press("Home")
    until(lambda: is_near(page, FIRST_MS), "it leaves the clip")
    assert "recorded" in timeline.get_attribute("aria-valuetext")
    for _ in range(2):  # two hours on: to the middle of what is gone
        timeline.press("PageUp")
    assert page.locator("[data-clock]").inner_text()
    page.goto(f"{scene.camera}/clips")
    page.get_by_role("link", name="Play The fox").press("Enter")
    page.wait_for_selector("[data-spans] rect", state="attached")
    assert plays(page)
    assert is_near(page, FOX_MS)


def test_a_day_is_a_list_too(scene: Scene) -> None:
    page = scene.opened()
    page.get_by_role("link", name="This day as a list").press("Enter")
    page.wait_for_url("**/list?*")
    what = page.locator("tbody tr td:nth-child(2)").all_inner_texts()
    gap = "nothing recorded"
    deleted = "deleted by you or an operator"
    assert what == [gap, "recorded", gap, deleted, "kept clip: The fox", gap, deleted, gap, "recorded", gap]
    page.get_by_role("row", name="kept clip").get_by_role("link", name="Play").press("Enter")
    assert plays(page)
    assert is_near(page, FOX_MS)


def test_a_moment_is_gone_to_and_a_day_chosen_by_keyboard(scene: Scene) -> None:
    page = scene.opened()
    jump = page.get_by_label("Go to")
    jump.fill("2026-07-06T11:00:10")
    jump.press("Enter")
    until(lambda: is_near(page, LAST_MS + 10_000, 4000), "it is there")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "slider"
    days = page.locator("[data-days] button")
    assert [days.nth(i).get_attribute("class") for i in (4, 5)] == [None, "has kept"]
    assert "has video, has a kept clip" in days.nth(5).get_attribute("aria-label")
    days.nth(4).focus()
    page.keyboard.press("Enter")
    page.get_by_text("Nothing is recorded on this day.").wait_for()
    assert days.nth(4).get_attribute("aria-current") == "date"
    days.nth(5).focus()
    page.keyboard.press("Space")
    until(lambda: is_near(page, FIRST_MS), "its first recording is chosen")
    page.get_by_role("button", name="The month before").focus()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="June 2026").wait_for()


def test_speed_goes_from_half_to_eight_and_playing_goes_on_behind_gaps(scene: Scene) -> None:
    page = scene.opened(f"?at={FIRST_MS}")
    speed = page.get_by_label("Speed")
    rate = "document.querySelector('video').playbackRate"
    speed.focus()
    for key, wanted in (("Home", 0.5), ("ArrowDown", 1), ("ArrowDown", 2), ("ArrowDown", 4), ("End", 8)):
        page.keyboard.press(key)
        until(lambda wanted=wanted: page.evaluate(rate) == wanted, f"it is {wanted}")
    page.get_by_role("button", name="Play", exact=True).press("Enter")
    assert plays(page)
    until(lambda: is_near(page, LAST_MS, 25_000), "it plays on behind the gap")
    assert page.evaluate(rate) == 8
    page.get_by_role("button", name="Pause").press("Space")
    assert page.evaluate("document.querySelector('video').paused")


def test_scrubbing_shows_stills_with_the_keyboard_and_with_the_pointer(scene: Scene) -> None:
    page = scene.opened(f"?at={FIRST_MS}")
    timeline = page.get_by_role("slider", name="Time of the day")
    shown = "(() => { const image = document.querySelector('[data-preview] img');"
    shown += " return image.checkVisibility() && image.naturalWidth > 0 ? image.src : '' })()"
    timeline.focus()
    page.keyboard.press("ArrowRight")
    first = until(lambda: page.evaluate(shown), "a still is at the needle")
    page.wait_for_timeout(200)
    page.keyboard.press("Home")
    until(lambda: page.evaluate(shown) not in ("", first), "another one is")
    timeline.blur()
    assert not page.locator("[data-preview]").is_visible()
    bar = page.locator("[data-spans] rect").nth(1).bounding_box()
    page.mouse.move(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    until(lambda: page.evaluate(shown), "a still is under the pointer")
    box = page.get_by_role("slider", name="Time of the day").bounding_box()
    page.mouse.move(
        box["x"] + box["width"] * (FOX_MS + 1000 - NOON_MS + 12 * HOUR_MS) / MS_PER_DAY, box["y"] + 9
    )
    until(lambda: "/clips/1/still.jpg" in page.evaluate(shown), "a still of what is only kept")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(scene: Scene, scheme: str) -> None:
    page = scene.page(color_scheme=scheme)
    midnight_ms = NOON_MS - 12 * HOUR_MS
    for name, path in {
        "camera": f"?at={LAST_MS}",
        "list": f"/list?from={midnight_ms}&to={midnight_ms + MS_PER_DAY}",
        "clips": "/clips",
        "range": f"/range?from={FOX_MS}&to={FOX_MS + 5000}",
    }.items():
        looked_at(page, f"{name}-{scheme}", f"{scene.camera}{path}")
