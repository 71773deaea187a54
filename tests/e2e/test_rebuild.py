"""The chunk tables are lost: every recording comes back from the objects."""

from __future__ import annotations

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import Device, Service, until
from tests.servers.raw_catalogs import drop_all_days

pytestmark = pytest.mark.e2e


@pytest.mark.long
def test_every_recording_back_after_the_chunk_tables_were_destroyed(service: Service) -> None:
    service.init()
    service.configure(segments_linger_ms=20)
    devices = service.add_devices(2) + service.add_devices(2, "monthly", "--retention-days", "3")
    kept = Acknowledged()
    service.start(workers=2)
    with Load([Uploader(service, device, kept, packets=(5, 50)) for device in devices]):
        until(lambda: len(kept.chunks) > 200, "chunks are acknowledged")
    deleted = _delete_some(service, devices[0], kept)
    before = service.command("check", "--deep")
    assert before["broken"] == []
    assert service.stop() == 0

    assert drop_all_days(service.data) > 0
    assert service.run("check", "--deep").returncode == 1, "the loss is noticed"

    rebuilt = service.command("catalog", "rebuild")
    assert rebuilt["unreadable"] == {}
    assert rebuilt["chunks"] == before["chunks"]
    after = service.command("check", "--deep")
    assert (after["broken"], after["chunks"]) == ([], before["chunks"])
    assert service.command("catalog", "rebuild")["chunks"] == 0, "a second one finds nothing to do"
    service.start()
    assert_all_kept(service, kept)
    (token,) = service.viewer_tokens([devices[0].number]).values()
    for capture_ms in deleted:
        gone = service.get(f"/v1/devices/{devices[0].number}/chunks/{capture_ms}", token=token)
        assert gone.status in (404, 410), "what was deleted stays deleted"
    assert service.stop() == 0


def _delete_some(service: Service, device: Device, kept: Acknowledged) -> list[int]:
    """Delete the first few chunks of a device; returns their times."""
    times = sorted(capture_ms for number, capture_ms in kept.chunks if number == device.number)[:5]
    found = service.command(
        *("recordings", "delete", "--device", str(device.number), "--reason", "test"),
        *("--from", str(times[0]), "--to", str(times[-1] + 1)),
    )
    assert found["deleted_chunks"] >= len(times)
    for capture_ms in times:
        del kept.chunks[device.number, capture_ms]
    return times
