"""When chunks were recorded that a stock ffmpeg sends under names without a time."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.e2e import ffmpeg
from tests.e2e.service import Device, Service
from tests.e2e.test_ffmpeg import base

pytestmark = pytest.mark.e2e

SECONDS = 16
NOISE_MS = 700
"""What a busy machine may add to a start or an end."""


def chunks(service: Service, device: Device) -> list[tuple[int, int]]:
    (token,) = service.viewer_tokens([device.number]).values()
    reply = service.get(f"/v1/devices/{device.number}/recordings", token=token)
    listed = [chunk for span in json.loads(reply.body)["spans"] for chunk in span["chunks"]]
    return [(chunk["capture_ms"], chunk["duration_ms"]) for chunk in listed]


def test_chunks_are_dated_by_when_they_began(service: Service, tmp_path: Path) -> None:
    """One camera cuts every 4 s, one sends all of its 16 s as one slow PUT. Dated by their ends, the first would be 4 s
    late and the second 16 s."""
    film = ffmpeg.film(tmp_path / "film.ts", seconds=SECONDS, keyframe_s=4)
    service.init()
    every_4_s, at_once = service.add_devices(2)
    service.start(workers=1)
    outputs = []
    for device, cut_s in ((every_4_s, 4), (at_once, 60)):
        url = base(service, device)
        names = ("-hls_segment_filename", f"{url}/seg%d.ts", f"{url}/index.m3u8")
        outputs.append(
            ["-f", "hls", "-method", "PUT", "-http_persistent", "1", "-hls_time", str(cut_s), *names]
        )
    cameras = [ffmpeg.camera(film, output) for output in outputs]
    try:
        for process in cameras:
            _, said = process.communicate(timeout=ffmpeg.FFMPEG_S)
            assert process.returncode == 0, said
        ended_ms = round(time.time() * 1000)
    finally:
        for process in cameras:
            process.kill()
            process.communicate()
    found = chunks(service, every_4_s)
    assert [duration_ms for _, duration_ms in found] == [4000] * 4
    starts = [capture_ms for capture_ms, _ in found]
    for number, start_ms in enumerate(starts):
        assert abs(start_ms - starts[0] - number * 4000) < NOISE_MS, starts
    assert -NOISE_MS < ended_ms - (starts[-1] + 4000) < 3 * NOISE_MS
    [(start_ms, duration_ms)] = chunks(service, at_once)
    assert duration_ms == SECONDS * 1000
    assert -NOISE_MS < ended_ms - (start_ms + duration_ms) < 3 * NOISE_MS
    assert service.stop() == 0
