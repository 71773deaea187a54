"""The API port against clients that leave, dawdle or come in numbers: real processes, real sockets, real curl."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.e2e.load import PACKET_BYTES, chunk_body, earlier_today_ms
from tests.e2e.service import Device, Service, until

pytestmark = pytest.mark.e2e

LARGE_PACKETS, MEDIUM_PACKETS, SMALL_PACKETS = 85_000, 20_000, 1000
"""16 MB, the most that a chunk has; 4 MB; 188 kB."""


def kept(service: Service, count: int, packets: int) -> tuple[Device, list[int]]:
    """A device that shares with no other, with so many chunks."""
    (device,) = service.add_devices(1)
    first_ms = earlier_today_ms(60_000 + count * 1000)
    times = [first_ms + i * 1000 for i in reversed(range(count))]
    for capture_ms in times:
        body = b"".join(
            chunk_body(device.number, capture_ms + i, min(1000, packets - i)) for i in range(0, packets, 1000)
        )
        assert service.put(device, capture_ms, body).status == 201
    return device, times


def url_of(service: Service, device: Device, capture_ms: int, token: str) -> str:
    host, port = service.api
    return f"http://{host}:{port}/v1/devices/{device.number}/chunks/{capture_ms}.ts?token={token}"


def held_bytes(service: Service) -> float:
    return service.metrics()["clipkeep_api_held_bytes", ()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http2", "--http2-prior-knowledge"])
def test_killed_clients_leave_nothing_behind(service: Service, version: str) -> None:
    service.init().start()
    device, (capture_ms,) = kept(service, 1, LARGE_PACKETS)
    token = service.viewer_token(device.number)
    command = ["curl", "-s", version, "--limit-rate", "100k", "-o", "/dev/null"]
    command.append(url_of(service, device, capture_ms, token))
    for _ in range(20):
        curl = subprocess.Popen(command)
        time.sleep(0.1)
        curl.kill()
        curl.wait()
    until(lambda: held_bytes(service) == 0, "all that the answers held has come back")
    whole = service.get(f"/v1/devices/{device.number}/chunks/{capture_ms}", token=token)
    assert (whole.status, len(whole.body)) == (200, LARGE_PACKETS * PACKET_BYTES)
    assert service.stop() == 0


@contextmanager
def slow_readers(service: Service, path: str, count: int, bytes_per_s: int) -> Iterator[list[socket.socket]]:
    """Connections that ask for a path and read so slowly, together."""
    socks = []
    for _ in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(service.api)
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: clipkeep\r\n\r\n".encode())
        socks.append(sock)
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.1):
            for sock in socks:
                with suppress(OSError):
                    sock.recv(bytes_per_s // count // 10, socket.MSG_DONTWAIT)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield socks
    finally:
        over.set()
        reader.join()
        for sock in socks:
            sock.close()


def test_slow_readers_deny_nobody_else_playback(service: Service) -> None:
    """One viewer token, 28 connections, 85 KB/s in all: another owner's chunks are served at once all the while."""
    service.init().start()
    slow, times = kept(service, 1, LARGE_PACKETS)
    other, others = kept(service, 3, LARGE_PACKETS)
    token, others_token = (service.viewer_token(device.number) for device in (slow, other))
    path = f"/v1/devices/{slow.number}/chunks/{times[0]}.ts?token={token}"
    with slow_readers(service, path, 28, 85_000):
        until(lambda: held_bytes(service) >= LARGE_PACKETS * PACKET_BYTES, "the slow ones hold what they can")
        for _ in range(4):
            for capture_ms in others:
                began_s = time.monotonic()
                answer = service.get(f"/v1/devices/{other.number}/chunks/{capture_ms}", token=others_token)
                assert answer.status == 200
                assert time.monotonic() - began_s < 4, "less than it would have waited for memory"
        assert held_bytes(service) <= 64 * 1024 * 1024, "a viewer's share"
    until(lambda: held_bytes(service) == 0, "all has come back")
    assert service.stop() == 0


def test_slow_exports_block_no_other_exports(service: Service) -> None:
    service.init().start()
    slow, times = kept(service, 4, MEDIUM_PACKETS)
    other, others = kept(service, 2, SMALL_PACKETS)
    token, others_token = (service.viewer_token(device.number) for device in (slow, other))
    path = f"/v1/devices/{slow.number}/clip.ts?from={times[-1]}&to={times[0] + 1}&token={token}"
    with slow_readers(service, path, 8, 24_000):
        until(lambda: held_bytes(service) > 0, "the slow ones are under way")
        export = f"/v1/devices/{other.number}/clip.ts?from={others[-1]}&to={others[0] + 1}"
        for _ in range(5):
            answer = service.get(export, token=others_token)
            assert (answer.status, len(answer.body)) == (200, 2 * SMALL_PACKETS * PACKET_BYTES)
    assert service.stop() == 0


def test_who_reads_below_the_least_rate_is_let_go(service: Service) -> None:
    service.configure(http_send_grace_s=1, http_min_send_bytes_per_s=50_000)
    service.init().start()
    device, times = kept(service, 1, LARGE_PACKETS)
    path = f"/v1/devices/{device.number}/chunks/{times[0]}.ts?token={service.viewer_token(device.number)}"
    with slow_readers(service, path, 4, 8_000):
        until(lambda: held_bytes(service) > 0, "they are under way")
        until(lambda: held_bytes(service) == 0, "they were let go")
    assert any("slow_reader_let_go" in line for line in service.lines)
    assert service.stop() == 0
