"""Uploads of 40 MiB in one PATCH, which are cut on their way, past a SIGKILL: chunks that play back as one."""

from __future__ import annotations

import base64
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path

import pytest

from tests.e2e.long_clips import MIB, as_fragments, assert_kept, assert_played_back, made
from tests.e2e.service import Device, Service
from tests.e2e.test_browsers import chunk_times
from tests.e2e.test_resumable import Killing, assert_told_truly
from tests.e2e.tus_clients import cutting, needs_tus_js, uploaded

CUTS = 2
KILLED_AFTER_S = (0.05, 0.15, 0.3)
"""The last byte has come: cutting 40 MiB, putting and committing them takes some 0.4 s."""
CLIENT_S = 120.0

pytestmark = [pytest.mark.e2e, needs_tus_js]


@pytest.mark.long
def test_clips_larger_than_a_chunk_play_back_as_one(service: Service, tmp_path: Path) -> None:
    film = made(tmp_path)
    size = film.stat().st_size
    assert size > 40 * MIB
    service.init()
    devices = service.add_devices(3)
    service.start()
    capture_ms = int(time.time() * 1000) - 600_000
    for file, device in zip((film, as_fragments(film)), devices, strict=False):
        killing = Killing(service, 1, CUTS)
        with cutting(service.ingest, size // 4, CUTS, killing) as proxy:
            said = uploaded(
                "tus-js-client",
                proxy.port,
                device.number,
                device.token,
                file,
                capture_ms,
                timeout_s=CLIENT_S,
            )
            assert (proxy.cut, killing.killed) == (CUTS, 1)
        assert_told_truly(said, CUTS)
        times = assert_played_back(service, device, film, capture_ms)
        assert len(times) > 4
        if file is film:
            assert_kept(service, device, film, times)
    killed_while_it_is_cut(service, film, devices[-1], capture_ms)
    assert service.command("check", "--deep")["broken"] == []
    service.stop()
    service.assert_no_traceback()


def killed_while_it_is_cut(service: Service, film: Path, device: Device, capture_ms: int) -> None:
    """All of it is there, or nothing, after each kill; and once in the end."""
    data = film.read_bytes()
    path = f"/v1/devices/{device.number}/uploads"
    said = base64.b64encode(str(capture_ms).encode()).decode()
    begun = asked(
        service, device, "POST", path, Upload_Length=len(data), Upload_Metadata=f"capture_ms {said}"
    )
    path = begun.getheader("Location", "")
    assert asked(service, device, "PATCH", path, data[:-1], Upload_Offset=0).status == 204
    token, ports = service.viewer_token(device.number), (service.ingest[1], service.api[1])
    for after_s in KILLED_AFTER_S:
        with suppress(OSError, HTTPException):
            asked(
                service, device, "PATCH", path, data[-1:], Upload_Offset=len(data) - 1, kill_after_s=after_s
            )
        service.kill()
        service.start(ports=ports)
        is_done = asked(service, device, "HEAD", path).getheader("Upload-Offset") == str(len(data))
        assert bool(chunk_times(service, device, token)) == is_done
    if not is_done:
        last = asked(service, device, "PATCH", path, data[-1:], Upload_Offset=len(data) - 1)
        assert last.status == 204
    assert_kept(service, device, film, assert_played_back(service, device, film, capture_ms))


def asked(
    service: Service,
    device: Device,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    kill_after_s: float | None = None,
    **said: object,
) -> HTTPResponse:
    """One request of a tus client. `kill_after_s`: the service is killed so long after it was sent."""
    headers = {name.replace("_", "-"): str(value) for name, value in said.items()}
    headers |= {"Authorization": f"Bearer {device.token}", "Tus-Resumable": "1.0.0"}
    if method == "PATCH":
        headers["Content-Type"] = "application/offset+octet-stream"
    with closing(HTTPConnection(*service.ingest, timeout=CLIENT_S)) as connection:
        connection.request(method, path, body, headers)
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            service.kill()
        response = connection.getresponse()
        response.read()
        return response
