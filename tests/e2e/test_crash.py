"""SIGKILL under load: what was acknowledged is there afterwards, byte for byte (invariant 1)."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept
from tests.e2e.service import Service, until

pytestmark = pytest.mark.e2e

KILLS = 4
"""Here; `make soak` takes `SOAK_KILLS`."""
SOAK_KILLS = 20
ACKED_BEFORE_A_KILL = 20
LONGEST_WAIT_S = 0.4


def acknowledge_some(kept: Acknowledged, more: int = ACKED_BEFORE_A_KILL) -> None:
    before = len(kept.chunks)
    until(lambda: len(kept.chunks) >= before + more, "chunks are acknowledged", every_s=0.02)


@pytest.mark.long
def test_kills_under_load_lose_nothing(service: Service) -> None:
    _kill_under_load(service, KILLS)


@pytest.mark.soak
def test_many_kills_under_load_lose_nothing(service: Service) -> None:
    _kill_under_load(service, SOAK_KILLS)


def _kill_under_load(service: Service, kills: int) -> None:
    service.init("--test-clock")
    service.configure(segments_linger_ms=20, segments_target_bytes=1 << 20)
    devices = service.add_devices(4)
    kept = Acknowledged()
    service.start()
    ports = service.ingest[1], service.api[1]
    with Load([Uploader(service, device, kept) for device in devices]):
        for kill in range(kills):
            acknowledge_some(kept)
            time.sleep(LONGEST_WAIT_S * kill / kills)  # another moment of the pipeline's each time
            service.kill()
            service.start(ports=ports)
        acknowledge_some(kept)
    assert_all_kept(service, kept)
    checked = service.command("check", "--deep")
    assert checked["broken"] == []
    assert checked["chunks"] >= len(kept.chunks)
    assert service.stop() == 0
    _assert_leftovers_go(service)


def _assert_leftovers_go(service: Service) -> None:
    """What the kills left half-done is reclaimed by sweeps, and nothing else (invariants 3 to 5)."""
    before = service.command("check")
    service.command("clock", "--advance", "1h")
    service.command("sweep")
    service.command("clock", "--advance", "1h")
    service.command("sweep")
    after = service.command("check", "--deep")
    assert after["broken"] == []
    assert after["notes"] == []
    assert after["objects"] == after["segments"]
    assert after["chunks"] == before["chunks"]


@pytest.mark.long
def test_a_killed_worker_is_restarted_and_the_other_goes_on(service: Service) -> None:
    service.init()
    service.configure(segments_linger_ms=20)
    devices = service.add_devices(4)
    kept = Acknowledged()
    service.start(workers=2)
    with Load([Uploader(service, device, kept) for device in devices]):
        for name in ("w0", "w1", "api", "feed"):
            acknowledge_some(kept)
            killed = service.children()[name]
            os.kill(killed, signal.SIGKILL)
            acknowledge_some(kept)
            until(
                lambda name=name, killed=killed: service.children().get(name, killed) != killed, "it is back"
            )
        until(lambda: not _problems(service), "all are ready")
        acknowledge_some(kept)
    assert_all_kept(service, kept)
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


def _problems(service: Service) -> dict[str, str]:
    try:
        return service.problems()
    except OSError as error:
        return {"api": str(error)}  # it is being restarted


def test_children_die_with_a_killed_supervisor(service: Service) -> None:
    service.init()
    (device,) = service.add_devices(1)
    kept = Acknowledged()
    service.start(workers=2)
    assert set(service.children()) == {"api", "feed", "w0", "w1"}
    with Load([Uploader(service, device, kept)]):
        acknowledge_some(kept)
        service.send(signal.SIGKILL)
        assert service.wait() == -signal.SIGKILL
        until(lambda: not service.members(), "the children have ended by themselves")
    service.start()  # the folder is free at once
    assert_all_kept(service, kept)
    assert service.stop() == 0


def test_a_stopped_supervisor_leaves_no_process(service: Service) -> None:
    service.init()
    service.start(workers=2)
    assert service.stop() == 0
    assert service.members() == []
