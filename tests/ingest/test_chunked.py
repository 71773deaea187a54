"""Chunked bodies: what is complete here is complete for llhttp, with the same bytes and the same end."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.chunked import MAX_SIZE_LINE_BYTES, ChunkedBody
from ingest.heads import Malformed

HEAD = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(data: bytes) -> tuple[bytes, bytes | None, Malformed | None]:
    """The body, what is behind it (None: it has not ended), and what is wrong."""
    body, view, got = ChunkedBody(1024), memoryview(data), b""
    while True:
        piece, view = body.read(view)
        if isinstance(piece, Malformed):
            return got, None, piece
        if piece is None:
            return got, bytes(view) if body.ended else None, None
        got += piece


class _Peer:
    """What llhttp makes of the same."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = 0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete += 1


def llhttp(data: bytes) -> tuple[bytes, bool]:
    """The body, and whether it is complete."""
    peer = _Peer()
    try:
        httptools.HttpRequestParser(peer).feed_data(HEAD + data)
    except httptools.HttpParserError:
        return peer.body, False
    return peer.body, peer.complete == 1


fragments = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\r",
            b"\n",
            b"0",
            b"1",
            b"5",
            b"a",
            b"A",
            b";",
            b" ",
            b"\t",
            b"=",
            b'"',
            b":",
            b"\0",
            b"\xff",
        ),
        *(b"0\r\n\r\n", b"5\r\nabcde\r\n", b"A\r\n0123456789\r\n", b"1;a=b\r\nx\r\n", b"0\r\nX: y\r\n\r\n"),
        *(b"0\r\nContent-Length: 1\r\n\r\n", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"-1", b"0x1"),
    ]
)


@settings(max_examples=3000, deadline=None)
@given(st.lists(fragments, max_size=8))
@example([b"1; a\r\n", b"x\r\n", b"0\r\n\r\n"])
def test_what_is_complete_is_what_llhttp_reads(parts: list[bytes]) -> None:
    """Another reader on the way takes the same bytes for the body: nothing can be smuggled behind it."""
    data = b"".join(parts)
    body, behind, wrong = read(data)
    if behind is None or wrong is not None:
        return
    assert llhttp(data[: len(data) - len(behind)]) == (body, True), data


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=6), st.binary(max_size=20))
def test_what_is_behind_the_body_is_left(pieces: list[bytes], behind: bytes) -> None:
    wire = b"".join(b"%X\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert read(wire + behind) == (b"".join(pieces), behind, None)


@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
def test_the_bound_of_a_size_line(over: int, refused: bool) -> None:
    line = b"1;" + b"x" * (MAX_SIZE_LINE_BYTES - 2 + over)
    assert (read(line + b"\r\na\r\n0\r\n\r\n")[2] is not None) is refused


@pytest.mark.parametrize(("over", "refused"), [(0, False), (1, True)])
@pytest.mark.parametrize("lines", [1, 4])
def test_the_bound_of_all_trailers(lines: int, over: int, refused: bool) -> None:
    sizes = [1024 // lines] * (lines - 1) + [1024 // lines + over]
    trailers = b"".join(b"A: " + b"v" * (size - 5) + b"\r\n" for size in sizes)
    wrong = read(b"0\r\n" + trailers + b"\r\n")[2]
    assert (wrong is not None and wrong.status == 431) is refused
