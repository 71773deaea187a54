"""How often somebody may try: attempts are counted before it is known how they end, so that many at once are no way
around, and forgiven when they end well. Clients are told apart by their network address."""

from __future__ import annotations

from dataclasses import replace

from retention.throttle import Throttle, failed, take, wait_ms
from service.agreement.desk import Desk
from service.agreement.errors import TooMany
from storage.catalog.books import Books

HOUR_MS = 3_600_000


def log_ins(desk: Desk) -> Throttle:
    """What slows down guessing at one account."""
    return _throttle(desk, desk.settings.login_failures)


def log_ins_of_client(desk: Desk) -> Throttle:
    """What slows down guessing from one network address, at whatever accounts."""
    return _throttle(desk, desk.settings.login_failures_per_client)


def wrong_serials(desk: Desk) -> Throttle:
    """What slows down guessing at serials by one account."""
    return _throttle(desk, desk.settings.serial_failures)


def count_failure(desk: Desk, books: Books, subject: str, throttle: Throttle) -> TooMany | None:
    """Count an attempt as failed until it is forgiven; or, while the subject has to wait, refuse it uncounted.
    The refusal is to be returned by the work of `Desk.write`."""
    now_ms = desk.now_ms()
    row = books.attempts(subject)
    wait = wait_ms(row, throttle, now_ms=now_ms)
    if wait:
        return _too_many(wait)
    books.put_attempts(failed(row, subject, throttle, now_ms=now_ms))
    return None


def forgive(books: Books, subject: str) -> None:
    """The attempt that was counted last ended well; earlier failures stay counted."""
    row = books.attempts(subject)
    if row is None:
        return
    if row.count > 1:
        # No pause ran when it was let through, so none is left without it.
        books.put_attempts(replace(row, count=row.count - 1, locked_until_ms=0))
    else:
        books.drop_attempts(subject)


def count_use(desk: Desk, books: Books, subject: str, most_per_hour: int) -> TooMany | None:
    """Count one of so many an hour, or refuse it; as `count_failure`."""
    taken = take(
        books.attempts(subject), subject, most=most_per_hour, window_ms=HOUR_MS, now_ms=desk.now_ms()
    )
    if taken.wait_ms:
        return _too_many(taken.wait_ms)
    books.put_attempts(taken.row)
    return None


def _throttle(desk: Desk, free: int) -> Throttle:
    lock_s, max_lock_s = desk.settings.login_lock_s, desk.settings.login_max_lock_s
    return Throttle(free, round(lock_s * 1000), round(max(lock_s, max_lock_s) * 1000))


def _too_many(wait: int) -> TooMany:
    wait_s = -(-wait // 1000)
    return TooMany(f"too many attempts; try again in {wait_s} s", retry_after_s=wait_s)
