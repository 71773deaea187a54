"""`make screenshots`: pictures of ten pages, for docs/pages.md."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e import ffmpeg
from tests.e2e.browser import CHROMIUM, chromium
from tests.e2e.customers import PASSWORD
from tests.e2e.service import Service, until
from tests.screenshots.scene import Scene

DESK, PHONE = (1280, 800), (390, 844)
TALLEST = {DESK: 1500, PHONE: 1500}
"""CSS pixels: what is below is left out."""
QUALITY = "75"
WAIT_MS = 60_000


class Shots:
    """Takes pictures of pages, each in a browser of its own size and scheme."""

    def __init__(self, browser: Any, home: str, output: Path, work: Path) -> None:
        self._browser, self._home, self._output, self._work = browser, home, output, work

    def page(self, size: tuple[int, int], scheme: str, cookies: list[Any] | None = None) -> Any:
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            timezone_id="Europe/London" if size == PHONE else "Europe/Berlin",
            locale="en-GB",
            device_scale_factor=1 if size == DESK else 1.5,
        )
        if cookies:
            context.add_cookies(cookies)
        return context.new_page()

    def logged_in(self, path: str, **fields: str) -> list[Any]:
        """Cookies of a log-in."""
        page = self.page(DESK, "light")
        page.goto(self._home + path)
        for name, value in fields.items():
            page.fill(f"[name={name}]", value)
        with page.expect_navigation():
            page.get_by_role("button", name="Log in", exact=True).click()
        found: list[Any] = page.context.cookies()
        page.context.close()
        return found

    def take(self, page: Any, name: str) -> None:
        """Keep what a page shows, and close it."""
        width = page.viewport_size["width"]
        size = DESK if width == DESK[0] else PHONE
        height = page.evaluate("document.documentElement.scrollHeight")
        png, webp = self._work / f"{name}.png", self._output / f"{name}.webp"
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, TALLEST[size])}
        page.screenshot(path=png, full_page=True, clip=clip)
        ffmpeg.run("-y", "-i", str(png), "-c:v", "libwebp", "-quality", QUALITY, str(webp))
        print(f"{webp.name}: {webp.stat().st_size // 1024} KB", flush=True)
        page.context.close()


def play(page: Any) -> None:
    """Let a player play for a moment, and stop at a picture."""
    page.wait_for_selector("[data-spans] rect", state="attached", timeout=WAIT_MS)
    page.get_by_role("button", name="Play", exact=True).click()
    shown = "document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames > 30"
    until(lambda: page.evaluate(shown), "it plays")
    page.evaluate("document.querySelector('video').pause()")


def owners(shots: Shots, scene: Scene, home: str) -> None:
    page = shots.page(PHONE, "light")
    page.goto(home)
    shots.take(page, "front")

    ada = shots.logged_in("/log-in", login="ada@example.org", password=PASSWORD)
    page = shots.page(DESK, "dark", ada)
    page.goto(f"{home}/cameras")
    page.wait_for_load_state("networkidle")
    shots.take(page, "cameras")

    camera = f"{home}/cameras/{scene.door.number}"
    page = shots.page(DESK, "light", ada)
    page.goto(f"{camera}?at={scene.at_ms(10, 15)}")
    play(page)
    page.get_by_role("button", name="Begins here").click()
    begin = page.locator("[data-from]").input_value()
    page.locator("[data-to]").fill(begin[:11] + "12:00:00")
    timeline = page.locator("[data-timeline]")
    timeline.hover(position={"x": timeline.bounding_box()["width"] * 0.56, "y": 10})
    still = "document.querySelector('[data-preview] img').naturalWidth > 0"
    until(lambda: page.evaluate(still), "the still is there")
    shots.take(page, "camera")

    page = shots.page(PHONE, "dark", ada)
    page.goto(f"{camera}/plan")
    shots.take(page, "plan")

    page = shots.page(DESK, "light", ada)
    page.goto(f"{camera}/plan")
    page.locator("a", has_text="Cancel this plan").click()
    page.wait_for_load_state()
    shots.take(page, "cancel")

    page = shots.page(DESK, "light", ada)
    page.goto(f"{camera}/range?from={scene.at_ms(10, 15)}&to={scene.at_ms(10, 45)}")
    with page.expect_navigation():
        page.get_by_role("button", name="Make a link").click()
    link = page.locator("#link").inner_text().strip()
    page.context.close()
    page = shots.page(PHONE, "dark")
    page.goto(link)
    play(page)
    shots.take(page, "share")


def operators(shots: Shots, scene: Scene, home: str) -> None:
    ann = shots.logged_in("/log-in/operator", token=scene.operator_token())
    page = shots.page(DESK, "dark", ann)
    page.goto(f"{home}/operator")
    shots.take(page, "fleet")

    page = shots.page(DESK, "light", ann)
    page.goto(f"{home}/operator/accounts/{scene.ada.account}")
    shots.take(page, "account")

    page = shots.page(PHONE, "light", ann)
    page.goto(f"{home}/operator/sweep")
    page.get_by_role("button", name="Dry run: show what it would do").click()
    page.get_by_role("heading", name="What a sweep would do").wait_for(timeout=WAIT_MS)
    shots.take(page, "sweep")

    page = shots.page(DESK, "dark", ann)
    page.goto(f"{home}/operator/storage")
    shots.take(page, "storage")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make screenshots", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the folder they are put into")
    output: Path = parser.parse_args().output
    if not CHROMIUM:
        print("needs a browser: apt-get install chromium", file=sys.stderr)
        return 1
    output.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work, Service(Path(work)) as service:
        scene = Scene(service, Path(work))
        home = f"http://{service.api[0]}:{service.api[1]}"
        with chromium() as browser:
            shots = Shots(browser, home, output, Path(work))
            owners(shots, scene, home)
            operators(shots, scene, home)
        service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
