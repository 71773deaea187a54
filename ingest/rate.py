"""The per-device rate limit: off by default."""

from __future__ import annotations

from collections import OrderedDict

MAX_DEVICES = 100_000
"""Devices remembered at once; the one that has sent nothing for longest is forgotten first, and may burst again."""
BURST = 20
"""Chunks that a device may send at once after a pause: what it buffered while it was offline."""


class DeviceRate:
    """Generic cell rate: one number per device, no timers.

    Args:
        per_s: chunks per second and device in the long run; 0 is no limit.
    """

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1 / per_s if per_s else 0.0
        self._next_s: OrderedDict[int, float] = OrderedDict()

    def allows(self, device: int, now_s: float) -> bool:
        """Count one chunk, unless it is over the limit. `now_s` is monotonic."""
        if not self._interval_s:
            return True
        due_s = max(self._next_s.get(device, 0.0), now_s)
        if due_s - now_s > self._interval_s * (BURST - 1):
            return False
        self._next_s[device] = due_s + self._interval_s
        self._next_s.move_to_end(device)
        if len(self._next_s) > MAX_DEVICES:
            self._next_s.popitem(last=False)
        return True
