"""An S3-compatible null store in its own process: takes every object, counts it, keeps nothing.

It stands where the bucket stands in a bench, on the load generator's core, so it must cost next to nothing:
one loop, and bodies are dropped inside the kernel where that is possible (`MSG_TRUNC`, Linux). What it
measures is the service, never a store.

    python -m bench.nullstore --latency-ms 0        prints {"port": N}
    GET  /_stats                                    {"calls": {"PUT": 12}, "calls_total": 12, ...}
    POST /_reset                                    counts from zero again

Answered as S3 would: PUT object (200), HEAD bucket (200), POST ?delete (every key deleted), ListObjectsV2
(empty), DELETE object (204), GET and HEAD of an object (404: nothing is kept). A chunked body is refused with
411, as S3 does without a decoded length. Signatures are not looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import selectors
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from email.utils import formatdate
from urllib.parse import unquote, urlsplit
from xml.sax.saxutils import escape

HEAD_LIMIT_BYTES = 64 * 1024
"""A signed PUT of boto3 has a head of about 1 KB."""
KEPT_BODY_LIMIT_BYTES = 4 * 1024 * 1024
"""Only POST bodies are kept: 1000 keys of 1 KB each in a DeleteObjects, with room for the markup."""
SCRATCH_BYTES = 1024 * 1024
BACKLOG = 1024
SEND_TIMEOUT_S = 5.0
"""For the one answer that may not fit a send buffer at once: DeleteObjects of 1000 long keys."""

DISCARD = getattr(socket, "MSG_TRUNC", 0) if sys.platform == "linux" else 0
"""tcp(7): with this flag Linux throws received bytes away instead of copying them out."""

_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_QUIET = re.compile(rb"<Quiet>\s*true\s*</Quiet>", re.IGNORECASE)
_REASONS = {200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found", 411: "Length Required"}
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


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


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed head. `length` is the Content-Length, 0 when absent."""

    method: str
    target: str
    length: int
    wants_continue: bool
    chunked: bool

    @property
    def is_control(self) -> bool:
        """True for the bench's own calls, which are neither counted nor delayed."""
        return self.target in ("/_stats", "/_reset")


def parse_head(head: bytes) -> Request:
    """Parse a request head without its final blank line.

    Raises:
        ValueError: it is not an HTTP/1.1 request.
    """
    lines = head.decode("latin-1").split("\r\n")
    method, target, _version = lines[0].split(" ")
    fields = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])}
    length = int(fields.get("content-length", "0"))
    if length < 0:
        raise ValueError("negative Content-Length")
    expects = fields.get("expect", "").lower() == "100-continue"
    return Request(method, target, length, expects, "transfer-encoding" in fields)


def answer(request: Request, body: bytes) -> tuple[int, str]:
    """Return status and XML body for one S3 call. Pure: no socket, no counter, no clock."""
    parts = urlsplit(request.target)
    query = parts.query.split("&") if parts.query else []
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    if request.chunked:
        return 411, _XML + "<Error><Code>MissingContentLength</Code></Error>"
    if request.method == "POST" and any(x in ("delete", "delete=") for x in query):
        return 200, _deleted(body)
    if request.method == "PUT":
        return 200, ""
    if request.method == "DELETE":
        return 204, ""
    if key:
        return 404, _XML + f"<Error><Code>NoSuchKey</Code><Key>{escape(key)}</Key></Error>"
    if request.method == "HEAD":
        return 200, ""
    return 200, _XML + (
        f"<ListBucketResult><Name>{escape(bucket)}</Name><Prefix></Prefix><KeyCount>0</KeyCount>"
        "<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
    )


def _deleted(body: bytes) -> str:
    keys = [] if _QUIET.search(body) else _KEY.findall(body)  # still escaped, and go back escaped
    inner = "".join(f"<Deleted><Key>{key.decode()}</Key></Deleted>" for key in keys)
    return f"{_XML}<DeleteResult>{inner}</DeleteResult>"


def encode(status: int, text: str, *, is_head: bool, content_type: str = "application/xml") -> bytes:
    """Build a whole response. To HEAD and 204 no body is sent. `Date` is there because clients check clocks."""
    body = b"" if is_head or status == 204 else text.encode()
    length = "" if status == 204 else f"Content-Length: {len(body)}\r\n"
    kind = f"Content-Type: {content_type}\r\n" if body else ""
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nDate: {formatdate(usegmt=True)}\r\nServer: nullstore\r\n"
        f'x-amz-request-id: 0\r\nETag: "0"\r\n{kind}{length}\r\n'
    ).encode() + body


class _Connection:
    """One client: reads a head, drops or keeps its body, then is answered; one request at a time."""

    __slots__ = ("body", "body_left", "head", "request", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = bytearray()
        self.request: Request | None = None
        self.body = bytearray()
        self.body_left = 0

    def receive(self, scratch: bytearray) -> Request | None:
        """Take what the socket has; return the request once it is complete.

        Raises:
            ConnectionError: the client left.
            ValueError: what it sent is not HTTP, or beyond a limit.
        """
        if self.request is None or self.request.method == "POST":
            count = self.sock.recv_into(scratch, HEAD_LIMIT_BYTES)
            self._take(memoryview(scratch)[:count])
        else:
            count = self.sock.recv_into(scratch, min(self.body_left, SCRATCH_BYTES), DISCARD)
            self.body_left -= count
        if not count:
            raise ConnectionResetError
        return self.request if self.request and not self.body_left else None

    def _take(self, data: memoryview) -> None:
        if self.request is not None:
            self._take_body(data)
            return
        self.head += data
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            if len(self.head) > HEAD_LIMIT_BYTES:
                raise ValueError("head too large")
            return
        self.request = parse_head(bytes(self.head[:end]))
        rest = self.head[end + 4 :]
        self.head = bytearray()
        self.body_left = 0 if self.request.chunked else self.request.length
        if self.request.method == "POST" and self.body_left > KEPT_BODY_LIMIT_BYTES:
            raise ValueError("body too large")
        if self.request.wants_continue and not rest:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._take_body(memoryview(rest))

    def _take_body(self, data: memoryview) -> None:
        if len(data) > self.body_left:
            raise ValueError("pipelined request")  # no S3 client does that
        self.body_left -= len(data)
        if self.request and self.request.method == "POST":
            self.body += data

    def next_request(self) -> None:
        self.request = None
        self.body = bytearray()


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
        self._stats = Stats()
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
            self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))

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
            self._answer(conn)
        else:
            # Unregistered, not ignored: a level-triggered selector would spin on a client that sends more.
            self._selector.unregister(conn.sock)
            self._waiting.append((time.monotonic() + self._latency_s, conn))

    def _answer_due(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, conn = self._waiting.popleft()
            self._selector.register(conn.sock, selectors.EVENT_READ, conn)
            self._answer(conn)

    def _answer(self, conn: _Connection) -> None:
        request = conn.request
        assert request is not None
        if request.is_control:
            text = json.dumps(self._control(request))
            response = encode(200, text, is_head=False, content_type="application/json")
        else:
            self._stats.calls[request.method] += 1
            self._stats.body_bytes += request.length if request.method == "PUT" else 0
            status, text = answer(request, bytes(conn.body))
            response = encode(status, text, is_head=request.method == "HEAD")
        must_close = request.chunked
        conn.next_request()
        try:
            conn.sock.settimeout(SEND_TIMEOUT_S)
            conn.sock.sendall(response)
            conn.sock.setblocking(False)
        except OSError:
            must_close = True
        if must_close:
            self._close(conn)

    def _control(self, request: Request) -> dict[str, object]:
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
