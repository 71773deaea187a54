"""Long answers go out in pieces, and before each it is asked whether this host still hears home."""

from __future__ import annotations

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


async def send_pieces(
    send: Send, data: bytes | memoryview, freshness: Freshness, *, start: Message | None = None, more: bool
) -> None:
    """Send a part of a body.

    Args:
        start: what begins the answer. It goes out with the first piece, so a host that is stale by then can say so.
        more: whether more of the body follows.

    Raises:
        Refused: `host_stale`. When the answer has begun, the server closes its connection, for it stays unfinished.
    """
    view = memoryview(data)
    for begin in range(0, max(len(view), 1), PIECE_BYTES):
        require_fresh(freshness)
        if start is not None:
            await send(start)
            start = None
        rest = more or begin + PIECE_BYTES < len(view)
        await send(
            {"type": "http.response.body", "body": view[begin : begin + PIECE_BYTES], "more_body": rest}
        )
