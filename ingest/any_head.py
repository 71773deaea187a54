"""A whole head of any kind, as llhttp (through httptools) reads it. Pure.

Heads as cameras send them are read by `heads.read_plain`. What is in the least unusual comes here: it is read as a
whole, by a parser of its own, so that what a head says cannot depend on how it was cut or on what came before it.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from ingest.heads import BESIDE_TUS, TUS, Head, Malformed

_VERSIONS = ("1.1", "1.0")
_VERSIONS_SPOKEN = "only HTTP/1.1 and HTTP/1.0 are spoken here"
_TRAILER_HEAD = b"PUT / HTTP/1.1\r\nHost: a\r\n"


def read_any(data: bytes) -> Head | Malformed:
    """Read a head, its empty line included, with nothing behind it.

    An offer to upgrade (`Upgrade: h2c`, as Java's client and curl make it) is ignored, as RFC 9110 §7.8 allows. A
    header that may be there once and is acted upon here is refused when it is there twice: two programs would not
    choose the same.
    """
    reader = _Reader()
    parser = reader.parser = httptools.HttpRequestParser(reader)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # an offer, which is declined by saying nothing of it
    except httptools.HttpParserError as error:
        refused = error.__context__
        return Malformed(400, str(refused) if isinstance(refused, _Refused) else f"not HTTP/1.1: {error}")
    finally:
        reader.parser = None  # no cycle: workers collect those rarely
    if not reader.is_complete:
        return Malformed(400, "not HTTP/1.1: the head does not end with its empty line")
    fault = request_line_fault(data, reader.head.target)
    return reader.head if fault is None else Malformed(400, fault)


def request_line_fault(data: bytes, target: bytes) -> str | None:
    """What is wrong with the request line of a head that llhttp took, if anything. Both ports ask.

    llhttp takes several spaces for one, RTSP for HTTP, and a target of any form.

    Args:
        data: the head; its line is the first.
        target: as llhttp read it.
    """
    line = data[: data.find(b"\r\n")]
    if line.count(b" ") != 2:
        return "not HTTP/1.1: a request line is METHOD TARGET VERSION, with one space between them"
    if not line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
        return _VERSIONS_SPOKEN
    if b"#" in target:
        return "the target of a request has no fragment"
    if not target.startswith(b"/") and not target[:8].lower().startswith((b"http://", b"https://")):
        return "the target of a request is a path, or an http address"
    return None


def check_trailers(lines: bytes) -> Malformed | None:
    """What is wrong with the trailers of a chunked body, if anything. Nothing in them is acted upon.

    Args:
        lines: each with its CR LF, without the empty line behind them.
    """
    read = read_any(_TRAILER_HEAD + lines + b"\r\n")
    if isinstance(read, Malformed):
        return read
    if read.content_length is not None or read.chunked:
        return Malformed(400, "a trailer says how long the body is")  # RFC 9110 §6.5.1
    return None


class _Refused(Exception):
    """Raised inside a callback; the binding keeps it as the context of the error that it raises."""


class _Reader:
    """llhttp's callbacks."""

    def __init__(self) -> None:
        self.parser: httptools.HttpRequestParser | None = None
        self.head = Head()
        self.is_complete = False
        self._once: set[bytes] = set()
        self._beside_tus: dict[bytes, bytes] = {}
        self._twice = b""
        """One of these that came twice."""

    def on_url(self, url: bytes) -> None:
        self.head.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in _ONCE:
            if name in self._once:
                raise _Refused(f"{name.decode()}: send one, not several")
            self._once.add(name)
        if name in TUS:
            if self.head.tus is None:
                self.head.tus = {}
            self.head.tus[name] = value.strip()
        elif name in BESIDE_TUS:
            if name in self._beside_tus:
                self._twice = name
            self._beside_tus[name] = value.strip()
        understand = _HEADERS.get(name)
        if understand is not None:
            understand(self.head, value)

    def on_headers_complete(self) -> None:
        head, parser = self.head, self.parser
        assert parser is not None, "it calls"
        head.method = parser.get_method()
        head.keep_alive = parser.should_keep_alive()
        version = parser.get_http_version()
        if version not in _VERSIONS:
            raise _Refused(_VERSIONS_SPOKEN)
        if version == "1.0":
            if head.chunked:
                raise _Refused("HTTP/1.0 knows no transfer-encoding")  # RFC 9112 §6.1: its framing is faulty
            head.expect_continue = False  # RFC 9110 §10.1.1: its client knows no 100
        elif b"host" not in self._once:
            raise _Refused("a request of HTTP/1.1 has a Host header")  # RFC 9112 §3.2
        if self._beside_tus and (head.tus is not None or head.method == b"OPTIONS"):
            if self._twice:
                raise _Refused(f"{self._twice.decode()}: send one, not several")
            head.tus = self._beside_tus if head.tus is None else head.tus | self._beside_tus
        if head.method == b"CONNECT":
            raise _Refused("CONNECT is not served here")
        self.is_complete = True


def _content_length(head: Head, value: bytes) -> None:
    value = value.rstrip(b" \t")
    if not value.isdigit():  # llhttp has refused it already; int() would take 1_0
        raise _Refused("content-length: a number of bytes is needed")
    head.content_length = int(value)


def _transfer_encoding(head: Head, value: bytes) -> None:
    head.chunked = True
    if value.strip().lower() != b"chunked":
        raise _Refused("transfer-encoding: only chunked is understood")


def _authorization(head: Head, value: bytes) -> None:
    head.authorization = value


def _expect(head: Head, value: bytes) -> None:
    if value.strip().lower() == b"100-continue":
        head.expect_continue = True


def _content_digest(head: Head, value: bytes) -> None:
    known = head.content_digest
    head.content_digest = value if known is None else known + b"," + value  # one list (RFC 9110 §5.3)


def _clip_duration(head: Head, value: bytes) -> None:
    head.clip_duration = value.strip()


def _content_range(head: Head, value: bytes) -> None:
    head.is_partial = True


_HEADERS: dict[bytes, Callable[[Head, bytes], None]] = {
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"authorization": _authorization,
    b"expect": _expect,
    b"content-digest": _content_digest,
    b"content-range": _content_range,
    b"clip-duration-ms": _clip_duration,
}
_ONCE = TUS | frozenset((b"authorization", b"clip-duration-ms", b"expect", b"host"))
"""Besides the length, of which llhttp takes one."""
