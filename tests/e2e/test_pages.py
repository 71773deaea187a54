"""What an owner does in a browser, from registration to a plan that has ended: Chromium, and ffmpeg as the camera."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import pytest

from tests.e2e import ffmpeg
from tests.e2e.browser import MODULES, chromium, needs_players
from tests.e2e.customers import PASSWORD, Town
from tests.e2e.service import Service, until

pytestmark = [pytest.mark.e2e, *needs_players]

ADA = "ada@example.org"
AXE = MODULES / "axe-core" / "axe.min.js"
SEEN_WITHIN_MS = 15_000
"""From the camera's first byte to a picture on the timeline."""
DAY = timedelta(days=1)
SIZES = {"light": (1280, 800), "dark": (390, 844)}


@pytest.mark.long
def test_an_owner_from_registration_to_the_end_of_a_plan(service: Service, tmp_path: Path) -> None:
    service.configure(api_ingest_url="http://camera-port.example")
    service.init("--test-clock")
    now = datetime.now(UTC)
    town = Town(service, now.date() - DAY)
    town.move_to(
        now.date(), hour=(now - now.replace(hour=0, minute=0, second=0, microsecond=0)) / timedelta(hours=1)
    )
    home = f"http://{service.api[0]}:{service.api[1]}"
    with chromium() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, timezone_id="Asia/Tokyo")
        page = context.new_page()
        said, asked = watched(page)
        registered(page, town, home)
        device, line = added(page, service, home)
        with camera(line, tmp_path):
            page.goto(f"{home}/cameras/{device}")
            until(lambda: drawn(page, home, device), "the timeline has it", timeout_s=SEEN_WITHIN_MS / 1000)
            played(page)
            exported(page, tmp_path)
        no_violations(browser, context, home, device)
        lapsed(page, town, home, device)
        foreign = [address for address in asked if not address.startswith((home, f"blob:{home}"))]
        assert foreign == [], "nothing comes from elsewhere"
        assert said == [], "no error of a script, and nothing that the policy stopped"


def watched(page: Any) -> tuple[list[str], list[str]]:
    """What scripts and the policy complain of from now on, and all addresses that are asked."""
    said: list[str] = []
    asked: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("console", lambda one: said.append(one.text) if "Content Security Policy" in one.text else None)
    page.on("request", lambda one: asked.append(one.url))
    return said, asked


def registered(page: Any, town: Town, home: str) -> None:
    page.goto(home)
    page.get_by_role("main").get_by_role("link", name="Register").click()
    page.get_by_label("E-mail address").fill(ADA)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Register").click()
    page.wait_for_url("**/activate?account=*")
    code = re.search(r"\b[0-9A-Z]{4}(?:-[0-9A-Z]{4}){2}\b", town.read_mail(ADA, "activation code"))
    assert code is not None
    page.get_by_label("Code").fill(code[0])
    page.get_by_role("button", name="Activate").click()
    page.get_by_label("E-mail address, mobile").fill(ADA)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/cameras")
    assert page.get_by_text("Three steps to the first picture").is_visible()


def added(page: Any, service: Service, home: str) -> tuple[int, str]:
    """A camera with a trial: its number, and the line that the page gives for it."""
    page.get_by_role("link", name="Add a camera").click()
    page.get_by_role("button", name="Add it").click()
    page.wait_for_url("**/set-up?*")
    line = page.locator("#line").inner_text()
    assert page.get_by_role("img", name="QR code").is_visible()
    device = int(re.findall(r"/cameras/(\d+)/", page.url)[0])
    page.get_by_role("link", name="Choose a plan").click()
    page.get_by_role("button", name="Start the trial").click()
    assert page.get_by_text("The trial has begun").is_visible()
    host, port = service.ingest
    return device, line.replace("camera-port.example", f"{host}:{port}")


