"""The load generator against small servers that behave, refuse, or hang up."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bench.certificates import make_pair
from bench.load import TICK_S, Load, quantiles_ms
from bench.media import PACKET_BYTES, SYNC, transport_stream
from bench.openload import UNANSWERED, OpenLoad
from bench.shakeload import ShakeLoad
from bench.slowload import SlowLoad
from bench.wire import (
    CLIPKEEP,
    RELAY,
    TUS,
    TUS_PATCH,
    Device,
    Heads,
    Target,
    is_stored,
    parse_answer,
    patch_head,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
DEVICES = (Device(7, "SEVEN"), Device(9, "NINE"))


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[Target]:
    """A threaded server that gives every connection to `handle`, and closes it afterwards."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def converse(sock: socket.socket) -> None:
        with sock:
            sock.settimeout(10)
            with suppress(OSError):
                handle(sock)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=converse, args=(sock,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield Target("127.0.0.1", listener.getsockname()[1], DEVICES)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()
        for thread in threads:
            thread.join()


def read_request(sock: socket.socket) -> tuple[bytes, bytes] | None:
    """Return head and body of the next request, None at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = sock.recv(65536)
        if not received:
            return None
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        received = sock.recv(65536)
        if not received:
            return None
        body += received
    assert len(body) == length
    return head, body


def run(target: Target, size: int = 200_000, connections: int = 3) -> tuple[Load, list[str]]:
    events: list[str] = []
    return Load(target, transport_stream(size), connections, events.append), events


def test_every_chunk_is_whole_unique_and_counted() -> None:
    lines: list[bytes] = []
    bodies: set[bytes] = set()

    def handle(sock: socket.socket) -> None:
        while (request := read_request(sock)) is not None:
            lines.append(request[0])
            bodies.add(request[1])
            sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")

    with serving(handle) as target:
        load, events = run(target)
        tally = load.run(warmup_s=0.1, window_s=0.4)
    assert events == ["warm", "measured"]
    assert not tally.errors
    assert 0 < len(tally.acks_s) <= len(lines)
    assert bodies == {bytes(transport_stream(200_000))}
    paths = [line.split(b" ")[1] for line in lines]
    assert len(set(paths)) == len(paths)
    tokens = {line.split(b"/")[3]: line.split(b"Bearer ")[1].split(b"\r\n")[0] for line in lines}
    assert tokens == {b"7": b"SEVEN", b"9": b"NINE"}
    assert all(b"Clip-Duration-Ms: 4000" in line for line in lines)
    document = tally.as_json(1000)
    assert document["chunks"] == len(tally.acks_s)
    assert document["bytes"] == 1000 * len(tally.acks_s)


def test_over_tls_every_chunk_is_whole_and_its_ack_is_read(tmp_path: Path) -> None:
    """By a server that reads slowly, so that sends come out short."""
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    bodies: list[bytes] = []

    def handle(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=True) as tls:
            while (request := read_request(tls)) is not None:
                bodies.append(request[1])
                tls.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")

    with serving(handle) as target:
        load, _ = run(replace(target, authority=str(pair.certificate)), size=900_000)
        tally = load.run(warmup_s=0.1, window_s=0.5)
    assert not tally.errors
    assert 0 < len(tally.acks_s) <= len(bodies)
    assert set(bodies) == {bytes(transport_stream(900_000))}
    assert len(tally.as_json(1)["ciphers"]) == 1  # type: ignore[arg-type]


def test_new_clients_come_at_a_rate_and_are_counted_or_told_apart(tmp_path: Path) -> None:
    pair = make_pair(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    resumed: list[bool] = []

    def shake(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            resumed.append(bool(tls.session_reused))
            tls.recv(1)

    for handle, counts in ((shake, True), (lambda sock: None, False)):
        with serving(handle) as target:
            load = ShakeLoad(
                replace(target, authority=str(pair.certificate)), lambda event: None, rate_per_s=100
            )
            tally = load.run(warmup_s=0.1, window_s=0.4)
        assert bool(tally.acks_s) == counts
        assert bool(tally.errors) != counts
        assert tally.window_s >= 0.4
    assert not any(resumed), "each signs"


@pytest.mark.parametrize(("asked", "answered"), [(0, 2), (12, 12), (1000, 16)])
def test_the_window_opens_when_the_target_is_in_its_stride(asked: int, answered: int) -> None:
    """After as many answers as it asks for, `WARM_ROUNDS` a connection at most."""
    count = 0
    at_warm: list[int] = []

    def answer(sock: socket.socket) -> None:
        nonlocal count
        while read_request(sock) is not None:
            time.sleep(0.02)
            count += 1
            sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    def announce(event: str) -> None:
        if event == "warm":
            at_warm.append(count)

    with serving(answer) as target:
        load = Load(replace(target, warm_chunks=asked), transport_stream(188), 2, announce)
        load.run(warmup_s=0.0, window_s=0.1, drain_s=1.0)
    assert at_warm[0] >= answered
    assert at_warm[0] <= answered + 2 * (TICK_S / 0.02) + 4, "and not long after"


def test_other_statuses_are_errors_even_when_they_come_early() -> None:
    def handle(sock: socket.socket) -> None:
        sock.recv(10)
        sock.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
        while sock.recv(65536):
            pass

    with serving(handle) as target:
        load, _ = run(target, connections=1)
        tally = load.run(warmup_s=0.0, window_s=0.3, drain_s=0.1)
    assert set(tally.errors) <= {"503"}
    assert tally.errors["503"] >= 1
    assert not tally.acks_s


def test_a_server_that_hangs_up_is_an_error_and_bounded() -> None:
    with serving(lambda sock: None) as target:
        load, _ = run(target, size=200, connections=1)
        tally = load.run(warmup_s=0.0, window_s=0.3, drain_s=0.1)
    assert tally.errors.total() >= 1
    assert not tally.acks_s


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", None),
        (b"HTTP/1.1 201 Created\r\nContent-Le", None),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n{}", None),
        (b"HTTP/1.1 201 Created\r\ncontent-length:2\r\n\r\n{}", (201, 44)),
        (b"HTTP/1.1 204 No Content\r\n\r\nHTTP", (204, 27)),
        (CHUNKED, None),
        (CHUNKED + b"2;x=1\r\n{}\r\n0\r\n", None),
        (CHUNKED + b"2;x=1\r\n{}\r\n0\r\n\r\nHTTP", (200, 63)),
    ],
)
def test_parse_answer(data: bytes, found: tuple[int, int] | None) -> None:
    assert parse_answer(data) == found


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        CHUNKED + b"zz\r\n",
        b"SSH-2.0-hello\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_parse_answer_refuses_what_it_cannot_frame(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"without a length|invalid literal|too large"):
        parse_answer(data)


def test_heads_take_devices_in_turn_and_times_in_order() -> None:
    heads = Heads(Target("h", 1, DEVICES), 188, start_ms=1000)
    lines = [heads.next().split(b" ")[1] for _ in range(4)]
    assert lines == [f"/v1/devices/{n}/chunks/{ms}".encode() for ms in (1000, 1001) for n in (7, 9)]


def test_quantiles() -> None:
    figures = quantiles_ms(array("d", [i / 1000 for i in range(101)]))
    assert figures == pytest.approx({"p50": 50, "p90": 90, "p99": 99, "max": 100})
    assert quantiles_ms(array("d")) == {"p50": 0, "p90": 0, "p99": 0, "max": 0}


def test_target_survives_its_file(tmp_path: Path) -> None:
    target = Target("127.0.0.1", 8080, DEVICES, more_ports=(8082, 8084))
    target.write(tmp_path / "target.json")
    assert Target.read(tmp_path / "target.json") == target
    assert [target.address(number)[1] for number in range(5)] == [8080, 8082, 8084, 8080, 8082]


@pytest.mark.parametrize("size", [1, 187, 188, 189, 375, 376, 65_536])
def test_transport_stream_is_whole_packets(size: int) -> None:
    stream = transport_stream(size)
    assert len(stream) == max(188, size // PACKET_BYTES * PACKET_BYTES)
    assert set(stream[::PACKET_BYTES]) == {SYNC}
    assert stream == transport_stream(size)


def test_a_tus_chunk_is_stored_only_when_all_of_it_is() -> None:
    head = Heads(Target("h", 1, DEVICES, TUS), 188, start_ms=1000).next()
    assert head.startswith(b"POST /files/ HTTP/1.1\r\n")
    for field in (b"Tus-Resumable: 1.0.0", b"Upload-Length: 188", b"Content-Length: 188"):
        assert field in head
    assert is_stored(TUS, 201, b"HTTP/1.1 201 Created\r\nUpload-Offset: 188\r\n\r\n", 188)
    assert not is_stored(TUS, 201, b"HTTP/1.1 201 Created\r\nUpload-Offset: 100\r\n\r\n", 188)
    assert not is_stored(TUS, 201, b"HTTP/1.1 201 Created\r\n\r\n", 188)
    assert is_stored(RELAY, 200, b"", 188)
    assert not is_stored(CLIPKEEP, 200, b"", 188)


def test_a_tus_upload_is_created_and_patched_as_the_same_device() -> None:
    target = Target("h", 1, DEVICES, TUS_PATCH, uploads="/v1/devices/{device}/uploads")
    creation = Heads(target, 188, start_ms=1000).next()
    device = DEVICES[0]
    assert creation.startswith(f"POST /v1/devices/{device.number}/uploads HTTP/1.1\r\n".encode())
    for field in (b"Upload-Length: 188", b"Content-Length: 0", b"Upload-Metadata: capture_ms MTAwMA=="):
        assert field in creation
    for where in (b"/up/1", b"http://h:1/up/1"):
        head = patch_head(creation, b"HTTP/1.1 201 Created\r\nLocation: %b\r\n\r\n" % where, 188)
        assert head.startswith(b"PATCH /up/1 HTTP/1.1\r\n")
        for field in (f"Bearer {device.token}".encode(), b"Upload-Offset: 0", b"Content-Length: 188"):
            assert field in head
    with pytest.raises(ValueError, match="not named"):
        patch_head(creation, b"HTTP/1.1 201 Created\r\n\r\n", 188)
    assert is_stored(TUS_PATCH, 204, b"HTTP/1.1 204 No Content\r\nUpload-Offset: 188\r\n\r\n", 188)
    assert not is_stored(TUS_PATCH, 204, b"HTTP/1.1 204 No Content\r\nUpload-Offset: 100\r\n\r\n", 188)
    assert not is_stored(TUS_PATCH, 201, b"HTTP/1.1 201 Created\r\nUpload-Offset: 188\r\n\r\n", 188)


def acks(sock: socket.socket) -> None:
    while (request := read_request(sock)) is not None:
        assert request[0].startswith(b"PUT /v1/devices/")
        sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")


def test_no_more_chunks_are_sent_than_allowed() -> None:
    with serving(acks) as target:
        load = Load(target, transport_stream(188), 2, lambda event: None, max_chunks=7)
        tally = load.run(warmup_s=0.0, window_s=0.5)
    assert len(tally.acks_s) <= 7
    assert not tally.errors


def test_the_open_loop_keeps_its_rate() -> None:
    with serving(acks) as target:
        load = OpenLoad(target, transport_stream(188), 20, lambda event: None, rate_per_s=200)
        tally = load.run(warmup_s=0.1, window_s=1.0)
    assert 140 < len(tally.acks_s) < 260
    assert not tally.errors
    assert len(tally.late_s) == len(tally.acks_s)


def test_the_open_loop_counts_from_when_a_chunk_was_meant_to_be_sent() -> None:
    """A server that stalls once for half a second delays all that was meant to be sent meanwhile."""
    stalls = iter([0.5])

    def handle(sock: socket.socket) -> None:
        while read_request(sock) is not None:
            time.sleep(next(stalls, 0.0))
            sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with serving(handle) as target:
        load = OpenLoad(target, transport_stream(188), 1, lambda event: None, rate_per_s=100)
        tally = load.run(warmup_s=0.0, window_s=1.0)
    slow = [ack_s for ack_s in tally.acks_s if ack_s > 0.1]
    assert len(slow) > 20  # a closed loop would have seen one


def test_the_open_loop_does_not_blame_a_server_that_ends_a_rest() -> None:
    ended = iter(range(20))

    def handle(sock: socket.socket) -> None:
        if next(ended, None) is None:
            acks(sock)

    with serving(handle) as target:
        load = OpenLoad(target, transport_stream(188), 20, lambda event: None, rate_per_s=20)
        tally = load.run(warmup_s=0.0, window_s=1.0)
    assert tally.errors.total() < 5  # only those whose end crossed a chunk on its way
    assert len(tally.acks_s) > 5


def test_the_open_loop_counts_what_was_never_answered() -> None:
    with serving(lambda sock: time.sleep(1.0)) as target:
        load = OpenLoad(target, transport_stream(188), 1, lambda event: None, rate_per_s=50)
        tally = load.run(warmup_s=0.0, window_s=0.5, drain_s=0.1)
    assert not tally.acks_s
    assert tally.errors[UNANSWERED] > 10


def test_slow_clients_send_at_their_rate_and_get_their_acks() -> None:
    done: list[float] = []
    began_s = time.monotonic()

    def handle(sock: socket.socket) -> None:
        while read_request(sock) is not None:
            done.append(time.monotonic() - began_s)
            sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with serving(handle) as target:
        load = SlowLoad(target, transport_stream(20_000), 10, lambda event: None, bytes_per_s=20_000)
        tally = load.run(warmup_s=0.2, window_s=2.0, drain_s=0.5)
    assert not tally.errors
    assert 10 <= len(tally.acks_s) <= 30  # each about once a second, phases spread
    assert done
    assert done[0] < 0.8
