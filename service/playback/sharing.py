"""What there is only so much of, shared out among owners and their viewers: memory, threads, exports.

An account may hold half of what all others leave, and a viewer half of what the account's other viewers leave of that.
So whoever is there, a newcomer finds room: n accounts that take all they can leave one part in n + 1. A fixed number
for each would be too much for many and too little for one.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from ingest import answers
from service.playback.refusals import Refused


@dataclass(frozen=True, slots=True)
class Sharer:
    """On whose account something is held, and by which of its viewers."""

    account: Hashable
    viewer: Hashable


class _Waiter:
    __slots__ = ("amount", "granted", "number")

    def __init__(self, amount: int, number: int) -> None:
        self.amount = amount
        self.number = number
        self.granted = trio.Event()


class Shares:
    """One such thing. Who finds no room waits; of those who wait, whose account holds least is served
    first, and those who hold as much are served in turn.

    Args:
        total: how much there is. Whoever asks for more than that is let in when nobody else holds any.
        account_share: of what other accounts leave, 0 < share <= 1; who holds nothing may always hold something.
        viewer_share: of what an account may hold and its other viewers leave.
        max_waiting: so many wait at most; more are refused at once.
    """

    def __init__(
        self,
        total: int,
        *,
        account_share: float = 0.5,
        viewer_share: float = 0.5,
        max_waiting: float = math.inf,
    ) -> None:
        self.total = total
        self.held = 0
        self._account_share = account_share
        self._viewer_share = viewer_share
        self._max_waiting = max_waiting
        self._by_account: Counter[Hashable] = Counter()
        self._by_sharer: Counter[Sharer] = Counter()
        self._waiting: dict[Sharer, deque[_Waiter]] = {}
        self._asked = 0

    async def take(self, who: Sharer, amount: int, *, wait_s: float = math.inf) -> None:
        """Hold so much.

        Raises:
            Refused: `overloaded`, no room for `wait_s`, or `max_waiting` wait already. Nothing is held
                then, nor on cancellation.
        """
        if self.try_take(who, amount):
            return
        if sum(map(len, self._waiting.values())) >= self._max_waiting:
            raise Refused.by(answers.OVERLOADED)
        self._asked += 1
        waiter = _Waiter(amount, self._asked)
        self._waiting.setdefault(who, deque()).append(waiter)
        self._admit()
        if waiter.granted.is_set():
            return
        try:
            with trio.move_on_after(wait_s):
                await waiter.granted.wait()
        except BaseException:
            self._leave(who, waiter)
            raise
        if not waiter.granted.is_set():
            self._leave(who, waiter)
            raise Refused.by(answers.OVERLOADED)

    def try_take(self, who: Sharer, amount: int) -> bool:
        """Hold so much, if that can be had at once and nobody waits for it. Returns whether it is held."""
        if not (self._within_share(who, amount) and self._within_total(amount)):
            return False
        if any(self._within_share(other, waiting[0].amount) for other, waiting in self._waiting.items()):
            return False  # only the lack of room keeps him waiting
        self._hold(who, amount)
        return True

    def give(self, who: Sharer, amount: int) -> None:
        """Hold so much no longer."""
        assert self._by_sharer[who] >= amount, "gave back more than was taken"
        self.held -= amount
        self._by_account[who.account] -= amount
        self._by_sharer[who] -= amount
        if not self._by_sharer[who]:
            del self._by_sharer[who]
        if not self._by_account[who.account]:
            del self._by_account[who.account]
        self._admit()

    @asynccontextmanager
    async def hold(self, who: Sharer, amount: int = 1, *, wait_s: float = math.inf) -> AsyncIterator[None]:
        """`take` and `give`."""
        await self.take(who, amount, wait_s=wait_s)
        try:
            yield
        finally:
            self.give(who, amount)

    def _within_total(self, amount: int) -> bool:
        return not self.held or self.held + amount <= self.total

    def _within_share(self, who: Sharer, amount: int) -> bool:
        account, viewer = self._by_account[who.account], self._by_sharer[who]
        account_most = (self.total - (self.held - account)) * self._account_share
        if account and account + amount > account_most:
            return False
        viewer_most = (account_most - (account - viewer)) * self._viewer_share
        return not viewer or viewer + amount <= viewer_most

    def _hold(self, who: Sharer, amount: int) -> None:
        self.held += amount
        self._by_account[who.account] += amount
        self._by_sharer[who] += amount

    def _admit(self) -> None:
        """Let in who may come now. Who is within his share but finds no room keeps the next for himself: smaller ones
        that come later don't overtake him for ever."""
        while self._waiting:
            for who in sorted(self._waiting, key=self._standing):
                waiter = self._waiting[who][0]
                if not self._within_share(who, waiter.amount):
                    continue
                if not self._within_total(waiter.amount):
                    return
                self._hold(who, waiter.amount)
                self._forget(who, waiter)
                self._to_the_back(who)
                waiter.granted.set()
                break
            else:
                return

    def _to_the_back(self, who: Sharer) -> None:
        """Of those who hold as much, each has its turn: whoever sent many does not come before all who came later."""
        if who in self._waiting:
            self._asked += 1
            self._waiting[who][0].number = self._asked

    def _standing(self, who: Sharer) -> tuple[int, int, int]:
        return self._by_account[who.account], self._by_sharer[who], self._waiting[who][0].number

    def _leave(self, who: Sharer, waiter: _Waiter) -> None:
        """Stop waiting, or give back what was granted meanwhile."""
        if waiter.granted.is_set():
            self.give(who, waiter.amount)
        else:
            self._forget(who, waiter)
            self._admit()

    def _forget(self, who: Sharer, waiter: _Waiter) -> None:
        waiting = self._waiting[who]
        waiting.remove(waiter)
        if not waiting:
            del self._waiting[who]
