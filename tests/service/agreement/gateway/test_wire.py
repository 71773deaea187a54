"""One request over real sockets: what a server may do to it, and what it then costs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from service.agreement.gateway.wire import Bounds, Endpoint, Lost
from storage.errors import CallerError
from tests.service.agreement.servers import certificate

BOUNDS = Bounds(connect_s=5, answer_s=5, max_bytes=1000)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def server(act: Callable[[socket.socket], object]) -> Iterator[str]:
    """Accepts one connection after the other and does `act` with it, in a thread for each."""
    listening = socket.create_server(("127.0.0.1", 0))
    links: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                link, _ = listening.accept()
                links.append(link)
                threading.Thread(target=one, args=(link,), daemon=True).start()

    def one(link: socket.socket) -> None:
        with suppress(OSError):
            act(link)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/base"
    finally:
        listening.close()
        for link in links:
            link.close()


def answering(answer: bytes, *, close: bool = True) -> Callable[[socket.socket], None]:
    def act(link: socket.socket) -> None:
        link.recv(65536)
        link.sendall(answer)
        if close:
            link.close()

    return act


def ask(url: str, **bounds: float) -> tuple[int, bytes]:
    made = Bounds(**{**{n: getattr(BOUNDS, n) for n in Bounds.__slots__}, **bounds})  # type: ignore[arg-type]
    answer = Endpoint(url, made).ask("POST", "/charges", {"X-A": "b"}, b"{}")
    return answer.status, answer.body


def test_a_request_is_whole_and_below_the_address() -> None:
    heard = bytearray()

    def act(link: socket.socket) -> None:
        heard.extend(link.recv(65536))
        link.sendall(OK)

    with server(act) as url:
        assert ask(url) == (200, b"{}"), "read by its length: the server has not closed"
    head, _, body = bytes(heard).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /base/charges HTTP/1.1\r\nHost: 127.0.0.1:")
    assert {b"X-A: b", b"Content-Length: 2", b"Connection: close"} <= set(head.split(b"\r\n"))
    assert body == b"{}"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    ],
)
def test_other_ways_to_say_the_same(answer: bytes) -> None:
    with server(answering(answer)) as url:
        assert ask(url) == (200, b"{}")


def test_a_redirect_is_an_answer_and_not_followed() -> None:
    asked: list[bytes] = []

    def act(link: socket.socket) -> None:
        asked.append(link.recv(65536))
        link.sendall(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    with server(act) as url:
        assert ask(url) == (307, b"")
    assert len(asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\n12345678\r\n" * 200 + b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 30 + b"\r\n{}",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 two\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_too_large_or_none_is_lost(answer: bytes) -> None:
    with server(answering(answer)) as url, pytest.raises(Lost):
        ask(url)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_one_deadline_is_for_all_of_it(sent: bytes) -> None:
    """A server that sends a byte now and then keeps each receive short, and the whole as long as it likes."""

    def drip(link: socket.socket) -> None:
        link.recv(65536)
        link.sendall(sent)
        while True:
            link.sendall(b"x")
            time.sleep(0.05)

    with server(drip) as url, pytest.raises(Lost, match=r"within 0\.5 s"):
        ask(url, answer_s=0.5)


def test_nobody_there_and_nobody_who_answers() -> None:
    with pytest.raises(Lost, match="refused"):
        ask("http://127.0.0.1:1/")
    with server(lambda link: time.sleep(60)) as url, pytest.raises(Lost):
        ask(url, answer_s=0.3)


def test_an_address_that_swallows_packets_leaves_time_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a host's IPv6 address does where there is no way to it."""
    tcp = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    with socket.socket() as swallowing, server(answering(OK)) as url:
        swallowing.bind(("127.0.0.1", 0))
        swallowing.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for link in filling:
            link.setblocking(False)
            link.connect_ex(swallowing.getsockname())
        there = ("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))
        found = [(*tcp, swallowing.getsockname()), (*tcp, there)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        assert ask(url, connect_s=2) == (200, b"{}")
        for link in filling:
            link.close()


def test_a_certificate_of_nobody_we_know_is_refused_and_one_we_know_taken(tmp_path: Path) -> None:
    context, _ = certificate(tmp_path)
    authority = str(tmp_path / "authority" / "authority.pem")

    def act(link: socket.socket) -> None:
        with context.wrap_socket(link, server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(OK)

    with server(act) as plain:
        url = plain.replace("http://127.0.0.1", "https://127.0.0.1")
        with pytest.raises(Lost, match="CERTIFICATE_VERIFY_FAILED"):
            Endpoint(url, BOUNDS).ask("GET", "/payments/r", {}, b"")
        known = Endpoint(url, BOUNDS, ca_file=authority)
        assert known.ask("GET", "/payments/r", {}, b"").body == b"{}"
        with pytest.raises(Lost, match="CERTIFICATE_VERIFY_FAILED"):
            Endpoint(url.replace("127.0.0.1", "localhost"), BOUNDS, ca_file=authority).ask(
                "GET", "/", {}, b""
            )


@pytest.mark.parametrize(
    "url",
    ["", "pay.example", "http://pay.example/", "ftp://pay.example/", "https://a:b@pay.example/", "https://pay.example/?a",
     "https://pay.example:0/", "https://pay.example/ü", "https://[::1"],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(CallerError) as caught:
        Endpoint(url, BOUNDS)
    assert caught.value.code == "bad_config"
    assert "a:b" not in str(caught.value)
