"""HTTP/1.1 framing, sans-IO: bytes in, events out. llhttp (through httptools) does the parsing, but of plain heads.

A sized body is never copied nor parsed: what of it came with its head is an event that looks into the caller's
own buffer (a `memoryview`). After a `Head`, `direct_bytes` says how much of it is still to come, and the caller may
receive exactly that many bytes straight into its own memory and then call `direct_done`. Chunked bodies arrive as
`bytes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httptools

from ingest import heads
from ingest.heads import Head

MAX_HEAD_BYTES = 16 * 1024
"""Request line and headers: what nginx (4 x 8 KiB) and h11 (16 KiB) allow, to the same order. Counted are the
target and, for each header, its name, its value and 4; trailers count as headers."""

_UNSEEN_BYTES = 1024
"""Bytes of a head that are not counted, such as the method and the spaces before a value: by so many a head that comes
in pieces may be over the limit before it is refused."""
_HEAD_WINDOW = 1024
"""Where the end of a head is looked for, so that the parser sees no body: most heads have a few hundred bytes. The body
behind a longer one passes through the parser once, which copies it."""
_VERSIONS = ("1.1", "1.0")
_NO_UPGRADE = "upgrades and CONNECT are not served here"


class End:
    """The message is complete."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """What came is not HTTP that can be answered further: the connection ends after this event's answer."""

    status: int  # 400 or 431
    detail: str


Event = Head | bytes | memoryview | End | Malformed
END = End()


