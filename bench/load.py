"""Load generator in its own process: a closed loop over keep-alive connections, as cheap as Python allows.

Each connection sends one chunk, waits for its ack, and sends the next: so the number of connections bounds
what is in flight, and a server that is slow is asked less (a fixed arrival rate is another bench). A request
is one `sendmsg` of a prebuilt head and one shared body buffer; epoll is edge-triggered, so a request costs
a few system calls and no registration changes.

    python -m bench.load --target target.json --size 65536 --connections 64 --seconds 5 --warmup 1

`target.json`: {"host": "127.0.0.1", "port": 8080, "devices": [[1, "TOKEN"], ...]}. One JSON line per event
on stdout: `{"event": "warm"}` as the measured window opens, `{"event": "measured"}` as it closes, then
`{"event": "result", ...}`, the fields of `Tally.as_json`. Linux only (epoll).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import re
import select
import socket
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.media import CHUNK_DURATION_MS, transport_stream

MAX_ERRORS = 1000
"""A server that refuses this many is not being measured; the run ends early and says so."""
ANSWER_LIMIT_BYTES = 64 * 1024
RECEIVE_BYTES = 4096
"""An ack is about 200 bytes."""
CONNECT_TIMEOUT_S = 10.0
DRAIN_S = 5.0
"""After the window, how long answers still under way are waited for, so that the server sees whole requests."""
TICK_S = 0.25
QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "max": 1.0}

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


class Device(NamedTuple):
    """A device number and its upload token."""

    number: int
    token: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where to send, and as whom."""

    host: str
    port: int
    devices: tuple[Device, ...]

    @classmethod
    def read(cls, path: Path) -> Target:
        document = json.loads(path.read_text())
        return cls(document["host"], document["port"], tuple(Device(*x) for x in document["devices"]))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"host": self.host, "port": self.port, "devices": self.devices}))


@dataclass(slots=True)
class Tally:
    """What came back inside the measured window."""

    acks_s: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    window_s: float = 0.0
    cpu_s: float = 0.0

    def as_json(self, chunk_bytes: int) -> dict[str, object]:
        return {
            "event": "result",
            "window_s": self.window_s,
            "chunks": len(self.acks_s),
            "bytes": len(self.acks_s) * chunk_bytes,
            "errors": dict(self.errors),
            "ack_ms": quantiles_ms(self.acks_s),
            "cpu_s": self.cpu_s,
        }


def quantiles_ms(seconds: array[float]) -> dict[str, float]:
    """Return p50, p90, p99 and max in ms; zeros when there is nothing."""
    if not seconds:
        return dict.fromkeys(QUANTILES, 0.0)
    values = np.quantile(np.frombuffer(seconds, dtype=np.float64), list(QUANTILES.values()))
    return {name: float(value) * 1000 for name, value in zip(QUANTILES, values, strict=True)}


class Heads:
    """Builds request heads: all but the capture time is prepared once per device.

    Capture times of a device start at `start_ms` and grow by 1 ms, so they are unique per device and stay
    near the clock (a server refuses times more than 10 min ahead) up to 1000 chunks/s and device.
    """

    def __init__(self, target: Target, body_bytes: int, start_ms: int) -> None:
        self._starts = [f"PUT /v1/devices/{device.number}/chunks/".encode() for device in target.devices]
        self._ends = [
            (
                f" HTTP/1.1\r\nHost: {target.host}:{target.port}\r\nAuthorization: Bearer {device.token}\r\n"
                f"Content-Type: video/mp2t\r\nClip-Duration-Ms: {CHUNK_DURATION_MS}\r\n"
                f"Content-Length: {body_bytes}\r\n\r\n"
            ).encode()
            for device in target.devices
        ]
        self._start_ms = start_ms
        self._count = 0

    def next(self) -> bytes:
        """Return the head of the next chunk; devices take turns."""
        turn, index = divmod(self._count, len(self._starts))
        self._count += 1
        return b"%b%d%b" % (self._starts[index], self._start_ms + turn, self._ends[index])


