"""All that a service writes is its user's alone, whatever the umask it was started with."""

from __future__ import annotations

import os
import stat
import time

import pytest

from tests.e2e.load import chunk_body
from tests.e2e.service import Service, until
from tests.servers.catalogs import on_postgres

pytestmark = pytest.mark.e2e


def test_nothing_in_a_data_folder_is_open_to_others(service: Service) -> None:
    before = os.umask(0)
    try:
        service.init()
        [device] = service.add_devices(1)
        service.command("account", "add", "--accepts", "1", "--email", "ada@example.org")
        service.command("notices", "send")
        service.start()
        capture_ms = int(time.time() * 1000)
        assert service.put(device, capture_ms, chunk_body(device.number, 1, 20)).status == 201
        until(lambda: (service.data / "run" / "w0.json").exists(), "counters are published")
        service.command("sweep")
        assert service.stop() == 0
    finally:
        os.umask(before)
    found = [service.data, *service.data.rglob("*")]
    names = {path.name for path in found}
    expected = {"config.toml", "keys", "objects", "run", "w0.json", "notices"}
    assert expected | (set() if on_postgres() else {"catalog.db"}) <= names
    assert any(path.is_file() for path in (service.data / "objects").rglob("*"))
    opened = {
        str(path): oct(path.stat().st_mode) for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077
    }
    assert opened == {}
