"""A package's limits with real workers: counted together, kept across a restart, and never a final no."""

from __future__ import annotations

import time

import pytest

from tests.e2e.load import chunk_body
from tests.e2e.service import Service, until

pytestmark = pytest.mark.e2e

DAY_BYTES = 16 << 20
PACKETS = 4000
LENGTH = len(chunk_body(1, 1, PACKETS))


def test_two_workers_and_a_restart_keep_a_device_to_its_day(service: Service) -> None:
    service.init()
    service.command(
        *("package", "add", "small", "--kind", "full", "--months", "1", "--retention-days", "7"),
        *("--price", "USD=99:99", "--max-bytes-per-day", str(DAY_BYTES)),
    )
    [device] = service.add_devices(1, "small")
    [other] = service.add_devices(1)
    service.start(workers=2)
    begin_ms = time.time_ns() // 1_000_000 - 600_000
    sent = [begin_ms]

    def put() -> int:
        """Each on a connection of its own, so that either worker may get it."""
        sent[0] += 1000
        reply = service.put(device, sent[0], chunk_body(device.number, sent[0], PACKETS))
        if reply.status == 429:
            assert reply.code == "package_bytes"
            assert int(reply.headers["Retry-After"]) > 0
        return reply.status

    taken = 0
    while (status := put()) == 201:
        taken += LENGTH
        assert taken <= 2 * DAY_BYTES, "at most a day of each worker, before they have heard of each other"
    assert status == 429
    assert taken > DAY_BYTES - LENGTH
    until(lambda: [put() for _ in range(6)] == [429] * 6, "both workers know", 30, 1.0)
    assert service.put(other, begin_ms, chunk_body(other.number, begin_ms, PACKETS)).status == 201
    service.stop()
    service.start(workers=1)
    until(lambda: put() == 429, "the new worker has asked for the day's sum", 30, 1.0)
