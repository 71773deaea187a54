"""Where the time comes from: always an argument, never asked for behind one's back."""

from __future__ import annotations

import time
from typing import Protocol

from storage.days import day_of_ms


class Clock(Protocol):
    """Wall-clock time of this process."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...


class SystemClock:
    """The host's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def today(clock: Clock, closed_through: int) -> int:
    """The UTC day number that entitlement is judged by.

    Never before the last expiry day that was swept, so that a clock set back resurrects nothing
    (invariant 12).
    """
    return max(day_of_ms(clock.now_ms()), closed_through)
