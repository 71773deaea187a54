"""When chunks were recorded that a stock ffmpeg sends under names without a time."""

from __future__ import annotations

import json
import time
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

import pytest

from ingest.arrivals import SLEW_PER_MILLE
from tests.e2e import ffmpeg
from tests.e2e.service import Device, Service, until
from tests.e2e.test_ffmpeg import base

pytestmark = pytest.mark.e2e

SECONDS = 16
BURST_MS = 500
"""What `ffmpeg -re` reads of a film at once when it starts (`-readrate_initial_burst`): so much earlier it sends the
end of a chunk than a camera could."""
FRAME_MS = 1000 // 25
"""How long the last frame of `ffmpeg.film` is seen. A cut waits for the next key frame to be read; the film's end for
nothing: its last chunk is sent when the last frame *begins*."""


def chunks(service: Service, device: Device) -> list[tuple[int, int]]:
    (token,) = service.viewer_tokens([device.number]).values()
    reply = service.get(f"/v1/devices/{device.number}/recordings", token=token)
    listed = [chunk for span in json.loads(reply.body)["spans"] for chunk in span["chunks"]]
    return [(chunk["capture_ms"], chunk["duration_ms"]) for chunk in listed]


def listed(service: Service, device: Device, count: int) -> list[tuple[int, int]]:
    """All of them: ffmpeg does not wait for its last answer."""
    until(lambda: len(chunks(service, device)) >= count, "all chunks are listed")
    return chunks(service, device)


def now_ms() -> int:
    return round(time.time() * 1000)


def test_chunks_are_dated_by_when_they_began(service: Service, tmp_path: Path) -> None:
    """One camera cuts every 4 s, one sends all of its 16 s as one slow PUT. Dated by their ends, the first would be 4 s
    late and the second 16 s.

    No allowance for a busy machine: nothing is read earlier than ffmpeg reads it, and a chunk that is seen late never
    ends later than it is listed.
    """
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
    earliest_ms = now_ms() - BURST_MS
    cameras = [ffmpeg.camera(film, output) for output in outputs]
    try:
        for process in cameras:
            _, said = process.communicate(timeout=ffmpeg.FFMPEG_S)
            assert process.returncode == 0, said
    finally:
        for process in cameras:
            process.kill()
            process.communicate()
    found = listed(service, every_4_s, 4)
    listed_ms = now_ms()
    assert [duration_ms for _, duration_ms in found] == [4000] * 4
    starts = [capture_ms for capture_ms, _ in found]
    for number, start_ms in enumerate(starts):
        at_the_end_ms = FRAME_MS if number == len(starts) - 1 else 0
        assert earliest_ms + number * 4000 - at_the_end_ms <= start_ms, starts
    for before_ms, after_ms in pairwise(starts):
        assert after_ms - before_ms <= 4000 + 4000 * SLEW_PER_MILLE // 1000, starts
    assert starts[-1] + 4000 <= listed_ms
    [(start_ms, duration_ms)] = listed(service, at_once, 1)
    assert duration_ms == SECONDS * 1000
    assert earliest_ms - FRAME_MS <= start_ms <= now_ms() - duration_ms
    assert service.stop() == 0


def test_a_chunk_is_dated_to_the_millisecond_of_what_the_network_did(
    service: Service, tmp_path: Path
) -> None:
    """A camera that knows when it recorded, on one connection: 2 s each, every other one sent while it is recorded, the
    rest when they are. A chunk's start is the end of its body less its length, or where the last one ended."""
    ffmpeg.film(tmp_path / "film.ts", seconds=6)
    cut = ("-c", "copy", "-f", "hls", "-hls_time", "2", "-hls_list_size", "0", str(tmp_path / "cut.m3u8"))
    ffmpeg.run("-i", str(tmp_path / "film.ts"), *cut)
    parts = [path.read_bytes() for path in sorted(tmp_path.glob("cut*.ts"))]
    service.init()
    (device,) = service.add_devices(1)
    service.start(workers=1)
    connection = HTTPConnection(*service.ingest, timeout=30)
    sent: list[tuple[int, int, int]] = []  # Unix ms: before the head, before the last byte, after the answer
    for number, data in enumerate(parts):
        begun_ms = now_ms()
        if not number % 2:
            time.sleep(2)
        head_ms = now_ms()
        connection.putrequest("PUT", f"/v1/devices/{device.number}/live/seg{number}.ts")
        connection.putheader("Authorization", f"Bearer {device.token}")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders()
        connection.send(data[:-1])
        time.sleep(max(begun_ms + 2000 - now_ms(), 0) / 1000)
        ending_ms = now_ms()
        connection.send(data[-1:])
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
        sent.append((head_ms, ending_ms, now_ms()))
    connection.close()
    found = listed(service, device, len(parts))
    assert [duration_ms for _, duration_ms in found] == [2000] * len(parts)
    follows_ms = 0
    for (start_ms, _), (head_ms, ending_ms, answered_ms) in zip(found, sent, strict=True):
        own_ms = min(ending_ms - 2000, head_ms)
        assert min(own_ms, follows_ms or own_ms) - 1 <= start_ms <= answered_ms - 2000 + 1, (found, sent)
        if follows_ms:
            assert start_ms <= follows_ms + 2000 * SLEW_PER_MILLE // 1000, (found, sent)
        follows_ms = start_ms + 2000
    assert service.stop() == 0
