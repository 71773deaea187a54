"""One request and its answer: a call of the ASGI application (spec 2.4, `http` scope).

The application writes at its client's pace. When the client is gone, or reads too slowly, the call is cancelled at its
`send`: before the answer has begun nothing is cut short, since what a handler has begun to change it finishes.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import trio

from service.clients import network_of
from service.http import answers
from service.http.framing import Need
from service.http.heads import RequestHead
from service.http.refusals import Refused
from service.http.transport import Gone

if TYPE_CHECKING:
    from service.http.connection import Connection
    from service.http.turns import Turn

Message = MutableMapping[str, Any]

JOINED_BYTES = 64 * 1024
"""A body up to this goes out in one piece with its head."""


class Sent(Enum):
    """How far the answer is. NOTHING → HEAD_KEPT → BODY → ALL: the head waits for the first of the body."""

    NOTHING = auto()
    HEAD_KEPT = auto()
    BODY = auto()
    ALL = auto()


class Exchange:
    """One request, until it is answered."""

    def __init__(self, connection: Connection, head: RequestHead) -> None:
        self._connection = connection
        self._head = head
        peer = connection.client
        asked_by = connection.server.clients.of_request(peer[0], head.headers)
        self._client = peer if asked_by == peer[0] else (asked_by, 0)
        """Who asks; port 0: as a proxy says, of which the port tells nothing."""
        self._sent = Sent.NOTHING
        self._over = trio.Event()
        self._scope = trio.CancelScope()
        self._answer: Message = {}
        self._left_bytes: int | None = None
        """Of a body whose length was announced; None: it goes in chunks."""
        self._turn: Turn | None = None
        """Given back with the first of the answer: what is sent at the client's pace is shared out elsewhere."""
        self._close = not head.keep_alive
        self._told_to_continue = not head.expects_continue
        self._told_complete = False
        """Whether the application has the last piece of the body."""
        self._broken: Refused | Gone | None = None
        """Why the rest of the body can't be had."""

    async def run(self) -> bool:
        """Call the application. Returns whether the connection may go on.

        Raises:
            Gone: the client has left.
            Refused: the body is no HTTP. Nothing was answered yet.
        """
        server = self._connection.server
        self._turn = await server.turns.take(network_of(self._client[0]))
        try:
            with self._scope:
                try:
                    await server.app(self._asgi_scope(), self.receive, self.send)
                except Exception as error:
                    server.on_failure(error, answered=self._sent is Sent.ALL)
        finally:
            server.turns.back(self._turn)
        self._over.set()
        if self._sent is Sent.ALL:
            return not self._close
        if self._scope.cancelled_caught:
            raise Gone
        if self._sent is Sent.BODY:
            return (
                False  # it ends with its connection before its time, and does not look like one that is whole
            )
        if self._broken is not None:
            raise self._broken
        detail = "a fault of the service; the operator's log says more"
        raise Refused(500, "internal", detail)

    def _asgi_scope(self) -> dict[str, Any]:
        head, connection = self._head, self._connection
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": head.version,
            "method": head.method,
            "scheme": "https"
            if connection.is_tls
            else connection.server.clients.scheme_of_request(connection.client[0], head.headers),
            "path": head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "root_path": "",
            "headers": head.headers,
            "client": self._client,
            "server": connection.server.address,
            "state": connection.server.state.copy(),
            "extensions": {},
        }

    # --- the request's body -----------------------------------------------------------------------------------

    async def receive(self) -> Message:
        """The next piece of the body; behind it, that the exchange is over."""
        framer = self._connection.framer
        if self._told_complete:
            await self._over.wait()
        if self._over.is_set() or self._broken is not None:
            return {"type": "http.disconnect"}
        try:
            event = await self._next_of_body()
        except (Refused, Gone) as broken:
            self._broken = broken
            self._close = True
            return {"type": "http.disconnect"}
        self._told_complete = framer.is_complete
        body = b"" if event is Need.END else event
        return {"type": "http.request", "body": body, "more_body": not framer.is_complete}

    async def _next_of_body(self) -> bytes | Need:
        waits = not self._told_to_continue and not self._connection.framer.waiting_bytes
        self._told_to_continue = True
        if waits and not self._connection.framer.is_complete and self._sent is Sent.NOTHING:
            await self._connection.send(answers.CONTINUE)
        return await self._connection.next_of_body()

    # --- the answer -------------------------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """Send a part of the answer; returns when the kernel has it.

        Raises:
            trio.Cancelled: the client is gone or too slow.
            ValueError: it is not what may come now, or more than was announced.
        """
        match message["type"], self._sent:
            case "http.response.start", Sent.NOTHING:
                self._answer = message
                self._sent = Sent.HEAD_KEPT
            case "http.response.body", Sent.HEAD_KEPT | Sent.BODY:
                await self._send_body(message.get("body", b""), message.get("more_body", False))
            case kind, sent:
                raise ValueError(f"{kind} may not follow {sent.name}")

    @property
    def _has_body(self) -> bool:
        return self._head.method != "HEAD" and self._answer["status"] not in (204, 304)

    async def _send_body(self, body: bytes | memoryview, more: bool) -> None:
        head = b""
        if self._sent is Sent.HEAD_KEPT:
            head = self._make_head(len(body), more)
            self._sent = Sent.BODY
            if self._turn is not None:
                self._connection.server.turns.back(self._turn)
        if not self._has_body:
            body = b""
        elif self._left_bytes is not None:
            self._left_bytes -= len(body)
            if self._left_bytes < 0:
                raise ValueError("the body is longer than was announced")
        try:
            await self._write(head, body, more)
        except Gone:
            self._close = True
            self._scope.cancel()
            await trio.lowlevel.checkpoint()
        if not more and not (self._left_bytes and self._has_body):
            self._sent = Sent.ALL  # else it is shorter than announced, and stays unfinished

    async def _write(self, head: bytes, body: bytes | memoryview, more: bool) -> None:
        send = self._connection.send
        if self._left_bytes is None and body:
            head += f"{len(body):x}\r\n".encode()
        tail = b""
        if self._left_bytes is None:
            tail = (b"\r\n" if body else b"") + (b"" if more else b"0\r\n\r\n")
        if len(body) <= JOINED_BYTES:
            await send(b"".join((head, body, tail)))
            return
        if head:
            await send(head)
        await send(body)
        if tail:
            await send(tail)

    def _make_head(self, body_bytes: int, more: bool) -> bytes:
        """The head of the answer, once it is known how its body will be framed."""
        self._close = self._close or not self._connection.skip_body()
        status = self._answer["status"]
        headers = [(bytes(name), bytes(value)) for name, value in self._answer.get("headers", ())]
        given = {name.lower(): value for name, value in headers}
        if given.get(b"connection", b"").lower() == b"close":
            self._close = True
        headers = [(name, value) for name, value in headers if name.lower() != b"connection"]
        chunked = False
        if b"content-length" in given:
            self._left_bytes = int(given[b"content-length"])
        elif not self._has_body:
            self._left_bytes = 0
        elif not more:
            self._left_bytes = body_bytes
            headers.append((b"content-length", str(body_bytes).encode()))
        elif self._head.version == "1.1":
            chunked = True
        else:
            raise ValueError("an answer to HTTP/1.0 needs a Content-Length")
        self._close = self._close or self._connection.server.is_stopping
        return answers.head_bytes(
            status,
            headers,
            now_s=self._connection.server.now_s(),
            close=self._close,
            version=self._head.version,
            chunked=chunked,
        )
