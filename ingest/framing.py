"""HTTP/1.1 framing, sans-IO: bytes in, events out, one at a time. Nothing is parsed before it is asked for.

A sized body is never copied nor parsed: what of it came with its head is an event that looks into the caller's
own buffer (a `memoryview`). After a `Head`, `direct_bytes` says how much of it is still to come, and the caller may
receive up to that many bytes straight into its own memory and then call `received_directly`. The pieces of a chunked
body look into the caller's buffer too.
"""

from __future__ import annotations

import re
from typing import Final

from ingest import heads
from ingest.any_head import read_any
from ingest.chunked import ChunkedBody
from ingest.heads import Head, Malformed

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers with all that is between them, the empty line included: what nginx (4 x 8 KiB) and h11
(16 KiB) allow, to the same order. Trailers have the same bound to themselves."""

_WINDOW = 1024
"""Where the end of a head is looked for first: most have a few hundred bytes."""
_CR = 13
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")
_BEGINS = re.compile(rb"\r?\Z|[A-Z-]{1,20}(?:\Z| )")
_BEGINS_BYTES = 21
_BARE_LF = re.compile(rb"(?<!\r)\n")

# What comes next. Each state names those that may follow it.
_BETWEEN: Final = 0  # a first byte of a head: _HEAD
_HEAD: Final = 1  # the rest of a head: _SIZED, _CHUNKED, _END
_SIZED: Final = 2  # bytes of a sized body: _END
_CHUNKED: Final = 3  # bytes of a chunked body: _END
_END: Final = 4  # nothing, but `END` was not told yet: _BETWEEN, _LAST
_LAST: Final = 5  # nothing: its client said that this was the last request: _DEAD
_DEAD: Final = 6  # `Malformed` was told: nothing is read any more


class End:
    """The message is complete."""


Event = Head | memoryview | End | Malformed
END = End()
_NOTHING: Final = memoryview(b"")


class Framer:
    """One connection's stream of requests.

    Args:
        max_head_bytes: see MAX_HEAD_BYTES.
        reads_plain: whether `heads.read_plain` reads what it can: it makes no difference but to the time that it takes.

    Any split of the same bytes gives the same events, but for where body pieces are cut: a head is read when it is all
    there, and what is refused before is refused for its first bytes.
    """

    def __init__(self, max_head_bytes: int = MAX_HEAD_BYTES, reads_plain: bool = heads.COMPILED) -> None:
        self._max_head_bytes = max_head_bytes
        self._reads_plain = reads_plain
        self._state = _BETWEEN
        self._input: memoryview = _NOTHING
        """What was fed and not read yet."""
        self._kept_bytes = 0
        """Of the copy that `_input` looks into. 0: it looks into the caller's buffer."""
        self._part = bytearray()
        """The beginning of a head."""
        self._keeps_alive = True
        self._body: ChunkedBody | None = None
        self.direct_bytes = 0
        """Bytes of the current sized body that were not read yet. 0 outside of a sized body."""

    # --- what the caller sees ---------------------------------------------------------------------------------

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take what was received; empty input is allowed. What was fed before has been read."""
        assert not len(self._input), "what was fed before is to be read first"
        if self._state != _DEAD:
            self._input = memoryview(data)

    def next_event(self) -> Event | None:
        """Read up to the next event.

        Returns:
            None: more has to be fed. A `memoryview` looks into what was fed. After a `Malformed` nothing more comes.
        """
        if self._state == _END:
            self._state = _BETWEEN if self._keeps_alive else _LAST
            return END
        event: Event | None = None
        if len(self._input):
            if self._state == _SIZED:
                event = self._next_of_sized()
            elif self._state == _CHUNKED:
                event = self._next_of_chunked()
            elif self._state == _LAST:
                event = Malformed(400, "not HTTP/1.1: data after Connection: close")
            else:
                event = self._next_head()
            if isinstance(event, Malformed):
                self._die()
        if self._kept_bytes and not len(self._input):
            self._kept_bytes = 0
        return event

    def keep(self) -> None:
        """Copy what was fed and not read out of the caller's buffer."""
        if len(self._input) != self._kept_bytes:
            self._input = memoryview(bytes(self._input))
            self._kept_bytes = len(self._input)

    def forget(self) -> None:
        """Let go of all that is held: nothing more is read."""
        self._die()

    def received_directly(self, size: int) -> None:
        """Say that the caller received so much of the sized body itself; then `next_event` tells of its end."""
        assert not len(self._input), "what was fed comes first"
        assert 0 < size <= self.direct_bytes, "it is not of the body"
        self.direct_bytes -= size
        if not self.direct_bytes:
            self._state = _END

    @property
    def between_messages(self) -> bool:
        """True when no byte of a next request has been read."""
        return self._state == _BETWEEN or self._state == _LAST

    @property
    def keeps_alive(self) -> bool:
        """False when its client said of the last head that was read that nothing follows its request."""
        return self._keeps_alive

    @property
    def before_a_head(self) -> bool:
        """True when what comes next begins a request, or goes on with its head."""
        return self._state <= _HEAD

    @property
    def in_body(self) -> bool:
        """True when more of a body is to come, for all that was read; of a chunked one perhaps only its end."""
        return self._state == _SIZED or self._state == _CHUNKED

    @property
    def has_unread(self) -> bool:
        """True when there is something to read without more being fed."""
        return len(self._input) > 0 or self._state == _END

    @property
    def held_bytes(self) -> int:
        """Memory that is kept of what was fed: a half head, a line of a chunked body, what `keep` copied."""
        held = self._kept_bytes + len(self._part)
        return held if self._body is None else held + self._body.held_bytes

    # --- heads ------------------------------------------------------------------------------------------------

    def _next_head(self) -> Event | None:
        if self._state == _BETWEEN:
            view = self._input
            window = bytes(view[:_WINDOW])
            end = window.find(b"\r\n\r\n") + 4
            if 4 < end <= self._max_head_bytes and window[0] != _CR:
                self._input = view[end:]
                return self._read_head(window[:end])
        while len(self._input):
            event = self._next_part_of_head()
            if event is not None:
                return event
        return None

    def _read_head(self, data: bytes) -> Head | Malformed:
        """Read a head that is all there."""
        if self._reads_plain and (plain := heads.read_plain(data)) is not None:
            return self._begin_body(plain)
        read = wrong_beginning(data, 0, len(data)) or read_any(data)
        return read if isinstance(read, Malformed) else self._begin_body(read)

    def _next_part_of_head(self) -> Event | None:
        """Add to the head what may be of it; returns it when it is complete, or what is wrong with its beginning."""
        part, view = self._part, self._input
        known_bytes = len(part)
        added = view[: self._max_head_bytes - known_bytes]
        part += added
        if known_bytes <= 1:
            # At least one empty line before a request is to be ignored (RFC 9112 §2.2).
            known_bytes = 0
            empty = _EMPTY_LINES.match(part)
            assert empty is not None, "no line is a match too"
            del part[: empty.end()]
        end = part.find(b"\r\n\r\n", max(0, known_bytes - 3))
        if end < 0:
            self._input = view[len(added) :]
            self._state = _HEAD if part else _BETWEEN
            wrong = wrong_beginning(part, known_bytes, len(part))
            if wrong is None and len(part) >= self._max_head_bytes:
                wrong = Malformed(431, f"request line and headers exceed {self._max_head_bytes} bytes")
            return wrong
        behind_bytes = len(part) - (end + 4)
        self._input = view[len(added) - behind_bytes :]
        data = bytes(part[: end + 4])
        self._part = bytearray()
        return self._read_head(data)

    def _begin_body(self, head: Head) -> Head:
        self._keeps_alive = head.keep_alive
        if head.chunked:
            self._body = ChunkedBody(self._max_head_bytes)
            self._state = _CHUNKED
        elif head.content_length:
            self.direct_bytes = head.content_length
            self._state = _SIZED
        else:
            self._state = _END
        return head

    # --- bodies -----------------------------------------------------------------------------------------------

    def _next_of_sized(self) -> memoryview:
        view = self._input
        size = len(view)
        if size <= self.direct_bytes:
            piece = view
            self._input = _NOTHING
        else:
            size = self.direct_bytes
            piece = view[:size]
            self._input = view[size:]
        self.direct_bytes -= size
        if not self.direct_bytes:
            self._state = _END
        return piece

    def _next_of_chunked(self) -> Event | None:
        body = self._body
        assert body is not None, "the state says so"
        piece, self._input = body.read(self._input)
        if not body.ended or piece is not None:
            return piece
        self._body = None
        self._state = _BETWEEN if self._keeps_alive else _LAST
        return END

    def _die(self) -> None:
        self._state = _DEAD
        self._input = _NOTHING
        self._kept_bytes = 0
        self._part = bytearray()
        self._body = None
        self.direct_bytes = 0


def wrong_beginning(data: bytes | bytearray, known_bytes: int, end: int) -> Malformed | None:
    """What shows that this is no head before it is complete, so that TLS, HTTP/0.9 and noise are told at once.

    Args:
        known_bytes: of `data`, in which nothing was wrong.
        end: of the head, or of what has come of it.
    """
    if known_bytes < _BEGINS_BYTES and not _BEGINS.match(bytes(data[:_BEGINS_BYTES])):
        return Malformed(400, "not HTTP/1.1: what came does not begin with a method")
    if _BARE_LF.search(data, max(0, known_bytes - 1), end):
        return Malformed(400, "not HTTP/1.1: lines end with CR LF, not with LF alone")
    return None
