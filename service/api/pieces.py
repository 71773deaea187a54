"""Long answers go out in pieces, and before each it is asked whether it may still be sent: whether this host hears
home, and of recordings whether the viewer may see them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

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


async def send_pieces(send: Send, data: bytes | memoryview, confirm: Confirm, *, more: bool) -> None:
    """Send a part of a body.

    Args:
        more: whether more of the body follows.

    Raises:
        Refused: as `confirm`; no further piece was sent.
    """
    view = memoryview(data)
    for begin in range(0, max(len(view), 1), PIECE_BYTES):
        confirm()
        rest = more or begin + PIECE_BYTES < len(view)
        await send(
            {"type": "http.response.body", "body": view[begin : begin + PIECE_BYTES], "more_body": rest}
        )


async def send_whole(send: Send, start: Message, body: bytes | memoryview, confirm: Confirm) -> None:
    """Send an answer whose body is at hand. One that has begun and may not go on stays unfinished: the server closes
    its connection.

    Raises:
        Refused: as `confirm`, before anything was sent.
    """
    confirm()
    await send(start)
    with suppress(Refused):
        await send_pieces(send, body, confirm, more=False)
