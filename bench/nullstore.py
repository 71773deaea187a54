"""An S3-compatible null store in its own process: takes every object, counts it, keeps nothing.

It stands where the bucket stands in a bench, on the load generator's core, so it must cost next to nothing:
one loop, and bodies are dropped inside the kernel where that is possible (`MSG_TRUNC`, Linux). What it
measures is the service, never a store.

    python -m bench.nullstore --latency-ms 0        prints {"port": N}
    GET  /_stats                                    {"calls": {"PUT": 12}, "calls_total": 12, ...}
    POST /_reset                                    counts from zero again
    POST /_sample, then GET /_sample                the next object that was put, to look into; null before it

What is answered to which call is in `bench.s3calls`. Signatures are not looked at.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import selectors
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import httptools

from bench.s3calls import Answer, Request, S3Calls, parse_head

HEAD_LIMIT_BYTES = 64 * 1024
"""A signed PUT of boto3 has a head of about 1 KB."""
KEPT_BODY_LIMIT_BYTES = 4 * 1024 * 1024
"""Kept are bodies of POST (1000 keys of 1 KB each in a DeleteObjects, with room for the markup), state files of
tus servers, and one object when a sample was asked for."""
SCRATCH_BYTES = 1024 * 1024
BACKLOG = 4096
SEND_TIMEOUT_S = 5.0
"""For the one answer that may not fit a send buffer at once: DeleteObjects of 1000 long keys."""

DISCARD = getattr(socket, "MSG_TRUNC", 0) if sys.platform == "linux" else 0
"""tcp(7): with this flag Linux throws received bytes away instead of copying them out."""

_REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found", 411: "Length Required"}


@dataclass(slots=True)
class Stats:
    """What came in since the start or the last reset. `body_bytes` are those of complete PUT bodies."""

    calls: Counter[str] = field(default_factory=Counter)
    body_bytes: int = 0

    def as_json(self) -> dict[str, object]:
        return {
            "calls": dict(self.calls),
            "calls_total": self.calls.total(),
            "body_bytes": self.body_bytes,
            "cpu_s": time.process_time(),
        }


def encode(answer: Answer, *, is_head: bool, content_type: str = "application/xml") -> bytes:
    """Build a whole response. To HEAD and 204 no body is sent. `Date` is there because clients check clocks."""
    length = "" if answer.status == 204 else f"Content-Length: {len(answer.body)}\r\n"
    kind = f"Content-Type: {content_type}\r\n" if answer.body else ""
    fields = "".join(f"{name}: {value}\r\n" for name, value in answer.fields.items())
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nDate: {formatdate(usegmt=True)}\r\n"
        f"Server: nullstore\r\nx-amz-request-id: 0\r\n{fields}{kind}{length}\r\n"
    ).encode()
    return head if is_head or answer.status == 204 else head + answer.body


class _Connection:
    """One client: reads a head, drops or keeps its body, then is answered; one request at a time.

    Args:
        sock: non-blocking.
        is_wanted: asked once per request: keep its body?
    """

    __slots__ = ("_chunks", "_head", "_is_wanted", "_keeps", "_left", "body", "request", "sock")

    def __init__(self, sock: socket.socket, is_wanted: Callable[[Request], bool]) -> None:
        self.sock = sock
        self.request: Request | None = None
        self.body = bytearray()
        self._is_wanted = is_wanted
        self._head = bytearray()
        self._left = 0
        self._keeps = False
        self._chunks: _Chunks | None = None

    def receive(self, scratch: bytearray) -> Request | None:
        """Take what the socket has; return the request once it is complete.

        Raises:
            ConnectionError: the client left.
            ValueError: what it sent is not HTTP, or beyond a limit.
        """
        if self.request is None or self._keeps or self._chunks is not None:
            wanted = HEAD_LIMIT_BYTES if self.request is None else SCRATCH_BYTES
            count = self.sock.recv_into(scratch, wanted)
            self._take(memoryview(scratch)[:count])
        else:
            count = self.sock.recv_into(scratch, min(self._left, SCRATCH_BYTES), DISCARD)
            self._left -= count
        if not count:
            raise ConnectionResetError
        is_whole = self._chunks.ended if self._chunks is not None else not self._left
        return self.request if self.request is not None and is_whole else None

    def next_request(self) -> None:
        self.request = self._chunks = None
        self.body = bytearray()

    def _take(self, data: memoryview) -> None:
        if self.request is not None:
            self._take_body(data)
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > HEAD_LIMIT_BYTES:
                raise ValueError("head too large")
            return
        request = self.request = parse_head(bytes(self._head[:end]))
        rest = self._head[end + 4 :]
        self._head = bytearray()
        self._keeps = self._is_wanted(request)
        if self._keeps and request.length > KEPT_BODY_LIMIT_BYTES:
            raise ValueError("body too large")
        self._chunks = _Chunks() if request.chunked and request.length >= 0 else None
        self._left = 0 if request.chunked else request.length
        if request.wants_continue and not rest:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.length >= 0:  # else it is refused without its body
            self._take_body(memoryview(rest))

    def _take_body(self, data: memoryview) -> None:
        if self._chunks is not None:
            self._chunks.feed(data)
            return
        if len(data) > self._left:
            raise ValueError("pipelined request")  # no S3 client does that
        self._left -= len(data)
        if self._keeps:
            self.body += data


class _Chunks:
    """Finds the end of a chunked body; the bytes in it are dropped."""

    def __init__(self) -> None:
        self.ended = False
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    def feed(self, data: memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ValueError("not a chunked body") from error

    def on_message_complete(self) -> None:
        self.ended = True


class NullStore:
    """The loop. One thread; every wait is the selector's.

    Args:
        listener: listening socket; closed with the store.
        latency_s: how long each S3 call waits for its answer, from the end of its body.
        stop_on_eof: a stream whose end stops the loop: a parent's pipe, so that no store outlives its bench.
    """

    def __init__(
        self, listener: socket.socket, *, latency_s: float = 0.0, stop_on_eof: int | None = None
    ) -> None:
        self._listener = listener
        self._latency_s = latency_s
        self._calls = S3Calls()
        self._stats = Stats()
        self._sample: dict[str, Any] | None = None
        self._is_sampling = False
        self._scratch = bytearray(SCRATCH_BYTES)
        self._waiting: deque[tuple[float, _Connection]] = deque()
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, "accept")
        if stop_on_eof is not None:
            self._selector.register(stop_on_eof, selectors.EVENT_READ, "stop")

    def serve(self) -> None:
        """Serve until the `stop_on_eof` stream ends, for ever without one."""
        while True:
            for key, _ in self._selector.select(self._timeout_s()):
                if key.data == "stop":
                    return
                if key.data == "accept":
                    self._accept()
                else:
                    self._advance(key.data)
            self._answer_due()

    def _timeout_s(self) -> float | None:
        return max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ, _Connection(sock, self._is_wanted))

    def _is_wanted(self, request: Request) -> bool:
        return request.is_kept or (self._is_sampling and request.method == "PUT")

    def _advance(self, conn: _Connection) -> None:
        try:
            request = conn.receive(self._scratch)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._close(conn)
            return
        if request is None:
            return
        if request.is_control or not self._latency_s:
            self._answer(conn, request)
        else:
            # Unregistered, not ignored: a level-triggered selector would spin on a client that sends more.
            self._selector.unregister(conn.sock)
            self._waiting.append((time.monotonic() + self._latency_s, conn))

    def _answer_due(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, conn = self._waiting.popleft()
            self._selector.register(conn.sock, selectors.EVENT_READ, conn)
            assert conn.request is not None
            self._answer(conn, conn.request)

    def _answer(self, conn: _Connection, request: Request) -> None:
        if request.is_control:
            given = Answer(200, json.dumps(self._control(request)).encode())
            response = encode(given, is_head=False, content_type="application/json")
        else:
            self._count(request, conn.body)
            response = encode(self._calls.answer(request, bytes(conn.body)), is_head=request.method == "HEAD")
        must_close = request.length < 0
        conn.next_request()
        try:
            conn.sock.settimeout(SEND_TIMEOUT_S)
            conn.sock.sendall(response)
            conn.sock.setblocking(False)
        except OSError:
            must_close = True
        if must_close:
            self._close(conn)

    def _count(self, request: Request, body: bytearray) -> None:
        self._stats.calls[request.method] += 1
        if request.method != "PUT":
            return
        self._stats.body_bytes += max(0, request.length)
        if self._is_sampling and len(body) == request.length:
            text = base64.b64encode(body).decode()
            self._sample = {"target": request.target, "checksum": request.checksum, "body": text}
            self._is_sampling = False

    def _control(self, request: Request) -> dict[str, Any] | None:
        if request.target == "/_sample":
            if request.method == "POST":
                self._sample, self._is_sampling = None, True
            return self._sample
        if request.target == "/_reset":
            self._stats = Stats()
        return self._stats.as_json()

    def _close(self, conn: _Connection) -> None:
        self._selector.unregister(conn.sock)
        conn.sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="bench.nullstore", description="S3-compatible store that keeps nothing"
    )
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each answer")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when stdin does")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", options.port), backlog=BACKLOG)
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    stop = sys.stdin.fileno() if options.until_stdin_closes else None
    NullStore(listener, latency_s=options.latency_ms / 1000, stop_on_eof=stop).serve()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
