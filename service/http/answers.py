"""Heads of answers, and the server's own refusals. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

PROBLEM_TYPE = "application/problem+json"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
SHIELD = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
"""On every answer: nobody takes it for something else, puts it into a page of his own, or is told its address, which
may hold a viewer's token."""
RETRY_AFTER_S = 2

Headers = Iterable[tuple[bytes, bytes]]


def problem_document(status: int, code: str, detail: str) -> dict[str, object]:
    """A refusal (RFC 9457), to programs by `error` and to people by `detail`."""
    return {
        "type": f"urn:clipkeep:problem:{code}",
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "error": code,
    }


def refusal(status: int, code: str, detail: str, now_s: float) -> bytes:
    """A whole answer that ends its connection."""
    body = json.dumps(problem_document(status, code, detail)).encode() + b"\n"
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 503:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    return head_bytes(status, headers, now_s=now_s, close=True) + body


def head_bytes(
    status: int, headers: Headers, *, now_s: float, close: bool, version: str = "1.1", chunked: bool = False
) -> bytes:
    """The head of an answer.

    Args:
        close: the connection ends after it.
        version: of the request. One of HTTP/1.0 has to be told that its connection goes on.
        chunked: the body follows in chunks.

    Raises:
        ValueError: a header could be taken for several.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    has_date = False
    for name, value in headers:
        if b"\n" in name + value or b"\r" in name + value or b"\0" in name + value:
            raise ValueError(f"header {name!r} has a control character")
        has_date = has_date or name.lower() == b"date"
        lines.append(name + b": " + value)
    lines += [name + b": " + value for name, value in SHIELD]
    if not has_date:
        lines.append(b"date: " + formatdate(now_s, usegmt=True).encode())
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    if close:
        lines.append(b"connection: close")
    elif version == "1.0":
        lines.append(b"connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n\r\n"
