"""Sums of what is kept of devices by day, remembered.

Sums are made of chunk rows, which are never wrong, and remembered by each process: no table of sums has to be kept in
step with commits, deletions and sweeps. A request counts for `COUNT_S` at most, the newest days first; what it did not
come to is counted by those that follow. A deletion or an erasure is seen at once, a chunk that came since within
`TRUSTED_S`, or `PAST_TRUSTED_S` for one of an earlier day.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from storage.catalog.kept import KeptCatalog
from storage.rows.kept import KeptDay, KeptState

COUNT_S = 0.25
"""For which one request counts, and one step more: it holds a thread of the desk."""
STEP_DAYS = 4
"""Expiry days of one device that are counted in one step: 86,000 rows of a camera that sends every 4 s, some 80 ms in
a file."""
TRUSTED_S = 60.0
PAST_TRUSTED_S = 3600.0
MAX_REMEMBERED = 50_000
"""Sums of a device and an expiry day, 15 MB at most. Past it those that were counted first are forgotten."""


@dataclass(frozen=True, slots=True)
class Kept:
    """
    Args:
        days: of all these devices, in order of capture day.
        devices: the sum of each device; its `day` is the newest one, 0 where nothing is kept.
        is_complete: every day was counted; else ask again.
    """

    days: tuple[KeptDay, ...]
    devices: dict[int, KeptDay]
    is_complete: bool


class Clocks(Protocol):
    """Monotonic seconds: `time.monotonic`."""

    def __call__(self) -> float: ...


@dataclass(slots=True)
class KeptCounts:
    """See the module docstring. One per process, safe to share between threads."""

    now_s: Clocks = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[tuple[int, int], tuple[tuple[int, int, int], float, tuple[KeptDay, ...]]] = field(
        default_factory=dict
    )
    """By device and expiry day: of which epoch and deletions, when it was counted, and the sums."""

    def of(self, catalog: KeptCatalog, devices: Sequence[int], *, today: int) -> Kept:
        """The sums of these devices, some thousand at most.

        Args:
            today: day number. What expires on a later day than chunks of earlier days do may have new ones.
        """
        until_s = self.now_s() + COUNT_S
        states = catalog.kept_states(devices)
        for device, days in self._due(states, today):
            if self.now_s() >= until_s:
                break
            self._count(catalog, device, states[device], days)
        return self._summed(states)

    def _due(self, states: dict[int, KeptState], today: int) -> list[tuple[int, list[int]]]:
        """What is to be counted, by device, in steps: what never was before all else, and of that the newest days of
        all devices first."""
        now_s = self.now_s()
        steps: list[tuple[bool, int, int, list[int]]] = []
        for device, state in states.items():
            due: dict[bool, list[int]] = {False: [], True: []}
            for day in state.expiry_days:
                known = self._of(device, state, day)
                if known is None or not _holds(*known, today, now_s):
                    due[known is not None].append(day)
            for again, days in due.items():
                for start in range(0, len(days), STEP_DAYS):
                    steps.append((again, start, device, days[start : start + STEP_DAYS]))
        return [(device, days) for _, _, device, days in sorted(steps)]

    def _of(self, device: int, state: KeptState, day: int) -> tuple[float, tuple[KeptDay, ...]] | None:
        """When it was counted, and the sums, where nothing was deleted or erased since."""
        known = self._known.get((device, day))
        return None if known is None or known[0] != state[:3] else known[1:]

    def _count(self, catalog: KeptCatalog, device: int, state: KeptState, days: list[int]) -> None:
        counted_s = self.now_s()
        found = catalog.kept(device, days)
        with self._lock:
            for day in days:
                self._known.pop((device, day), None)
                self._known[device, day] = (state[:3], counted_s, tuple(found.get(day, ())))
            while len(self._known) > MAX_REMEMBERED:
                del self._known[next(iter(self._known))]

    def _summed(self, states: dict[int, KeptState]) -> Kept:
        by_day: dict[int, KeptDay] = {}
        by_device: dict[int, KeptDay] = {}
        is_complete = True
        for device, state in states.items():
            whole = KeptDay(0, 0, 0, 0)
            for expires_on in state.expiry_days:
                known = self._of(device, state, expires_on)
                if known is None:
                    is_complete = False
                    continue
                for one in known[1]:
                    by_day[one.day] = _added(by_day.get(one.day, KeptDay(one.day, 0, 0, 0)), one)
                    whole = _added(whole, one)
            by_device[device] = whole
        return Kept(tuple(by_day[day] for day in sorted(by_day)), by_device, is_complete)


def _holds(counted_s: float, sums: tuple[KeptDay, ...], today: int, now_s: float) -> bool:
    newest = sums[-1].day if sums else today
    return now_s - counted_s < (TRUSTED_S if newest >= today - 1 else PAST_TRUSTED_S)


def _added(one: KeptDay, other: KeptDay) -> KeptDay:
    return KeptDay(
        max(one.day, other.day),
        one.chunks + other.chunks,
        one.length_bytes + other.length_bytes,
        one.duration_ms + other.duration_ms,
    )