def parse_answer(data: bytes) -> tuple[int, int] | None:
    """Return status and whole length of the answer at the start of `data`, None while it is incomplete.

    Raises:
        ValueError: not an HTTP/1.1 answer, or one that is not sized.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > ANSWER_LIMIT_BYTES:
            raise ValueError("answer head too large")
        return None
    match = _LENGTH.search(data, 0, end)
    status = int(data[9:12])
    if match is None and status != 204:
        raise ValueError("answer without Content-Length")
    total = end + 4 + (int(match[1]) if match else 0)
    return (status, total) if len(data) >= total else None


class _Connection:
    __slots__ = ("head", "received", "sent", "sock", "started_s", "status")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = b""
        self.sent = 0
        self.started_s = 0.0
        self.received = b""
        self.status = 0  # of an answer that came before the whole body was sent


class Load:
    """The closed loop.

    Args:
        target: where to send, and as whom.
        body: shared by all requests, never changed.
        connections: how many are kept open, each with one request under way.
        announce: called with the name of each event, at once.
        clock_s: monotonic seconds.
    """

    def __init__(
        self,
        target: Target,
        body: bytearray,
        connections: int,
        announce: Callable[[str], None],
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._target = target
        self._body = memoryview(body)
        self._wanted = connections
        self._announce = announce
        self._clock_s = clock_s
        self._heads = Heads(target, len(body), int(time.time() * 1000))
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._tally = Tally()
        self._sending = True

    def run(self, warmup_s: float, window_s: float, drain_s: float = DRAIN_S) -> Tally:
        """Load the target for `warmup_s` unmeasured and `window_s` measured seconds, then wait for what is
        under way, `drain_s` at most.

        Raises:
            OSError: the target cannot be connected to.
        """
        for _ in range(self._wanted):
            self._start(self._connect())
        self._turn_until(self._clock_s() + warmup_s)
        early = self._tally.errors  # a broken set-up shows in the warm-up already: keep it
        self._tally = Tally(errors=early)
        self._announce("warm")
        began_s, cpu_s = self._clock_s(), time.process_time()
        self._turn_until(began_s + window_s)
        tally, self._tally = self._tally, Tally()
        tally.window_s, tally.cpu_s = self._clock_s() - began_s, time.process_time() - cpu_s
        self._announce("measured")
        self._sending = False
        self._turn_until(self._clock_s() + drain_s)
        for conn in list(self._open.values()):
            self._drop(conn)
        self._epoll.close()
        return tally

    def _turn_until(self, deadline_s: float) -> None:
        while (left_s := deadline_s - self._clock_s()) > 0 and self._open:
            for fd, mask in self._epoll.poll(min(left_s, TICK_S)):
                conn = self._open.get(fd)
                if conn is None:
                    continue
                try:
                    if mask & ~select.EPOLLOUT:
                        self._receive(conn)
                    elif mask & select.EPOLLOUT:
                        self._send(conn)
                except (OSError, ValueError) as error:
                    self._failed(conn, error)

    def _connect(self) -> _Connection:
        sock = socket.create_connection((self._target.host, self._target.port), CONNECT_TIMEOUT_S)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = self._open[sock.fileno()] = _Connection(sock)
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        return conn

    def _start(self, conn: _Connection) -> None:
        conn.head = self._heads.next()
        conn.sent = 0
        conn.started_s = self._clock_s()
        self._send(conn)

    def _send(self, conn: _Connection) -> None:
        """Send until the request is out or the socket is full (then the next EPOLLOUT edge comes back here)."""
        head_bytes = len(conn.head)
        total = head_bytes + len(self._body)
        with contextlib.suppress(BlockingIOError):
            while conn.sent < total:
                if conn.sent < head_bytes:
                    conn.sent += conn.sock.sendmsg((conn.head[conn.sent :], self._body))
                else:
                    conn.sent += conn.sock.send(self._body[conn.sent - head_bytes :])
        if conn.sent == total and conn.status:
            self._finish(conn)

    def _receive(self, conn: _Connection) -> None:
        """Take all that has come: an edge is not repeated, but a short read has drained the socket."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data = conn.sock.recv(RECEIVE_BYTES)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "closed by the server")
                conn.received += data
                if len(data) < RECEIVE_BYTES:
                    break
        found = parse_answer(conn.received)
        if found is not None:
            conn.status, length = found
            conn.received = conn.received[length:]
            if conn.sent == len(conn.head) + len(self._body):
                self._finish(conn)
                return
        self._send(conn)  # the same event may have been the EPOLLOUT edge as well

    def _finish(self, conn: _Connection) -> None:
        if conn.status == 201:
            self._tally.acks_s.append(self._clock_s() - conn.started_s)
        else:
            self._count_error(str(conn.status))
        conn.status = 0
        if self._sending:
            self._start(conn)
        else:
            self._drop(conn)

    def _failed(self, conn: _Connection, error: Exception) -> None:
        self._count_error(str(conn.status) if conn.status else type(error).__name__)
        self._drop(conn)
        if self._sending:
            self._start(self._connect())

    def _count_error(self, kind: str) -> None:
        self._tally.errors[kind] += 1
        if self._tally.errors.total() >= MAX_ERRORS:
            self._sending = False

    def _drop(self, conn: _Connection) -> None:
        self._open.pop(conn.sock.fileno(), None)
        conn.sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.load", description="closed-loop load of chunk uploads")
    parser.add_argument("--target", type=Path, required=True, help="JSON file: host, port, devices")
    parser.add_argument(
        "--size", type=int, required=True, help="bytes of a chunk (rounded down to MPEG-TS packets)"
    )
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="measured window")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before it")
    options = parser.parse_args()
    body = transport_stream(options.size)

    def announce(event: str) -> None:
        print(json.dumps({"event": event}), flush=True)

    load = Load(Target.read(options.target), body, options.connections, announce)
    tally = load.run(options.warmup, options.seconds)
    print(json.dumps(tally.as_json(len(body))), flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
