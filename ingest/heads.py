"""What a request's head says, and heads as cameras send them, read in one pass over their bytes. Pure.

What is not in every respect plain is left to llhttp (`any_head`): `read_plain` either says what llhttp would, or None
(tests/ingest/test_heads.py holds it to that). Compiled it takes a fraction of llhttp's time, which calls back for
each header and is made anew for each head; as Python it takes longer, and is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import Final


@dataclass(slots=True, init=False)
class Head:
    """A request's head: only what ingest asks about."""

    method: bytes
    target: bytes
    keep_alive: bool
    content_length: int | None
    chunked: bool
    expect_continue: bool
    authorization: bytes
    content_digest: bytes | None
    clip_duration: bytes | None
    is_partial: bool
    """It has a Content-Range: the body is a part of what it is about."""
    tus: dict[bytes, bytes] | None
    """Headers of resumable uploads, by their names in lower case; of a request that has one, and of OPTIONS, those of
    `BESIDE_TUS` too."""

    # Written out, as for all that is made once a chunk: what a dataclass makes is not compiled.
    def __init__(
        self,
        method: bytes = b"",
        target: bytes = b"",
        keep_alive: bool = True,
        content_length: int | None = None,
        chunked: bool = False,
        expect_continue: bool = False,
        authorization: bytes = b"",
        content_digest: bytes | None = None,
        clip_duration: bytes | None = None,
        is_partial: bool = False,
        tus: dict[bytes, bytes] | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.keep_alive = keep_alive
        self.content_length = content_length
        self.chunked = chunked
        self.expect_continue = expect_continue
        self.authorization = authorization
        self.content_digest = content_digest
        self.clip_duration = clip_duration
        self.is_partial = is_partial
        self.tus = tus


@dataclass(frozen=True, slots=True)
class Malformed:
    """What came is not HTTP that can be answered further: the connection ends after this event's answer."""

    status: int  # 400 or 431
    detail: str


_TARGET: Final = bytes(c in b"/._-:" or chr(c).isalnum() for c in range(128)) + bytes(128)
_NAME: Final = bytes(c in b"-" or chr(c).isalnum() for c in range(128)) + bytes(128)
_VALUE: Final = bytes(c == 9 or 32 <= c < 127 for c in range(256))
_MAX_DIGITS: Final = 10

_UNDERSTOOD: Final = frozenset((b"content-length", b"authorization", b"content-digest", b"clip-duration-ms"))
TUS: Final = frozenset(
    (
        b"tus-resumable",
        b"upload-checksum",
        b"upload-defer-length",
        b"upload-length",
        b"upload-metadata",
        b"upload-offset",
    )
)
"""Headers of resumable uploads."""
BESIDE_TUS: Final = frozenset((b"content-type", b"origin", b"x-http-method-override"))
"""Headers that mean something beside those, and nothing to other requests."""
_LEFT_TO_LLHTTP: Final = TUS | frozenset(
    (b"connection", b"content-range", b"expect", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_LENGTHS: Final = bytes(any(len(name) == n for name in _UNDERSTOOD | _LEFT_TO_LLHTTP) for n in range(256))


def read_plain(data: bytes) -> Head | None:
    """Read a head that is nothing but plain: PUT or POST of a simple target, HTTP/1.1, a host, a length, no header
    twice that is understood here, none that changes how the message is framed.

    Args:
        data: the head, its empty line included, and nothing behind it.

    Returns:
        What it says, or None: it is not plain, and may be anything.
    """
    if data.startswith(b"PUT /"):
        begin = 4
    elif data.startswith(b"POST /"):
        begin = 5
    else:
        return None
    at = begin
    while _TARGET[data[at]]:  # the empty line at the end stops every such walk
        at += 1
    if data[at : at + 11] != b" HTTP/1.1\r\n":
        return None
    head = Head(data[: begin - 1], data[begin:at])
    end = len(data) - 2
    at += 11
    has_host = False
    while at < end:
        begin = at
        while _NAME[data[at]]:
            at += 1
        length = at - begin
        if not length or data[at] != 58:  # the colon
            return None
        name_end = at
        at += 1
        while _VALUE[data[at]]:
            at += 1
        if data[at] != 13 or data[at + 1] != 10:
            return None
        if length == 4 and data[begin:name_end].lower() == b"host":
            if has_host:
                return None
            has_host = True
        elif length < 256 and _LENGTHS[length]:
            name = data[begin:name_end].lower()
            if name in _LEFT_TO_LLHTTP or (
                name in _UNDERSTOOD and not _understand(head, name, data[name_end + 1 : at].lstrip(b" \t"))
            ):
                return None
        at += 2
    return head if has_host and head.content_length else None


def _understand(head: Head, name: bytes, value: bytes) -> bool:
    """Put a header into the head; False when it is there already, or not plain."""
    if not value or value[-1] in b" \t":
        return False
    if name == b"content-length":
        if head.content_length is not None or not value.isdigit() or len(value) > _MAX_DIGITS:
            return False
        head.content_length = int(value)
    elif name == b"authorization":
        if head.authorization:
            return False
        head.authorization = value
    elif name == b"content-digest":
        if head.content_digest is not None:
            return False
        head.content_digest = value
    else:
        if head.clip_duration is not None:
            return False
        head.clip_duration = value
    return True


COMPILED: Final = not isinstance(read_plain, FunctionType)
"""Whether this module runs as an extension: see the top."""
