"""`clipkeep catalog copy`, killed at any moment: what was acknowledged before is all there in the end."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import CLIPKEEP, COMMAND_S, Service, until
from tests.servers.catalogs import empty_database, on_postgres

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.soak,
    pytest.mark.skipif(on_postgres(), reason="it begins with a file by itself"),
]

KILLS = 6
CHUNKS = 1500


@pytest.fixture
def filled(service: Service) -> tuple[Service, Acknowledged]:
    """A service that was stopped, with chunks on SQLite."""
    kept = Acknowledged()
    service.command("init")
    devices = service.add_devices(4)
    service.start()
    with Load([Uploader(service, device, kept, depth=32, packets=(2, 8)) for device in devices]):
        until(lambda: len(kept.chunks) > CHUNKS, "there are chunks to copy", COMMAND_S)
    assert service.stop() == 0
    return service, kept


def begin(service: Service, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [CLIPKEEP, "catalog", "copy", "--to", url, "--data", service.data, "--json"],
        env=service.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_at_random_it_goes_on_and_loses_nothing(
    filled: tuple[Service, Acknowledged], tmp_path: Path
) -> None:
    service, kept = filled
    url = empty_database(tmp_path / "copied")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    began_s = time.monotonic()
    whole = begin(service, url)
    whole.communicate(timeout=COMMAND_S)
    assert whole.returncode == 0
    takes_s = time.monotonic() - began_s
    service.command("catalog", "copy", "--to", url, "--back")
    killed = 0
    for _ in range(KILLS):
        copying = begin(service, url)
        time.sleep(chance.uniform(0.2, 0.95) * takes_s)
        copying.kill()
        copying.communicate(timeout=COMMAND_S)
        killed += copying.returncode == -signal.SIGKILL
    assert killed, "not all of them were done before"
    copied = service.command("catalog", "copy", "--to", url)
    assert copied["recordings_read"] == 4
    service.start()
    assert_all_kept(service, kept)
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0
    back = service.run("catalog", "copy", "--to", url, "--back")
    assert back.returncode == 1
    assert "committed" in back.stderr or "written to" in back.stderr
