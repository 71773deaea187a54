"""What comes before the first request: the word of a proxy, and handshakes of TLS, bounded in number, bytes and time.

A handshake is some turns of the loop, each of one computation (a signature: 0.1 ms with P-256, 1 ms with RSA-2048), so
others go on between them; and however many clients come, all else has half of each turn (`steps_in_a_turn`). Who comes
when as many are under way as may be has the longest of them let go. A client that speaks HTTP in clear is told by its
first byte, and no byte is read for it.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import trio

from ingest.proxied import MAX_V2_BYTES, OWN, NotProxied, Peer, read_header
from ingest.tls import Shared, TlsWire

HANDSHAKE_CHARGE_BYTES = 64 * 1024
"""What a handshake takes of memory, at most: OpenSSL's state, records of it that came, the certificates that go out."""
LEAST_STEPS, MOST_STEPS = 8, 256
"""Of all handshakes together in a turn of the loop: 4 ms and 0.1 s with P-256, whatever is measured."""
STEP_S = 0.0004
"""What a step is believed to take until some were measured; then the mean of about the last `STEPS_KEPT`."""
STEPS_KEPT = 16
PART_S = 0.05
"""Between two looks at a header of the PROXY protocol that came in parts."""
_HANDSHAKE_RECORD = 22
"""The first byte of TLS."""


class Outcome(Enum):
    """What became of a handshake; the value is what metrics call it."""

    DONE = "done"
    RESUMED = "resumed"
    TIMEOUT = "timeout"
    """It was not done within `handshake_s`."""
    MADE_WAY = "made_way"
    """It was the longest under way when another came."""
    FAILED = "failed"
    """What came was no TLS, or of a version, a cipher or a kind that is not taken; or the client went."""
    PLAIN = "plain"
    """A request in clear, which is refused."""
    NOT_PROXIED = "not_proxied"
    """A named proxy did not say by the PROXY protocol who connects."""


class NoHandshake(Exception):
    """There is no TLS on this connection."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


def steps_in_a_turn(turn_s: float, step_s: float) -> int:
    """How many steps of `step_s` a turn may have when the last one took `turn_s`, those of that one included.

    Half a turn, so what handshakes take comes to be no more than what everything else takes: who opens connections as
    fast as can be slows uploads by half at most, and not by as many computations as there are clients.
    """
    return max(LEAST_STEPS, min(MOST_STEPS, int(turn_s / 2 / max(step_s, 1e-6))))


@dataclass(frozen=True, slots=True)
class HandshakeLimits:
    """Bounds of the handshakes of one process."""

    handshake_s: float = 10.0
    max_handshakes: int = 512
    """Under way at once."""
    plain: bool = False
    """Requests in clear are taken too."""


class Handshakes:
    """Those of one port in one process.

    Args:
        context: of the next handshake. None: this port is in clear.
        is_proxy: whether connections of this address begin with a header of the PROXY protocol, and have to.
    """

    def __init__(
        self,
        context: Callable[[], ssl.SSLContext] | None,
        limits: HandshakeLimits,
        is_proxy: Callable[[str], bool] = lambda address: False,
    ) -> None:
        self._context = context
        self._is_proxy = is_proxy
        self._limits = limits
        self._shared = Shared()
        self._steps = trio.CapacityLimiter(LEAST_STEPS)
        """Each step holds one from a turn to the next."""
        self._step_s = STEP_S
        self._under_way: dict[trio.CancelScope, None] = {}
        """In the order in which they began."""
        self.outcomes: Counter[str] = Counter()

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def is_needed(self, address: str) -> bool:
        """Whether anything comes before the first request of a connection from there."""
        return self._context is not None or self._is_proxy(address)

    async def shake(self, sock: socket.socket, address: str = "") -> tuple[TlsWire | None, Peer]:
        """Make the handshake of an accepted connection, its socket non-blocking.

        Returns:
            None where it speaks in clear, and may; and who is behind a proxy, `OWN` where none is.

        Raises:
            NoHandshake: why there is none. Nothing was sent to who speaks in clear. The socket is left open.
        """
        if len(self._under_way) >= self._limits.max_handshakes:
            oldest = next(iter(self._under_way))
            del self._under_way[oldest]
            oldest.cancel()
        scope = trio.CancelScope(deadline=trio.current_time() + self._limits.handshake_s)
        self._under_way[scope] = None
        wire: TlsWire | None = None
        peer = OWN
        outcome = Outcome.MADE_WAY
        try:
            with scope:
                outcome, wire, peer = await self._greet(sock, address)
            if scope.cancelled_caught and scope.deadline <= trio.current_time():
                outcome = Outcome.TIMEOUT
        finally:
            self._under_way.pop(scope, None)
        if outcome is Outcome.PLAIN and (self._limits.plain or self._context is None):
            return None, peer
        self.outcomes[outcome.value] += 1
        if wire is None:
            raise NoHandshake(outcome)
        return wire, peer

    def let_all_go(self) -> None:
        """The server stops."""
        for scope in list(self._under_way):
            scope.cancel()

    async def _greet(self, sock: socket.socket, address: str) -> tuple[Outcome, TlsWire | None, Peer]:
        peer = OWN
        if self._is_proxy(address):
            try:
                peer = await _read_proxied(sock)
            except (NotProxied, OSError):
                return Outcome.NOT_PROXIED, None, OWN
        if self._context is None:
            return Outcome.PLAIN, None, peer
        return *await self._shake(sock, self._context), peer

    async def _shake(
        self, sock: socket.socket, context: Callable[[], ssl.SSLContext]
    ) -> tuple[Outcome, TlsWire | None]:
        try:
            first = await _first_byte(sock)
            if first != _HANDSHAKE_RECORD:
                return (
                    Outcome.PLAIN if 65 <= first <= 90 else Outcome.FAILED
                ), None  # a method begins with A to Z
            wire = TlsWire(sock, context(), self._shared)
            while not await self._step(wire, sock):
                pass
            while not wire.write_out():
                await trio.lowlevel.wait_writable(sock)
        except OSError:
            return Outcome.FAILED, None
        return (Outcome.RESUMED if wire.resumed else Outcome.DONE), wire

    async def _step(self, wire: TlsWire, sock: socket.socket) -> bool:
        """One step of a handshake, in its turn. Returns whether it is done."""
        async with self._steps:
            began_s = time.perf_counter()
            await trio.lowlevel.checkpoint()
            turned_s = time.perf_counter()
            try:
                done = wire.shake()
            except BlockingIOError:
                done = None
            self._step_s += (time.perf_counter() - turned_s - self._step_s) / STEPS_KEPT
            self._steps.total_tokens = steps_in_a_turn(turned_s - began_s, self._step_s)
        if done is None:
            await trio.lowlevel.wait_readable(sock)
        return done is True


async def _read_proxied(sock: socket.socket) -> Peer:
    """Take the header of the PROXY protocol from a connection, and no byte more.

    Proxies send it in one piece. What has come is looked at where it lies, so nothing behind it is taken; while it is
    not whole, no epoll would wait for more of it, so it is looked at again a little later.
    """
    seen = 0
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(MAX_V2_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        if len(data) == seen:
            await trio.sleep(PART_S)
        seen = len(data)
        if not data:
            raise NotProxied("it ended before its header was whole")
        found = read_header(data)
        if found is not None:
            peer, length = found
            sock.recv(length)
            return peer


async def _first_byte(sock: socket.socket) -> int:
    """It stays where it is. -1: nothing comes."""
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            first = sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            continue
        return first[0] if first else -1
