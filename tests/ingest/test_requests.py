"""Targets, credentials and digests of requests."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.requests import MAX_DEVICE, Route, digits_of_time, parse_credentials, parse_digest, parse_target


@pytest.mark.parametrize("method", [b"PUT", b"POST"])
@pytest.mark.parametrize(
    ("target", "route"),
    [
        (b"/v1/devices/7/chunks/1760000000123", Route(7, 1_760_000_000_123)),
        (b"/v1/devices/7/chunks/0", Route(7, 0)),
        (b"/v1/devices/7/chunks/1760000000123?x=/y", Route(7, 1_760_000_000_123)),
        (b"/v1/devices/4294967295/chunks/1", Route(MAX_DEVICE, 1)),
        (b"/v1/devices/7/live/1760000000.ts", Route(7, 1_760_000_000_000, is_second=True)),
        (b"/v1/devices/7/live/1760000000123.ts", Route(7, 1_760_000_000_123)),
        (b"/v1/devices/7/live/176000000.ts", Route(7)),
        (b"/v1/devices/7/live/17600000001.ts", Route(7)),
        (b"/v1/devices/7/live/176000000012.ts", Route(7)),
        (b"/v1/devices/7/live/17600000001234.ts", Route(7)),
        (b"/v1/devices/7/live/176000000012345.ts", Route(7)),
        (b"/v1/devices/7/live/20261128193400123.ts", Route(7)),
        (b"/v1/devices/7/live/176000000012345678.ts", Route(7)),
        (b"/v1/devices/7/live/x1760000000123456.ts", Route(7)),
        (b"/v1/devices/7/live/x1760000000.ts", Route(7)),
        (b"/v1/devices/7/live/1760000000.0.ts", Route(7)),
        (b"/v1/devices/7/live/stream0.ts?now", Route(7)),
        (b"/v1/devices/7/live/stream.m3u8", Route(7, ignored=True)),
        (b"/v1/devices/7/live/STREAM.M3U8", Route(7, ignored=True)),
        (b"/v1/devices/7/live/a/b.ts", Route(7)),
        (b"/v1/devices/7/live/1760000000.TS", Route(7, 1_760_000_000_000, is_second=True)),
        (b"/v1/devices/7/live/2026-05/27/1760000000123.ts", Route(7, 1_760_000_000_123)),
        (b"/v1/devices/7/live/2026-05-27T12:00:00+02:00.ts", Route(7)),
        (b"/v1/devices/7/live/cam=1,front@home~2.ts", Route(7)),
        (b"http://host:8080/v1/devices/7/chunks/1", Route(7, 1)),
        (b"HTTPS://h/v1/devices/7/live/1760000000.ts?x", Route(7, 1_760_000_000_000, is_second=True)),
        (b"/v1/devices/7/live/stream.mpd", Route(7, is_dash=True)),
        (b"/v1/devices/7/live/init-stream0.m4s", Route(7, is_dash=True)),
        (b"/v1/devices/7/live/0/chunk-stream1-00001.m4s", Route(7, is_dash=True)),
        (b"/v1/devices/7/live/init-0.mp4", Route(7)),
        (b"/v1/devices/7/live/init.mp4", Route(7)),
        (b"/v1/devices/7/live/0/chunk-1.M4S", Route(7)),
        (b"/v1/devices/7/live/1760000000.m4s", Route(7, 1_760_000_000_000, is_second=True)),
        (b"/v1/devices/7/live/1760000000123.mov", Route(7, 1_760_000_000_123)),
    ],
)
def test_where_a_request_goes(method: bytes, target: bytes, route: Route) -> None:
    """A live name of exactly 10 digits is the capture time in s, of 13 in ms (design §6)."""
    assert parse_target(method, target) == route


@pytest.mark.parametrize("name", [b"stream0.ts", b"1760000000.ts", b"stream.m3u8", b"anything"])
def test_a_deletion_by_the_encoder_changes_nothing(name: bytes) -> None:
    assert parse_target(b"DELETE", b"/v1/devices/7/live/" + name) == Route(7, ignored=True)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"/v1/devices/7/chunks/1"),
        (b"DELETE", b"/v1/devices/7/chunks/1"),
        (b"GET", b"/v1/devices/7/live/a.ts"),
        (b"HEAD", b"/v1/devices/7/live/a.m3u8"),
        (b"PUT", b"/"),
        (b"PUT", b"*"),
        (b"PUT", b"/v1/devices/7/chunks/"),
        (b"PUT", b"/v1/devices/7/chunks/1/"),
        (b"PUT", b"/v1/devices/7/chunks/-1"),
        (b"PUT", b"/v1/devices/7/chunks/+1"),
        (b"PUT", b"/v1/devices/7/chunks/1_0"),
        (b"PUT", b"/v1/devices/7/chunks/1.5"),
        (b"PUT", b"/v1/devices/7/chunks/%31"),
        (b"PUT", "/v1/devices/7/chunks/\u0661".encode()),
        (b"PUT", b"/v1/devices/7/chunks/12345678901234"),
        (b"PUT", b"/v1/devices/7/chunks/1234567890123456"),
        (b"PUT", b"/v1/devices/7/live/1760000000123456.ts"),
        (b"PUT", b"/v1/devices/7/live/1760000000123456789.ts"),
        (b"PUT", b"/v1/devices//chunks/1"),
        (b"PUT", b"/v1/devices/x/chunks/1"),
        (b"PUT", b"/v1/devices/4294967296/chunks/1"),
        (b"PUT", b"/v1/devices/11111111111/chunks/1"),
        (b"PUT", b"/v2/devices/7/chunks/1"),
        (b"PUT", b"//v1/devices/7/chunks/1"),
        (b"PUT", b"http:///v1/devices/7/chunks/1"),
        (b"PUT", b"ftp://host/v1/devices/7/chunks/1"),
        (b"PUT", b"http://host"),
        (b"PUT", b"host/v1/devices/7/chunks/1"),
        (b"PUT", b"/v1/devices/7/live/"),
        (b"PUT", b"/v1/devices/7/live/a.mkv"),
        (b"GET", b"/v1/devices/7/live/a.mp4"),
        (b"PUT", b"/v1/devices/7/live/a"),
        (b"PUT", b"/v1/devices/7/live//b.ts"),
        (b"PUT", b"/v1/devices/7/live/a//b.ts"),
        (b"PUT", b"/v1/devices/7/live/./b.ts"),
        (b"PUT", b"/v1/devices/7/live/a/../b.ts"),
        (b"PUT", b"/v1/devices/7/live/a/"),
        (b"PUT", b"/v1/devices/7/live/a%2fb.ts"),
        (b"PUT", b"/v1/devices/7%2fchunks%2f1"),
        (b"PUT", b"/v1/devices/7/chunks/1%00"),
        (b"PUT", b"/v1/devices/7/live/1_0.\xd9\xa1.ts"),
        (b"PUT", b"/v1/devices/7/live/../chunks/1.ts"),
        (b"PUT", b"/v1/devices/7/live/a b.ts"),
        (b"PUT", b"/v1/devices/7/live/" + b"a" * 198 + b".ts"),
    ],
)
def test_what_is_not_there(method: bytes, target: bytes) -> None:
    assert parse_target(method, target) is None


@pytest.mark.parametrize(
    ("rest", "digits"),
    [
        (b"chunks/12345678901234", 14),
        (b"chunks/1760000000123456", 16),
        (b"chunks/1760000000123456789?x", 19),
        (b"chunks/" + b"1" * 3000, 3000),
        (b"live/1760000000123456.ts", 16),
        (b"live/a/b/1760000000123456789.TS?x", 19),
        (b"live/17600000001234.ts", None),
        (b"live/1760000000123456.m3u8", None),
        (b"live/x1760000000123456.ts", None),
        (b"chunks/1760000000123", None),
        (b"chunks/1760000000123456.5", None),
    ],
)
def test_a_time_with_more_digits_than_are_taken_is_told(rest: bytes, digits: int | None) -> None:
    for origin in (b"", b"http://host"):
        assert digits_of_time(origin + b"/v1/devices/7/" + rest) == digits


@given(st.binary(max_size=60))
def test_no_target_raises(tail: bytes) -> None:
    parse_target(b"PUT", tail)
    parse_target(b"PUT", b"/v1/devices/7/live/" + tail)
    parse_target(b"POST", b"/v1/devices/" + tail)


# --- credentials -------------------------------------------------------------------------------------------------


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"Bearer ckd_abc", (None, "ckd_abc")),
        (b"bearer  ckd_abc ", (None, "ckd_abc")),
        (b"Bearer", (None, "")),
        (b"Bearer ", (None, "")),
        (basic(b"7:ckd_abc"), (7, "ckd_abc")),
        (basic(b"7:"), (7, "")),
        (basic(b"7:a:b"), (7, "a:b")),
        (b"basic " + base64.b64encode(b"7:t"), (7, "t")),
        (b"Bearer \xff", (None, "ÿ")),
    ],
)
def test_credentials(header: bytes, told: tuple[int | None, str]) -> None:
    assert parse_credentials(header) == told


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"ckd_abc",
        b"Digest username=7",
        b"Basic",
        b"Basic !!!",
        b"Basic Nzp0A",
        basic(b"7"),
        basic(b"name:t"),
        basic(b":t"),
        basic(b"-7:t"),
        basic(b"12345678901:t"),
        basic("\u0667:t".encode()),
    ],
)
def test_no_credentials(header: bytes) -> None:
    told = parse_credentials(header)
    assert told is None


@given(st.binary(max_size=60), st.sampled_from([b"", b"Bearer ", b"Basic "]))
def test_no_credentials_raise(value: bytes, scheme: bytes) -> None:
    parse_credentials(scheme + value)


# --- digests -----------------------------------------------------------------------------------------------------

SHA = hashlib.sha256(b"x").digest()
SHA_MEMBER = b"sha-256=:" + base64.b64encode(SHA) + b":"
CRC_MEMBER = b"crc32=:AAECAw==:"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (SHA_MEMBER, (b"sha-256", SHA)),
        (CRC_MEMBER, (b"crc32", bytes(range(4)))),
        (CRC_MEMBER + b", " + SHA_MEMBER, (b"sha-256", SHA)),
        (b"  " + CRC_MEMBER + b"  ", (b"crc32", bytes(range(4)))),
        (b"sha-512=:AAAA:, " + CRC_MEMBER, (b"crc32", bytes(range(4)))),
        (b"sha-512=:AAAA:", None),
    ],
)
def test_digests(value: bytes, told: tuple[bytes, bytes] | None) -> None:
    """The best algorithm known wins; unknown ones are passed over (RFC 9530 §2)."""
    assert parse_digest(value) == told


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"sha-256",
        b"sha-256=abc",
        b"sha-256=:AAAA:",
        b"crc32=:AAECAwQ=:",
        b"crc32=:AAECAw:",
        b"crc32=:A===:",
        b"crc32=:AAECAw==:,",
        b"crc32=:AAEC Aw==:",
    ],
)
def test_bad_digests(value: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_digest(value)


@given(st.binary(max_size=60))
def test_a_digest_is_read_or_refused_as_a_value_error(value: bytes) -> None:
    for text in (value, b"crc32=:" + value + b":"):
        try:
            parse_digest(text)
        except ValueError:
            continue
