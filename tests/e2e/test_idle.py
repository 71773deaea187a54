"""Devices that wait: an idle keep-alive connection costs next to nothing."""

from __future__ import annotations

import resource
import socket
import time

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
        return read_answer(reader.readline, reader.read)[0]


def test_two_thousand_idle_connections_cost_under_100_mb(service: Service) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 200
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"only {hard} files may be open here, {wanted} are needed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    service.init()
    service.configure(segments_linger_ms=5)
    (device,) = service.add_devices(1)
    service.start()
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
        until(
            lambda: service.by_worker("clipkeep_ingest_connections").get("w0") == CONNECTIONS,
            "all connections are open",
        )
        cost_bytes = resident_bytes(worker) - before_bytes
        assert cost_bytes < MOST_BYTES, f"{cost_bytes / CONNECTIONS:.0f} bytes a connection"
        assert upload(socks[0], device, capture_ms - 100_000) == 201, "an idle connection is still of use"
    finally:
        for sock in socks:
            sock.close()
    until(lambda: service.by_worker("clipkeep_ingest_connections").get("w0") == 0, "all connections are gone")
    assert service.stop() == 0
