"""Pages that are the same for everybody and need no token: each is made once in a while, and kept in between, so that
strangers who ask for one again and again cost neither the catalog nor a thread of the desk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio
from fastapi import Response
from pydantic import BaseModel, TypeAdapter

from ingest import answers
from service.playback import Refused

FRESH_S = 5.0
"""How old a kept page may be: what operators publish is seen by everybody within that time."""
WAIT_S = 5.0
"""For whoever makes a page; nobody waits longer for another's."""
MAX_KEPT_BYTES = 16 << 20
"""Of all kept pages together. The longest agreement has 4 MB, and takes the place of what does not fit beside it."""
HEADERS = {"Cache-Control": f"public, max-age={FRESH_S:.0f}"}

_LISTS: TypeAdapter[Sequence[BaseModel]] = TypeAdapter(Sequence[BaseModel])
T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Page:
    body: bytes
    made_s: float


class Public:
    """The kept pages of one process, by name; the one that was not asked for longest goes first."""

    def __init__(self) -> None:
        self._pages: OrderedDict[str, _Page] = OrderedDict()
        self._making = trio.Lock()

    @property
    def kept_bytes(self) -> int:
        return sum(len(page.body) for page in self._pages.values())

    async def answer(self, name: str, make: Callable[[], Awaitable[T | list[T]]]) -> Response:
        """The page of this name; `make` is called when there is no fresh one, by one request at a time.

        Raises:
            What `make` raises; then nothing is kept. Refused: `overloaded`, those who were before have waited for the
            catalog for `WAIT_S`: behind each other they would wait for a multiple of that.
        """
        page = self._fresh(name)
        if page is None:
            with trio.move_on_after(WAIT_S) as patience:
                await self._making.acquire()  # of many who ask at once one makes it
            if patience.cancelled_caught:
                raise Refused.by(answers.OVERLOADED)
            try:
                page = self._fresh(name)
                if page is None:
                    page = self._keep(name, _json(await make()))
            finally:
                self._making.release()
        return Response(page.body, headers=HEADERS, media_type="application/json")

    def _fresh(self, name: str) -> _Page | None:
        page = self._pages.get(name)
        if page is None or trio.current_time() - page.made_s > FRESH_S:
            return None
        self._pages.move_to_end(name)
        return page

    def _keep(self, name: str, body: bytes) -> _Page:
        self._pages.pop(name, None)
        self._pages[name] = page = _Page(body, trio.current_time())
        while self.kept_bytes > MAX_KEPT_BYTES:
            self._pages.popitem(last=False)
        return page


def _json(content: BaseModel | list[T]) -> bytes:
    if isinstance(content, BaseModel):
        return content.model_dump_json().encode()
    return _LISTS.dump_json(content, serialize_as_any=True)
