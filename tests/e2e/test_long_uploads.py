"""Uploads of 40 MiB in one PATCH, which are cut on their way, past a SIGKILL: chunks that play back as one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.long_clips import MIB, as_fragments, assert_kept, assert_played_back, made
from tests.e2e.service import Service
from tests.e2e.test_resumable import Killing, assert_told_truly
from tests.e2e.tus_clients import cutting, needs_tus_js, uploaded

CUTS = 2
CLIENT_S = 120.0

pytestmark = [pytest.mark.e2e, needs_tus_js]


@pytest.mark.long
def test_clips_larger_than_a_chunk_play_back_as_one(service: Service, tmp_path: Path) -> None:
    film = made(tmp_path)
    size = film.stat().st_size
    assert size > 40 * MIB
    service.init()
    devices = service.add_devices(2)
    service.start()
    capture_ms = int(time.time() * 1000) - 600_000
    for file, device in zip((film, as_fragments(film)), devices, strict=True):
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
    assert service.command("check", "--deep")["broken"] == []
    service.stop()
    service.assert_no_traceback()
