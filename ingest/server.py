"""The ingest server of one worker: accepts, serves, reaps, and stops without losing anything.

Accepting and handling live in separate nurseries: a stop ends the first at once and drains the second to a
deadline.
"""

from __future__ import annotations

import errno
import math
import socket
from contextlib import suppress
from functools import partial

import structlog
import trio

from ingest import answers, states
from ingest.answers import Answer
from ingest.budget import Account
from ingest.connection import Connection
from ingest.handshakes import HANDSHAKE_CHARGE_BYTES, Handshakes, NoHandshake, Outcome
from ingest.receiving import Receiver
from ingest.refusals import LOG_EVERY_S
from ingest.serving import pack_gathered, send_rest, serve
from ingest.stats import Stats
from ingest.tls import TlsWire

REAP_EVERY_S = 0.5
LISTEN_BACKLOG = 4096
ACCEPT_AT_ONCE = 64
"""Connections taken before other tasks get their turn."""
ANSWERS_BUFFER_BYTES = 32 * 1024
"""The system's buffer of answers that a peer has not read: 64 have 25 kB at most. By itself it grows to 4 MiB."""
MAX_TOLD_PLAIN = 64
"""Clients that speak in clear where TLS is spoken and are told so, at once; more are closed without a word. Each may
take `linger_close_s` to read it."""
OUT_OF_RESOURCES_S = 0.1
"""Pause when the process is out of file descriptors, so that accepting does not spin."""

