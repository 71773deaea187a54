"""How long calls that block have been under way, for whoever must not wait for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class CallsUnderWay:
    """Calls that are under way now, and when the oldest of them began. For one loop."""

    def __init__(self) -> None:
        self._began_s: dict[object, float] = {}
        """In the order in which they began."""

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the block as a call."""
        call = object()
        self._began_s[call] = trio.current_time()
        try:
            yield
        finally:
            del self._began_s[call]

    @property
    def longest_s(self) -> float:
        """How long the oldest call has been under way, 0 when there is none."""
        oldest = next(iter(self._began_s.values()), None)
        return 0.0 if oldest is None else trio.current_time() - oldest
