"""What takes a while to find: found once at a time, and told for some seconds, whoever asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class Kept(Generic[T]):
    """Something that takes a while to find: found once at a time, and told for some seconds.

    Args:
        find: it.
    """

    def __init__(self, seconds: float, find: Callable[[], Awaitable[T]]) -> None:
        self._seconds = seconds
        self._find = find
        self._lock = trio.Lock()
        self._found: tuple[float, T] | None = None

    async def get(self) -> T:
        """Raises what `find` raises."""
        async with self._lock:
            if self._found is None or trio.current_time() - self._found[0] >= self._seconds:
                self._found = (trio.current_time(), await self._find())
            return self._found[1]
