"""What connections over TLS take of a worker's memory: 10,000 idle ones, some with an upload, some in a handshake.

    make soak ARGS="-s tests/soak/test_tls_connections.py"

It prints KB of each, read from /proc of a real worker, and holds them against what docs/operations.md says.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.media import transport_stream
from tests.e2e.service import SOON_S, Device, Service, until
from tests.e2e.test_tls import hello_of, lately_ms
from tests.servers.certificates import Authority

pytestmark = pytest.mark.soak

IDLE, UPLOADS, HANDSHAKES = 10_000, 1_000, 1_000
SPARE_FILES = 200
THREADS = 4
WARM = 500
"""Connections that come and go before the first figure: allocators have what they keep."""
CHUNK_BYTES = 128 * 1024 // 188 * 188
SENT_BYTES = 40_000
"""Of a chunk under way: two records and the beginning of a third."""
OPERATIONS = (Path(__file__).parents[2] / "docs/operations.md").read_text()


def said_kb(pattern: str) -> int:
    [found] = re.findall(pattern, OPERATIONS)
    return int(found)


IN_CLEAR_KB = said_kb(r"× 20 MiB \+ (\d+) KB for each connection")
TLS_KB = said_kb(r"(\d+) KB more for each connection over TLS")
BODY_KB = said_kb(r"(\d+) KB for each body under way")
HANDSHAKE_KB = said_kb(r"Each is charged (\d+) KiB of the worker's budget") * 1.024


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as service:
        yield service


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_memory_of_ten_thousand_connections_is_as_documented(service: Service, tmp_path: Path) -> None:
    needed = IDLE + UPLOADS + HANDSHAKES + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"the system allows {hard} open files, {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    authority = Authority(tmp_path / "authority")
    pair = authority.issue("127.0.0.1", "in.example")
    service.init()
    service.configure(
        tls_certificate=pair.certificate,
        tls_key=pair.key,
        tls_handshake_s=600,
        tls_max_handshakes=2 * HANDSHAKES,
        ingest_idle_timeout_s=3600,
        ingest_body_grace_s=600,
    )
    service.trusting = authority.client()
    service.start()
    [device] = service.add_devices(1)
    assert service.put(device, lately_ms(), bytes(transport_stream(CHUNK_BYTES))).status == 201
    worker = service.children()["w0"]

    def settled(more: int) -> int:
        """Memory once so many files more are open, and nothing happens."""
        until(lambda: files(worker) >= quiet + more, "all have come", every_s=0.1, timeout_s=600)
        time.sleep(3)
        return rss_bytes(worker)

    with ExitStack() as held, ThreadPoolExecutor(THREADS) as threads:
        quiet = files(worker)
        for sock in connected(service, WARM, threads):
            sock.close()
        until(lambda: files(worker) <= quiet, "they have gone", every_s=0.1)
        before = settled(0)

        for sock in connected(service, IDLE, threads):
            held.enter_context(sock)
        with_idle = settled(IDLE)
        idle_kb = (with_idle - before) / IDLE / 1000
        print(f"\n{IDLE} idle: {idle_kb:.1f} KB each ({(with_idle - before) / 1e6:.0f} MB)")

        for tls in begun(service, device, UPLOADS, threads):
            held.enter_context(tls)
        until(
            lambda: budget_bytes(service) >= UPLOADS * SENT_BYTES, "what was sent has come", timeout_s=SOON_S
        )
        with_uploads = settled(IDLE + UPLOADS)
        upload_kb = (with_uploads - with_idle) / UPLOADS / 1000
        charged_kb = budget_bytes(service) / UPLOADS / 1000
        print(f"{UPLOADS} with an upload under way: {upload_kb:.1f} KB each, {charged_kb:.1f} KB charged")

        hello = hello_of("in.example")
        for _ in range(HANDSHAKES):
            sock = held.enter_context(socket.create_connection(service.ingest, timeout=SOON_S))
            sock.sendall(hello)
        with_handshakes = settled(IDLE + UPLOADS + HANDSHAKES)
        handshake_kb = (with_handshakes - with_uploads) / HANDSHAKES / 1000
        print(f"{HANDSHAKES} in a handshake: {handshake_kb:.1f} KB each")

        assert idle_kb <= IN_CLEAR_KB + TLS_KB
        assert upload_kb <= IN_CLEAR_KB + TLS_KB + BODY_KB + charged_kb
        assert handshake_kb <= HANDSHAKE_KB
        assert service.put(device, lately_ms(), bytes(transport_stream(CHUNK_BYTES))).status == 201
    assert service.stop() == 0


def budget_bytes(service: Service) -> float:
    return sum(
        value for (name, _), value in service.metrics().items() if name == "clipkeep_ingest_budget_bytes"
    )


def in_turns(
    threads: ThreadPoolExecutor, make: Callable[[int], socket.socket], count: int
) -> Sequence[socket.socket]:
    return list(threads.map(make, range(count)))


def shaken(service: Service) -> ssl.SSLSocket:
    assert service.trusting is not None
    sock = socket.create_connection(service.ingest, timeout=60)
    return service.trusting.wrap_socket(sock, server_hostname="127.0.0.1")


def connected(service: Service, count: int, threads: ThreadPoolExecutor) -> Sequence[socket.socket]:
    """Sockets whose handshake is done; what TLS has on this side is let go of."""
    return in_turns(threads, lambda _: socket.socket(fileno=shaken(service).detach()), count)


def begun(
    service: Service, device: Device, count: int, threads: ThreadPoolExecutor
) -> Sequence[socket.socket]:
    """Connections on which part of a chunk was sent, and the beginning of a record."""
    body, first_ms = bytes(transport_stream(CHUNK_BYTES)), lately_ms() - 10 * count

    def begin(number: int) -> socket.socket:
        tls = shaken(service)
        head = (
            f"PUT /v1/devices/{device.number}/chunks/{first_ms + number} HTTP/1.1\r\nHost: here\r\n"
            f"Authorization: Bearer {device.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        tls.sendall(head.encode() + body[:SENT_BYTES])
        sock = socket.socket(fileno=tls.detach())
        sock.sendall(b"\x17\x03\x03\x40\x00" + bytes(8000))
        return sock

    return in_turns(threads, begin, count)
