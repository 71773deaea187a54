"""Exports as MP4 over HTTP: with a real client that breaks off and goes on."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from ingest.media import Media
from tests.service.api.server import ALL, Server, refused
from tests.service.playback.test_mp4_export import recorded
from tests.service.remuxing.media import duration_s
from tests.service.world import NOON_MS, Clip, World

HOUR_AGO_MS = NOON_MS - 3_600_000
PATH = f"/v1/devices/1/clip.mp4?{ALL}"


def test_a_film_has_its_length_and_any_part_of_it(world: World, server: Server, tmp_path: Path) -> None:
    world.keep(*recorded("ts-h264-aac", HOUR_AGO_MS))
    whole = server.get(PATH)
    assert (whole.status, whole.headers["content-type"]) == (200, "video/mp4")
    assert whole.headers["content-length"] == str(len(whole.body))
    assert whole.headers["cache-control"] == "no-store"
    assert whole.headers["clipkeep-films"] == "1"
    name = f'attachment; filename="device-1-{HOUR_AGO_MS}.mp4"'
    assert whole.headers["content-disposition"] == name
    path = tmp_path / "film.mp4"
    path.write_bytes(whole.body)
    assert duration_s(path) == pytest.approx(6, abs=0.1)
    head = server.get(PATH, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(whole.body)))
    size, tag = len(whole.body), whole.headers["etag"]
    for asked, start in ((f"bytes={size // 3}-", size // 3), ("bytes=-99", size - 99)):
        for more in ({}, {"If_Range": tag}):
            reply = server.get(PATH, Range=asked, **more)
            assert (reply.status, reply.body) == (206, whole.body[start:])
            assert reply.headers["content-range"] == f"bytes {start}-{size - 1}/{size}"
    assert server.get(PATH, Range="bytes=5-", If_Range='"other"').body == whole.body
    refused(server.get(PATH, Range=f"bytes={size}-"), 416, "range_not_satisfiable")


@pytest.mark.parametrize("forms", [("ts-h264-aac",), ("ts-h264-aac", "ts-h265-aac")])
def test_curl_goes_on_where_it_broke(
    world: World, server: Server, tmp_path: Path, forms: tuple[str, ...]
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    for i, form in enumerate(forms):
        world.keep(*recorded(form, HOUR_AGO_MS + 60_000 * i))
    whole = server.get(PATH)
    part = tmp_path / "part"
    part.write_bytes(whole.body[: len(whole.body) // 2])
    url = f"http://127.0.0.1:{server.port}{PATH}"
    token = f"Authorization: Bearer {world.token()}"
    command = ["curl", "-sS", "--fail", "-C", "-", "-H", token, "-o", str(part), url]
    subprocess.run(command, check=True, timeout=60)
    assert part.read_bytes() == whole.body
    if len(forms) > 1:
        assert whole.headers["content-type"] == "application/zip"
        assert zipfile.ZipFile(io.BytesIO(whole.body)).testzip() is None


def test_what_can_not_be_put_into_mp4_is_refused(world: World, server: Server) -> None:
    refused(server.get(PATH), 404, "not_found")
    world.keep(Clip(HOUR_AGO_MS, b"G" + bytes(187) * 40, Media.MPEG_TS, 2000))
    refused(server.get(PATH), 422, "unplayable_media")


def test_a_still_and_a_strip(world: World, server: Server) -> None:
    world.keep(*recorded("ts-h264-aac", HOUR_AGO_MS))
    still = server.get(f"/v1/devices/1/still.jpg?at={HOUR_AGO_MS + 2500}&width=64")
    assert (still.status, still.headers["content-type"]) == (200, "image/jpeg")
    assert still.headers["clipkeep-time"] == str(HOUR_AGO_MS + 2000)
    assert still.headers["cache-control"] == "no-store"
    assert still.body.startswith(b"\xff\xd8\xff")
    strip = server.get(
        f"/v1/devices/1/stills.jpg?from={HOUR_AGO_MS}&to={HOUR_AGO_MS + 8000}&count=4&width=64"
    )
    assert (strip.status, strip.headers["clipkeep-grid"]) == (200, "4x64x36")
    times = [HOUR_AGO_MS + at for at in (1000, 3000, 5000)]
    assert strip.headers["clipkeep-times"] == ",".join([*map(str, times), ""])
    refused(server.get("/v1/devices/1/still.jpg?at=5"), 404, "not_found")
    refused(server.get(f"/v1/devices/1/still.jpg?at={HOUR_AGO_MS}&width=4000"), 400, "malformed")
    refused(server.get("/v1/devices/1/still.jpg?at=5", token=None), 401, "bad_token")
    world.keep(Clip(HOUR_AGO_MS + 60_000, b"G" + bytes(187) * 40, Media.MPEG_TS, 2000))
    refused(server.get(f"/v1/devices/1/still.jpg?at={HOUR_AGO_MS + 60_001}"), 422, "unplayable_media")
