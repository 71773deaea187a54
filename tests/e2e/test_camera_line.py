"""The README's own line for a camera, run as it stands there, with a real ffmpeg against a real service."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.e2e import ffmpeg
from tests.e2e.service import Device, Service, until

pytestmark = pytest.mark.e2e

README = Path(__file__).parents[2] / "README.md"
FILM_S = 120
RECOVERS_S = 45.0
"""Far above a chunk, a second's wait and the 10 s after which a server that hangs is given up."""


def line(service: Service, device: Device, film: Path) -> str:
    """What stands in README.md from `URL=` on, with this service, device and film."""
    found = re.search(r"^URL=.*\nffmpeg -re (?:.*\\\n)*.*$", README.read_text(), re.MULTILINE)
    assert found is not None
    script = found[0]
    for theirs, ours in {
        "127.0.0.1:8080": f"127.0.0.1:{service.ingest[1]}",
        "1:TOKEN@": f"{device.number}:{device.token}@",
        "/devices/1/": f"/devices/{device.number}/",
        "camera.mp4": str(film),
    }.items():
        assert script.count(theirs) == 1, theirs
        script = script.replace(theirs, ours)
    return script


@contextmanager
def camera(script: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the line in a shell, with the wheel's program as `ffmpeg`."""
    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    with (folder / "camera.log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", script], env=environ, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def chunks(service: Service, device: Device) -> list[dict[str, int]]:
    token = service.viewer_token(device.number)
    path = f"/v1/devices/{device.number}/recordings?from=0&to=9999999999999"
    found = json.loads(service.get(path, token=token).body)
    return [chunk for span in found["spans"] for chunk in span["chunks"]]


def answers(service: Service, status: int, code: str) -> float:
    labels = (("code", code), ("status", str(status)), ("worker", "w0"))
    return service.metrics().get(("clipkeep_ingest_answers_total", labels), 0)


@pytest.mark.long
def test_it_records_on_after_an_outage_and_after_failures(service: Service, tmp_path: Path) -> None:
    """The service dies, and later its store is away for a while: video is lost then, and none afterwards."""
    service.init()
    [device] = service.add_devices(1)
    service.start()
    source = ffmpeg.film(tmp_path / "film.ts", seconds=FILM_S, keyframe_s=2)
    film = tmp_path / "film.mp4"
    ffmpeg.run("-i", str(source), "-c", "copy", str(film))
    with camera(line(service, device, film), tmp_path) as process:

        def recorded(more: int) -> None:
            """Wait for chunks that begin from now on."""
            now_ms = int(time.time() * 1000)

            def there() -> bool:
                assert process.poll() is None, (tmp_path / "camera.log").read_text()[-2000:]
                return len([c for c in chunks(service, device) if c["capture_ms"] >= now_ms]) >= more

            until(there, f"{more} chunks recorded from now on", timeout_s=RECOVERS_S, every_s=0.5)

        recorded(1)
        first = answers(service, 401, "no_token"), answers(service, 401, "bad_token")
        service.kill()
        refused = b"refused"
        until(
            lambda: refused in (tmp_path / "camera.log").read_bytes(),
            "the camera has seen that the service is gone",
            timeout_s=RECOVERS_S,
        )
        service.start(ports=(service.ingest[1], service.api[1]))
        recorded(2)
        objects = service.data / "objects"
        objects.rename(service.data / "away")
        until(
            lambda: answers(service, 503, "not_stored") + answers(service, 503, "store_unavailable") >= 2,
            "two chunks were answered 503",
            timeout_s=RECOVERS_S,
        )
        (service.data / "away").rename(objects)
        recorded(2)
    kept = chunks(service, device)
    assert all(3000 <= chunk["duration_ms"] <= 5000 for chunk in kept), kept
    assert first == (1, 0), "its first request has no token, as is ordinary, and none has a bad one"
    assert service.stop() == 0
