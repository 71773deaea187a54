"""The ingest port and the API port take the same heads: a proxy in front of both needs one rule."""

from __future__ import annotations

import pytest

from ingest.framing import Framer as IngestFramer
from ingest.heads import Head, Malformed
from service.http.framing import Framer as ApiFramer
from service.http.heads import RequestHead
from service.http.refusals import Refused
from tests.malformed_heads import MALFORMED_HEADS, SOUND_HEADS

BEHIND = b"3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
STEPS = [1, 7, 100_000]


def first_of_ingest(data: bytes, step: int, reads_plain: bool) -> str | int:
    """The kind of its first event, or the status of a refusal; empty when it waits for more."""
    framer = IngestFramer(reads_plain=reads_plain)
    for at in range(0, len(data), step):
        framer.feed(data[at : at + step])
        event = framer.next_event()
        if isinstance(event, Malformed):
            assert framer.next_event() is None
            return event.status
        if event is not None:
            assert isinstance(event, Head)
            return "head"
    return ""


def first_of_api(data: bytes, step: int) -> str | int:
    framer = ApiFramer(16 * 1024)
    for at in range(0, len(data), step):
        framer.feed(data[at : at + step])
        try:
            if isinstance(framer.next(), RequestHead):
                return "head"
        except Refused as refused:
            return refused.status
    return ""


def first_of_each(data: bytes, step: int) -> dict[str, str | int]:
    return {
        "ingest": first_of_ingest(data, step, False),
        "ingest, plain heads in one pass": first_of_ingest(data, step, True),
        "api": first_of_api(data, step),
    }


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", MALFORMED_HEADS)
def test_both_refuse(name: str, step: int) -> None:
    told = first_of_each(MALFORMED_HEADS[name], step)
    assert set(told.values()) == {400}, told
    assert set(first_of_each(MALFORMED_HEADS[name] + BEHIND, step).values()) == {400}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("name", SOUND_HEADS)
def test_both_take(name: str, step: int) -> None:
    told = first_of_each(SOUND_HEADS[name], step)
    assert set(told.values()) == {"head"}, told
