"""What is asked of recordings: parameters and their bounds, ranges of bytes, encodings. Pure."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path, Query
from fastapi.exceptions import RequestValidationError

from service.playback import MAX_TIME_MS

MAX_PAGE_CHUNKS = 10_000
"""Most chunks in one page of a listing, some 2 MB of JSON."""

CaptureMs = Annotated[int, Path(ge=0, le=MAX_TIME_MS, description="capture time, Unix ms")]
FromMs = Annotated[int, Query(alias="from", ge=0, le=MAX_TIME_MS, description="Unix ms, the first included")]
ToMs = Annotated[int, Query(alias="to", ge=0, le=MAX_TIME_MS, description="Unix ms, the first left out")]
MaybeFromMs = Annotated[
    int | None, Query(alias="from", ge=0, le=MAX_TIME_MS, description="Unix ms, the first included")
]
MaybeToMs = Annotated[
    int | None, Query(alias="to", ge=0, le=MAX_TIME_MS, description="Unix ms, the first left out")
]
Limit = Annotated[
    int | None, Query(ge=1, le=MAX_PAGE_CHUNKS, description="most chunks in a page; default 1000")
]
Encodings = Annotated[str, Header(alias="Accept-Encoding", include_in_schema=False)]


def check_order(from_ms: int, to_ms: int) -> None:
    """As a parameter out of bounds is refused: a range holds at least a millisecond."""
    if from_ms >= to_ms:
        error = {"loc": ("query", "to"), "msg": f"is not after from: {to_ms} <= {from_ms}", "type": "value"}
        raise RequestValidationError([error])


def takes_gzip(accept_encoding: str) -> bool:
    """Whether gzip is among the encodings (RFC 9110 §12.5.3), with a weight that is not 0."""
    for entry in accept_encoding.lower().split(","):
        name, _, weight = entry.replace(" ", "").partition(";")
        if name in ("gzip", "*"):
            return weight.removeprefix("q=").strip("0.") != "" or not weight
    return False


def part_of(length: int, etag: str, range_: str | None, if_range: str | None) -> tuple[int, int] | None:
    """What is asked for of `length` bytes, as (start, stop): all of it without a Range, with one that is none
    (RFC 9110 §14.2 lets a server ignore it), or with an If-Range of something else. None when it can't be
    satisfied."""
    whole = (0, length)
    unit, _, spec = (range_ or "").partition("=")
    first, dash, last = spec.strip().partition("-")
    if unit.strip().lower() != "bytes" or not dash or not _digits(first + last):
        return whole
    if if_range is not None and if_range != etag:
        return whole
    if not first:
        start, stop = max(length - int(last), 0), length
    else:
        start, stop = int(first), min(int(last) + 1, length) if last else length
        if last and int(last) < int(first):
            return whole
    return (start, stop) if start < stop else None


def _digits(text: str) -> bool:
    # Bounded: a number of thousands of digits is slow to read, and Python refuses it.
    return text.isascii() and text.isdigit() and len(text) <= 40
