"""Plain heads: what is read in one pass is what llhttp reads, and whatever is not plain is left to llhttp."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.any_head import read_any
from ingest.heads import Head, Malformed, read_plain

PLAIN = (
    b"PUT /v1/devices/7/chunks/1779900000000 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAuthorization: Bearer ckd_x\r\n"
    b"User-Agent: camera/1.0 (a; b)\r\nContent-Type: video/mp2t\r\nClip-Duration-Ms: 4000\r\n"
    b"Content-Digest: crc32=:AAAAAA==:\r\nContent-Length: 65536\r\n\r\n"
)


def careful(data: bytes) -> Head | Malformed:
    """What llhttp makes of a head."""
    return read_any(data)


def fields(head: Head) -> tuple[object, ...]:
    return (
        head.method,
        head.target,
        head.keep_alive,
        head.content_length,
        head.chunked,
        head.expect_continue,
        head.authorization,
        head.content_digest,
        head.clip_duration,
    )


def agrees(data: bytes) -> bool:
    """Whether it was read; asserts that llhttp says the same then."""
    head = read_plain(data)
    if head is None:
        return False
    expected = careful(data)
    assert isinstance(expected, Head), f"{data!r} was read, llhttp says {expected}"
    assert fields(head) == fields(expected), data
    return True


def test_a_plain_head_is_read() -> None:
    head = read_plain(PLAIN)
    assert head is not None
    assert (head.method, head.target) == (b"PUT", b"/v1/devices/7/chunks/1779900000000")
    assert (head.content_length, head.authorization) == (65536, b"Bearer ckd_x")
    assert (head.content_digest, head.clip_duration) == (b"crc32=:AAAAAA==:", b"4000")
    assert head.keep_alive
    assert agrees(PLAIN)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"PUT ", b"POST "),
        (b"Authorization: ", b"AUTHORIZATION:"),
        (b"4000", b" \t4000"),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nX-Empty:"),
        (b"Host: 127.0.0.1:8080", b"Host:\t"),
        (b"Content-Length: 65536", b"content-length: 0000000007"),
        (b"/chunks/1779900000000", b"/live/cam_1-2.ts"),
    ],
)
def test_other_plain_heads(was: bytes, now: bytes) -> None:
    data = PLAIN.replace(was, now)
    assert data != PLAIN
    assert agrees(data)


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"PUT ", b"GET "),
        (b"PUT /", b"PUT  /"),
        (b"PUT /", b"PUT *"),
        (b"PUT /", b"PUT http://a/"),
        (b"PUT ", b"\r\nPUT "),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b" HTTP/1.1\r\n", b" HTTP/1.1\n"),
        (b" HTTP/1.1", b"?a=b HTTP/1.1"),
        (b" HTTP/1.1", b"%41 HTTP/1.1"),
        (b" HTTP/1.1", b"\xe9 HTTP/1.1"),
        (b"Host:", b"Host :"),
        (b"Host:", b" Host:"),
        (b"Host:", b":"),
        (b"Host:", b"Ho\x00st:"),
        (b"Host: ", b"Host: \x00"),
        (b"Host: ", b"Host: \xe9"),
        (b"Host: ", b"Host: \x7f"),
        (b"Host: 127", b"Host: \n127"),
        (b"Host: 127", b"Host: \r127"),
        (b"Host: 127", b"Host: a\r\n 127"),
        (b"Host: 127", b"No colon\r\nHost: 127"),
        (b"Host: 127.0.0.1:8080\r\n", b""),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nhost: a"),
        (b"Content-Length: 65536", b"Content-Length: 65536\r\nContent-Length: 65536"),
        (b"Content-Length: 65536", b"Content-Length: 65536\r\nTransfer-Encoding: chunked"),
        (b"Content-Length: 65536", b"Transfer-Encoding: chunked"),
        (b"Content-Length: 65536\r\n", b""),
        (b"65536", b"0"),
        (b"65536", b""),
        (b"65536", b"-1"),
        (b"65536", b"+1"),
        (b"65536", b"1_0"),
        (b"65536", b"0x10"),
        (b"65536", b"1 0"),
        (b"65536", b"65536, 65536"),
        (b"65536", b"18446744073709551616"),
        (b"Host:", b"Connection:"),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nConnection: close"),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nUpgrade: websocket"),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nExpect: 100-continue"),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nAuthorization: Bearer other"),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nClip-Duration-Ms: 5"),
        (b"Host: 127.0.0.1:8080", b"Host: a\r\nContent-Digest: crc32=:AAAAAA==:"),
        (b"Bearer ckd_x", b""),
        (b"Bearer ckd_x", b"Bearer ckd_x "),
        (b"4000", b"4000\t"),
    ],
)
def test_what_is_not_plain_is_left_to_llhttp(was: bytes, now: bytes) -> None:
    data = PLAIN.replace(was, now)
    assert data != PLAIN
    assert read_plain(data) is None


pieces = st.sampled_from(
    [
        *(bytes([c]) for c in b"\r\n :;,\t\x00\x7f\xffPa0-_/.%?"),
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: 5\r\n",
        b"content-length:5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"X: y\r\n",
        b"host: b\r\n",
        b"X:\r\n",
        b"Expect: 100-continue\r\n",
        b"Authorization: Basic Zm9vOmJhcg==\r\n",
        b" HTTP/1.1\r\n",
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A plain head with some bytes or lines put in, taken out or changed; it ends with its first empty line."""
    data = bytearray(PLAIN)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 30))
        data[at : at + gone] = draw(st.one_of(pieces, st.binary(max_size=3)))
    whole = bytes(data) + b"\r\n\r\n"
    return whole[: whole.index(b"\r\n\r\n") + 4]


@settings(max_examples=2000, deadline=None)
@given(mutated())
@example(PLAIN)
def test_whatever_is_read_is_what_llhttp_reads(data: bytes) -> None:
    agrees(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    whole = data + b"\r\n\r\n"
    agrees(whole[: whole.index(b"\r\n\r\n") + 4])
    agrees(b"PUT /" + whole[: whole.index(b"\r\n\r\n") + 4])
