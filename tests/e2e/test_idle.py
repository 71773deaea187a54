"""Devices that wait: an idle keep-alive connection costs next to nothing."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e.load import chunk_body, read_answer
from tests.e2e.service import Device, Service, resident_bytes, until

pytestmark = pytest.mark.e2e

CONNECTIONS = 2000
MOST_BYTES = 100_000_000
"""What they may cost together, in memory of the worker."""


def upload(sock: socket.socket, device: Device, capture_ms: int) -> int:
    body = chunk_body(device.number, capture_ms, 100)
    sock.sendall(
        (
            f"PUT /v1/devices/{device.number}/chunks/{capture_ms} HTTP/1.1\r\nHost: clipkeep\r\n"
            f"Authorization: Bearer {device.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
    )
    with sock.makefile("rb") as reader:
        return read_answer(reader.readline, reader.read).status


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process open as many files as it needs, and its children as few as is usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} files may be open here, {wanted} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def with_files(limits: str) -> list[str]:
    return ["sh", "-c", f'ulimit {limits} && exec "$@"', "sh"]


def open_connections(service: Service) -> float | None:
    return service.by_worker("clipkeep_ingest_connections").get("w0")


@pytest.mark.usefixtures("many_files")
def test_two_thousand_idle_connections_cost_under_100_mb(service: Service) -> None:
    service.init()
    service.configure(segments_linger_ms=5)
    (device,) = service.add_devices(1)
    service.start(under=with_files("-S -n 1024"))  # as a login shell has it
    worker = service.children()["w0"]
    capture_ms = int(time.time() * 1000)
    with socket.create_connection(service.ingest, timeout=60) as first:
        for i in range(50):  # what a worker needs anyway: buffers, keys, threads
            assert upload(first, device, capture_ms - i) == 201
    before_bytes = resident_bytes(worker)
    socks: list[socket.socket] = []
    try:
        for number in range(CONNECTIONS):
            socks.append(socket.create_connection(service.ingest, timeout=60))
            if number % 10 == 0:  # some have sent something before they fell silent
                assert upload(socks[-1], device, capture_ms - 1000 - number) == 201
        until(lambda: open_connections(service) == CONNECTIONS, "all connections are open")
        cost_bytes = resident_bytes(worker) - before_bytes
        assert cost_bytes < MOST_BYTES, f"{cost_bytes / CONNECTIONS:.0f} bytes a connection"
        assert upload(socks[0], device, capture_ms - 100_000) == 201, "an idle connection is still of use"
    finally:
        for sock in socks:
            sock.close()
    until(lambda: open_connections(service) == 0, "all connections are gone")
    assert service.stop() == 0


def test_idle_connections_never_take_the_files_that_storing_needs(service: Service) -> None:
    service.init()
    service.configure(segments_linger_ms=5)
    (device,) = service.add_devices(1)
    service.start(under=with_files("-n 256"))
    capture_ms = int(time.time() * 1000)
    socks = [socket.create_connection(service.ingest, timeout=60)]
    try:
        assert upload(socks[0], device, capture_ms) == 201
        # Strangers that send nothing: the oldest of them make room.
        socks += [socket.create_connection(service.ingest, timeout=60) for _ in range(300)]

        def comes_last() -> bool:
            with socket.create_connection(service.ingest, timeout=60) as sock:
                return upload(sock, device, capture_ms - 1) in (200, 201)

        until(comes_last, "a camera that comes after them is let in")
        assert upload(socks[0], device, capture_ms - 4) == 201, "who is known stays"
    finally:
        for sock in socks:
            sock.close()
    until(lambda: open_connections(service) == 0, "all connections are gone")
    assert service.put(device, capture_ms - 2, chunk_body(device.number, 1, 20)).status == 201
    assert service.stop() == 0
