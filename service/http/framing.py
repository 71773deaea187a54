"""HTTP/1.1 requests, sans-IO: bytes in, one event at a time out.

Nothing is parsed before it is asked for. What waits is bytes: at most a head and what the owner feeds at once, since he
feeds only when he is told that more is needed.
"""

from __future__ import annotations

from enum import Enum, auto

from ingest.framing import wrong_beginning
from service.http.heads import RequestHead, read_head
from service.http.llhttp import ChunkedBody
from service.http.refusals import Refused, malformed


class Need(Enum):
    """Where the framer stands when it has no event of the message."""

    DATA = auto()
    """Feed more."""
    END = auto()
    """The message is complete. `begin_next` goes on to the one behind it."""


class _State(Enum):
    """What comes next on the wire. HEAD → SIZED | CHUNKED | COMPLETE; SIZED, CHUNKED → COMPLETE; COMPLETE → HEAD."""

    HEAD = auto()
    SIZED = auto()
    CHUNKED = auto()
    COMPLETE = auto()


Event = RequestHead | bytes | Need

_END = b"\r\n\r\n"


class Framer:
    """One connection's requests.

    Args:
        max_head_bytes: of request line and headers with their empty line.

    Any split of the same bytes gives the same events, but for where pieces of a body are cut. After a `Refused` nothing
    more may be asked for.
    """

    def __init__(self, max_head_bytes: int) -> None:
        self._max_head_bytes = max_head_bytes
        self._waiting = bytearray()
        self._seen_bytes = 0
        """Of what waits: looked at already, and no head ends in it."""
        self._left_bytes = 0
        """Of a sized body: still to come."""
        self._chunks: ChunkedBody | None = None
        self._state = _State.HEAD

    @property
    def waiting_bytes(self) -> int:
        """What was fed and not asked for yet."""
        return len(self._waiting)

    @property
    def is_complete(self) -> bool:
        """Whether all of the current message was asked for."""
        return self._state is _State.COMPLETE

    def feed(self, data: bytes | bytearray) -> None:
        """Keep what was received."""
        self._waiting += data

    def next(self) -> Event:
        """The next event: a head, pieces of its body, `Need.END`; or `Need.DATA`.

        Raises:
            Refused: what came can't be answered by anything else, and nothing behind it can be trusted.
        """
        match self._state:
            case _State.HEAD:
                return self._next_head()
            case _State.SIZED:
                return self._next_of_sized()
            case _State.CHUNKED:
                return self._next_of_chunked()
            case _State.COMPLETE:
                return Need.END

    def begin_next(self) -> None:
        """Go on to the message behind a complete one."""
        assert self.is_complete, "a message is still under way"
        self._state = _State.HEAD

    def _next_head(self) -> Event:
        waiting = self._waiting
        while waiting.startswith(b"\r\n"):  # RFC 9112 §2.2: some clients end a body with one
            del waiting[:2]
            self._seen_bytes = 0
        end = waiting.find(_END, max(self._seen_bytes - len(_END) + 1, 0))
        # Not behind the end: of many heads that came at once each would look through all the others.
        until = end if end >= 0 else len(waiting)
        wrong = wrong_beginning(waiting, self._seen_bytes, until)
        if wrong is not None:
            raise malformed(wrong.detail)
        self._seen_bytes = len(waiting)
        if until > self._max_head_bytes - len(_END):
            detail = f"request line and headers exceed {self._max_head_bytes} bytes"
            raise Refused(431, "head_too_large", detail)
        if end < 0:
            return Need.DATA
        head = read_head(bytes(self._take(end + len(_END))))
        self._left_bytes = head.content_length or 0
        if head.chunked:
            self._state, self._chunks = _State.CHUNKED, ChunkedBody(self._max_head_bytes)
        else:
            self._state = _State.SIZED if self._left_bytes else _State.COMPLETE
        return head

    def _next_of_sized(self) -> Event:
        if not self._waiting:
            return Need.DATA
        piece = bytes(self._take(self._left_bytes))
        self._left_bytes -= len(piece)
        if not self._left_bytes:
            self._state = _State.COMPLETE
        return piece

    def _next_of_chunked(self) -> Event:
        assert self._chunks is not None
        while self._waiting and not self._chunks.is_complete:
            # The body ends with a line, and not before the end of one: what is behind it never meets the parser.
            line_end = self._waiting.find(b"\n") + 1
            self._chunks.feed(bytes(self._take(line_end or len(self._waiting))))
        if self._chunks.pieces:
            data, self._chunks.pieces = b"".join(self._chunks.pieces), []
            return data
        if self._chunks.is_complete:
            self._state, self._chunks = _State.COMPLETE, None
            return Need.END
        return Need.DATA

    def _take(self, size: int) -> bytearray:
        taken = self._waiting[:size]
        del self._waiting[:size]
        self._seen_bytes = 0
        return taken