class Framer:
    """One connection's stream of requests.

    Args:
        max_head_bytes: see MAX_HEAD_BYTES.
        reads_plain: whether `heads.read_plain` reads what it can: it makes no difference but to the time that it takes.

    Any split of the same bytes gives the same events, but for where body pieces are cut.
    """

    def __init__(self, max_head_bytes: int = MAX_HEAD_BYTES, reads_plain: bool = heads.COMPILED) -> None:
        self._max_head_bytes = max_head_bytes
        self._reads_plain = reads_plain
        self._events: list[Event] = []
        self._dead = False
        self._is_last = False
        self._parser: httptools.HttpRequestParser | None = None
        self._begin()

    def _begin(self) -> None:
        self._head = Head()
        self._head_bytes = 0
        self._uncounted_bytes = 0
        self._in_body = False
        self._started = False
        self.direct_bytes = 0
        """Bytes of the current sized body that were not fed yet. 0 outside of a sized body."""

    @property
    def between_messages(self) -> bool:
        """True when no byte of a next request has been fed."""
        return not self._started

    def feed(self, data: bytes | bytearray | memoryview) -> list[Event]:
        """Parse what was received; empty input is allowed.

        Returns:
            The events in order; those that are a `memoryview` look into `data`. After a `Malformed` nothing more is
            parsed.
        """
        events: list[Event] = []
        self._events = events
        view = memoryview(data)
        while len(view) and not self._dead:
            if self.direct_bytes:
                view = self._pass_on(view)
            elif self._is_last:
                self._fail(400, "not HTTP/1.1: data after Connection: close")
            elif self._started:
                self._parse(view)
                break
            else:
                view = self._read_head(view)
        return events

    def _read_head(self, view: memoryview) -> memoryview:
        """Read what begins with a head; returns what is behind that, if it is all here."""
        window = bytes(view[:_HEAD_WINDOW])
        end = window.find(b"\r\n\r\n")
        if end < 0:
            self._parse(view)
            return view[:0]
        end += 4
        # A head of so many bytes cannot be over the limit, however they are counted.
        head = (
            heads.read_plain(window[:end]) if self._reads_plain and 2 * end <= self._max_head_bytes else None
        )
        if head is None:
            self._parse(view[:end])
        else:
            self._started = self._in_body = True
            self._head = head
            self.direct_bytes = head.content_length or 0
            self._events.append(head)
        return view[end:]

    def _pass_on(self, view: memoryview) -> memoryview:
        """Tell of the part of a sized body that begins here; returns what is behind it."""
        piece = view[: self.direct_bytes]
        self._events.append(piece)
        self.direct_bytes -= len(piece)
        if not self.direct_bytes:
            self._renew()
            self._events.append(END)
        return view[len(piece) :]

    def _parse(self, view: memoryview) -> None:
        self._uncounted_bytes += len(view)  # a callback that has seen something sets it to 0
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(view)
        except httptools.HttpParserUpgrade:
            self._fail(400, _NO_UPGRADE)  # on_headers_complete refuses them before
        except httptools.HttpParserError as error:
            refused = error.__context__
            if isinstance(refused, _Refused):
                self._fail(refused.status, refused.detail)
            else:
                self._fail(400, f"not HTTP/1.1: {error}")
        if self._head_bytes + self._uncounted_bytes > self._max_head_bytes + _UNSEEN_BYTES and not self._dead:
            # The parser keeps a header or trailer until it is whole, so one without an end must not go on.
            self._fail(431, self._too_large())

    def direct_done(self) -> list[Event]:
        """Say that the caller received the whole rest of the sized body itself. Returns [End]."""
        assert self.direct_bytes > 0, "no sized body is open"
        self._renew()
        return [END]

    def _renew(self) -> None:
        """Begin a next message behind a body that the parser has not seen."""
        self._is_last = not self._head.keep_alive
        self._parser = None
        self._begin()

    def _too_large(self) -> str:
        return f"request line and headers exceed {self._max_head_bytes} bytes"

    def _fail(self, status: int, detail: str) -> None:
        self._dead = True
        self._events.append(Malformed(status, detail))

    # --- llhttp's callbacks ---------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._started = True

    def on_url(self, url: bytes) -> None:
        self._head.target += url
        self._uncounted_bytes = 0
        self._head_bytes += len(url)
        if self._head_bytes > self._max_head_bytes:
            raise _Refused(431, self._too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._uncounted_bytes = 0
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._max_head_bytes:
            raise _Refused(431, self._too_large())
        understand = _HEADERS.get(name.lower())
        if understand is not None and not self._in_body:  # a trailer is counted, and of no interest
            understand(self._head, value)

    def on_headers_complete(self) -> None:
        head, parser = self._head, self._parser
        assert parser is not None, "it calls"
        head.method = parser.get_method()
        head.keep_alive = parser.should_keep_alive()
        self._in_body = True
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise _Refused(400, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        if head.chunked and version == "1.0":
            raise _Refused(400, "HTTP/1.0 knows no transfer-encoding")  # RFC 9112 §6.1: its framing is faulty
        if parser.should_upgrade():
            raise _Refused(400, _NO_UPGRADE)
        if head.content_length is not None and not head.chunked:
            self.direct_bytes = head.content_length
        self._events.append(head)

    def on_body(self, body: bytes) -> None:
        self._uncounted_bytes = 0
        if self.direct_bytes:
            self.direct_bytes -= len(body)
        self._events.append(body)

    def on_message_complete(self) -> None:
        self._is_last = not self._head.keep_alive
        self._begin()
        self._events.append(END)


def _content_length(head: Head, value: bytes) -> None:
    head.content_length = int(value)


def _transfer_encoding(head: Head, value: bytes) -> None:
    head.chunked = True
    if value.strip().lower() != b"chunked":
        raise _Refused(400, "transfer-encoding: only chunked is understood")


def _authorization(head: Head, value: bytes) -> None:
    head.authorization = value


def _expect(head: Head, value: bytes) -> None:
    head.expect_continue = value.strip().lower() == b"100-continue"


def _content_digest(head: Head, value: bytes) -> None:
    head.content_digest = value


def _clip_duration(head: Head, value: bytes) -> None:
    head.clip_duration = value.strip()


_HEADERS: dict[bytes, Callable[[Head, bytes], None]] = {
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"authorization": _authorization,
    b"expect": _expect,
    b"content-digest": _content_digest,
    b"clip-duration-ms": _clip_duration,
}


class _Refused(Exception):
    """Raised inside a callback; the binding keeps it as the context of the error that it raises."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
