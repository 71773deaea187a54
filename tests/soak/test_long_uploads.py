"""An upload of 200 MB through 50 cut connections, and past 5 SIGKILLs of the whole service: byte for byte."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.long_clips import assert_kept, assert_played_back, made
from tests.e2e.service import Service
from tests.e2e.test_resumable import Killing, assert_told_truly
from tests.e2e.tus_clients import cutting, needs_tus_js, uploaded

SIZE = 200_000_000
CUTS = 50
KILLS = 5
CLIENT_S = 1200.0

pytestmark = [pytest.mark.soak, needs_tus_js]


@pytest.mark.parametrize("client", ["tus-js-client", "tuspy"])
def test_200_mb_arrive_byte_for_byte(tmp_path: Path, client: str) -> None:
    film = made(tmp_path, loops=4)
    size = film.stat().st_size
    assert size > SIZE
    with Service(tmp_path / "data") as service:
        service.init()
        (device,) = service.add_devices(1)
        service.start()
        capture_ms = int(time.time() * 1000) - 3_600_000
        killing = Killing(service, KILLS, CUTS)
        began_s = time.monotonic()
        with cutting(service.ingest, size // (CUTS + 10), CUTS, killing) as proxy:
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
