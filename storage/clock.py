"""Where the time comes from: always an argument, never asked for behind one's back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from storage.days import day_of_ms

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
UPTIME = Path("/proc/uptime")
_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class ClockMark:
    """One moment, told by the wall clock and by a clock that nobody sets.

    Args:
        wall_ms: Unix milliseconds.
        uptime_ms: since the machine booted, its sleep included.
        boot: which boot that was, 63 bits of the system's boot id; 0 where the system does not say.
    """

    wall_ms: int
    uptime_ms: int
    boot: int


class Clock(Protocol):
    """Wall-clock time of this process."""

    def now_ms(self) -> int:
        """Unix milliseconds."""
        ...


class WitnessedClock(Clock, Protocol):
    """A wall clock beside which another one runs that can't be set."""

    def mark(self) -> ClockMark:
        """This moment."""
        ...


class SystemClock:
    """The host's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def mark(self) -> ClockMark:
        boot = int.from_bytes(machine_boot_id()[:8], "little") & (1 << 63) - 1
        return ClockMark(self.now_ms(), _uptime_ms(), boot)


class HomeClock:
    """Home's clock, asked each time: one for all hosts. What it says is past by the time that it is heard, so who goes
    by it believes a lease of others for a moment longer, and its own for a moment shorter.

    Args:
        ask: raises a WorldError where home does not answer.
    """

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask

    def now_ms(self) -> int:
        return self._ask()


def machine_boot_id() -> bytes:
    """16 bytes that change with every boot of this machine; zeros where the system does not say."""
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


def _uptime_ms() -> int:
    """From the file where there is one: what pretends another time to a process leaves files alone."""
    try:
        return round(float(UPTIME.read_text().split()[0]) * 1000)
    except (OSError, ValueError, IndexError):
        return boottime_ns() // 1_000_000


boottime_ns: Callable[[], int] = partial(time.clock_gettime_ns, _BOOTTIME)
"""CLOCK_BOOTTIME: ns since the machine booted, the same to all its processes. It runs on while they are stopped and
while the machine sleeps, and nobody sets it. (Asked once a chunk: a function of ours around it would add 30 ns.)"""


def today(clock: Clock, least_day: int) -> int:
    """The UTC day number that entitlement is judged by.

    Never before the last expiry day that was swept, nor before the day by home's clock, so that a clock set back
    resurrects nothing (invariant 12).
    """
    return max(day_of_ms(clock.now_ms()), least_day)
