"""Slow clients: many connections that each send at a trickle, as cameras on poor networks do.

A closed loop like `Load`, but every connection may send only so many bytes each tick. Their phases are spread,
so that the server sees a steady drizzle and not one wave of bodies that all end together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from bench.load import Connection, Load
from bench.wire import Target

TICK_S = 0.25
"""500 clients at 4 ticks/s are 2,000 sends: some 2 % of a core."""
SEED = 1


class SlowLoad(Load):
    """`Load` with a rate per connection.

    Args:
        target, body, connections, announce, clock_s: as of `Load`.
        bytes_per_s: what each connection sends.
    """

    def __init__(
        self,
        target: Target,
        body: bytearray,
        connections: int,
        announce: Callable[[str], None],
        *,
        bytes_per_s: float,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(target, body, connections, announce, clock_s=clock_s)
        self._step_bytes = max(1, int(bytes_per_s * TICK_S))
        self._random = random.Random(SEED)
        self._next_s = 0.0

    def _start(self, conn: Connection, started_s: float) -> None:
        self._chunks_left -= 1
        conn.head = self._heads.next()
        # A first chunk begins part-way through its time, by sending that part at once; later ones at zero.
        first = conn.started_s == 0.0
        conn.started_s = started_s
        conn.sent = conn.sock.send(conn.head)
        if first:
            self._advance(conn, int(len(self._body) * self._random.random()))

    def _send(self, conn: Connection) -> None:
        """Sending is for the ticks; an edge of the socket is no reason."""

    def _is_cold(self) -> bool:
        return False  # a slow chunk takes longer than any warm-up

    def _patience_s(self) -> float:
        now_s = self._clock_s()
        if now_s >= self._next_s:
            self._next_s = now_s + TICK_S
            for conn in list(self._open.values()):
                try:
                    self._advance(conn, self._step_bytes)
                except OSError as error:
                    self._failed(conn, error)
        return max(0.0, self._next_s - self._clock_s())

    def _advance(self, conn: Connection, step_bytes: int) -> None:
        """Send up to `step_bytes` more of the body; take the answer that came early."""
        done = conn.sent - len(conn.head)
        if done < len(self._body):
            try:
                conn.sent += conn.sock.send(self._body[done : done + step_bytes])
            except BlockingIOError:
                return
        if conn.status and conn.sent == len(conn.head) + len(self._body):
            self._finish(conn)
