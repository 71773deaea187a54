"""Long answers go out in pieces, and before each it is asked whether it may still be sent: whether this host hears
home, and of recordings whether the viewer may see them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import Message, Send

from ingest import answers
from retention.freshness import Freshness
from service.playback import Refused

Confirm = Callable[[], object]
"""Raises Refused when nothing more may be sent."""
PIECE_BYTES = 256 * 1024
"""What a stopped process that goes on may still hand to the kernel, beside what that has already: as much as waits
unsent there (`service.http`)."""


def require_fresh(freshness: Freshness) -> None:
    """Raises Refused `host_stale`: by what this host knows, nothing may be sent."""
    if freshness.is_stale():
        raise Refused.by(answers.HOST_STALE)


class PiecewiseAnswer:
    """An answer that goes out in pieces. Its head goes with the first one, right after that was confirmed: until then
    it may become a refusal.

    Args:
        start: the ASGI message that begins it.
        confirm: asked before each piece.
    """

    def __init__(self, send: Send, start: Message, confirm: Confirm) -> None:
        self._send = send
        self._start = start
        self._confirm = confirm
        self.has_begun = False

    async def send(self, data: bytes | memoryview, *, more: bool) -> None:
        """Send a part of the body.

        Args:
            more: whether more of the body follows.

        Raises:
            Refused: as `confirm`; no further piece was sent. One that has begun stays unfinished then: the server
                closes its connection.
        """
        view = memoryview(data)
        for begin in range(0, max(len(view), 1), PIECE_BYTES):
            self._confirm()
            if not self.has_begun:
                await self._send(self._start)
                self.has_begun = True
            rest = more or begin + PIECE_BYTES < len(view)
            await self._send(
                {"type": "http.response.body", "body": view[begin : begin + PIECE_BYTES], "more_body": rest}
            )


async def send_whole(send: Send, start: Message, body: bytes | memoryview, confirm: Confirm) -> None:
    """Send an answer whose body is at hand. One that has begun and may not go on stays unfinished.

    Raises:
        Refused: as `confirm`, before anything was sent.
    """
    answer = PiecewiseAnswer(send, start, confirm)
    try:
        await answer.send(body, more=False)
    except Refused:
        if not answer.has_begun:
            raise
