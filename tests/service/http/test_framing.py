"""The framer: what it refuses, what it makes of any split, and that it keeps no more than it must."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.framing import Framer, Need
from service.http.heads import RequestHead
from service.http.llhttp import MAX_HEADERS
from service.http.refusals import Refused
from tests.malformed_heads import MALFORMED_HEADS

MAX_HEAD_BYTES = 2048


def events_of(*pieces: bytes) -> list[object]:
    """All events, with the pieces of a body joined; a refusal is the last."""
    framer = Framer(MAX_HEAD_BYTES)
    found: list[object] = []
    for piece in pieces:
        framer.feed(piece)
        while True:
            try:
                event = framer.next()
            except Refused as refused:
                return [*found, (refused.status, refused.code)]
            if event is Need.DATA:
                break
            if event is Need.END:
                found.append("end")
                framer.begin_next()
            elif isinstance(event, bytes):
                if found and isinstance(found[-1], bytes):
                    found[-1] += event
                else:
                    found.append(event)
            else:
                assert isinstance(event, RequestHead)
                found.append((event.method, event.raw_path, event.query, tuple(event.headers)))
    return found


def head(lines: bytes = b"", first: bytes = b"POST /a?b HTTP/1.1") -> bytes:
    return first + b"\r\nHost: a\r\n" + lines + b"\r\n"


CHUNKED = head(b"Transfer-Encoding: chunked\r\n")
MALFORMED = {
    **MALFORMED_HEADS,
    "two content types": head(b"Content-Type: a/b\r\nContent-Type: a/b\r\n"),
    "two keys": head(b"Idempotency-Key: a\r\nIdempotency-Key: b\r\n"),
    "two ranges": head(b"Range: bytes=0-1\r\nRange: bytes=2-3\r\n"),
}
"""On both ports, and what only this one acts upon."""


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_two_programs_could_read_differently_is_refused(data: bytes) -> None:
    assert events_of(data + b"3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n") == [
        (400, "malformed")
    ]


@pytest.mark.parametrize(
    "begins",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"\x16", id="a byte of it"),
        pytest.param(b"\x80\x2e\x01\x03\x01", id="SSL 2"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2p1\r", id="SSH"),
        pytest.param(b"\x05\x01\x00", id="SOCKS"),
        pytest.param(b"get / HTTP/1.1\r", id="lower case"),
        pytest.param(b"\r\n\x16\x03\x01", id="behind an empty line"),
        pytest.param(b"A" * 21, id="no method is so long"),
    ],
)
@pytest.mark.parametrize("before", [b"", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_what_is_no_http_is_told_by_its_first_bytes(before: bytes, begins: bytes) -> None:
    """Who speaks something else waits for an answer, and sends no line that ends."""
    for parts in ([before + begins], [before, begins], [(before + begins)[i:][:1] for i in range(999)]):
        assert events_of(*(part for part in parts if part))[-1] == (400, "malformed")


def test_a_head_may_come_byte_by_byte() -> None:
    data = b"\r\nM-SEARCH /a HTTP/1.1\r\nHost: a\r\n\r\nUNSUBSCRIBE /b HTTP/1.1\r\nHost: a\r\n\r\n"
    found = events_of(*(data[i : i + 1] for i in range(len(data))))
    assert [event[1] for event in found if isinstance(event, tuple)] == [b"/a", b"/b"]


BAD_CHUNKS = [
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b"3\nabc\r\n0\r\n\r\n",
    b"3;a=b\nabc\r\n0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"0\r\nX: a\n\r\n",
]


@pytest.mark.parametrize("data", BAD_CHUNKS)
def test_chunks_that_are_none(data: bytes) -> None:
    found = events_of(CHUNKED + data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    assert found[-1] == (400, "malformed")
    assert b"/smuggled" not in str(found).encode()


def test_what_is_behind_a_chunked_body_is_the_next_request() -> None:
    found = events_of(
        CHUNKED + b"3;x=y\r\na\nb\r\n1\r\nc\r\n0\r\nTrailer: t\r\n\r\n" + head(first=b"GET /b HTTP/1.1")
    )
    assert [event for event in found if isinstance(event, bytes)] == [b"a\nbc"]
    assert [event[1] for event in found if isinstance(event, tuple)] == [b"/a", b"/b"]


def test_targets_of_every_form() -> None:
    for target, path, query in (
        (b"/", b"/", b""),
        (b"/a?b?c", b"/a", b"b?c"),
        (b"http://host/a?b", b"/a", b"b"),
        (b"HTTPS://host:1", b"/", b""),
        (b"http://host?b=http://c/d", b"/", b"b=http://c/d"),
        (b"//host/a", b"//host/a", b""),
    ):
        ((_, found, asked, _), _end) = events_of(head(first=b"GET " + target + b" HTTP/1.1"))  # type: ignore[misc]
        assert (found, asked) == (path, query)


def test_an_offer_to_upgrade_is_not_taken_up() -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
    for body, lines in (
        (b"", b""),
        (b"abc", b"Content-Length: 3\r\n"),
        (b"3\r\nabc\r\n0\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
    ):
        found = events_of(head(lines + offer) + body + head(first=b"GET /b HTTP/1.1"))
        assert [event for event in found if isinstance(event, bytes)] == ([b"abc"] if body else [])
        assert found[-2][1] == b"/b"  # type: ignore[index]


def test_heads_up_to_the_bound() -> None:
    def of(size: int) -> bytes:
        fill = size - len(head(b"X: \r\n"))
        return head(b"X: " + b"x" * fill + b"\r\n")

    assert len(of(MAX_HEAD_BYTES)) == MAX_HEAD_BYTES
    assert len(events_of(of(MAX_HEAD_BYTES))) == 2
    assert events_of(of(MAX_HEAD_BYTES + 1)) == [(431, "head_too_large")]
    assert events_of(of(10 * MAX_HEAD_BYTES)[:-4]) == [(431, "head_too_large")], "it does not have to end"
    many = b"".join(b"X: y\r\n" for _ in range(MAX_HEADERS))
    assert events_of(head(many)) == [(431, "head_too_large")]
    assert len(events_of(head(many[6:]))) == 2


@pytest.mark.parametrize(
    "endless",
    [
        b"1;" + b"x" * 5000,
        b"0\r\nX: " + b"x" * 5000,
        b"".join(b"0\r\nA: b\r\n" if i == 0 else b"A: b\r\n" for i in range(500)),
        b"1;xxxxxxxxxxxxxxx\r\na\r\n" * 500,
    ],
)
def test_framing_without_a_body_has_an_end(endless: bytes) -> None:
    assert events_of(CHUNKED, *(endless[i : i + 100] for i in range(0, len(endless), 100)))[-1] == (
        431,
        "head_too_large",
    )


def test_small_chunks_are_no_attack() -> None:
    assert events_of(CHUNKED, *([b"1\r\na\r\n"] * 5000), b"0\r\n\r\n")[1:] == [b"a" * 5000, "end"]


PARTS = st.sampled_from(
    [
        head(b"Content-Length: 5\r\n") + b"ab\ncd",
        CHUNKED + b"3\r\na\nb\r\n0\r\n\r\n",
        head(first=b"GET /c HTTP/1.1"),
        b"\r\n",
        *list(MALFORMED.values())[:30],
        *BAD_CHUNKS,
        b"\n",
        b"x" * 300,
    ]
)


@given(st.lists(PARTS, min_size=1, max_size=8), st.lists(st.integers(0, 1500), max_size=30))
def test_any_split_gives_the_same_events(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:stop] for start, stop in pairwise(places)]
    assert events_of(*pieces) == events_of(data)


@given(st.lists(PARTS, min_size=1, max_size=20))
def test_nothing_is_parsed_before_it_is_asked_for(parts: list[bytes]) -> None:
    framer = Framer(MAX_HEAD_BYTES)
    data = b"".join(parts)
    framer.feed(data)
    assert framer.waiting_bytes == len(data)
    try:
        event = framer.next()
    except Refused:
        return
    if isinstance(event, RequestHead):
        size = data.find(b"\r\n\r\n", len(data) - len(data.lstrip(b"\r\n"))) + 4
        assert framer.waiting_bytes == len(data) - size
