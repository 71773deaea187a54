"""The chunked coding of a body (RFC 9112 §7.1), read piece by piece. Sans-IO, pure.

llhttp reads it too, but says nothing of where a body ends in what it was fed, and goes on with what comes next. Here
reading stops at the body's last byte. tests/ingest/test_chunked.py holds it to llhttp: what is complete here is
complete there, with the same bytes.
"""

from __future__ import annotations

import re
from typing import Final

from ingest.any_head import check_trailers
from ingest.heads import Malformed

MAX_SIZE_LINE_BYTES = 1024
"""Of a chunk's size and its extensions, which nobody sends: what is longer is refused."""
_WINDOW = 64
"""Where the end of a line is looked for first: a size line has ten bytes at most, but for extensions."""
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# No laxer than other readers on the way, which may refuse white space here: they would see another body.
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[\t\x20\x21\x23-\x5b\x5d-\x7e]*"))?)*'
)

_SIZE: Final = 0  # a chunk's size line is next
_DATA: Final = 1  # bytes of a chunk
_DATA_END: Final = 2  # the CR LF behind them
_TRAILER: Final = 3  # a trailer, or the empty line that ends the body


class ChunkedBody:
    """Reads one body.

    Args:
        max_trailer_bytes: of all trailers together.
    """

    def __init__(self, max_trailer_bytes: int) -> None:
        self._max_trailer_bytes = max_trailer_bytes
        self._state = _SIZE
        self._left_bytes = 0
        """Of the current chunk's data."""
        self._line = b""
        """The beginning of a line whose end has not come."""
        self._trailers = b""
        self.ended = False
        """The body is complete: what comes next is not of it."""

    @property
    def held_bytes(self) -> int:
        """Kept here of what was read."""
        return len(self._line) + len(self._trailers)

    def read(self, view: memoryview) -> tuple[memoryview | Malformed | None, memoryview]:
        """Read on, up to a next piece of the body or its end.

        Returns:
            A piece (a part of `view`), or what is wrong, or None: more has to come, or the body has `ended`. And what
            is left of `view`.
        """
        while len(view):
            if self._state == _DATA:
                piece = view[: self._left_bytes]
                self._left_bytes -= len(piece)
                if not self._left_bytes:
                    self._state = _DATA_END
                return piece, view[len(piece) :]
            line, view = self._read_line(view)
            if line is None:
                return self._too_long(), view
            wrong = self._on_line(line)
            if wrong is not None or self.ended:
                return wrong, view
        return None, view

    def _read_line(self, view: memoryview) -> tuple[bytes | None, memoryview]:
        """A whole line, without its CR LF, and what is behind it; None when its end has not come."""
        begun = self._line
        if not begun:
            window = bytes(view[:_WINDOW])
            end = window.find(b"\r\n")
            if end >= 0:
                return window[:end], view[end + 2 :]
        part = begun + bytes(view[: self._line_limit() + 3 - len(begun)])
        end = part.find(b"\r\n", max(0, len(begun) - 1))
        if end < 0:
            self._line = part
            return None, view[len(part) - len(begun) :]
        self._line = b""
        return part[:end], view[end + 2 - len(begun) :]

    def _line_limit(self) -> int:
        if self._state == _DATA_END:
            return 0
        return MAX_SIZE_LINE_BYTES if self._state == _SIZE else self._max_trailer_bytes

    def _too_long(self) -> Malformed | None:
        """Of a line whose end has not come: whether it cannot be one any more."""
        if self._state == _DATA_END and not b"\r\n".startswith(self._line):
            return Malformed(400, "chunked: a chunk is not followed by CR LF")
        if len(self._line) > self._line_limit() + 1:  # its CR may be there already
            return self._refuse_long()
        return None

    def _refuse_long(self) -> Malformed:
        if self._state == _SIZE:
            return Malformed(400, f"chunked: a chunk's size line exceeds {MAX_SIZE_LINE_BYTES} bytes")
        return Malformed(431, f"trailers exceed {self._max_trailer_bytes} bytes")

    def _on_line(self, line: bytes) -> Malformed | None:
        if self._state == _DATA_END:
            if line:
                return Malformed(400, "chunked: a chunk is not followed by CR LF")
            self._state = _SIZE
            return None
        if len(line) > self._line_limit():
            return self._refuse_long()
        return self._on_size(line) if self._state == _SIZE else self._on_trailer(line)

    def _on_size(self, line: bytes) -> Malformed | None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            return Malformed(
                400, "chunked: a chunk's size is not a hexadecimal number, or what follows it is no extension"
            )
        self._left_bytes = int(match[1], 16)
        self._state = _DATA if self._left_bytes else _TRAILER
        return None

    def _on_trailer(self, line: bytes) -> Malformed | None:
        if line:
            self._trailers += line + b"\r\n"
            if len(self._trailers) > self._max_trailer_bytes:
                return self._refuse_long()
            return None
        self.ended = True
        return check_trailers(self._trailers) if self._trailers else None
