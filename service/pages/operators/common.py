"""What the pages of operators share: what a role is offered, what is kept for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio
from fastapi import Request

from retention.operators import MAY, Act
from service.pages.site import Person

T = TypeVar("T")


def one_of(request: Request, name: str, choices: Sequence[str]) -> str:
    """A word in the address, if it is one of these; else ""."""
    text = request.query_params.get(name, "")
    return text if text in choices else ""


def offered(person: Person) -> frozenset[Act]:
    """What the operator may do: what is offered on a page. The handlers ask again."""
    return MAY[person.actor.operator_role]


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