@contextmanager
def camera(line: str, folder: Path) -> Iterator[None]:
    """The line of the page, with a film in place of a camera on the network."""
    film = ffmpeg.film(folder / "film.ts", seconds=60, keyframe_s=2)
    assert line.count("-rtsp_transport tcp -i rtsp://CAMERA-ADDRESS/") == 1
    line = line.replace("-rtsp_transport tcp -i rtsp://CAMERA-ADDRESS/", f"-re -i {film}")
    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    with (folder / "camera.log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", line], env=environ, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def drawn(page: Any, home: str, device: int) -> bool:
    """Whether the timeline of the page, loaded anew, has something."""
    page.goto(f"{home}/cameras/{device}")
    with suppress(Exception):
        page.wait_for_selector("[data-spans] rect", state="attached", timeout=1000)
    return bool(page.locator("[data-spans] rect").count())


def played(page: Any) -> None:
    """Play, speed, the keyboard's scrubbing, and a range that is marked."""
    ready = "document.querySelector('video').readyState"
    until(lambda: page.evaluate(ready) >= 2, "the newest picture shows")
    frames = "document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames"
    page.select_option("[data-do=speed]", "0.5")
    page.get_by_role("button", name="Play").click()
    until(lambda: page.evaluate(frames) > 5, "it plays")
    assert page.evaluate("document.querySelector('video').playbackRate") == 0.5
    timeline = page.get_by_role("slider", name="Time of the day")
    timeline.focus()
    timeline.press("Home")
    before = int(timeline.get_attribute("aria-valuenow"))
    timeline.press("ArrowRight")
    page.wait_for_timeout(200)
    assert int(timeline.get_attribute("aria-valuenow")) >= before
    assert "recorded" in timeline.get_attribute("aria-valuetext")
    page.get_by_role("button", name="Begins here").click()
    page.get_by_role("button", name="Ends here").click()
    assert re.match(r"\d{4}-\d\d-\d\dT", page.get_by_label("From").input_value())


def exported(page: Any, folder: Path) -> None:
    """The first 20 seconds as MP4, which decodes."""
    page.get_by_role("slider", name="Time of the day").press("Home")
    page.get_by_role("button", name="Begins here").click()
    begin = datetime.fromisoformat(page.get_by_label("From").input_value())
    page.get_by_label("To", exact=True).fill((begin + timedelta(seconds=20)).isoformat(timespec="seconds"))
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url("**/range?*")
    assert page.get_by_text("UTC").count() >= 2, "the instant beside the viewer's time"
    with page.expect_download() as download:
        page.get_by_role("link", name="MP4", exact=True).click()
    path = folder / "export.mp4"
    download.value.save_as(path)
    assert len(ffmpeg.picture_hashes("-i", str(path))) > 25


def no_violations(browser: Any, context: Any, home: str, device: int) -> None:
    """axe finds nothing serious on any page, in both schemes, and none is wider than the screen."""
    cookies = context.cookies()
    paths = ["/log-in", "/register", "/activate", "/password", "/agreement", "/erased?camera=1", "/cameras"]
    paths += [
        "/cameras/new",
        "/account",
        "/account/history",
        "/account/close",
        "/account/methods",
        "/payments",
    ]
    of_camera = ("", "/plan", "/set-up", "/settings", "/buy?package=annual", "/range?from=1000&to=9000")
    paths += [f"/cameras/{device}{one}" for one in of_camera]
    for scheme, (width, height) in SIZES.items():
        other = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        other.add_cookies(cookies)
        page = other.new_page()
        for path in paths:
            page.goto(home + path)
            found = page.evaluate(
                "async (axe) => { (0, eval)(axe); const found = await window.axe.run();"
                " return found.violations.filter((one) => ['serious', 'critical'].includes(one.impact))"
                ".map((one) => [one.id, one.nodes[0].html]); }",
                AXE.read_text(),
            )
            assert found == [], (path, scheme)
            wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wide) <= 0, (path, scheme)
        page.set_viewport_size({"width": 320, "height": 640})
        for path in (f"/cameras/{device}", f"/cameras/{device}/plan", "/account", "/payments"):
            page.goto(home + path)
            assert page.evaluate(wide) <= 0, (path, "320 px")
        other.close()


def lapsed(page: Any, town: Town, home: str, device: int) -> None:
    """After the trial the page says why nothing plays."""
    town.move_to(datetime.now(UTC).date() + 15 * DAY)
    page.goto(f"{home}/cameras/{device}")
    assert page.get_by_text("Nothing plays.").is_visible()
    assert page.get_by_text("The plan of this camera has ended").is_visible()
    assert page.locator("video").count() == 0
