"""The closed loop of the load generator: each connection sends one chunk, waits for its ack, sends the next.

So the number of connections bounds what is in flight, and a server that is slow is asked less; a fixed
arrival rate is `bench.openload`. As cheap as Python allows: a request is one `sendmsg` of a prebuilt head and
one shared body buffer; epoll is edge-triggered, so a request costs a few system calls and no registration
changes. `bench.generate` runs it in a process of its own. Linux only (epoll).
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bench.tlsclient import TlsClient, Wire, client_context
from bench.wire import Heads, Target, is_stored, parse_answer

MAX_ERRORS = 1000
"""A server that refuses this many is not being measured; the run ends early and says so."""
RECEIVE_BYTES = 4096
"""An ack is about 200 bytes."""
CONNECT_TIMEOUT_S = 10.0
DRAIN_S = 5.0
"""After the window, how long answers still under way are waited for, so that the server sees whole requests."""
WARM_LIMIT_S = 20.0
"""A server at 13 MB/s with 256 connections of 1 MiB each."""
WARM_ROUNDS = 8
"""Chunks of a connection that a target may ask for before the window: few connections would take too long for more."""
TICK_S = 0.25
STORED = "stored"
QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "max": 1.0}
CURVE = {str(share): share for share in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)}
"""Of the acks, for a plot; further out than the number of chunks allows, neighbours are equal."""


@dataclass(slots=True)
class Tally:
    """What came back inside the measured window. `late_s`: how long after they were meant to be sent chunks of an
    open loop were begun, for want of a free connection or of the generator's time."""

    acks_s: array[float] = field(default_factory=lambda: array("d"))
    late_s: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    window_s: float = 0.0
    cpu_s: float = 0.0
    ciphers: set[str] = field(default_factory=set)
    """That connections agreed on; none in clear."""

    def as_json(self, chunk_bytes: int) -> dict[str, object]:
        return {
            "event": "result",
            "window_s": self.window_s,
            "chunks": len(self.acks_s),
            "bytes": len(self.acks_s) * chunk_bytes,
            "errors": dict(self.errors),
            "ack_ms": quantiles_ms(self.acks_s),
            "late_ms": quantiles_ms(self.late_s),
            "curve_ms": list(quantiles_ms(self.acks_s, CURVE).values()),
            "cpu_s": self.cpu_s,
            "ciphers": sorted(self.ciphers),
        }


def quantiles_ms(seconds: array[float], named: Mapping[str, float] = QUANTILES) -> dict[str, float]:
    """Return p50, p90, p99 and max in ms, or other named quantiles; zeros when there is nothing."""
    if not seconds:
        return dict.fromkeys(named, 0.0)
    values = np.quantile(np.frombuffer(seconds, dtype=np.float64), list(named.values()))
    return {name: float(value) * 1000 for name, value in zip(named, values, strict=True)}


class Connection:
    """One socket with at most one request under way; no head, nothing under way. Times in s of the load's clock."""

    __slots__ = ("body", "head", "received", "sent", "sock", "started_s", "status")

    def __init__(self, sock: Wire, body: memoryview) -> None:
        self.sock = sock
        self.head = b""
        self.body = body
        self.sent = 0
        self.started_s = 0.0
        self.received = b""
        self.status = ""  # of an answer that came before the whole body was sent


