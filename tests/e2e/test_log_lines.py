"""What a real service writes to stderr: every line is one of docs/log.schema.json."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.e2e.service import Service, until
from tests.service.test_log_schema import faults_of

pytestmark = pytest.mark.e2e


def test_every_line_is_of_the_schema_from_the_start_to_the_stop(service: Service) -> None:
    service.init()
    [device] = service.add_devices(1)
    before = len(service.lines)
    service.start(workers=1)
    stranger = replace(device, token="no such token")
    for at in range(20):
        assert service.put(stranger, 1_800_000_000_000 + at, b"\x47" * 188).status == 401
    until(lambda: any('"refused"' in line for line in service.lines), "the refusal is in the log")
    assert service.stop() == 0
    lines = [json.loads(line) for line in service.lines[before:]]
    assert [fault for line in lines for fault in faults_of(line)] == []
    assert (lines[0]["event"], lines[-1]["event"]) == ("starting", "stopped")
    assert {"serving", "stopping", "child_ready", "child_stopped"} <= {line["event"] for line in lines}
    [refused] = [line for line in lines if line["event"] == "refused"]
    assert (refused["status"], refused["code"], refused["device"]) == (401, "bad_token", device.number)
    assert "no such token" not in json.dumps(lines)
