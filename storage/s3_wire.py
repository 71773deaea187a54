"""How the bytes leave for S3: what a connection of urllib3 lacks. For `storage.s3`, which mixes it into botocore's."""

from __future__ import annotations

import math
import select
import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

NEAR_RTT_S = 0.002
"""A store closer than this is on the same site: its switch queues the burst of a segment, no modem does."""
LEAST_LOOK_S, MOST_LOOK_S = 0.001, 0.02
"""How long after the first byte of a request its last one stays here, at least: two round trips, within these bounds.
Without it a small body has left before an answer to its head can be here. A large one takes longer by itself."""

_TIMEVAL = struct.Struct("@ll")
_RTT_AT = 68  # of tcpi_rtt in the kernel's struct tcp_info: u32, microseconds
_U32 = struct.Struct("@I")
_NAME_BYTES = 16  # TCP_CA_NAME_MAX


@dataclass(frozen=True, slots=True)
class SentRequest:
    """What one request looked like: through which pool of urllib3, to which path, with which headers. Not its body."""

    pool: Any
    path: str
    headers: Mapping[str, str]


class LastSent(threading.local):
    """The last PUT of this thread that was answered 200, until somebody takes it from here."""

    request: SentRequest | None = None
    early: bool = False
    """Whether the store answered this thread's last body before it had left."""
    bare: bool = False
    """Whether this thread's call is to go without `x-amz-checksum-*`."""


class PatientConnection:
    """Gives the body a timeout of its own, and the connection to a near store no pacing (`unpace_when_near`).

    urllib3 sends the body under the *connect* timeout (urllib3#857, open since 2016). With 3 s and 32 puts of
    8 MiB in flight, puts fail on any link below 90 MB/s, and their retries keep it busy. So the send gets as
    long as the wait for the answer.

    A body also leaves in as few calls as the kernel takes it in. A socket with a timeout is non-blocking to Python,
    which then comes back for the interpreter's lock each time the kernel has room for a little more, and takes it from
    whoever receives chunks: 4 to 5 % of the CPU per GB where it was measured.
    """

    send_timeout_s: float
    unpaced_when_near: bool
    last: LastSent

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        this: Any = self
        if self.unpaced_when_near and isinstance(this.sock, socket.socket):  # it is not within a proxy's TLS
            unpace_when_near(this.sock)

    def request(self, *args: Any, **kwargs: Any) -> Any:
        this: Any = self
        if this.sock is None:
            this.connect()
        # `request` puts it on the open socket; the pool sets what follows after the body.
        this.timeout = self.send_timeout_s
        return super().request(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send one part of a request. A body has `send_timeout_s` in all."""
        this: Any = self
        if not isinstance(data, bytearray):
            super().send(data)  # type: ignore[misc]
            return
        usual_s = this.sock.gettimeout()
        try:
            # urllib3 reads the answer also where the peer hung up on the body.
            self.last.early = True
            self.last.early = send_until(time.monotonic() + self.send_timeout_s, this.sock, b"", data)
        finally:
            this.sock.settimeout(usual_s)


class RememberingPool:
    """Notes, for each thread, what a PUT that was answered 200 looked like, unless it went through a proxy."""

    last: LastSent

    def urlopen(
        self, method: str, url: str, body: Any = None, headers: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        this: Any = self
        self.last.request = None
        answer = super().urlopen(method, url, body, headers, *args, **kwargs)  # type: ignore[misc]
        if method == "PUT" and answer.status == 200 and this.proxy is None:
            self.last.request = SentRequest(this, url, headers)
        return answer


def send_until(deadline_s: float, sock: Any, head: bytes, body: bytearray, *, may_lose: bool = False) -> bool:
    """Send all of both, by a deadline on the monotonic clock. The socket's own timeout is another one afterwards.

    The last byte of the body leaves by itself, after a look at what has come: nobody can have read a body of which a
    byte is still here. An answer to the head alone is given the time to come (`LEAST_LOOK_S`).

    Args:
        may_lose: over TLS one can't look without taking. Without this, what came early over TLS is not noticed; with
            it, some of what came is lost, and the connection of no further use.

    Returns:
        Whether there was an answer, or the end of the connection, before the last byte left.

    Raises:
        TimeoutError: they did not leave in time.
        OSError: the peer is gone.
    """
    is_plain = type(sock) is socket.socket
    look_until_s = time.monotonic() + _two_round_trips_s(sock)
    if is_plain:
        sock.settimeout(None)
    with memoryview(body) as view, view[:-1] as most, view[-1:] as last:
        _send_part(deadline_s, sock, head, most, is_plain)
        early = False
        if body and (is_plain or may_lose):
            _wait_for_answer(sock, look_until_s)
            early = _has_come(sock) if is_plain else _has_come_over_tls(sock)
        _send_part(deadline_s, sock, b"", last, is_plain)
    return early


def _two_round_trips_s(sock: Any) -> float:
    """As the kernel measured them, within bounds; the least where it does not tell."""
    rtt_us = 0
    if sys.platform == "linux":
        with suppress(OSError):
            rtt_us = _round_trip_us(sock)
    return min(max(2e-6 * rtt_us, LEAST_LOOK_S), MOST_LOOK_S)


def _round_trip_us(sock: Any) -> int:
    (rtt_us,) = _U32.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT_AT + 4)[_RTT_AT:])
    return int(rtt_us)


def _wait_for_answer(sock: Any, until_s: float) -> None:
    left_ms = math.ceil((until_s - time.monotonic()) * 1000)
    if left_ms > 0:
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.poll(left_ms)


def _has_come_over_tls(sock: ssl.SSLSocket) -> bool:
    sock.settimeout(0)
    try:
        sock.recv(1)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    return True


def _has_come(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True


def _send_part(deadline_s: float, sock: socket.socket, head: bytes, body: memoryview, is_plain: bool) -> None:
    total, sent = len(head) + len(body), 0
    while sent < total:
        left_us = round((deadline_s - time.monotonic()) * 1e6)
        if left_us <= 0:
            raise TimeoutError(f"{total - sent} of {total} bytes did not leave in time")
        with body[max(0, sent - len(head)) :] as rest:
            if is_plain:
                # In the kernel the time runs over the whole call, however little room it finds at once (socket(7)).
                left = _TIMEVAL.pack(*divmod(left_us, 1_000_000))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, left)
                with suppress(BlockingIOError):
                    sent += sock.sendmsg((head[sent:], rest))
            else:
                # A call of TLS is several of the kernel's, each of which would have the whole time.
                sock.settimeout(left_us / 1e6)
                sent += sock.send(head[sent:] or rest)


def unpace_when_near(sock: socket.socket) -> None:
    """Take the connection from bbr to cubic, or to reno, when its peer is within `NEAR_RTT_S`; else nothing.

    bbr lets a timer pace what leaves. Across a fraction of a millisecond that spares no queue, and the timer's
    interrupts cost half of what sending does. Another choice of the administrator than bbr is left alone. Not every
    system has cubic, or permits it to every user (net.ipv4.tcp_allowed_congestion_control); reno is everywhere.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError):
        rtt_us = _round_trip_us(sock)
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES)
        if rtt_us >= NEAR_RTT_S * 1e6 or name.rstrip(b"\0") != b"bbr":
            return
        for unpaced in (b"cubic", b"reno"):
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, unpaced)
                return
