"""Counting attempts: how long somebody who failed too often waits, and how many times a thing may be done in a
while (agreement 1.2: what the owner alone answers for is worth guarding). Pure.

A pause never exceeds `max_lock_ms`, also when the clock was set back: nobody is locked out for good by a counter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from storage.rows.accounts import AttemptsRow

MAX_COUNT = 1_000_000
"""Counting stops here."""


@dataclass(frozen=True, slots=True)
class Throttle:
    """Args:
    free: failures without a pause, 1 or more.
    lock_ms: the pause after one more; doubles with each further failure.
    max_lock_ms: its bound.
    decay_ms: after so long without a failure half of them are forgotten, and again half after as long.
    """

    free: int
    lock_ms: int
    max_lock_ms: int
    decay_ms: int = 86_400_000


def wait_ms(row: AttemptsRow | None, throttle: Throttle, *, now_ms: int) -> int:
    """Return how long to wait before the next attempt is looked at; 0: go on."""
    if row is None:
        return 0
    return min(max(0, row.locked_until_ms - now_ms), throttle.max_lock_ms)


def failed(row: AttemptsRow | None, subject: str, throttle: Throttle, *, now_ms: int) -> AttemptsRow:
    """Return the row after one more failure. A success forgets the row altogether."""
    if row is None:
        row = AttemptsRow(subject, 0, now_ms, now_ms)
    count = min(_remembered(row, throttle, now_ms) + 1, MAX_COUNT)
    beyond = count - throttle.free
    # 2^60 ms is longer than any bound: no need for larger numbers.
    pause_ms = 0 if beyond <= 0 else min(throttle.lock_ms << min(beyond - 1, 60), throttle.max_lock_ms)
    return replace(row, count=count, last_ms=now_ms, locked_until_ms=now_ms + pause_ms if pause_ms else 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """Args:
    row: to be stored.
    wait_ms: 0 when the attempt may go on, else how long until the next may.
    """

    row: AttemptsRow
    wait_ms: int


def take(row: AttemptsRow | None, subject: str, *, most: int, window_ms: int, now_ms: int) -> Taken:
    """Count one of at most `most` attempts in a window that begins with the first. One that must wait is not
    counted."""
    if row is None or not row.first_ms <= now_ms < row.first_ms + window_ms:
        return Taken(AttemptsRow(subject, 1, now_ms, now_ms), 0)
    if row.count >= most:
        return Taken(row, row.first_ms + window_ms - now_ms)
    return Taken(replace(row, count=row.count + 1, last_ms=now_ms), 0)


def _remembered(row: AttemptsRow, throttle: Throttle, now_ms: int) -> int:
    halvings = max(0, now_ms - row.last_ms) // throttle.decay_ms
    return row.count >> min(halvings, 60)
