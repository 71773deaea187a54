"""The least HTTP/1.1 client that a camera needs: one keep-alive connection, one request at a time, bounded.

No redirects, no chunked answers, no TLS: Clipkeep's answers all have a length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from service.supervisor import Address
from storage.errors import WorldError

MAX_HEAD_BYTES = 64 * 1024
"""Far above any answer's head here; h11 and nginx draw the line at 16 and 32 KiB."""
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Four of the largest chunks: an answer beyond it is no chunk and no playlist."""
RECEIVE_BYTES = 64 * 1024


class ConnectionLost(WorldError):
    """The peer is not there, went away, said nothing in time, or speaks no HTTP/1.1. Whether a request was carried
    out is unknown: send it again."""

    code = "connection_lost"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The stable code of a refusal, "" when there is none."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return ""
        return str(document.get("error", "")) if isinstance(document, dict) else ""

    def __str__(self) -> str:
        return f"{self.status} {self.error}".strip()


class Wire:
    """One connection: made by the first request, and by the next one after a loss.

    Not for two tasks at once. A cancelled request drops the connection, for its answer may still come.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._stream: trio.SocketStream | None = None
        self._unread = bytearray()

    async def request(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 30.0,
    ) -> Response:
        """Send a request and return its answer.

        Args:
            timeout_s: for all of it.

        Raises:
            ConnectionLost: no answer.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._address}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        if body or method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
        response = None
        try:
            with trio.fail_after(timeout_s):
                response = await self._exchange(head, body)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise ConnectionLost(f"no answer: {why}", subject=str(self._address)) from error
        finally:
            if response is None or response.headers.get("connection", "").lower() == "close":
                self.close()
        return response

    def close(self) -> None:
        """Idempotent; at once."""
        stream, self._stream = self._stream, None
        self._unread.clear()
        if stream is not None:
            stream.socket.close()

    async def _exchange(self, head: bytes, body: bytes) -> Response:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(self._address.host, self._address.port)
        try:
            await self._stream.send_all(head)
            if body:
                await self._stream.send_all(body)
        except trio.BrokenResourceError:
            pass  # a server that refuses early stops reading; what it said may be here already
        while True:
            status, headers = _parse_head(await self._read_head())
            if status >= 200:
                length = 0 if status in (204, 304) else int(headers["content-length"])
                return Response(status, headers, await self._read(length))

    async def _read_head(self) -> bytes:
        while (end := self._unread.find(b"\r\n\r\n")) < 0:
            if len(self._unread) > MAX_HEAD_BYTES:
                raise ValueError("the head of the answer does not end")
            await self._receive()
        head = bytes(self._unread[:end])
        del self._unread[: end + 4]
        return head

    async def _read(self, length: int) -> bytes:
        if not 0 <= length <= MAX_BODY_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        while len(self._unread) < length:
            await self._receive()
        body = bytes(self._unread[:length])
        del self._unread[:length]
        return body

    async def _receive(self) -> None:
        assert self._stream is not None, "_exchange() connects"
        data = await self._stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError("the connection ended")
        self._unread += data


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers. ValueError when it is no HTTP/1.1, or tells no length."""
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if version != "HTTP/1.1" or not rest[:3].isdigit():
        raise ValueError(f"{first[:60]!r} is no status line")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    status = int(rest[:3])
    if status >= 200 and status not in (204, 304) and not headers.get("content-length", "").isdigit():
        raise ValueError("an answer without Content-Length")
    return status, headers
