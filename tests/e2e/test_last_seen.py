"""When a device was last seen and what it was refused, as real workers tell it; and nothing of strangers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.load import chunk_body
from tests.e2e.service import Device, Service, until

pytestmark = pytest.mark.e2e


def test_workers_tell_when_a_device_was_seen_and_what_it_was_refused(service: Service) -> None:
    service.init()
    camera, other = service.add_devices(2)
    [lapsed] = service.add_devices(1, None)
    service.start(workers=2)

    def shown() -> dict[int, Any]:
        return {row["device"]: row for row in service.command("device", "list")["devices"]}

    def put(device: Device, at_ms: int) -> int:
        return service.put(device, at_ms, chunk_body(device.number, at_ms, 40)).status

    begun_ms = time.time_ns() // 1_000_000
    assert put(camera, begun_ms) == 201
    assert [put(lapsed, begun_ms + at) for at in range(3)] == [403] * 3
    stranger = Device(other.number, "ckd_wrong")
    assert [put(stranger, begun_ms + at) for at in range(3)] == [401] * 3
    until(lambda: shown()[camera.number]["seen_ms"] is not None, "it was seen", 30, 3)
    until(lambda: shown()[lapsed.number]["refusals"], "its refusals are told", 30, 3)
    assert put(camera, begun_ms + 1000) == 201
    again_ms = time.time_ns() // 1_000_000
    assert service.stop() == 0
    found = shown()
    assert begun_ms <= found[camera.number]["seen_ms"] <= again_ms
    assert found[camera.number]["seen_ms"] > begun_ms + 1, "a worker that ends tells what it has not told"
    [refused] = found[lapsed.number]["refusals"]
    assert (refused["code"], refused["count"]) == ("plan_lapsed", 3)
    assert found[lapsed.number]["seen_ms"] is None
    assert (found[other.number]["seen_ms"], found[other.number]["refusals"]) == (None, [])
