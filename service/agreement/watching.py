"""Watching recordings with the token of an account: a viewer token behind the scenes, and a line in the history for an
operator's (agreement 2.8).

    an operator asks for a device's recordings
      -> no line of this operator and device whose time still runs: "watched" is written, and when that is committed
         a viewer token is made that ends with that time
      -> else the same token again, and nothing is written

So there is no byte that an operator saw outside a time that the history names, and a line for each `SESSION_H` at most,
however many chunks are read. What is remembered is this process's: another one, or a restart, writes another line.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from retention.tokens import mint_viewer_token
from service.agreement.desk import Actor, Desk, device_of
from storage.catalog.books import Books
from storage.days import ms_of_day

OWNERS_DAYS = 2
"""A token with which an owner watches is over at the end of tomorrow (UTC): a whole evening at least. It changes once a
day, so that reloads of a playlist name the same segments."""
SESSION_H = 4
"""How long one line of the history stands for an operator's watching of a device: an evening's look."""
MAX_SESSIONS = 10_000
"""Remembered at once, some 2 MB. The oldest makes way, and costs another line when it goes on."""


class Watching:
    """Viewer tokens for owners and operators. Calls may come from any thread, and block."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._until_ms: OrderedDict[tuple[str, int], int] = OrderedDict()
        self._lock = Lock()

    def token(self, actor: Actor, device: int) -> str:
        """A viewer token for who may see this device.

        Raises:
            NotFound, also for somebody else's device.
        """
        desk = self._desk
        if actor.may_see_all:
            with self._lock:  # of many requests at once one writes the line
                until_ms = self._until_ms.get((actor.operator, device), 0)
                if until_ms <= desk.now_ms():
                    until_ms = self._begin(actor, device)
        else:
            until_ms = ms_of_day(desk.today() + OWNERS_DAYS)
        with desk.reading() as books:
            facts = device_of(books, actor, device)
        secret = desk.vault.token_secret
        return mint_viewer_token(
            secret, device, facts.token_generation, until_ms // 1000, facts.viewer_generation
        )

    def _begin(self, actor: Actor, device: int) -> int:
        """Write the line. Returns until when it stands."""
        desk = self._desk
        now_ms = max(desk.now_ms(), ms_of_day(desk.today()))  # by which readers' tokens are judged
        until_ms = now_ms + SESSION_H * 3_600_000

        def note(books: Books) -> None:
            account = device_of(books, actor, device).account
            desk.record(books, actor, account, "watched", device=device, facts={"until_ms": until_ms})

        desk.write(note)
        self._until_ms[actor.operator, device] = until_ms
        self._until_ms.move_to_end((actor.operator, device))
        if len(self._until_ms) > MAX_SESSIONS:
            self._until_ms.popitem(last=False)
        return until_ms
