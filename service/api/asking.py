"""What is asked of recordings: parameters and their bounds, ranges of bytes, encodings. Pure."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from fastapi import Header, Path, Query
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator

from service.api.numbers import DIGITS, only_digits
from storage.days import MAX_TIME_MS

MAX_PAGE_CHUNKS = 10_000
"""Most chunks in one page of a listing, some 2 MB of JSON."""

CaptureMs = Annotated[int, DIGITS, Path(ge=0, le=MAX_TIME_MS, description="capture time, Unix ms")]


def unix_ms(value: object) -> object:
    """A moment as it is asked for, as Unix ms: a whole number is that already; else ISO 8601 with its offset from UTC,
    or a date, which begins at 00:00 UTC. Anything else stays as it is, for the validation to refuse.

    Raises:
        ValueError: of that form, but no moment; or without an offset, which would be a guess.
    """
    if not isinstance(value, str):
        return value
    if not _LIKE_A_DATE.match(value):
        if not re.fullmatch("-?[0-9]{1,20}", value):
            raise ValueError(_WRITE)
        return only_digits(value)
    # A plus that was not percent-encoded comes as a space (WHATWG URL, application/x-www-form-urlencoded).
    text = re.sub(r" (?=\d\d:?\d\d$)", "+", value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(_WRITE) from None
    if moment.tzinfo is None:
        if "T" in text or " " in text:
            raise ValueError("say which offset from UTC: end it with Z, or with +02:00 written as %2B02:00")
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(milliseconds=1)


_WRITE = "write a moment as Unix ms, in digits, or like 2026-07-01T12:00:00Z"
_LIKE_A_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{8}T")
_LIKE_SECONDS = range(10**9, 10**10)
"""Unix seconds of 2001 to 2286; as ms in 1970, of which nothing is kept."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORM = "Unix ms, or ISO 8601 with an offset (2026-07-01T12:00:00Z) or a date (00:00 UTC)"
Moment = Annotated[int, BeforeValidator(unix_ms, json_schema_input_type=int | datetime | date)]
"""A moment as it may be written: see `unix_ms`."""

AtMs = Annotated[Moment, Query(ge=0, le=MAX_TIME_MS, description=f"a moment; {_FORM}")]
FromMs = Annotated[
    Moment, Query(alias="from", ge=0, le=MAX_TIME_MS, description=f"the first included; {_FORM}")
]
ToMs = Annotated[Moment, Query(alias="to", ge=0, le=MAX_TIME_MS, description=f"the first left out; {_FORM}")]
MaybeFromMs = Annotated[
    Moment | None, Query(alias="from", ge=0, le=MAX_TIME_MS, description=f"the first included; {_FORM}")
]
MaybeToMs = Annotated[
    Moment | None, Query(alias="to", ge=0, le=MAX_TIME_MS, description=f"the first left out; {_FORM}")
]
NearMs = Annotated[
    int | None,
    DIGITS,
    Query(
        alias="near",
        ge=0,
        le=MAX_TIME_MS,
        description="near what time, ms, it is decoded: as the playlist says",
    ),
]
Sound = Annotated[
    Literal["1"] | None, Query(description="`1`: pictures without sound get silence: as the playlist says")
]
Limit = Annotated[
    int | None, DIGITS, Query(ge=1, le=MAX_PAGE_CHUNKS, description="most chunks in a page; default 1000")
]
Encodings = Annotated[str, Header(alias="Accept-Encoding", include_in_schema=False)]


def check_order(from_ms: int, to_ms: int) -> None:
    """As a parameter out of bounds is refused: a range holds at least a millisecond, and is not in seconds, by which it
    would be in a spring without cameras and look empty."""
    if from_ms >= to_ms:
        problem = f"is not after from: {to_ms} <= {from_ms}"
    elif to_ms in _LIKE_SECONDS:
        problem = f"{to_ms} looks like seconds: times are Unix ms, or like 2026-07-01T12:00:00Z"
    else:
        return
    raise RequestValidationError([{"loc": ("query", "to"), "msg": problem, "type": "value"}])


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
