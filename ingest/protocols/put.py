"""Plain PUT: a chunk, named by its capture time. `PUT /v1/devices/{n}/chunks/{capture_ms}`. Pure."""

from __future__ import annotations

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.protocols.base import Bounds, Route
from ingest.protocols.whole import WholeChunks

_TIME_DIGITS = 13
"""Of Unix milliseconds, to the year 2286."""


class Put(WholeChunks):
    """The target's last part is the capture time, digits alone. One of more digits would be of another unit."""

    def __init__(self) -> None:
        super().__init__(b"chunks")

    def route(self, head: Head, device: int, rest: bytes, bounds: Bounds) -> Route | Answer:
        method = head.method
        if not rest.isdigit():
            return answers.UNKNOWN_PATH
        if len(rest) > _TIME_DIGITS:
            return answers.time_digits(len(rest))
        if method == b"PUT" or method == b"POST":
            return Route(self, device, int(rest))
        return answers.UNKNOWN_PATH
