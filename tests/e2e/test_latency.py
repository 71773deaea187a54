"""Live, from camera to eye: how old the pictures are that our page shows, and Chromium's own player.

The camera burns into each picture when it was taken. It encodes and sends with a real ffmpeg, so what is measured has
all in it: a whole segment before it can be sent, and the player's way behind the newest one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.browser import NATIVE, PLAYERS, chromium, needs_players, pages
from tests.e2e.customers import Camera, Town
from tests.e2e.eye import Eye, Filming, filming
from tests.e2e.service import Service
from tests.e2e.test_page_story import ADA, log_in

pytestmark = [pytest.mark.e2e, *needs_players]

OURS = "our page"
SEGMENTS = {OURS: 2, NATIVE: 4}
"""So many segments old may pictures be, and SLACK_S."""
SLACK_S = 2.0
LOOKED_S = 5.0
LOOKS = 4
"""Until what is seen is young enough: a machine that has other work stalls, and players catch up afterwards."""


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with pages() as origin:
        yield origin


@pytest.mark.parametrize(
    "segment_s", [pytest.param(2, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.soak)]
)
def test_from_camera_to_eye(service: Service, origin: str, segment_s: int) -> None:
    """Watched from the camera's first second on, and by somebody who comes later."""
    service.configure(api_cors_origins=origin)
    service.init("--test-clock")
    now = datetime.now(UTC)
    town = Town(service, now.date())
    town.move_to(now.date(), now.hour + now.minute / 60 + now.second / 3600)
    ada = town.move_in(ADA)
    camera = ada.add_camera()
    ada.once(f"/v1/devices/{camera.number}/trial")
    host, port = service.ingest
    base = f"http://{camera.number}:{camera.device.token}@{host}:{port}/v1/devices/{camera.number}/live"
    output = ["-f", "hls", "-method", "PUT", "-hls_time", str(segment_s), "-http_persistent", "1"]
    output += ["-hls_segment_filename", f"{base}/a%05d.ts", f"{base}/a.m3u8"]
    with chromium() as browser, filming(output, keyframe_s=segment_s) as taken:
        for when in ("from its beginning", "later"):
            shown = opened(browser, service, camera, origin)
            for name, eye in looked(shown, taken, segment_s).items():
                print(f"\nsegments of {segment_s} s, watched {when}, {name}: {eye.told()}")
                assert eye.usual_s() <= most_s(name, segment_s), (name, eye.told(), taken.late_s)
            for page in shown.values():
                page.close()


def most_s(name: str, segment_s: int) -> float:
    return SEGMENTS[name] * segment_s + SLACK_S


def opened(browser: Any, service: Service, camera: Camera, origin: str) -> dict[str, Any]:
    """Two viewers of a camera, by how they watch."""
    home = f"http://{service.api[0]}:{service.api[1]}"
    ours, native = browser.new_page(), browser.new_page()
    log_in(ours, home)
    ours.goto(f"{home}/cameras/{camera.number}")
    ours.wait_for_selector("[data-player]:not([hidden])")
    ours.get_by_role("button", name="Live").click()
    native.goto(f"{origin}/{PLAYERS.index(NATIVE)}")
    source = f"{home}/v1/devices/{camera.number}/playlist.m3u8?token={service.viewer_token(camera.number)}"
    native.evaluate("src => { play(src, 1) }", source)
    return {OURS: ours, NATIVE: native}


def looked(shown: dict[str, Any], taken: Filming, segment_s: int) -> dict[str, Eye]:
    """What each sees, of the last of at most LOOKS looks."""
    for _ in range(LOOKS):
        time.sleep(LOOKED_S)
        eyes = {name: Eye() for name in shown}
        until_s = time.monotonic() + LOOKED_S
        while time.monotonic() < until_s:
            for name, page in shown.items():
                eyes[name].look(page, taken)
            time.sleep(0.2)
        if all(eye.ages_s and eye.usual_s() <= most_s(name, segment_s) for name, eye in eyes.items()):
            break
    return eyes
