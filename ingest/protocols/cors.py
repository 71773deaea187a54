"""Requests of pages that were given by another origin (CORS), where the operator names that origin. Pure.

Nothing here says who may what: a page shows its device's token in a header, as a camera does, and cookies are never
asked for. It only lets the browser show a page what was answered.
"""

from __future__ import annotations

import re
from typing import Final

_ORIGIN: Final = re.compile(r"https?://[a-z0-9.\-\[\]:]+")
METHODS: Final = "POST, HEAD, PATCH, DELETE"
REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Tus-Resumable, Upload-Checksum, Upload-Length, Upload-Metadata, Upload-Offset, "
    "X-HTTP-Method-Override, X-Requested-With"
)
ANSWER_HEADERS: Final = (
    "Location, Retry-After, Tus-Checksum-Algorithm, Tus-Extension, Tus-Max-Size, Tus-Resumable, Tus-Version, "
    "Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset"
)
KEPT_S: Final = 7200
"""For so long a browser need not ask again whether it may: the most that Chromium keeps."""


def origins_of(text: str) -> frozenset[bytes]:
    """Origins (RFC 6454 §6.2) that are separated by commas.

    Raises:
        ValueError: one that no browser would send.
    """
    found = [origin.strip() for origin in text.split(",") if origin.strip()]
    for origin in found:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is no origin: write it as the browser does, https://name or https://name:port,"
                " in lower case and without a path; each is named, * is none"
            )
    return frozenset(origin.encode() for origin in found)


def lines_of(said: dict[bytes, bytes], is_options: bool, origins: frozenset[bytes]) -> tuple[str, ...]:
    """Headers of an answer to a request with these headers. None when no origin is allowed anything."""
    if not origins:
        return ()
    origin = said.get(b"origin", b"")
    if origin not in origins:
        return ("Vary: Origin",)
    allowed = ("Vary: Origin", f"Access-Control-Allow-Origin: {origin.decode()}")
    if is_options:
        return (
            *allowed,
            f"Access-Control-Allow-Methods: {METHODS}",
            f"Access-Control-Allow-Headers: {REQUEST_HEADERS}",
            f"Access-Control-Max-Age: {KEPT_S}",
        )
    return (*allowed, f"Access-Control-Expose-Headers: {ANSWER_HEADERS}")
