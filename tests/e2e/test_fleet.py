"""Three hosts in network namespaces behind HAProxy: killed, cut off and upgraded under load. `make soak` has the long
form, in which they are frozen and home is away too."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, fleet_of, require_tools
from tests.e2e.load import chunk_body
from tests.e2e.violence import CLIENTS, film_chunks
from tests.servers.postgres import any_binaries, postgres_server
from tests.servers.seaweed import SeaweedServer

pytestmark = pytest.mark.e2e

MAX_STALE_S = 3.0
AWAY_S = 8.0
"""For a host that is cut off: longer than MAX_STALE_S."""


@pytest.mark.long
def test_hosts_are_killed_cut_off_and_upgraded(tmp_path: Path, seaweed: SeaweedServer) -> None:
    require_tools()
    seed = random.randrange(1 << 32)
    with (
        postgres_server(any_binaries(), {"max_connections": "200"}) as postgres,
        fleet_of(3, tmp_path, postgres, seaweed, seed=seed, max_stale_s=MAX_STALE_S) as fleet,
    ):
        fleet.start()
        devices = fleet.add_devices(CLIENTS + 1)
        with fleet.load(devices[:CLIENTS], film_chunks(tmp_path), pause_s=0.5):
            fleet.heal()
            cut_off_hosts_serve_nothing(fleet, tmp_path, devices[-1].number, devices[-1].token)
            fleet.heal()
            fleet.kill(fleet.random.randrange(3))
            fleet.heal()
            fleet.upgrade(tmp_path / "coming")
        fleet.assert_sound()


def cut_off_hosts_serve_nothing(fleet: Fleet, folder: Path, device: int, token: str) -> None:
    """A device that is terminated while a host is cut off: the command returns when that host refuses."""
    capture_ms = int(time.time() * 1000) - 10_000
    path = f"/v1/devices/{device}/chunks/"
    body = folder / "chunk.ts"
    body.write_bytes(chunk_body(device, capture_ms, 20))
    assert fleet.ask_inside(2, "PUT", f"{path}{capture_ms}", token, body) == 201
    watcher = fleet.hosts[0].viewer_token(device)
    assert fleet.ask_inside(2, "GET", f"{path}{capture_ms}", watcher) == 200
    fleet.network.cut(2)
    began_s = time.monotonic()
    fleet.hosts[0].command("device", "terminate", "--device", str(device), "--reason", "sold")
    took_s = time.monotonic() - began_s
    statuses = {
        "watched where it was cut off": fleet.ask_inside(2, "GET", f"{path}{capture_ms}", watcher),
        "sent where it was cut off": fleet.ask_inside(2, "PUT", f"{path}{capture_ms + 1}", token, body),
        "watched elsewhere": fleet.ask_inside(1, "GET", f"{path}{capture_ms}", watcher),
        "sent elsewhere": fleet.ask_inside(1, "PUT", f"{path}{capture_ms + 1}", token, body),
    }
    assert statuses == {
        "watched where it was cut off": 503,
        "sent where it was cut off": 503,
        "watched elsewhere": 403,
        "sent elsewhere": 403,
    }
    assert took_s >= MAX_STALE_S - 1
    fleet.tell(f"terminated in {took_s:.1f} s with one host of three cut off")
    time.sleep(max(0.0, AWAY_S - took_s))
    fleet.network.mend(2)
