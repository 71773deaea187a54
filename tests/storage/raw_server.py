"""A server that shows what a client really sends, and answers whatever a test wants.

It speaks just enough HTTP/1.1: a head, a body of `Content-Length`, keep-alive. Bodies are read through one
small buffer and only small ones are kept, so that a test can count the client's own memory.
"""

from __future__ import annotations

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from io import BufferedReader

from storage.checksums import crc32

KEPT_BODY_BYTES = 1 << 16


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body_bytes: int = 0
    body_crc32: int = 0
    body: bytes = field(default=b"", repr=False)


Answer = Callable[[Request], bytes | None]
"""The raw bytes to send, or None to hang up."""


def response(status: int, body: bytes = b"", **headers: object) -> bytes:
    """A response; header names are given with `_` for `-`, and `Content-Length` may be overruled."""
    fields = {"Content-Length": len(body)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [
        f"HTTP/1.1 {status} Status",
        *(f"{name}: {value}" for name, value in fields.items() if value is not None),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def s3_error(status: int, code: str) -> bytes:
    return response(status, f"<Error><Code>{code}</Code><Message>in a word</Message></Error>".encode())


def confirmed(answer: bytes, request: Request) -> bytes:
    """An answer 200, with what S3 says of a body that it has."""
    line, newline, rest = answer.partition(b"\r\n")
    if not newline or b" 200 " not in line or b"etag" in rest.lower():
        return answer
    fields = f'ETag: "{request.body_crc32:032x}"\r\n'
    if b"x-amz-checksum-crc32" not in rest.lower():
        fields += f"x-amz-checksum-crc32: {b64encode(request.body_crc32.to_bytes(4, 'big')).decode()}\r\n"
    return line + newline + fields.encode() + rest


class RawServer:
    """Listens on a free port of 127.0.0.1 until closed.

    Args:
        tls: speak HTTPS with this certificate.
        kept_body_bytes: longest body of which a request keeps the bytes.

    Attributes:
        answer: asked for every request; may be replaced at any time.
        before_body: called between a head and its body, for a server that is slow to read.
        confirms: a 200 to a put that says nothing of the kind gets the `ETag` and the checksum that S3 would give.
        early: answers each PUT when its head is there, before any of the body is read; and whether the server
            `reads_on` then, or leaves the body and hangs up.
        hangs_up: after each answer.
        requests: all of them, in order.
        connections: how many were made.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, kept_body_bytes: int = KEPT_BODY_BYTES) -> None:
        self._tls = tls
        self._kept_body_bytes = kept_body_bytes
        self.answer: Answer = lambda request: response(200)
        self.before_body: Callable[[], object] = lambda: None
        self.confirms = True
        self.early: Callable[[Request], bytes] | None = None
        self.reads_on = True
        self.hangs_up = False
        self.requests: list[Request] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._tls is not None:
                try:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                except OSError:
                    continue
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as stream:
                while (request := self._read(stream, connection)) is not None:
                    self.requests.append(request)
                    answer = self.answer(request)
                    if answer is None:
                        return
                    if self.confirms and request.method == "PUT":
                        answer = confirmed(answer, request)
                    if self.early is None:
                        connection.sendall(answer)
                    if self.hangs_up or b"\r\nConnection: close" in answer:
                        return
        except (
            OSError,
            ValueError,
        ):  # ValueError: a TLS socket that `close` shut down gives what is encrypted
            return

    def _read(self, stream: BufferedReader, connection: socket.socket) -> Request | None:
        line = stream.readline().decode()
        if not line:
            return None
        method, target, _ = line.split()
        request = Request(method, target, {})
        while (line := stream.readline().decode().rstrip("\r\n")) != "":
            name, value = line.split(":", 1)
            request.headers[name.lower()] = value.strip()
        self.before_body()
        if self.early is not None and method == "PUT":
            connection.sendall(self.early(request))
            if not self.reads_on:
                return None
        remaining = int(request.headers.get("content-length", "0"))
        buffer = bytearray(KEPT_BODY_BYTES)
        while remaining:
            count = stream.readinto(memoryview(buffer)[: min(remaining, len(buffer))])
            if not count:
                return None
            piece = memoryview(buffer)[:count]
            request.body_crc32 = crc32(piece, request.body_crc32)
            request.body_bytes += count
            if request.body_bytes <= self._kept_body_bytes:
                request.body += bytes(piece)
            remaining -= count
        return request