class Load:
    """The closed loop.

    Args:
        target: where to send, and as whom.
        body: shared by all requests, never changed.
        connections: how many are kept open, each with one request under way.
        announce: called with the name of each event, at once.
        max_chunks: after so many, no more are sent; then none goes into a longer warm-up.
        clock_s: monotonic seconds.
    """

    def __init__(
        self,
        target: Target,
        body: bytearray,
        connections: int,
        announce: Callable[[str], None],
        *,
        max_chunks: int | None = None,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._target = target
        self._body = memoryview(body)
        self._wanted = connections
        self._connected = 0
        self._announce = announce
        self._clock_s = clock_s
        self._chunks_left = sys.maxsize if max_chunks is None else max_chunks
        self._counts_all = max_chunks is not None
        self._context = client_context(target.authority) if target.authority else None
        self._ciphers: set[str] = set()
        self._heads = Heads(target, len(body), int(time.time() * 1000))
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._tally = Tally()
        self._sending = True
        self._stopped = False

    def stop(self) -> None:
        """End `run` at once, without waiting for what is under way; may be called by a signal handler."""
        self._stopped = True

    def run(self, warmup_s: float, window_s: float, drain_s: float = DRAIN_S) -> Tally:
        """Load the target for at least `warmup_s` unmeasured and for `window_s` measured seconds, then wait for
        what is under way, `drain_s` at most. The warm-up lasts until there were as many answers as connections,
        and as many as the target asks for (`WARM_ROUNDS` each at most), `WARM_LIMIT_S` longer at most.

        Raises:
            OSError: the target cannot be connected to.
        """
        for _ in range(self._wanted):
            self._freed(self._connect())
        self._turn_until(self._clock_s() + warmup_s)
        limit_s = self._clock_s() + WARM_LIMIT_S
        while self._is_cold() and self._clock_s() < limit_s:
            self._turn_until(self._clock_s() + TICK_S)
        early = self._tally.errors  # a broken set-up shows in the warm-up already: keep it
        self._tally = Tally(errors=early)
        self._announce("warm")
        began_s, cpu_s = self._clock_s(), time.process_time()
        self._turn_until(began_s + window_s)
        tally, self._tally = self._tally, Tally()
        tally.window_s, tally.cpu_s = self._clock_s() - began_s, time.process_time() - cpu_s
        tally.ciphers = self._ciphers
        self._announce("measured")
        self._sending = False
        self._turn_until(self._clock_s() + drain_s)
        self._close()
        return tally

    def _turn_until(self, deadline_s: float) -> None:
        while (left_s := deadline_s - self._clock_s()) > 0 and self._open and not self._stopped:
            for fd, mask in self._epoll.poll(min(left_s, self._patience_s())):
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

    def _is_cold(self) -> bool:
        """True while not every connection can have been answered once: a slow server is not yet in its stride."""
        if self._counts_all or self._stopped or not self._open:
            return False
        answers = len(self._tally.acks_s) + self._tally.errors.total()
        more = min(self._target.warm_chunks, WARM_ROUNDS * self._wanted)
        return self._sending and answers < max(self._wanted, more)

    def _patience_s(self) -> float:
        """How long one poll may take at most."""
        return TICK_S

    def _connect(self) -> Connection:
        sock = socket.create_connection(self._target.address(self._connected), CONNECT_TIMEOUT_S)
        self._connected += 1
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conn = self._open[sock.fileno()] = Connection(self._secured(sock), self._body)
        sock.setblocking(False)
        self._epoll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        return conn

    def _secured(self, sock: socket.socket) -> Wire:
        if self._context is None:
            return sock
        wire = TlsClient(sock, self._context, self._target.host)
        self._ciphers.add(wire.cipher())
        return wire

    def _freed(self, conn: Connection) -> None:
        """Nothing is under way on `conn`: send the next chunk, or let it go."""
        if self._sending and self._chunks_left > 0:
            self._start(conn, self._clock_s())
        else:
            self._drop(conn)

    def _start(self, conn: Connection, started_s: float) -> None:
        self._chunks_left -= 1
        conn.head = self._heads.next()
        conn.sent = 0
        conn.started_s = started_s
        self._send(conn)

    def _send(self, conn: Connection) -> None:
        """Send until the request is out or the socket is full (then the next EPOLLOUT edge comes back here)."""
        if not conn.head:
            return  # at rest: the edge that a new socket begins with
        head_bytes = len(conn.head)
        total = head_bytes + len(conn.body)
        with contextlib.suppress(BlockingIOError):
            while conn.sent < total:
                if conn.sent < head_bytes:
                    conn.sent += conn.sock.sendmsg((conn.head[conn.sent :], conn.body))
                else:
                    conn.sent += conn.sock.send(conn.body[conn.sent - head_bytes :])
        if conn.sent == total and conn.status:
            self._finish(conn)

    def _receive(self, conn: Connection) -> None:
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
        if found is not None and not conn.head:
            raise ValueError("an answer to nothing")
        if found is not None:
            status, length = found
            answer, conn.received = conn.received[:length], conn.received[length:]
            if self._goes_on(conn, status, answer):
                return
            stored = is_stored(self._target.dialect, status, answer, len(self._body))
            conn.status = STORED if stored else str(status)
            if conn.sent == len(conn.head) + len(conn.body):
                self._finish(conn)
                return
        self._send(conn)  # the same event may have been the EPOLLOUT edge as well

    def _goes_on(self, conn: Connection, status: int, answer: bytes) -> bool:
        """Whether an answer is not a chunk's last one: then its next request is under way."""
        return False

    def _finish(self, conn: Connection) -> None:
        if conn.status == STORED:
            self._acknowledged(conn)
        else:
            self._count_error(conn.status)
        conn.status, conn.head = "", b""
        self._freed(conn)

    def _acknowledged(self, conn: Connection) -> None:
        self._tally.acks_s.append(self._clock_s() - conn.started_s)

    def _failed(self, conn: Connection, error: Exception) -> None:
        self._count_error(conn.status or type(error).__name__)
        self._drop(conn)
        if self._sending:
            self._freed(self._connect())

    def _count_error(self, kind: str) -> None:
        self._tally.errors[kind] += 1
        if self._tally.errors.total() >= MAX_ERRORS:
            self._sending = False

    def _drop(self, conn: Connection) -> None:
        self._open.pop(conn.sock.fileno(), None)
        conn.sock.close()

    def _close(self) -> None:
        for conn in list(self._open.values()):
            self._drop(conn)
        self._epoll.close()
