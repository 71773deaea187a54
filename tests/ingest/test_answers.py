"""Answers on the wire."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from ingest import answers
from ingest.answers import CHALLENGE, RETRY_AFTER_S, Answer

EVERY = [
    *(value for value in vars(answers).values() if isinstance(value, Answer)),
    answers.malformed("why"),
    answers.time_digits(16),
    answers.clock_ahead(9_000_000_000_000, 1),
    answers.clock_behind(1_780_000_000, 1_780_000_000_000),
    answers.not_entitled(1, 2),
    answers.expired(1),
    answers.head_too_large("why"),
    answers.too_large(5),
    answers.unknown_media("this looks like Matroska or WebM"),
    answers.unplayable("header", "why"),
    *(answers.unplayable(word, "why") for word in ("frames", "init", "clear", "codec")),
]
REFUSALS = {
    ("malformed", 400),
    ("tls_required", 400),
    ("empty", 400),
    ("partial", 400),
    ("bad_token", 401),
    ("no_token", 401),
    ("suspended", 403),
    ("terminated", 403),
    ("plan_lapsed", 403),
    ("host_stale", 503),
    ("not_entitled_at_capture", 403),
    ("not_found", 404),
    ("time_digits", 400),
    ("head_timeout", 408),
    ("too_slow", 408),
    ("conflict", 409),
    ("deleted", 410),
    ("expired", 410),
    ("clock_behind", 410),
    ("too_large", 413),
    ("unknown_media", 415),
    ("unsupported_name", 415),
    ("no_header", 415),
    ("no_init", 409),
    ("encrypted", 415),
    ("unknown_codec", 415),
    ("no_frames", 422),
    ("clock_ahead", 422),
    ("digest_mismatch", 422),
    ("head_too_large", 431),
    ("not_stored", 503),
    ("overloaded", 503),
    ("rate_limited", 503),
    ("stopping", 503),
    ("store_unavailable", 503),
}


def parsed(data: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return first, dict(line.split(": ", 1) for line in lines), body


@pytest.mark.parametrize("answer", EVERY, ids=lambda a: f"{a.status}-{a.code}")
@pytest.mark.parametrize("close", [False, True])
def test_every_answer_is_well_formed(answer: Answer, close: bool) -> None:
    first, headers, body = parsed(answer.render(close=close))
    assert first == f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"
    assert headers.get("Connection") == ("close" if close else None)
    assert headers.get("Retry-After") == (str(RETRY_AFTER_S) if answer.status == 503 else None)
    assert headers.get("WWW-Authenticate") == (CHALLENGE if answer.status == 401 else None)
    if answer.status == 204:
        assert "Content-Length" not in headers, "RFC 9110 §8.6 forbids it"
        assert body == b""
        return
    assert headers["Content-Length"] == str(len(body))
    if answer.status < 300:
        assert body == b""
        return
    told = json.loads(body)
    says_time = {"server_ms": answer.server_ms} if answer.server_ms else {}
    assert told == {"error": answer.code, "detail": answer.detail, **says_time}
    assert ("Date" in headers) == bool(says_time)
    assert told["detail"]
    assert len(body) < 300, "tiny"
    assert headers["Content-Type"] == "application/json"


def test_the_codes_are_stable() -> None:
    assert {(a.code, a.status) for a in EVERY if a.code} == REFUSALS


def test_challenges_are_basic() -> None:
    """Stock ffmpeg sends credentials only after a Basic challenge."""
    assert CHALLENGE.startswith('Basic realm="')


@pytest.mark.parametrize(
    "answer",
    [
        *EVERY,
        answers.not_entitled(1_780_000_000, 1_780_000_000_000),
        answers.clock_behind(1, 1_780_000_000_000),
        answers.unknown_media(
            "MPEG-TS in packets of 192 bytes, as in M2TS files and on discs; send packets of 188"
        ),
    ],
)
def test_no_answer_is_longer_than_is_counted(answer: Answer) -> None:
    """docs/operations.md: unread answers take `ingest.max_outstanding` × 512 bytes of a connection."""
    assert len(answer.render(close=True)) <= 512
