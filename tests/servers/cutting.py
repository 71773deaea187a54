"""A proxy before PostgreSQL that cuts the connection at a chosen request of the client."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from enum import Enum

_REQUESTS = b"QS"
"""Messages that the server answers at once: a simple query, and the Sync that ends extended ones."""

_ASKS_FOR_ENCRYPTION = [code.to_bytes(4, "big") for code in (80877103, 80877104)]
"""What may come before the first message: TLS or GSSAPI. A test's server declines."""


class Cut(Enum):
    BEFORE = "before"
    """The request never arrives."""
    AFTER = "after"
    """The server has carried it out, and its answer never arrives."""
    LATE = "late"
    """The client is cut off at once, and the request arrives when `CuttingProxy.release` is called."""


class CuttingProxy:
    """Forwards connections to a server at `port` of loopback. `cut` says where to cut, once.

    Args:
        port: of the server.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._wanted: Callable[[bytes], bool] | None = None
        self._how = Cut.BEFORE
        self._late = threading.Event()
        self.requests = 0
        """Seen since `cut`."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, how: Cut, wanted: Callable[[bytes], bool]) -> None:
        """Cut at the first request, from now on, whose messages make `wanted` true."""
        with self._lock:
            self._how, self._wanted, self.requests = how, wanted, 0
            self._late.clear()

    def cut_at(self, how: Cut, number: int) -> None:
        """Cut at the request of this number, from 0."""
        self.cut(how, lambda messages: self.requests > number)

    def stop_cutting(self) -> None:
        """Cut at no request that is still to come."""
        self._wanted = None

    @property
    def has_cut(self) -> bool:
        return self._wanted is None

    def release(self) -> None:
        """Let a LATE request arrive."""
        self._late.set()

    def close(self) -> None:
        self._listener.close()
        self._late.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answers = _Answers()
                threading.Thread(target=self._requests, args=(client, server, answers), daemon=True).start()
                threading.Thread(target=_back, args=(server, client, answers), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, answers: _Answers) -> None:
        """Forward whole messages, those up to a request together. Both connections end with it."""
        with suppress(OSError, ValueError), client, server, ExitStack() as ending:
            ending.callback(_reset, client)
            ending.callback(_reset, server)
            stream = client.makefile("rb")
            code = _ASKS_FOR_ENCRYPTION[0]
            while code in _ASKS_FOR_ENCRYPTION:
                length = _exactly(stream.read, 4)
                rest = _exactly(stream.read, int.from_bytes(length, "big") - 4)
                code = rest[:4]
                server.sendall(length + rest)
            while True:
                messages = b""
                while True:
                    head = _exactly(stream.read, 5)
                    messages += head + _exactly(stream.read, int.from_bytes(head[1:], "big") - 4)
                    if head[:1] in _REQUESTS or head[:1] not in b"PBDECQSHX":
                        break
                how = self._decide(messages) if head[:1] in _REQUESTS else None
                if how is Cut.BEFORE:
                    return
                if how is Cut.LATE:
                    _reset(client)
                    self._late.wait(60)
                if how is not None:
                    answers.swallow()
                server.sendall(messages)
                if how is not None:
                    answers.ready.wait(60)
                    return

    def _decide(self, messages: bytes) -> Cut | None:
        with self._lock:
            if self._wanted is None:
                return None
            self.requests += 1
            if not self._wanted(messages):
                return None
            self._wanted = None
            return self._how


class _Answers:
    """Whether answers are forwarded, and whether one came that was not."""

    def __init__(self) -> None:
        self.swallowing = False
        self.ready = threading.Event()

    def swallow(self) -> None:
        self.swallowing = True


def _back(server: socket.socket, client: socket.socket, answers: _Answers) -> None:
    with suppress(OSError), client:
        while data := server.recv(65536):
            if answers.swallowing:
                _reset(client)
                answers.ready.set()
                return
            client.sendall(data)
    answers.ready.set()


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    data = read(count)
    if len(data) < count:
        raise ValueError("the connection ended")
    return data


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
