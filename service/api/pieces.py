"""Long answers go out in pieces, and before each it is asked whether this host still hears home."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import Message, Send

from ingest import answers
from retention.freshness import Freshness
from service.playback import Refused

PIECE_BYTES = 256 * 1024
"""What a stopped process that goes on may still hand to the kernel, beside what that has already: as much as waits
unsent there (`service.http`)."""


def require_fresh(freshness: Freshness) -> None:
    """Raises Refused `host_stale`: by what this host knows, nothing may be sent."""
    if freshness.is_stale():
        raise Refused.by(answers.HOST_STALE)


async def send_pieces(send: Send, data: bytes | memoryview, freshness: Freshness, *, more: bool) -> None:
    """Send a part of a body.

    Args:
        more: whether more of the body follows.

    Raises:
        Refused: `host_stale`; no further piece was sent.
    """
    view = memoryview(data)
    for begin in range(0, max(len(view), 1), PIECE_BYTES):
        require_fresh(freshness)
        rest = more or begin + PIECE_BYTES < len(view)
        await send(
            {"type": "http.response.body", "body": view[begin : begin + PIECE_BYTES], "more_body": rest}
        )


async def send_whole(send: Send, start: Message, body: bytes | memoryview, freshness: Freshness) -> None:
    """Send an answer whose body is at hand. One that has begun and may not go on stays unfinished: the server closes
    its connection.

    Raises:
        Refused: `host_stale`, before anything was sent.
    """
    require_fresh(freshness)
    await send(start)
    with suppress(Refused):
        await send_pieces(send, body, freshness, more=False)
