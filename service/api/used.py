"""Which devices were played back, noted in memory and told to the catalog now and then: dormancy counts in days
(agreement 6.1.2), so a minute that a crash loses is no loss, and a transaction for each read would be one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import Lock

MOST_NOTED = 100_000
"""Devices noted between two tellings; more are noted at their next read."""


class Used:
    """Devices used since the last `tell`. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._devices: set[int] = set()

    def note(self, device: int) -> None:
        with self._lock:
            if len(self._devices) < MOST_NOTED:
                self._devices.add(device)

    def tell(self, write: Callable[[Collection[int]], object]) -> int:
        """Give what was noted to `write`, and forget it unless that raises. Returns how many devices."""
        with self._lock:
            devices, self._devices = self._devices, set()
        if not devices:
            return 0
        try:
            write(sorted(devices))
        except BaseException:
            with self._lock:
                self._devices |= devices
            raise
        return len(devices)
