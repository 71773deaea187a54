"""A TCP relay between a service and its server that does to connections what networks do.

They are reset, half-closed, and *swallowed*, which no kernel tells of: bytes go in, and nothing comes out, neither an
answer nor an end, as behind a firewall that forgot the connection.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import TypeVar

import trio

T = TypeVar("T")

_PIECE_BYTES = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
FORGET_S = 40.0
"""After so long a hurt connection is reset, as the keepalive of a server ends one whose client is gone. Longer than the
client waits for an answer, so that it is the client that gives up."""


class Fault(Enum):
    """What happens to a connection. Its value: which sides read an end, and which get no byte any more."""

    RESET = ("reset", (), ())
    SERVER_ENDS = ("server ends", ("client",), ("client",))
    """What the client still sends arrives, and is carried out."""
    CLIENT_ENDS = ("client ends", ("server",), ("server",))
    """What the server still answers arrives."""
    SWALLOW = ("swallow", (), ("client", "server"))
    SWALLOW_ANSWERS = ("swallow answers", (), ("client",))
    """Requests arrive and are carried out."""


class _Link:
    """One connection through the relay."""

    def __init__(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self.sides = {"client": client, "server": server}
        self.hurt = False
        self.muted: set[str] = set()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        async with self.sides["client"], self.sides["server"]:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._forward, "client", "server")
                    nursery.start_soon(self._forward, "server", "client")

    async def _forward(self, one: str, other: str) -> None:
        try:
            while data := await self.sides[one].receive_some(_PIECE_BYTES):
                if other not in self.muted:
                    await self.sides[other].send_all(data)
            if other not in self.muted:
                self._scope.cancel()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if other not in self.muted:
                self.reset()

    def reset(self) -> None:
        for side in self.sides.values():
            with suppress(OSError):
                side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._scope.cancel()

    def suffer(self, fault: Fault) -> None:
        _, ended, muted = fault.value
        self.hurt, self.muted = True, set(muted)
        for name in ended:
            with suppress(OSError):
                self.sides[name].socket.shutdown(socket.SHUT_WR)
        self._scope.deadline = trio.current_time() + FORGET_S
        if fault is Fault.RESET:
            self.reset()


class Relay:
    """Forwards connections to a server on a port of loopback, in a thread of its own.

    Args:
        server_port: where to.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._links: set[_Link] = set()
        self._down = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="relay", daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def close(self) -> None:
        self._soon(self._scope.cancel)
        self._thread.join(10)

    def hurt(self, fault: Fault, share: float, choose: random.Random) -> int:
        """Let it happen to this share of the connections that are whole, to one at least. Returns to how many."""

        def act() -> int:
            whole = [link for link in self._links if not link.hurt]
            chosen = choose.sample(whole, min(len(whole), max(1, round(len(whole) * share))))
            for link in chosen:
                link.suffer(fault)
            return len(chosen)

        return self._now(act)

    def take_down(self) -> None:
        """All connections are swallowed, and new ones too, until `bring_up`: the network is cut in two."""

        def act() -> None:
            self._down = True
            for link in self._links:
                if not link.hurt:
                    link.suffer(Fault.SWALLOW)

        self._now(act)

    def bring_up(self) -> None:
        """New connections are forwarded again; those that were swallowed stay so."""
        self._down = False

    def _now(self, act: Callable[[], T]) -> T:
        done: list[T] = []
        over = threading.Event()

        def call() -> None:
            try:
                done.append(act())
            finally:
                over.set()

        self._soon(call)
        assert over.wait(10)
        return done[0]

    def _soon(self, act: Callable[[], object]) -> None:
        self._token.run_sync_soon(act)

    async def _run(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=256)
        self.port: int = listener.socket.getsockname()[1]
        with trio.CancelScope() as self._scope:
            self._started.set()
            await trio.serve_listeners(self._serve, [listener])

    async def _serve(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._server_port)
        except OSError:
            return
        link = _Link(client, server)
        if self._down:
            link.suffer(Fault.SWALLOW)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
