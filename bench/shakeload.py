"""New clients: whole TLS handshakes at a fixed mean rate, each on a connection of its own that is closed afterwards.

An open loop, as `OpenLoad`: a server that is slow is not asked less, up to `MOST_UNDER_WAY`. No session is resumed.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from bench.load import Tally
from bench.tlsclient import RECEIVE_BYTES, client_context
from bench.wire import Target

MOST_UNDER_WAY = 400
"""Below the 512 that a worker takes by default: none is to make way for another."""
TICK_S = 0.01
SHAKEN = "no handshake in time"
LONGEST_S = 10.0


class _Shake:
    """One handshake; times in s of the load's clock."""

    def __init__(self, address: tuple[str, int], context: ssl.SSLContext, started_s: float) -> None:
        self.started_s = started_s
        self.sock = socket.socket()
        self.sock.setblocking(False)
        with suppress(BlockingIOError):
            self.sock.connect(address)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=address[0])

    def step(self) -> bool:
        """Go on, so far as that goes now. Returns whether it is done. Raises OSError: it failed."""
        if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, "no connection")
        with suppress(BlockingIOError):
            data = self.sock.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("it was let go")
            self._incoming.write(data)
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        else:
            done = True
        if self._outgoing.pending:
            self.sock.send(self._outgoing.read())  # some hundred bytes on a new connection
        return done


class ShakeLoad:
    """See the module docstring.

    Args:
        target: over TLS.
        announce: called with the name of each event, at once.
        rate_per_s: handshakes begun.
        clock_s: monotonic seconds.
    """

    def __init__(
        self,
        target: Target,
        announce: Callable[[str], None],
        *,
        rate_per_s: float,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._target = target
        self._context = client_context(target.authority)
        self._announce = announce
        self._step_s = 1 / rate_per_s
        self._clock_s = clock_s
        self._epoll = select.epoll()
        self._open: dict[int, _Shake] = {}
        self._tally = Tally()
        self._begun = 0
        self._stopped = False

    def stop(self) -> None:
        """End `run` at once; may be called by a signal handler."""
        self._stopped = True

    def run(self, warmup_s: float, window_s: float) -> Tally:
        """As `Load.run`: what was done inside the window, in `acks_s` how long each took."""
        next_s = self._turn_until(self._clock_s(), self._clock_s() + warmup_s)
        self._tally = Tally(errors=Counter(self._tally.errors))
        self._announce("warm")
        began_s, cpu_s = self._clock_s(), time.process_time()
        self._turn_until(next_s, began_s + window_s)
        tally = self._tally
        tally.window_s, tally.cpu_s = self._clock_s() - began_s, time.process_time() - cpu_s
        self._announce("measured")
        for shake in self._open.values():
            shake.sock.close()
        self._epoll.close()
        return tally

    def _turn_until(self, next_s: float, deadline_s: float) -> float:
        """Returns when the next one is meant to begin."""
        while (now_s := self._clock_s()) < deadline_s and not self._stopped:
            while next_s <= now_s and len(self._open) < MOST_UNDER_WAY:
                self._begin(next_s)
                next_s += self._step_s
            for fd, _ in self._epoll.poll(max(0.0, min(next_s - now_s, TICK_S))):
                self._go_on(fd)
            self._give_up(now_s)
        return next_s

    def _begin(self, started_s: float) -> None:
        shake = _Shake(self._target.address(self._begun), self._context, started_s)
        self._begun += 1
        self._open[shake.sock.fileno()] = shake
        with suppress(OSError):
            shake.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._epoll.register(shake.sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    def _go_on(self, fd: int) -> None:
        shake = self._open[fd]
        try:
            if not shake.step():
                return
            self._tally.acks_s.append(self._clock_s() - shake.started_s)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                return
            self._tally.errors[type(error).__name__] += 1
        self._end(fd)

    def _give_up(self, now_s: float) -> None:
        for fd, shake in list(self._open.items()):
            if now_s - shake.started_s < LONGEST_S:
                break  # they are in the order in which they began
            self._tally.errors[SHAKEN] += 1
            self._end(fd)

    def _end(self, fd: int) -> None:
        self._open.pop(fd).sock.close()
