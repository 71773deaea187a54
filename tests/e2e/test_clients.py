"""HTTP as clients speak it: stock ffmpeg with names that are not taken, and curl that offers HTTP/2."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e import ffmpeg
from tests.e2e.service import Service, until

pytestmark = pytest.mark.e2e

FRAGMENTED = {
    "dash": ("x.mpd", ("-f", "dash", "-seg_duration", "1")),
}


def refused(service: Service) -> list[tuple[int, str]]:
    """Device and code of each refusal in the log."""
    lines = [json.loads(line) for line in service.lines if line.startswith("{")]
    return [(line["device"], line["code"]) for line in lines if line["event"] == "refused"]


@pytest.mark.parametrize("kind", FRAGMENTED)
def test_ffmpeg_with_names_that_are_not_taken_fails_or_is_seen(
    service: Service, tmp_path: Path, kind: str
) -> None:
    """With credentials in the address ffmpeg asks before it sends, and ends with an error. With a header it reads no
    answer: the log names device and code, and the metrics count."""
    (device,) = service.init().add_devices(1)
    service.start()
    film = ffmpeg.film(tmp_path / "film.ts", seconds=3)
    name, muxer = FRAGMENTED[kind]
    host, port = service.ingest
    path = f"/v1/devices/{device.number}/live/{name}"
    asking = ffmpeg.camera(
        film,
        [*muxer, "-method", "PUT", f"http://{device.number}:{device.token}@{host}:{port}{path}"],
        burst=True,
    )
    _, said = asking.communicate(timeout=ffmpeg.FFMPEG_S)
    assert asking.returncode != 0
    assert "4XX" in said
    silent = ffmpeg.camera(
        film,
        [
            *(*muxer, "-method", "PUT", "-headers", f"Authorization: Bearer {device.token}\r\n"),
            f"http://{host}:{port}{path}",
        ],
        burst=True,
    )
    silent.communicate(timeout=ffmpeg.FFMPEG_S)
    until(lambda: (device.number, "unsupported_name") in refused(service), "the log names it")
    counted = (
        "clipkeep_ingest_answers_total",
        (("code", "unsupported_name"), ("status", "415"), ("worker", "w0")),
    )
    until(lambda: service.metrics().get(counted, 0) >= 1, "the metrics count it")


@pytest.mark.parametrize(
    "options", [["--http2"], ["--http1.0"], ["--http1.1"]], ids=lambda options: options[0].strip("-")
)
def test_curl(service: Service, tmp_path: Path, options: list[str]) -> None:
    """Also where it offers HTTP/2 with its first request, and takes this for a proxy."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl")
    (device,) = service.init().add_devices(1)
    service.start()
    film = ffmpeg.film(tmp_path / "film.ts", seconds=1)
    host, port = service.ingest

    def put(url: str, *more: str) -> str:
        done = subprocess.run(
            [
                *(curl, "-sS", *options, *more, "-T", str(film), "-o", str(tmp_path / "answer")),
                *("-H", f"Authorization: Bearer {device.token}", "-w", "%{http_code}", url),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if "built-in" in done.stderr or "unsupported" in done.stderr.lower():
            pytest.skip(done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout

    names = f"/v1/devices/{device.number}/live/2026:05/{{}}.TS"
    assert put(f"http://{host}:{port}" + names.format("one")) == "201"
    assert put("http://camera.example" + names.format("two"), "-x", f"http://{host}:{port}") == "201"
