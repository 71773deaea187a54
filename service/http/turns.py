"""Whose request is worked on next: requests that have begun and are not answered yet, shared out among clients.

Every such request takes steps of the one event loop, a place in queues for threads, or both. A client with a thousand
connections that asks on all of them would else be everybody's speed.
"""

from __future__ import annotations

from collections import Counter, deque

import trio

TURN_S = 1.0
"""A request that is not answered after this waits for something else than the loop (a store, a camera, a gateway, the
rest of its body), and is in nobody's way any more."""
LOOK_EVERY_S = 0.25


class Turn:
    """One request's."""

    __slots__ = ("begun_s", "client", "granted")

    def __init__(self, client: str) -> None:
        self.client = client
        self.begun_s = 0.0
        self.granted = trio.Event()


class Turns:
    """See the module docstring. A client has at most its share of what the others leave, and at least one; of those who
    wait, the client that has the fewest under way goes first, each client's in the order in which they came.

    Args:
        most: requests under way at once.
        share: of what other clients leave, 0 < share <= 1: what one client may have.
    """

    def __init__(self, most: int, share: float) -> None:
        self._most = most
        self._share = share
        self._under_way: dict[Turn, None] = {}
        """In the order in which they began."""
        self._by_client: Counter[str] = Counter()
        self._waiting: dict[str, deque[Turn]] = {}
        self._over: list[Turn] = []
        """Given back in this round of the loop."""
        self._given_back = trio.Event()

    async def take(self, client: str) -> Turn:
        """Wait for a turn. It is to be given `back`, and may have ended by itself before."""
        turn = Turn(client)
        if client not in self._waiting and self._has_room(client):
            self._begin(turn)
            return turn
        self._waiting.setdefault(client, deque()).append(turn)
        self._let_in()
        try:
            await turn.granted.wait()
        except BaseException:
            self._leave(turn)
            raise
        return turn

    def back(self, turn: Turn) -> None:
        """It is answered, or has ended. Twice is harmless.

        Others have it from the next round of the loop on: many requests are answered without a pause, and each
        connection would have one in every round.
        """
        self._over.append(turn)
        self._given_back.set()

    async def run(self) -> None:
        """The owning task of what ended: by itself, or after `TURN_S`. For ever."""
        while True:
            with trio.move_on_after(LOOK_EVERY_S):
                await self._given_back.wait()
            self._given_back = trio.Event()
            over, self._over = self._over, []
            for turn in over:
                self._end(turn)
            now_s = trio.current_time()
            while self._under_way and now_s - (oldest := next(iter(self._under_way))).begun_s > TURN_S:
                self._end(oldest)
            self._let_in()

    def _has_room(self, client: str) -> bool:
        own = self._by_client[client]
        if not own:
            return True  # one more than `most` for each client at worst, and connections are bounded
        others = len(self._under_way) - own
        return own + 1 <= (self._most - others) * self._share

    def _let_in(self) -> None:
        while self._waiting:
            client = min(self._waiting, key=self._by_client.__getitem__)
            if not self._has_room(client):
                return
            waiting = self._waiting[client]
            self._begin(waiting.popleft())
            if not waiting:
                del self._waiting[client]

    def _begin(self, turn: Turn) -> None:
        turn.begun_s = trio.current_time()
        self._under_way[turn] = None
        self._by_client[turn.client] += 1
        turn.granted.set()

    def _end(self, turn: Turn) -> None:
        if turn not in self._under_way:
            return
        del self._under_way[turn]
        self._by_client[turn.client] -= 1
        if not self._by_client[turn.client]:
            del self._by_client[turn.client]

    def _leave(self, turn: Turn) -> None:
        if turn.granted.is_set():
            self.back(turn)
            return
        waiting = self._waiting[turn.client]
        waiting.remove(turn)
        if not waiting:
            del self._waiting[turn.client]
