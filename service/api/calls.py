"""Calls that block, made in threads of which there are few: the books' transactions, the hashing of passwords, and
payments. None of the three waits for another's threads, and no client's calls wait for all of another's: who has fewest
under way is next, in turn, and of the places to wait in a client has half of what all others leave.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import ParamSpec, TypeVar

import trio
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest import answers
from service.clients import network_of
from service.playback import Refused
from service.playback.sharing import Sharer, Shares

P = ParamSpec("P")
T = TypeVar("T")

CLIENT: ContextVar[str] = ContextVar("client", default="")
"""Whose request this task answers, as `client_of` says: set by `ByClient`, for all that it calls."""


def client_of(scope: Scope) -> str:
    """What the client of an ASGI request is counted as. Who that is, and not its proxy, the server has found out."""
    client = scope.get("client")
    return network_of(client[0] if client else "")


class ByClient:
    """The layer that notes for each request which client asks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        before = CLIENT.set(client_of(scope))
        try:
            await self._app(scope, receive, send)
        finally:
            CLIENT.reset(before)


class _Threads:
    """Threads of one kind, and the places to wait for them. A client may have all threads that are idle.

    Args:
        whose_share: of the threads that are not at work for others, what those may have that are at work for the same
            one, whoever asks.
    """

    def __init__(self, threads: int, most_waiting: int, wait_s: float, *, whose_share: float = 1.0) -> None:
        self._wait_s = wait_s
        self._limiter = trio.CapacityLimiter(threads)
        self._running = Shares(threads, account_share=whose_share, viewer_share=1.0)
        self._waiting = Shares(most_waiting, viewer_share=1.0)

    async def run(self, call: Callable[[], T], *, whose: str | None = None) -> T:
        client = CLIENT.get()
        who = Sharer(client, None) if whose is None else Sharer(whose, client)
        if not self._running.try_take(who, 1):
            await self._wait(who, Sharer(client, None))
        try:
            return await trio.to_thread.run_sync(call, limiter=self._limiter)
        finally:
            self._running.give(who, 1)

    async def _wait(self, who: Sharer, place: Sharer) -> None:
        if not self._waiting.total or not self._waiting.try_take(place, 1):
            raise Refused.by(answers.OVERLOADED)
        try:
            await self._running.take(who, 1, wait_s=self._wait_s)
        finally:
            self._waiting.give(place, 1)


class Calls:
    """The blocking calls of one process.

    Args:
        threads: transactions at once. They take milliseconds, and the catalog lets one write at a time.
        hash_threads: passwords at once, 64 MiB and a core for some 0.1 s each. Apart from the others, so that a
            storm of log-ins keeps nobody from playing back.
        money_threads: requests that move money at once. They wait for the payment gateway, which may take long.
        openid_threads: requests that wait for a provider of log-in at once, which may take long too. Of several
            providers each has half of what the others leave, so one that does not answer keeps nobody from the others.
        providers: of log-in, that there are.
        most_waiting: for each of these, shared out among clients; who finds no place is refused as overload at once,
            rather than after his patience.
        wait_s: longest wait for a turn. Behind calls that each wait for a catalog or a gateway that does not answer it
            would be a multiple of theirs.
    """

    def __init__(
        self,
        *,
        threads: int,
        hash_threads: int,
        money_threads: int,
        openid_threads: int,
        providers: int = 1,
        most_waiting: int,
        wait_s: float = math.inf,
    ) -> None:
        self._books = _Threads(threads, most_waiting, wait_s)
        self._hashing = _Threads(hash_threads, most_waiting, wait_s)
        self._paying = _Threads(money_threads, most_waiting, wait_s)
        share = 1.0 if providers < 2 else 0.5
        self._asking = _Threads(openid_threads, most_waiting, wait_s, whose_share=share)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A transaction. A cancelled one waits for its thread, which the catalog's time-outs bound.

        Raises:
            Refused: `overloaded`.
        """
        return await self._books.run(partial(function, *args, **kwargs))

    async def hash(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for what hashes a password."""
        return await self._hashing.run(partial(function, *args, **kwargs))

    async def pay(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, for what may wait for the payment gateway."""
        return await self._paying.run(partial(function, *args, **kwargs))

    async def ask(self, provider: str, call: Callable[[], T]) -> T:
        """As `run`, for what waits for a provider of log-in."""
        return await self._asking.run(call, whose=provider)
