"""What targets mean: which protocol, which device, which time; or what is answered whoever asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.protocols.base import Route
from ingest.protocols.table import LIVE, PROTOCOLS, PUT, parse_target
from ingest.requests import MAX_DEVICE


@pytest.mark.parametrize("method", [b"PUT", b"POST"])
@pytest.mark.parametrize(
    ("target", "route"),
    [
        (b"/v1/devices/7/chunks/1760000000123", Route(PUT, 7, 1_760_000_000_123)),
        (b"/v1/devices/7/chunks/0", Route(PUT, 7, 0)),
        (b"/v1/devices/7/chunks/1760000000123?x=/y", Route(PUT, 7, 1_760_000_000_123)),
        (b"/v1/devices/4294967295/chunks/1", Route(PUT, MAX_DEVICE, 1)),
        (b"/v1/devices/7/live/1760000000.ts", Route(LIVE, 7, 1_760_000_000_000, may_move=True)),
        (b"/v1/devices/7/live/1760000000123.ts", Route(LIVE, 7, 1_760_000_000_123)),
        (b"/v1/devices/7/live/176000000.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/17600000001.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/176000000012.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/17600000001234.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/176000000012345.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/20261128193400123.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/176000000012345678.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/x1760000000123456.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/x1760000000.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/1760000000.0.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/stream0.ts?now", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/stream.m3u8", Route(LIVE, 7, answer=answers.NOTHING_TO_DO)),
        (b"/v1/devices/7/live/STREAM.M3U8", Route(LIVE, 7, answer=answers.NOTHING_TO_DO)),
        (b"/v1/devices/7/live/a/b.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/1760000000.TS", Route(LIVE, 7, 1_760_000_000_000, may_move=True)),
        (b"/v1/devices/7/live/2026-05/27/1760000000123.ts", Route(LIVE, 7, 1_760_000_000_123)),
        (b"/v1/devices/7/live/2026-05-27T12:00:00+02:00.ts", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/cam=1,front@home~2.ts", Route(LIVE, 7, may_move=True)),
        (b"http://host:8080/v1/devices/7/chunks/1", Route(PUT, 7, 1)),
        (b"HTTPS://h/v1/devices/7/live/1760000000.ts?x", Route(LIVE, 7, 1_760_000_000_000, may_move=True)),
        (b"/v1/devices/7/live/stream.mpd", answers.DASH),
        (b"/v1/devices/7/live/init-stream0.m4s", answers.DASH),
        (b"/v1/devices/7/live/0/chunk-stream1-00001.m4s", answers.DASH),
        (b"/v1/devices/7/live/init-0.mp4", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/init.mp4", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/0/chunk-1.M4S", Route(LIVE, 7, may_move=True)),
        (b"/v1/devices/7/live/1760000000.m4s", Route(LIVE, 7, 1_760_000_000_000, may_move=True)),
        (b"/v1/devices/7/live/1760000000123.mov", Route(LIVE, 7, 1_760_000_000_123)),
    ],
)
def test_where_a_request_goes(method: bytes, target: bytes, route: Route | Answer) -> None:
    """A live name of exactly 10 digits is the capture time in s, of 13 in ms (design §6)."""
    assert parse_target(Head(method, target)) == route


@pytest.mark.parametrize("name", [b"stream0.ts", b"1760000000.ts", b"stream.m3u8", b"anything"])
def test_a_deletion_by_the_encoder_changes_nothing(name: bytes) -> None:
    assert parse_target(Head(b"DELETE", b"/v1/devices/7/live/" + name)) == Route(
        LIVE, 7, answer=answers.NOTHING_TO_DO
    )


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
    found = parse_target(Head(method, target))
    assert isinstance(found, Answer)
    assert found.code in ("not_found", "time_digits")


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
        told = parse_target(Head(b"GET", origin + b"/v1/devices/7/" + rest))
        assert isinstance(told, Answer)
        expected = answers.UNKNOWN_PATH if digits is None else answers.time_digits(digits)
        assert (told.status, told.code, told.detail) == (expected.status, expected.code, expected.detail)


@given(st.binary(max_size=60))
def test_no_target_raises(tail: bytes) -> None:
    parse_target(Head(b"PUT", tail))
    parse_target(Head(b"PUT", b"/v1/devices/7/live/" + tail))
    parse_target(Head(b"POST", b"/v1/devices/" + tail))


def test_each_protocol_has_a_name_of_its_own() -> None:
    assert len({protocol.name for protocol in PROTOCOLS}) == len(PROTOCOLS)
