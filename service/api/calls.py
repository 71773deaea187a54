"""Calls that block, made in threads of which there are few: the books' transactions, the hashing of passwords, and
payments. None of the three waits for another's threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import trio

from ingest import answers
from service.playback import Refused

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """The blocking calls of one process.

    Args:
        threads: transactions at once. They take milliseconds, and the catalog lets one write at a time.
        hash_threads: passwords at once, 64 MiB and a core for some 0.1 s each. Apart from the others, so that a
            storm of log-ins keeps nobody from playing back.
        money_threads: requests that move money at once. They wait for the payment gateway, which may take long.
        most_waiting: for each of these; who comes later is refused as overload at once, rather than after his patience.
    """

    def __init__(self, *, threads: int, hash_threads: int, money_threads: int, most_waiting: int) -> None:
        self._threads = trio.CapacityLimiter(threads)
        self._hashing = trio.CapacityLimiter(hash_threads)
        self._paying = trio.CapacityLimiter(money_threads)
        self._most_waiting = most_waiting

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A transaction. A cancelled one waits for its thread, which the catalog's time-outs bound.

        Raises:
            Refused: `overloaded`.
        """
        return await self._in_thread(self._threads, partial(function, *args, **kwargs))

    async def hash(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for what hashes a password."""
        return await self._in_thread(self._hashing, partial(function, *args, **kwargs))

    async def pay(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for what may wait for the payment gateway."""
        return await self._in_thread(self._paying, partial(function, *args, **kwargs))

    async def _in_thread(self, limiter: trio.CapacityLimiter, call: Callable[[], T]) -> T:
        if limiter.statistics().tasks_waiting >= self._most_waiting:
            raise Refused.by(answers.OVERLOADED)
        return await trio.to_thread.run_sync(call, limiter=limiter)
