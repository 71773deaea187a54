"""What the protocols share whose body is one whole chunk. Pure."""

from __future__ import annotations

from typing import Final

from ingest import answers
from ingest.answers import Answer
from ingest.heads import Head
from ingest.packing import Outcome
from ingest.protocols.base import Admission, Bounds, Protocol, Rights, Route
from ingest.requests import parse_digest
from storage.rows.recordings import Verdict

MAX_CLIP_DURATION_MS = 3_600_000
"""Longest duration a chunk may claim: an hour, far above the few seconds of one upload unit."""
_MAX_DIGITS = 20

_BY_VERDICT: Final[dict[int, Answer]] = {
    Verdict.STORED: answers.STORED,
    Verdict.DUPLICATE: answers.ALREADY_STORED,
    Verdict.CONFLICT: answers.CONFLICT,
    Verdict.ERASED: answers.TERMINATED,
    Verdict.EXPIRED: answers.EXPIRED,
    Verdict.DELETED: answers.DELETED,
    Verdict.NO_INIT: answers.TRY_AGAIN,
}


class WholeChunks(Protocol):
    """A request is a chunk: its body is held until it is complete, and its answer says what became of it."""

    def admit(self, head: Head, route: Route, rights: Rights, bounds: Bounds) -> Admission | Answer:
        max_chunk_bytes = bounds.max_chunk_bytes
        if head.is_partial:
            return answers.PARTIAL
        if not head.chunked and not head.content_length:
            return answers.EMPTY
        if head.content_length is not None and head.content_length > max_chunk_bytes:
            return answers.too_large(max_chunk_bytes)
        duration_ms = None
        if head.clip_duration is not None:
            digits = head.clip_duration
            # Python refuses to read a number of thousands of digits, with an exception.
            duration_ms = int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else 0
            if not 0 < duration_ms <= MAX_CLIP_DURATION_MS:
                return answers.malformed(f"Clip-Duration-Ms is 1 to {MAX_CLIP_DURATION_MS} milliseconds")
        digest = None
        if head.content_digest is not None:
            try:
                digest = parse_digest(head.content_digest)
            except ValueError as error:
                return answers.malformed(str(error))
        return Admission(route, rights, duration_ms, digest, max_chunk_bytes)

    def answer(self, outcome: Outcome) -> Answer:
        return answers.TRY_AGAIN if outcome is None else _BY_VERDICT[outcome]
