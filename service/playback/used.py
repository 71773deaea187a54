"""Which devices were played back, and whose owners asked something: what tells a dormant account (agreement 6.1) from
one that is only looked at, and continued use from none (11.2)."""

from __future__ import annotations

MAX_NUMBERS = 1_000_000
"""Remembered at once, some 100 MB. Past it a use is noted when it comes again."""


class Used:
    """Numbers, of devices or accounts, used since the last `take`, each told once a day: use writes nothing, and who
    keeps the catalog writes now and then. Calls may come from any thread; one is lost at worst, and made again."""

    def __init__(self) -> None:
        self._fresh: dict[int, int] = {}
        self._told: dict[int, int] = {}

    def note(self, device: int, day: int) -> None:
        """A device is being played back on this day number."""
        if self._told.get(device) != day and len(self._fresh) < MAX_NUMBERS:
            self._fresh[device] = day

    def forget(self) -> None:
        """Tell again of numbers that were told of, when they are used again: a new agreement was published."""
        self._told = {}

    def take(self) -> dict[int, list[int]]:
        """Day → devices, of those that were not told of that day."""
        fresh, self._fresh = self._fresh, {}
        if len(self._told) + len(fresh) > MAX_NUMBERS:
            self._told = {}
        self._told.update(fresh)
        by_day: dict[int, list[int]] = {}
        for device, day in fresh.items():
            by_day.setdefault(day, []).append(device)
        return by_day

    def give_back(self, day: int, devices: list[int]) -> None:
        """They could not be written down: to be taken again."""
        for device in devices:
            self._fresh.setdefault(device, day)
