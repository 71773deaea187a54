"""What the agreement keeps for a while only, and forgets afterwards. To be called now and then; idempotent."""

from __future__ import annotations

from service.agreement.desk import Desk
from service.agreement.shares import SHOWN_MS
from storage.catalog.books import Books
from storage.days import MS_PER_DAY

STALE_DAYS = 7
"""How long ended sessions and codes, counted attempts and answers to idempotency keys stay: nobody repeats a request,
or waits out a pause, for longer."""


def tidy(desk: Desk) -> int:
    """Forget what is stale, the hashes of addresses that can be used again (agreement 6.5.2), and what workers wrote of
    devices whose account was just ended. Returns how many rows."""

    def work(books: Books) -> int:
        stale = books.drop_stale(before_ms=desk.now_ms() - STALE_DAYS * MS_PER_DAY)
        stale += books.drop_shares(before_ms=desk.now_ms() - SHOWN_MS)
        return stale + books.drop_reserved(before_day=desk.today())

    return desk.write(work) + desk.catalog.drop_sightings()
