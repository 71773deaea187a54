"""Several workers on one port, and commands beside them: every change is seen by all at once."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.load import Acknowledged, Load, Uploader, assert_all_kept, chunk_body, read_answer
from tests.e2e.service import Device, Service, until

pytestmark = pytest.mark.e2e

WORKERS = 2
CONNECTIONS = 24
"""So many that all of them at one of two workers would be chance 2^-23."""


class Line:
    """One keep-alive connection."""

    def __init__(self, service: Service) -> None:
        self._sock = socket.create_connection(service.ingest, timeout=30)
        self._reader = self._sock.makefile("rb")

    def put(self, device: Device, capture_ms: int) -> int:
        body = chunk_body(device.number, capture_ms, 20)
        head = (
            f"PUT /v1/devices/{device.number}/chunks/{capture_ms} HTTP/1.1\r\nHost: clipkeep\r\n"
            f"Authorization: Bearer {device.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._sock.sendall(head.encode() + body)
        return read_answer(self._reader.readline, self._reader.read).status

    def push(self, device: Device, bodies: list[bytes]) -> list[int]:
        """Live chunks, without waiting for answers in between."""
        for body in bodies:
            head = (
                f"POST /v1/devices/{device.number}/live/now.ts HTTP/1.1\r\nHost: clipkeep\r\n"
                f"Authorization: Bearer {device.token}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            self._sock.sendall(head.encode() + body)
        return [read_answer(self._reader.readline, self._reader.read).status for _ in bodies]

    def close(self) -> None:
        self._reader.close()
        self._sock.close()


@pytest.mark.long
def test_both_take_connections_and_nothing_is_lost(service: Service) -> None:
    service.init()
    service.configure(segments_linger_ms=20)
    devices = service.add_devices(CONNECTIONS)
    kept = Acknowledged()
    service.start(workers=WORKERS)
    with Load([Uploader(service, device, kept, packets=(5, 50), depth=2) for device in devices]):
        until(
            lambda: (
                len([n for n in service.by_worker("clipkeep_ingest_connections").values() if n]) == WORKERS
            ),
            "both workers have connections",
        )
        until(lambda: len(kept.chunks) > 20 * CONNECTIONS, "chunks are acknowledged")
        # What a running service has under way is no fault, and nobody's to take away.
        assert service.command("check", "--deep")["broken"] == []
        assert service.command("sweep")["deleted_objects"] == 0
        assert service.command("catalog", "rebuild") | {"segments": 0} == {
            "segments": 0,
            "chunks": 0,
            "unreadable": {},
        }
    assert_all_kept(service, kept)
    counted = until(
        lambda: (
            (found := service.by_worker("clipkeep_ingest_chunks_total"))
            and sum(found.values()) >= len(kept.chunks)
            and found
        ),
        "the counters have been published",
    )
    assert set(counted) == {"w0", "w1"}
    assert min(counted.values()) > 0
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


def test_live_chunks_of_one_moment_are_all_kept(service: Service) -> None:
    """They are timed by their arrival; where two workers meet at one millisecond, one gives way."""
    service.init()
    service.configure(segments_linger_ms=5)
    crowd, alone = service.add_devices(2)
    service.start(workers=WORKERS)
    sent = [[chunk_body(crowd.number, 1000 * line + i, 5) for i in range(30)] for line in range(8)]
    in_order = [chunk_body(alone.number, i, 5) for i in range(100)]
    lines = [Line(service) for _ in range(len(sent) + 1)]
    with ThreadPoolExecutor(len(lines)) as pool:
        devices = [*(crowd for _ in sent), alone]
        answers = pool.map(Line.push, lines, devices, [*sent, in_order])
        assert {status for statuses in answers for status in statuses} == {201}
    for line in lines:
        line.close()
    assert sorted(_stored(service, crowd)) == sorted(body for bodies in sent for body in bodies)
    assert _stored(service, alone) == in_order, "those of one connection keep their order"
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


def _stored(service: Service, device: Device) -> list[bytes]:
    """All chunks of a device, by capture time."""
    token = service.viewer_token(device.number)
    listing = json.loads(service.get(f"/v1/devices/{device.number}/recordings", token=token).body)
    urls = [chunk["url"] for span in listing["spans"] for chunk in span["chunks"]]
    return [service.get(f"/v1/devices/{device.number}/{url}", token=token).body for url in urls]


def test_commands_beside_the_service_act_at_once_on_all_workers(service: Service) -> None:
    service.init()
    service.configure(segments_linger_ms=5)
    service.start(workers=WORKERS)
    lines = [Line(service) for _ in range(CONNECTIONS)]
    capture_ms = int(time.time() * 1000)

    def everywhere(device: Device) -> set[int]:
        """The answers to the device's upload on every connection, and so at every worker."""
        nonlocal capture_ms
        answers = set()
        for line in lines:
            capture_ms -= 1
            answers.add(line.put(device, capture_ms))
        return answers

    (device,) = service.add_devices(1, plan=None)
    assert everywhere(device) == {403}, "no plan yet"
    service.command("plan", "start", "--device", str(device.number), "--plan", "monthly")
    assert everywhere(device) == {201}
    token = service.viewer_token(device.number)
    chunk = f"/v1/devices/{device.number}/chunks/{capture_ms}"
    listing = f"/v1/devices/{device.number}/recordings"
    assert service.get(chunk, token=token).body == chunk_body(device.number, capture_ms, 20)
    named = ("--device", str(device.number), "--reason", "test")

    service.command("device", "suspend", *named)
    assert everywhere(device) == {403}
    assert (service.get(chunk, token=token).status, service.get(listing, token=token).code) == (
        403,
        "suspended",
    )
    service.command("device", "resume", *named)
    assert everywhere(device) == {201}
    assert service.get(chunk, token=token).status == 200

    renewed = service.command("device", "new-token", *named)["token"]
    assert everywhere(device) == {401}, "the old token is void, also where a connection has shown it before"
    assert service.get(chunk, token=token).status == 401
    device = Device(device.number, renewed)
    assert everywhere(device) == {201}
    token = service.viewer_token(device.number)
    assert service.get(chunk, token=token).status == 200

    service.command("device", "terminate", *named)
    assert everywhere(device) == {403}
    assert (service.get(chunk, token=token).status, service.get(chunk, token=token).code) == (
        403,
        "terminated",
    )
    assert service.get(f"/v1/devices/{device.number}/playlist.m3u8", token=token).status == 403

    (late,) = service.add_devices(1)
    assert everywhere(late) == {201}
    service.command("device", "terminate", "--device", str(late.number), "--reason", "test", "--erase")
    assert everywhere(late) == {403}
    for line in lines:
        line.close()
    assert service.command("check", "--deep")["broken"] == []
    assert service.stop() == 0


