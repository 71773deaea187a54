"""The open loop of the load generator: chunks arrive at a fixed mean rate, whether or not the server keeps up.

Cameras do not wait for one another, so arrivals are random and independent (exponential gaps, seeded). Each
takes a connection that is free; when none is, it waits for one, and that wait counts: **every latency is
counted from the moment the chunk was meant to be sent**. A server that stalls for a second can so not hide
the chunks that it kept from being sent (coordinated omission).
"""

from __future__ import annotations

import random
import time
from array import array
from collections import deque
from collections.abc import Callable

from bench.load import DRAIN_S, TICK_S, Connection, Load, Tally
from bench.wire import Target

UNANSWERED = "unanswered"
SEED = 1
MAX_RESTS_ENDED = 10_000
"""Beyond this a server that hangs up on everybody shows as errors."""


class OpenLoad(Load):
    """A fixed arrival rate over a bounded number of connections.

    Args:
        target, body, connections, announce, max_chunks, clock_s: as of `Load`; the connections are how many
            chunks can be under way at once.
        rate_per_s: chunks per second, in the mean.
    """

    def __init__(
        self,
        target: Target,
        body: bytearray,
        connections: int,
        announce: Callable[[str], None],
        *,
        rate_per_s: float,
        max_chunks: int | None = None,
        clock_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(target, body, connections, announce, max_chunks=max_chunks, clock_s=clock_s)
        self._rate_per_s = rate_per_s
        self._random = random.Random(SEED)
        self._idle: deque[Connection] = deque()
        self._next_s = 0.0
        self._window_s = (0.0, 0.0)
        self._late_s = array("d")
        self._rests_ended = 0

    def run(self, warmup_s: float, window_s: float, drain_s: float = DRAIN_S) -> Tally:
        """As `Load.run`. Counted is what was meant to be sent inside the window, also when its ack came in the
        drain; what has no ack by its end is counted as the error `unanswered`.
        """
        for _ in range(self._wanted):
            self._freed(self._connect())
        self._next_s = self._clock_s()
        began_s = self._next_s + warmup_s
        self._window_s = (began_s, began_s + window_s)
        self._turn_until(began_s)
        self._announce("warm")
        cpu_s = time.process_time()
        while self._clock_s() < began_s + window_s and not self._stopped and self._has_work():
            self._turn_until(min(began_s + window_s, self._clock_s() + TICK_S))
        self._tally.window_s = min(window_s, self._clock_s() - began_s)
        self._tally.cpu_s = time.process_time() - cpu_s
        self._announce("measured")
        deadline_s = self._clock_s() + drain_s
        while self._clock_s() < deadline_s and not self._stopped and (self._under_way() or self._is_due()):
            self._turn_until(min(deadline_s, self._clock_s() + TICK_S))
        self._count_unanswered()
        self._idle.clear()
        self._close()
        self._tally.late_s = self._late_s
        return self._tally

    def _freed(self, conn: Connection) -> None:
        self._idle.append(conn)
        self._start_due()

    def _patience_s(self) -> float:
        self._start_due()
        if not self._idle or not self._may_send():
            return TICK_S
        return max(0.0, min(TICK_S, self._next_s - self._clock_s()))

    def _may_send(self) -> bool:
        return self._sending and self._chunks_left > 0 and 0 < self._next_s < self._window_s[1]

    def _has_work(self) -> bool:
        return self._may_send() or bool(self._under_way())

    def _is_due(self) -> bool:
        return self._may_send() and self._next_s <= self._clock_s()

    def _start_due(self) -> None:
        while self._idle and self._is_due():
            meant_s = self._next_s
            self._next_s += self._random.expovariate(self._rate_per_s)
            if meant_s >= self._window_s[0]:
                self._late_s.append(self._clock_s() - meant_s)
            conn = self._idle.popleft()  # the one that rested longest: all take part
            try:
                self._start(conn, meant_s)
            except OSError as error:
                self._failed(conn, error)

    def _failed(self, conn: Connection, error: Exception) -> None:
        """A server may end a connection that rests (uvicorn does after 5 s): no chunk failed, connect again."""
        if conn.head or self._rests_ended >= MAX_RESTS_ENDED:
            super()._failed(conn, error)
            return
        self._rests_ended += 1
        self._drop(conn)
        if self._sending:
            self._freed(self._connect())

    def _drop(self, conn: Connection) -> None:
        if conn in self._idle:  # closed by the server while at rest
            self._idle.remove(conn)
        super()._drop(conn)

    def _acknowledged(self, conn: Connection) -> None:
        if self._is_counted(conn.started_s):
            super()._acknowledged(conn)

    def _is_counted(self, meant_s: float) -> bool:
        return self._window_s[0] <= meant_s < self._window_s[1]

    def _under_way(self) -> list[Connection]:
        resting = set(self._idle)
        return [conn for conn in self._open.values() if conn not in resting]

    def _count_unanswered(self) -> None:
        lost = sum(self._is_counted(conn.started_s) for conn in self._under_way())
        while self._is_due():
            lost += self._is_counted(self._next_s)
            self._next_s += self._random.expovariate(self._rate_per_s)
            self._chunks_left -= 1
        if lost:
            self._tally.errors[UNANSWERED] += lost
