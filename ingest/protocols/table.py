"""The protocols that are spoken, and the way from a target to its one. Pure."""

from __future__ import annotations

import re
from typing import Final

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.protocols.base import Bounds, Protocol, Route
from ingest.protocols.live import Live
from ingest.protocols.put import Put
from ingest.protocols.tus import Tus
from ingest.requests import MAX_DEVICE, ORIGIN

PUT: Final = Put()
LIVE: Final = Live()
TUS: Final = Tus()
PROTOCOLS: Final[tuple[Protocol, ...]] = (PUT, LIVE, TUS)
_BY_NAME: Final[dict[bytes, Protocol]] = {protocol.name: protocol for protocol in PROTOCOLS}
_TARGET = re.compile(ORIGIN + rb"/v1/devices/([0-9]{1,10})/([a-z]{1,20})(?:/([^?]*))?(?:\?.*)?", re.DOTALL)


DEFAULT_BOUNDS: Final = Bounds()


def besides(head: Head, origins: frozenset[bytes]) -> tuple[str, ...]:
    """Headers of each answer to this request: see `Protocol.besides`."""
    match = _TARGET.fullmatch(head.target)
    protocol = None if match is None else _BY_NAME.get(match[2])
    return () if protocol is None else protocol.besides(head, origins)


def parse_target(head: Head, bounds: Bounds = DEFAULT_BOUNDS) -> Route | Answer:
    """The route of a request line; or what is answered to it, whoever asks."""
    match = _TARGET.fullmatch(head.target)
    if match is None:
        return answers.UNKNOWN_PATH
    number, name, rest = match.groups()
    device = int(number)
    protocol = _BY_NAME.get(name)
    if protocol is None or device > MAX_DEVICE:
        return answers.UNKNOWN_PATH
    return protocol.route(head, device, rest or b"", bounds)
