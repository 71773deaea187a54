"""What a connection of the API port costs its process: the figures of docs/operations.md are a bound of these."""

from __future__ import annotations

import re
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.service import Service, until

pytestmark = pytest.mark.e2e

FEW, MANY = 300, 1300
OPEN_BYTES, HEAD_BYTES, BODY_BYTES = 10_000, 32_000, 120_000
"""In docs/operations.md: an open connection; one whose head has come in part, or whose answer is not read; one whose
body has come in part. Measured: 6,500 when idle, 7,500 after a request, 22,700 with half a head, 25,900 with an answer
that is not read and that the kernel does not take whole, 97,100 with half a body."""
GET = b"GET %s HTTP/1.1\r\nHost: clipkeep\r\n\r\n"
HALF_HEAD = (GET % b"/healthz")[:-2] + b"X-Filler: " + b"x" * 15_900
HALF_BODY = (
    b"POST /v1/accounts HTTP/1.1\r\nHost: clipkeep\r\nContent-Type: application/json\r\n"
    b"Content-Length: 65536\r\n\r\n" + b" " * 65_000
)
KINDS = {
    "idle": (b"", False, OPEN_BYTES),
    "asked": (GET % b"/healthz", True, OPEN_BYTES),
    "does not read": (GET % b"/openapi.json", False, HEAD_BYTES),
    "half a head": (HALF_HEAD, False, HEAD_BYTES),
    "half a body": (HALF_BODY, False, BODY_BYTES),
}
"""What is sent on each, whether its answer is read, and the bound."""


def private_bytes(pid: int) -> int:
    """Memory of this process alone, by page."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) * 1024 for kib in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE))


def settled(pid: int) -> int:
    """Its memory, once it does not grow any more."""
    seen = [0]

    def stands() -> bool:
        seen.append(private_bytes(pid))
        return len(seen) > 3 and max(seen[-3:]) - min(seen[-3:]) < 200_000

    until(stands, "the memory stands still", every_s=0.3)
    return seen[-1]


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + 500:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 500, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Clients:
    """Connections to the API port."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.socks: list[socket.socket] = []

    def grow(self, count: int, sent: bytes, *, is_answered: bool) -> None:
        while len(self.socks) < count:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536 if is_answered else 2048)
            sock.settimeout(60)
            sock.connect(self._service.api)
            self.socks.append(sock)
            sock.sendall(sent)
            if is_answered:
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        until(lambda: self._service.get("/healthz").status == 200, "all before it were accepted")

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def test_the_bounds_are_those_of_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    in_kb = [bound // 1000 for bound in (OPEN_BYTES, HEAD_BYTES, BODY_BYTES)]
    assert (
        "at most {} kB, {} kB while its head comes or its answer is not read, {} kB while a JSON body comes".format(
            *in_kb
        )
        in manual
    )


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(("sent", "is_answered", "most_bytes"), KINDS.values(), ids=KINDS)
def test_a_connection_costs_what_is_documented(
    service: Service, sent: bytes, is_answered: bool, most_bytes: int
) -> None:
    service.init()
    service.configure(
        http_client_share=1.0,
        http_requests_at_once=5000,
        http_head_timeout_s=600,
        http_body_timeout_s=600,
        api_body_wait_s=600,
    )
    service.start()
    api = service.children()["api"]
    clients = Clients(service)
    try:
        clients.grow(FEW, sent, is_answered=is_answered)
        few_bytes = settled(api)
        clients.grow(MANY, sent, is_answered=is_answered)
        cost_bytes = (settled(api) - few_bytes) / (MANY - FEW)
        assert cost_bytes < most_bytes, f"{cost_bytes:.0f} bytes a connection"
    finally:
        clients.close()
    assert service.stop() == 0
