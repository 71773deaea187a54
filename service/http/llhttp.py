"""llhttp, through httptools: one head, or the body of one chunked message. What frames them never goes further."""

from __future__ import annotations

import httptools

from service.http.refusals import Refused, malformed

MAX_HEADERS = 100
"""As Apache has it; a browser sends twenty."""


class HeadReader:
    """Reads one head.

    Args:
        data: the head, its empty line included, and nothing behind it.

    Raises:
        Refused: 400 `malformed`, 431 `head_too_large` for more than MAX_HEADERS.
    """

    def __init__(self, data: bytes) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in lower case, in the order in which they came."""
        self._parser = httptools.HttpRequestParser(self)
        self._complete = False
        self.keep_alive = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # an offer to speak something else, which is not taken up: RFC 9110 §7.8
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise malformed(f"not HTTP/1.1: {error}") from None
        if not self._complete:
            raise malformed("not HTTP/1.1: the head does not end where its empty line is")
        self.method: str = self._parser.get_method().decode("ascii")
        self.version: str = self._parser.get_http_version()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            raise Refused(431, "head_too_large", f"a head has at most {MAX_HEADERS} headers")
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self._complete = True
        self.keep_alive = self._parser.should_keep_alive()  # it knows only now


class ChunkedBody:
    """Reads the body of one chunked message.

    Args:
        max_framing_bytes: of chunk sizes, extensions and trailers, beyond what small chunks need.
    """

    _HEAD = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

    def __init__(self, max_framing_bytes: int) -> None:
        self.pieces: list[bytes] = []
        """Of the body; whoever takes them empties the list."""
        self.is_complete = False
        self._max_framing_bytes = max_framing_bytes
        self._framing_bytes = 0
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(self._HEAD)

    def feed(self, data: bytes) -> None:
        """Parse what came, up to the end of a line at most: nothing may be behind the end of the body.

        Raises:
            Refused: 400 `malformed`, 431 `head_too_large`.
        """
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise malformed(f"not HTTP/1.1: {error}") from None
        if self._framing_bytes > self._max_framing_bytes:
            raise Refused(431, "head_too_large", "there is more framing than body in the chunks of this body")

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)
        # A chunk of one byte needs five for its framing ("1\r\nx\r\n"); nobody needs more than that for long.
        self._framing_bytes = max(self._framing_bytes - 6 * len(body), 0)

    def on_message_complete(self) -> None:
        self.is_complete = True
