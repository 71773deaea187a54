"""What people watch with: hls.js, an older one and Chromium's own player, on a camera that is a real ffmpeg.

The page is of another origin than the service, so that CORS is what a browser makes of it.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import ffmpeg
from tests.e2e.browser import NATIVE, PLAYERS, chromium, needs_players, pages
from tests.e2e.service import Device, Service, until

pytestmark = [pytest.mark.e2e, *needs_players]

FILM_S = 8
FRAMES = 25 * FILM_S
WAIT_S = 60.0
SLACK = 8
"""Frames that a player may leave out at its start and its end, not yet or no longer shown, or decode once more."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ffmpeg.film(tmp_path_factory.mktemp("film") / "film.ts", seconds=FILM_S)


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with pages() as origin:
        yield origin


def start(root: Path, origin: str) -> Service:
    service = Service(root, environ={"CLIPKEEP_API_CORS_ORIGINS": origin})
    service.init()
    return service


def record(service: Service, device: Device, film: Path, times: int, *, burst: bool) -> None:
    """A camera that ends and is started again at once: its timestamps begin anew, its clock runs on."""
    host, port = service.ingest
    url = f"http://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/live"
    hls = ("-f", "hls", "-method", "PUT", "-hls_time", "1", "-hls_list_size", "5", "-http_persistent", "1")
    for _ in range(times):
        process = ffmpeg.camera(
            film, [*hls, "-hls_segment_filename", f"{url}/seg%05d.ts", f"{url}/index.m3u8"], burst=burst
        )
        _, said = process.communicate(timeout=ffmpeg.FFMPEG_S)
        assert process.returncode == 0, said


def chunk_times(service: Service, device: Device, token: str) -> list[int]:
    found = json.loads(service.get(f"/v1/devices/{device.number}/recordings", token=token).body)
    return [chunk["capture_ms"] for span in found["spans"] for chunk in span["chunks"]]


def played(page: Any, frames: int) -> dict[str, Any]:
    """What a player has shown, when that is as much as is wanted, or when it has ended or can't go on."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        state: dict[str, Any] = page.evaluate("state()")
        if state["frames"] >= frames or state["said"] or time.monotonic() > deadline_s:
            return state
        time.sleep(0.1)


def url(service: Service, device: Device, query: str) -> str:
    return f"http://{service.api[0]}:{service.api[1]}/v1/devices/{device.number}/playlist.m3u8?{query}"


@pytest.mark.long
def test_a_recording_through_a_restart_is_shown_whole(tmp_path: Path, film: Path, origin: str) -> None:
    with start(tmp_path, origin) as service:
        (device,) = service.add_devices(1)
        service.start()
        record(service, device, film, 2, burst=False)
        token = service.viewer_token(device.number)
        until(lambda: len(chunk_times(service, device, token)) == 2 * FILM_S, "all chunks are stored")
        query = f"from=0&to={int(time.time() * 1000) + 60_000}&token={token}"
        text = service.get(f"/v1/devices/{device.number}/playlist.m3u8?{query}").body.decode()
        assert text.count("#EXT-X-DISCONTINUITY\n") == 1, text
        with chromium() as browser:
            for number, player in enumerate(PLAYERS):
                page = browser.new_page()
                page.goto(f"{origin}/{number}")
                page.evaluate("([src, rate]) => play(src, rate)", [url(service, device, query), 2])
                state = played(page, 2 * FRAMES)
                assert abs(state["frames"] - 2 * FRAMES) <= SLACK, (player, state)
                assert state["said"] in ([], ["ended"]), (player, state)
                page.close()
        assert service.stop() == 0


def test_a_live_playlist_is_followed_from_its_first_chunk_through_a_restart(
    tmp_path: Path, film: Path, origin: str
) -> None:
    """All players at once; each asks before there is enough for it to begin with."""
    with start(tmp_path, origin) as service:
        (device,) = service.add_devices(1)
        service.start()
        token = service.viewer_token(device.number)
        host, port = service.ingest
        with chromium() as browser:
            shown = [browser.new_page() for _ in PLAYERS]
            for number, page in enumerate(shown):
                page.goto(f"{origin}/{number}")
            base = f"http://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/live"
            hls = ("-f", "hls", "-method", "PUT", "-hls_time", "1", "-http_persistent", "1")
            output = [*hls, "-hls_segment_filename", f"{base}/seg%05d.ts", f"{base}/index.m3u8"]
            camera: subprocess.Popen[str] = ffmpeg.camera(film, output)
            try:
                until(lambda: len(chunk_times(service, device, token)) >= 1, "the first chunk is stored")
                for page in shown:
                    page.evaluate("src => { play(src, 1) }", url(service, device, f"token={token}"))
                camera.communicate(timeout=ffmpeg.FFMPEG_S)
                camera = ffmpeg.camera(film, output)
                camera.communicate(timeout=ffmpeg.FFMPEG_S)
            finally:
                camera.kill()
                camera.communicate()
            for player, page in zip(PLAYERS, shown, strict=True):
                # Chromium's own player waits less for what is next, and skips to the live edge: it has to live on.
                least = FRAMES + 25 if player == NATIVE else 2 * FRAMES - 25 - SLACK
                state = played(page, least)
                assert state["said"] == [], (player, state)
                assert state["frames"] >= least, (player, state)
                assert state["at_s"] >= FILM_S + 3, (player, state)
        text = service.get(f"/v1/devices/{device.number}/playlist.m3u8", token=token).body.decode()
        assert "#EXT-X-MEDIA-SEQUENCE:0\n" in text
        assert "#EXT-X-DISCONTINUITY-SEQUENCE:0\n" in text
        assert text.count("#EXT-X-DISCONTINUITY\n") == 1
        assert service.stop() == 0
