"""Refusals in the log: sampled, so that neither a fleet with a wrong clock nor a stranger can fill it."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from ingest.answers import Answer
from ingest.requests import device_of

LOG_EVERY_S = 10.0
"""Of refusals with the same code one line is written, and how many there were since the last one."""

_log = structlog.get_logger("ingest")


@dataclass(slots=True)
class _Sample:
    logged_s: float
    since: int = 0


class Refusals:
    """Writes the first refusal of each code at once, then one each `LOG_EVERY_S`. Codes are few, so this is bounded."""

    def __init__(self) -> None:
        self._by_code: dict[tuple[int, str], _Sample] = {}

    def note(self, answer: Answer, now_s: float, *, device: int | None = None, target: bytes = b"") -> None:
        """A request was refused.

        Args:
            now_s: monotonic.
            device: its number, if it is known.
            target: what was asked for, if it is not: the device number is taken from there, nothing else.
        """
        sample = self._by_code.get((answer.status, answer.code))
        if sample is None:
            sample = self._by_code[answer.status, answer.code] = _Sample(now_s)
        elif now_s - sample.logged_s < LOG_EVERY_S:
            sample.since += 1
            return
        _log.warning(
            "refused",
            status=answer.status,
            code=answer.code,
            device=device_of(target) if device is None else device,
            detail=answer.detail,
            more=sample.since,
        )
        sample.logged_s, sample.since = now_s, 0
