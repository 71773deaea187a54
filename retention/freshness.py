"""Whether this host's rows may be acted on: its feed has asked home of late."""

from __future__ import annotations

from collections.abc import Callable

from retention.bitmap import EntitlementBitmap
from storage.clock import boottime_ns


class Freshness:
    """Asks a bitmap's stamp. Costs one clock read and one word of the header; nothing where home is on this host.

    Args:
        max_stale_ns: how long ago the feed may have asked; 0: home is on this host, whose rows are never stale.
        boottime_ns: CLOCK_BOOTTIME.
    """

    __slots__ = ("_bitmap", "_boottime_ns", "_max_stale_ns")

    def __init__(
        self, bitmap: EntitlementBitmap, max_stale_ns: int, boottime_ns: Callable[[], int] = boottime_ns
    ) -> None:
        self._bitmap = bitmap
        self._max_stale_ns = max_stale_ns
        self._boottime_ns = boottime_ns

    def is_stale(self) -> bool:
        """Whether home may know what the rows do not. Asked right before each use of them, and never remembered."""
        return self._max_stale_ns != 0 and self._bitmap.is_stale(self._boottime_ns(), self._max_stale_ns)