def test_a_lapse_denies_everywhere_at_once(service: Service) -> None:
    service.init("--test-clock")
    service.configure(segments_linger_ms=5)
    (device, neighbour) = service.add_devices(2)
    service.command("plan", "cancel", "--device", str(device.number))
    (trial,) = service.add_devices(1, plan="trial")
    service.start(workers=WORKERS)
    lines = [Line(service) for _ in range(CONNECTIONS)]
    now_ms = int(service.command("clock")["now_ms"])
    assert {line.put(trial, now_ms - i) for i, line in enumerate(lines)} == {201}
    token = service.viewer_token(trial.number)
    path = f"/v1/devices/{trial.number}/chunks/{now_ms}"
    assert service.get(path, token=token).status == 200
    now_ms = int(service.command("clock", "--offset", "15d")["now_ms"])
    assert {line.put(trial, now_ms - i) for i, line in enumerate(lines)} == {403}
    token = service.viewer_token(trial.number)
    assert service.get(path, token=token).status in (403, 410)
    assert lines[0].put(neighbour, now_ms) == 201, "its neighbour goes on"
    for line in lines:
        line.close()
    assert service.stop() == 0


def test_a_second_service_on_one_folder_or_port_is_refused(service: Service, tmp_path: Path) -> None:
    service.init()
    (device,) = service.add_devices(1)
    service.start()
    free = "127.0.0.1:0"
    again = service.run("serve", "--ingest", free, "--api", free)
    assert again.returncode == 1
    assert "busy" in again.stderr
    (tmp_path / "other").mkdir()
    with Service(tmp_path / "other") as other:
        other.init()
        for option, taken in (("--ingest", service.ingest), ("--api", service.api)):
            addresses = {"--ingest": free, "--api": free, option: f"127.0.0.1:{taken[1]}"}
            refused = other.run("serve", *(word for pair in addresses.items() for word in pair))
            assert refused.returncode == 1
            assert option in refused.stderr
    assert service.problems() == {}, "the one that runs is not disturbed"
    now_ms = int(time.time() * 1000)
    assert service.put(device, now_ms, chunk_body(device.number, now_ms, 20)).status == 201
    assert service.stop() == 0
