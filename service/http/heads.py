"""A request's head: bytes in, what they say out. Pure.

llhttp does the reading, as for the ingest port, so that both ports refuse the same: bare line feeds, folded headers,
odd versions, `Content-Length` beside `Transfer-Encoding`, lengths that are no numbers. What is refused on top of that
are the ways in which two programs can still read one head differently.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from ingest.any_head import request_line_fault
from service.http.llhttp import HeadReader
from service.http.refusals import malformed

ONCE = frozenset(
    (
        *(b"host", b"authorization", b"content-length", b"content-type", b"content-encoding"),
        *(b"transfer-encoding", b"expect", b"range", b"if-range", b"idempotency-key", b"cookie", b"origin"),
    )
)
"""Headers with one meaning: who reads the first of two and who reads the last must not be told different things."""
_VERSIONS = ("1.1", "1.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """What a head says."""

    method: str
    target: bytes
    """As it came, absolute or not."""
    raw_path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, in the order in which they came."""
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool

    @property
    def path(self) -> str:
        """`raw_path` decoded; what is no UTF-8 in it is replaced, and refused by the application."""
        return unquote(self.raw_path.decode("ascii"))


def read_head(data: bytes) -> RequestHead:
    """Read one head.

    Args:
        data: the head, its empty line included, and nothing behind it.

    Raises:
        Refused: as `HeadReader`, and `malformed` for what llhttp takes and this server doesn't.
    """
    read = HeadReader(data)
    if read.version not in _VERSIONS:
        raise malformed("only HTTP/1.1 and HTTP/1.0 are spoken here")
    if read.method == "CONNECT":
        raise malformed("CONNECT is not served here")
    fault = request_line_fault(data, read.target)
    if fault is not None:
        raise malformed(fault)
    found = _once(read.headers)
    if read.version == "1.1" and b"host" not in found:
        raise malformed("a request of HTTP/1.1 has a Host header")
    length = found.get(b"content-length")
    coding = found.get(b"transfer-encoding")
    if coding is not None and (coding.lower() != b"chunked" or read.version == "1.0"):
        raise malformed("transfer-encoding: only chunked is understood, and only in HTTP/1.1")
    raw_path, query = _split(read.target)
    return RequestHead(
        method=read.method,
        target=read.target,
        raw_path=raw_path,
        query=query,
        version=read.version,
        headers=read.headers,
        content_length=None if length is None else int(length),  # llhttp: digits, below 2**64
        chunked=coding is not None,
        keep_alive=read.keep_alive,
        expects_continue=found.get(b"expect", b"").lower() == b"100-continue" and read.version == "1.1",
    )


def _once(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in ONCE:
            if name in found:
                raise malformed(f"{name.decode()}: comes twice")
            found[name] = value
    return found


def _split(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a target in origin form or absolute form (RFC 9112 §3.2). What it says of a host is not asked
    for here: there is one."""
    scheme, colon, rest = target.partition(b"://")
    if colon and scheme.lower() in (b"http", b"https"):
        path_at = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        target = rest[path_at:] if rest[path_at:].startswith(b"/") else b"/" + rest[path_at:]
    path, _, query = target.partition(b"?")
    return path, query
