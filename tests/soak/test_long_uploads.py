"""An upload of 200 MB through 50 cut connections, and past 5 SIGKILLs of the whole service: byte for byte."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.browser import chromium, needs_players
from tests.e2e.long_clips import assert_kept, assert_played_back, made
from tests.e2e.service import Device, Service
from tests.e2e.test_resumable import Killing, assert_told_truly
from tests.e2e.tus_clients import cutting, endpoint, needs_tus_js, upload_page, uploaded

SIZE = 200_000_000
CUTS = 50
KILLS = 5
CLIENT_S = 1200.0

pytestmark = [pytest.mark.soak, needs_tus_js]


def uploaded_by_a_page(page_url: str, port: int, device: Device, capture_ms: int) -> dict[str, Any]:
    """By tus-js-client in Chromium, across origins."""
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(CLIENT_S * 1000)
        page.goto(page_url)
        told = [endpoint(port, device.number), device.token, str(capture_ms)]
        said: dict[str, Any] = page.evaluate("told => upload(...told)", told)
    assert "error" not in said, said
    return said


@pytest.mark.parametrize("client", ["tus-js-client", "tuspy", pytest.param("page", marks=needs_players[0])])
def test_200_mb_arrive_byte_for_byte(tmp_path: Path, client: str) -> None:
    film = made(tmp_path, loops=4)
    size = film.stat().st_size
    assert size > SIZE
    with Service(tmp_path / "data") as service, upload_page(film) as page_port:
        origin = f"http://127.0.0.1:{page_port}"
        service.init().configure(ingest_cors_origins=origin)
        (device,) = service.add_devices(1)
        service.start()
        capture_ms = int(time.time() * 1000) - 3_600_000
        killing = Killing(service, KILLS, CUTS)
        began_s = time.monotonic()
        with cutting(service.ingest, size // (CUTS + 10), CUTS, killing) as proxy:
            if client == "page":
                said = uploaded_by_a_page(f"{origin}/", proxy.port, device, capture_ms)
            else:
                said = uploaded(
                    client, proxy.port, device.number, device.token, film, capture_ms, timeout_s=CLIENT_S
                )
            assert (proxy.cut, killing.killed) == (CUTS, KILLS)
        print(
            f"{client}: {size / 1e6:.0f} MB in {time.monotonic() - began_s:.0f} s, {CUTS} cuts, {KILLS} kills"
        )
        assert_told_truly(said, CUTS)
        times = assert_played_back(service, device, film, capture_ms)
        print(f"{len(times)} chunks, every picture once")
        assert_kept(service, device, film, times)
        service.stop()
