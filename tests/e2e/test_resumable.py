"""Uploads by tus-js-client (Node, Chromium) and tuspy through a proxy that cuts every connection, and past SIGKILLs of
the whole service."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import ffmpeg
from tests.e2e.browser import chromium, needs_players
from tests.e2e.service import Device, Service
from tests.e2e.tus_clients import CLIENTS, cutting, endpoint, needs_tus_js, upload_page, uploaded
from tests.ingest.world import video

SIZE = 12 * 1024 * 1024
CUTS = 50
KILLS = 5
CLIENT_S = 240.0

pytestmark = [pytest.mark.e2e, needs_tus_js, needs_players[0]]


@dataclass
class Killing:
    """Kills the service and starts it again, at so many of the cuts."""

    service: Service
    kills: int
    cuts: int
    killed: int = 0
    _alone: threading.Lock = field(default_factory=threading.Lock)
    """Connections are of a thread each, and one that comes while it starts may be the next that is to see it killed."""

    def __call__(self, cut: int) -> None:
        with self._alone:
            if self.killed < self.kills and cut >= (self.killed + 1) * self.cuts // (self.kills + 1):
                self.killed += 1
                ports = self.service.ingest[1], self.service.api[1]
                self.service.kill()
                self.service.start(ports=ports)


def assert_told_truly(said: dict[str, Any], cuts: int) -> None:
    """What was told to be stored never got less."""
    assert said["offsets"] == sorted(said["offsets"])
    assert len(said["offsets"]) >= cuts // 2


def assert_kept(service: Service, device: Device, capture_ms: int, data: bytes) -> None:
    token = service.viewer_token(device.number)
    reply = service.get(f"/v1/devices/{device.number}/chunks/{capture_ms}", token=token)
    assert reply.status == 200
    assert reply.body == data


@pytest.mark.long
def test_clips_arrive_byte_for_byte(service: Service, tmp_path: Path) -> None:
    """Through every cut and kill, by each client; and of pages those may send whose origin is named."""
    clip = ffmpeg.film(tmp_path / "film.ts", seconds=20)
    now_ms = int(time.time() * 1000)
    with upload_page(clip) as page_port:
        service.init().configure(ingest_cors_origins=f"http://127.0.0.1:{page_port}")
        devices = service.add_devices(len(CLIENTS) + 1)
        service.start()
        for (client, kills), device in zip(
            {"tus-js-client": KILLS, "tuspy": 1}.items(), devices, strict=False
        ):
            data = video(SIZE, seed=device.number)
            file = tmp_path / "clip.ts"
            file.write_bytes(data)
            killing = Killing(service, kills, CUTS)
            with cutting(service.ingest, SIZE // (CUTS + 10), CUTS, killing) as proxy:
                said = uploaded(
                    client, proxy.port, device.number, device.token, file, now_ms - 60_000, timeout_s=CLIENT_S
                )
                assert (proxy.cut, killing.killed) == (CUTS, kills), client
            assert_told_truly(said, CUTS)
            assert_kept(service, device, now_ms - 60_000, data)
        by_a_page(service, devices[-1], page_port, clip, now_ms - 60_000)
    service.stop()
    service.assert_no_traceback()


def by_a_page(service: Service, device: Device, page_port: int, clip: Path, capture_ms: int) -> None:
    """Cut on its way, twice: Chromium itself sends again what was cut on a connection that it had used before. And not
    at all from an origin that is not named."""
    size = clip.stat().st_size
    with cutting(service.ingest, size // 3, 2) as proxy, chromium() as browser:
        told = [endpoint(proxy.port, device.number), device.token, str(capture_ms)]
        page = browser.new_page()
        page.goto(f"http://localhost:{page_port}/#once")
        assert "error" in page.evaluate("told => upload(...told)", told)
        assert proxy.cut == 0
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{page_port}/")
        said = page.evaluate("told => upload(...told)", told)
        assert proxy.cut == 2
    assert "error" not in said, said
    assert (said["methods"][0], said["methods"][-1]) == ("POST", "PATCH")
    assert 0 < max(said["offsets"]) < size
    assert all(each.endswith("GMT") for each in said["expires"]), "the page may read it"
    assert said["url"].startswith(f"http://127.0.0.1:{proxy.port}/v1/devices/{device.number}/uploads/")
    assert_kept(service, device, capture_ms, clip.read_bytes())
