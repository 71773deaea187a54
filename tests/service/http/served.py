"""An application on the server, over real sockets, and what a client of bytes asks of it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from ingest.handshakes import Handshakes
from service.clients import Clients, parse_proxies
from service.http import HttpLimits, HttpServer

HANGS_S = 60.0
"""What has not come by then does not come: a guard, and no measure of a busy machine."""
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Echo:
    """Answers with what it was asked, and remembers the scopes."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            self.ended = True
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            more = message["more_body"]
        self.scopes.append(scope)
        self.bodies.append(body)
        await answer(send, b"%s %s %s" % (scope["method"].encode(), scope["raw_path"], body))


async def lifespan(receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


async def answer(
    send: Any, body: bytes, *headers: tuple[bytes, bytes], status: int = 200, length: int | None = None
) -> None:
    size = len(body) if length is None else length
    given = [(b"content-length", str(size).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(
    app: Any, proxies: str = "", handshakes: Handshakes | None = None, **limits: Any
) -> AsyncIterator[HttpServer]:
    """The server on a port of its own, behind these proxies; stopped at the end, and over at once."""
    limits.setdefault("linger_close_s", 0.3)
    clients = Clients(parse_proxies(proxies))
    server = HttpServer(app, HttpLimits(**limits), now_s=lambda: 0.0, clients=clients, handshakes=handshakes)
    listener = socket.create_server(("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, listener)
        yield server
        server.stop()
        nursery.cancel_scope.deadline = trio.current_time() + HANGS_S


async def connect(server: HttpServer, *, receive_buffer: int | None = None) -> trio.SocketStream:
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        await sock.connect(server.address)
    except OSError:
        sock.close()
        raise
    return trio.SocketStream(sock)


async def ask(server: HttpServer, *pieces: bytes, end: bool = True) -> bytes:
    """Send the pieces, that this is the `end`, and return all that comes until the server ends it."""
    stream = await connect(server)
    async with stream:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.lowlevel.checkpoint()
        if end:
            await stream.send_eof()
        return await rest_of(stream)


async def rest_of(stream: trio.SocketStream) -> bytes:
    found = bytearray()
    with trio.fail_after(HANGS_S):
        try:
            async for piece in stream:
                found += piece
        except trio.BrokenResourceError:
            pass
    return bytes(found)


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    found = b""
    with trio.fail_after(HANGS_S):
        while end not in found:
            piece = await stream.receive_some()
            assert piece, f"ended after {found!r}"
            found += piece
    return found


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(HANGS_S):
        while not condition():  # noqa: ASYNC110 — what it waits for is the server's, and has no event
            await trio.sleep(0.01)
