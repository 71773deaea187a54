"""What is kept of a device, summed up by day."""

from __future__ import annotations

from typing import NamedTuple


class KeptDay(NamedTuple):
    """Chunks of one device and one capture day (UTC) of one expiry day."""

    day: int
    chunks: int
    length_bytes: int
    duration_ms: int
    """What they play, as their media says."""


class KeptState(NamedTuple):
    """By what it can be told whether sums of a device still hold, but for chunks that came since."""

    epoch: int
    deletions: int
    """The number of the device's newest deleted range; 0: none."""
    unfinished: int
    """How many of them are not finished."""
    expiry_days: tuple[int, ...]
    """Those that may have chunks of it, the last one first."""
