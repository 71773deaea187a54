"""Accepts connections, bounds them, and stops without cutting an answer short."""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
import trio

from ingest.handshakes import Handshakes
from service.clients import Clients, network_of
from service.http import answers
from service.http.connection import Connection, Phase
from service.http.lifespan import Lifespan
from service.http.limits import HttpLimits
from service.http.transport import TcpTransport
from service.http.turns import Turns

ACCEPT_AT_ONCE = 16
"""Connections taken before other tasks get their turn."""
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
OUT_OF_FILES_S = 0.1
"""Pause then, so that accepting does not spin."""
PROXIES = "proxies"
"""What connections of named proxies are counted as. They carry many clients, and have no share."""
SAY_EVERY_S = 10.0
"""What a client can cause is in the log no more often."""

App = Callable[[Any, Any, Any], Awaitable[None]]

_log = structlog.get_logger("http")


class HttpServer:
    """Serves one ASGI application on one listening socket.

    Args:
        limits: what one client, and all of them, may make it hold.
        now_s: Unix time, for `Date`.
        clients: whose request it is, when proxies stand before this server.
        handshakes: of TLS; None: it serves in clear.
    """

    def __init__(
        self,
        app: App,
        limits: HttpLimits,
        *,
        now_s: Callable[[], float] = time.time,
        clients: Clients | None = None,
        handshakes: Handshakes | None = None,
    ) -> None:
        self.handshakes = handshakes
        self.app = app
        self.limits = limits
        self.now_s = now_s
        self.is_stopping = False
        self.state: dict[str, Any] = {}
        self.address: tuple[str, int] = ("", 0)
        self.failures = 0
        """Calls of the application that ended with an exception, and without a whole answer."""
        self.let_go = 0
        """Clients that read too slowly."""
        self.clients = clients or Clients()
        self.turns = Turns(limits.requests_at_once, limits.client_share)
        self._by_client: Counter[str] = Counter()
        self._connections: set[Connection] = set()
        self._accepting = trio.CancelScope()
        self._said_s: dict[str, float] = {}

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections)

    async def run(
        self, listener: socket.socket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until `stop` was called and the last answer has been sent; or until cancelled. The listener is closed.

        Raises:
            LifespanFailed: the application could not start.
        """
        listener.setblocking(False)
        self.address = listener.getsockname()[:2]
        async with self._lifespan(), trio.open_nursery() as handlers:
            task_status.started()
            try:
                with self._accepting:
                    await self._accept(listener, handlers)
            finally:
                listener.close()

    def stop(self) -> None:
        """Accept nothing more; idle connections end now, answers under way are sent to their end."""
        self.is_stopping = True
        self._accepting.cancel()
        for connection in list(self._connections):
            connection.end_if_idle()

    def on_failure(self, error: Exception, *, answered: bool) -> None:
        """The application raised. What it has answered it has logged itself."""
        if answered:
            return
        self.failures += 1
        self._say("request_failed", error=type(error).__name__, detail=str(error)[:200])

    def note_let_go(self) -> None:
        """A client read too slowly."""
        self.let_go += 1
        self._say("slow_reader_let_go", min_send_bytes_per_s=self.limits.min_send_bytes_per_s)

    @asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        lifespan = Lifespan(self.app, self.state)
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.run)
            turns = await nursery.start(self._keep_turns)
            try:
                yield
            finally:
                turns.cancel()
                lifespan.end()

    async def _keep_turns(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            await self.turns.run()

    async def _accept(self, listener: socket.socket, handlers: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPT_AT_ONCE):
                try:
                    sock, peer = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in OUT_OF_FILES:
                        self._say("cannot_accept", detail=error.strerror)
                        await trio.sleep(OUT_OF_FILES_S)
                    break
                self._welcome(sock, peer[:2], handlers)
            await trio.lowlevel.checkpoint()

    def _welcome(self, sock: socket.socket, peer: tuple[str, int], handlers: trio.Nursery) -> None:
        counted_as = PROXIES if self.clients.is_proxy(peer[0]) else network_of(peer[0])
        if not self._make_room(counted_as):
            self._say("too_many_connections", open=len(self._connections))
            detail = "more is under way than this server takes; try again"
            with sock, suppress(OSError):
                if self.handshakes is not None:  # it could not be read
                    return
                sock.setblocking(False)
                sock.send(answers.refusal(503, "overloaded", detail, self.now_s()))
            return
        try:
            connection = Connection(self, TcpTransport(sock, self.handshakes, peer[0]), peer, counted_as)
        except OSError:  # gone already
            sock.close()
            return
        self._connections.add(connection)  # now: a stop before its task has begun must know of it
        self._by_client[counted_as] += 1
        handlers.start_soon(self._handle, connection)

    def _make_room(self, counted_as: str) -> bool:
        """Whether one more of this client may come. At a bound, the connection that has waited longest for a request
        makes way: its client connects again when it has one. At a client's share it is one of his own."""
        own = self._by_client[counted_as]
        most, open_now = self.limits.max_connections, len(self._connections)
        share = 1.0 if counted_as == PROXIES else self.limits.client_share
        own_most = (most - (open_now - own)) * share
        if own and own + 1 > own_most:
            making_way = [one for one in self._connections if one.counted_as == counted_as]
        elif open_now >= most:
            making_way = list(self._connections)
        else:
            return True
        idle = [connection for connection in making_way if connection.phase is Phase.IDLE]
        return bool(idle) and min(idle, key=lambda one: one.since_s).end_if_idle()

    def counts_as(self, connection: Connection, address: str) -> bool:
        """A proxy said whose connection it is: it counts as his from now on. Returns whether he may have it."""
        self._uncount(connection)
        counted_as = network_of(address)
        may = self._make_room(counted_as)
        connection.counted_as = counted_as
        self._by_client[counted_as] += 1
        return may

    def _uncount(self, connection: Connection) -> None:
        self._by_client[connection.counted_as] -= 1
        if not self._by_client[connection.counted_as]:
            del self._by_client[connection.counted_as]

    async def _handle(self, connection: Connection) -> None:
        try:
            await connection.serve()
        except Exception as error:  # one connection's surprise must not end the others
            self.on_failure(error, answered=False)
        finally:
            self._connections.discard(connection)
            self._uncount(connection)

    def _say(self, event: str, **facts: object) -> None:
        """Warn, but of each thing no more often than every SAY_EVERY_S."""
        now_s = trio.current_time()
        if now_s - self._said_s.get(event, -SAY_EVERY_S) >= SAY_EVERY_S:
            self._said_s[event] = now_s
            _log.warning(event, **facts)
