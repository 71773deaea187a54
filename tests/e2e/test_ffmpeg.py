"""Stock ffmpeg as it is: pushes in all its ways, and plays back what it pushed, frame for frame."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import ffmpeg
from tests.e2e.service import Device, Service, until

pytestmark = pytest.mark.e2e

SECONDS = 6
NAMED_S = 2


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ffmpeg.film(tmp_path_factory.mktemp("film") / "film.ts", seconds=SECONDS)


def base(service: Service, device: Device) -> str:
    host, port = service.ingest
    return f"http://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/live"


def hls(url: str, *more: str) -> list[str]:
    return [
        *("-f", "hls", "-method", "PUT", "-hls_time", "1", "-hls_list_size", "5", *more),
        *("-hls_segment_filename", f"{url}/seg%05d.ts", f"{url}/index.m3u8"),
    ]


def ways(service: Service, devices: Iterator[Device]) -> dict[str, tuple[Device, list[str]]]:
    """What a camera's owner may write."""
    found = {}
    for name in ("persistent", "not persistent", "deleting", "named by time", "segment muxer", "burst"):
        device = next(devices)
        url = base(service, device)
        output = {
            "persistent": hls(url, "-http_persistent", "1"),
            "burst": hls(url, "-http_persistent", "1"),
            "not persistent": hls(url, "-http_persistent", "0"),
            "deleting": hls(url, "-hls_flags", "delete_segments", "-hls_delete_threshold", "1"),
            "named by time": [
                # Two segments within one second of the clock would have one name.
                *("-f", "hls", "-method", "PUT", "-hls_time", str(NAMED_S), "-strftime", "1"),
                *("-hls_segment_filename", f"{url}/%s.ts", f"{url}/index.m3u8"),
            ],
            "segment muxer": [
                *("-f", "segment", "-segment_time", "1", "-segment_format", "mpegts", f"{url}/seg%05d.ts")
            ],
        }[name]
        found[name] = device, output
    return found


def test_every_way_of_pushing_plays_back_frame_for_frame(
    service: Service, film: Path, tmp_path: Path
) -> None:
    service.init()
    devices = service.add_devices(6)
    service.start(workers=2)
    began_ms = int(time.time() * 1000) - 2000
    cameras: dict[str, tuple[Device, subprocess.Popen[str]]] = {}
    try:
        for name, (device, output) in ways(service, iter(devices)).items():
            cameras[name] = device, ffmpeg.camera(film, output, burst=name == "burst")
        for name, (_, process) in cameras.items():
            _, said = process.communicate(timeout=ffmpeg.FFMPEG_S)
            assert process.returncode == 0, f"{name}: {said}"
    finally:
        for _, process in cameras.values():
            process.kill()
            process.communicate()
    sent = ffmpeg.picture_hashes("-i", str(film))
    assert len(sent) == SECONDS * 25
    for name, (device, _) in cameras.items():
        token = service.viewer_token(device.number)
        _await_chunks(service, device, token, SECONDS // (NAMED_S if name == "named by time" else 1))
        to_ms = int(time.time() * 1000) + 60_000
        api = f"http://{service.api[0]}:{service.api[1]}/v1/devices/{device.number}"
        spans = f"from={began_ms}&to={to_ms}&token={token}"
        assert ffmpeg.picture_hashes("-i", f"{api}/playlist.m3u8?{spans}") == sent, f"{name}: as HLS"
        clip = tmp_path / f"{device.number}.ts"
        clip.write_bytes(service.get(f"/v1/devices/{device.number}/clip.ts?{spans}").body)
        assert ffmpeg.picture_hashes("-i", str(clip)) == sent, f"{name}: exported"
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


def _await_chunks(service: Service, device: Device, token: str, count: int) -> None:
    """ffmpeg does not wait for the answers to its last requests."""

    def stored() -> bool:
        found = json.loads(service.get(f"/v1/devices/{device.number}/recordings", token=token).body)
        return sum(len(span["chunks"]) for span in found["spans"]) == count

    until(stored, f"{count} chunks of device {device.number} are stored")


def test_a_refused_camera_is_metered_and_one_that_is_killed_leaves_no_half_chunk(
    service: Service, film: Path
) -> None:
    service.init()
    (good,) = service.add_devices(1)
    (without_plan,) = service.add_devices(1, plan=None)
    service.start()
    camera = ffmpeg.camera(film, hls(base(service, good), "-http_persistent", "1"))
    refused = ffmpeg.camera(film, hls(base(service, without_plan), "-http_persistent", "0"))
    token = service.viewer_token(good.number)

    def listed() -> list[dict[str, object]]:
        found = json.loads(service.get(f"/v1/devices/{good.number}/recordings", token=token).body)
        return [chunk for span in found["spans"] for chunk in span["chunks"]]

    try:
        until(lambda: len(listed()) >= 2, "two chunks have come")
    finally:
        for process in (camera, refused):
            process.kill()
            process.communicate()
    sent = ffmpeg.picture_hashes("-i", str(film))
    to_ms = int(time.time() * 1000) + 60_000
    url = f"http://{service.api[0]}:{service.api[1]}/v1/devices/{good.number}/playlist.m3u8"
    played = ffmpeg.picture_hashes("-i", f"{url}?from=0&to={to_ms}&token={token}")
    assert len(played) >= 50
    assert played == sent[: len(played)]
    until(
        lambda: service.metrics().get(
            ("clipkeep_ingest_answers_total", (("code", "plan_lapsed"), ("status", "403"), ("worker", "w0")))
        ),
        "the refusals show in the metrics: ffmpeg shows them nowhere",
    )
    assert service.stop() == 0