_log = structlog.get_logger("ingest")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that shares its port with the other workers (SO_REUSEPORT)."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        sock.listen(LISTEN_BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class IngestServer:
    """Serves one listening socket.

    Args:
        max_connections: per worker; past it new connections are answered 503 and closed.
        handshakes: of TLS; None: everything is in clear.
    """

    def __init__(
        self,
        receiver: Receiver,
        stats: Stats,
        *,
        max_connections: int = 20_000,
        handshakes: Handshakes | None = None,
    ) -> None:
        self._receiver = receiver
        self._stats = stats
        self._max_connections = max_connections
        self._handshakes = handshakes
        if handshakes is not None:
            stats.handshakes = handshakes.outcomes
        self._connections: set[Connection] = set()
        self._told_plain = 0
        """Clients that are being told."""
        self._accepting = trio.CancelScope()
        self._empty = trio.Event()
        receiver.budget.let_go = self._let_slowest_go
        receiver.pack_gathered = partial(pack_gathered, receiver)

    async def run(
        self, listener: socket.socket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until `stop` was called and the last connection has ended."""
        # What is accepted inherits it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWERS_BUFFER_BYTES)
        async with trio.open_nursery() as handlers:
            timeout_s = self._receiver.limits.send_timeout_s
            self._receiver.send_rest = lambda outbox: handlers.start_soon(send_rest, outbox, timeout_s)
            async with trio.open_nursery() as others:
                others.start_soon(self._receiver.poller.run)
                others.start_soon(self._reap)
                task_status.started()
                try:
                    with self._accepting:
                        await self._accept(listener, handlers)
                finally:
                    listener.close()
                if self._connections:
                    self._empty = trio.Event()
                    await self._empty.wait()
                others.cancel_scope.cancel()

    def stop(self) -> None:
        """Accept nothing more; idle connections end now, bodies under way may finish."""
        self._receiver.stopping = True
        self._receiver.uploads.hurry()
        self._accepting.cancel()
        if self._handshakes is not None:
            self._handshakes.let_all_go()
        for connection in list(self._connections):
            connection.stop_when_idle()

    async def _accept(self, listener: socket.socket, handlers: trio.Nursery) -> None:
        logged_s = -math.inf
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPT_AT_ONCE):
                try:
                    sock, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                        if trio.current_time() - logged_s >= LOG_EVERY_S:
                            logged_s = trio.current_time()
                            _log.warning("cannot_accept", detail=str(error))
                        await trio.sleep(OUT_OF_RESOURCES_S)
                    break
                self._welcome(sock, str(address[0]), handlers)

    def _welcome(self, sock: socket.socket, address: str, handlers: trio.Nursery) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._open >= self._max_connections and not self._make_room():
            self._receiver.count(answers.OVERLOADED)
            if self._handshakes is None:  # else the answer could not be read
                with suppress(OSError):
                    sock.send(answers.OVERLOADED.render(close=True))
            sock.close()
        elif self._handshakes is None or not self._handshakes.is_needed(address):
            handlers.start_soon(self._handle, self._connection(sock))
        else:
            handlers.start_soon(self._shake, self._handshakes, sock, address)

    @property
    def _open(self) -> int:
        """Connections, those with a handshake under way among them."""
        return len(self._connections) + (0 if self._handshakes is None else self._handshakes.under_way)

    def _connection(self, sock: socket.socket, tls: TlsWire | None = None) -> Connection:
        connection = Connection(sock, self._receiver, tls)
        self._connections.add(connection)  # now: a stop before its task has begun must know of it
        self._stats.connections = len(self._connections)
        return connection

    async def _shake(self, handshakes: Handshakes, sock: socket.socket, address: str) -> None:
        """Serve a connection that begins with a handshake."""
        budget, account = self._receiver.budget, Account()
        if self._receiver.stopping or not budget.has_room(account, HANDSHAKE_CHARGE_BYTES):
            self._receiver.count(answers.STOPPING if self._receiver.stopping else answers.OVERLOADED)
            sock.close()
            return
        budget.charge(account, HANDSHAKE_CHARGE_BYTES)
        connection: Connection | None = None
        try:
            tls, _ = await handshakes.shake(sock, address)
            connection = self._connection(sock, tls)
        except NoHandshake as none:
            budget.refund(account, account.charged_bytes)
            if none.outcome is Outcome.PLAIN and self._told_plain < MAX_TOLD_PLAIN:
                self._told_plain += 1
                try:
                    await self._refuse_plain(sock)
                finally:
                    self._told_plain -= 1
        finally:
            budget.refund(account, account.charged_bytes)
            if connection is None:
                trio.lowlevel.notify_closing(sock)
                sock.close()
        if connection is not None:
            if self._is_stopping():  # by now
                connection.stop_when_idle()
            await self._handle(connection)

    def _is_stopping(self) -> bool:
        return self._receiver.stopping

    async def _refuse_plain(self, sock: socket.socket) -> None:
        """Say in clear that this port speaks TLS, and let it be read: a close with bytes unread would reset it."""
        self._receiver.answered(answers.TLS_REQUIRED, trio.current_time())
        limits = self._receiver.limits
        with suppress(OSError), trio.move_on_after(limits.linger_close_s):
            sock.send(answers.TLS_REQUIRED.render(close=True))
            sock.shutdown(socket.SHUT_WR)
            left = limits.drain_bytes
            while left > 0:
                await trio.lowlevel.wait_readable(sock)
                with suppress(BlockingIOError):
                    received = sock.recv_into(self._receiver.scratch)
                    if not received:
                        return
                    left -= received

    def _make_room(self) -> bool:
        """Whether one more connection may come although there are as many as may be: strangers that are only there
        keep nobody out. Those that are let go take a turn of the loop to end, so some more than may be are there."""
        most = self._max_connections + ACCEPT_AT_ONCE
        return self._open < most and self._receiver.strangers.make_room()

    async def _handle(self, connection: Connection) -> None:
        try:
            await serve(connection)
        except Exception:
            # One connection's surprise must not end the others; nothing unacknowledged is promised anything.
            _log.exception("connection_failed")
        finally:
            self._connections.discard(connection)
            self._stats.connections = len(self._connections)
            if not self._connections:
                self._empty.set()

    # --- the slow and the silent --------------------------------------------------------------------------------

    async def _reap(self) -> None:
        """End connections that take too long. One task for all: a timer per receive would cost more."""
        while True:
            await trio.sleep(REAP_EVERY_S)
            now_s = trio.current_time()
            for connection in list(self._connections):
                overdue, verdict = self._overdue(connection, now_s)
                if overdue:
                    connection.evict(verdict)

    def _overdue(self, connection: Connection, now_s: float) -> tuple[bool, Answer | None]:
        limits = self._receiver.limits
        waited_s = now_s - connection.since_s
        match connection.state:
            case states.IDLE:
                return self._receiver.stopping or waited_s > limits.idle_timeout_s, None
            case states.HEAD:
                return waited_s > limits.head_timeout_s, answers.HEAD_TIMEOUT
            case states.BODY | states.DRAIN:
                expected = (waited_s - limits.body_grace_s) * limits.min_body_bytes_per_s
                return connection.received_bytes < expected, answers.TOO_SLOW
            case _:  # it is us who are waited for, or nothing is read any more
                return False, None

    def _let_slowest_go(self) -> bool:
        """Let one connection go, for those who wait for its bytes: one that reads no answers, else the slowest sender.
        When all who hold bytes wait for more themselves, it is the one that loses least, so that the others get on.
        Returns whether there was one."""
        holding = [c for c in self._connections if c.held_bytes]
        if not holding:
            return False
        if any(c.ending() for c in holding):
            return True  # its bytes are about to come back
        now_s = trio.current_time()
        if unread := [c for c in holding if c.reads_nothing]:
            given_up = min(unread, key=lambda c: c.since_s)
        elif sending := [c for c in holding if c.state <= states.DRAIN]:
            given_up = min(sending, key=lambda c: c.held_bytes / max(now_s - c.since_s, 1e-3))
        else:
            given_up = min(holding, key=lambda c: c.held_bytes)
        given_up.evict(answers.OVERLOADED)
        return True
