"""Runs of the home's own schedule."""

from __future__ import annotations

from typing import NamedTuple


class RunRow(NamedTuple):
    """The newest run of a job. Moments are by the clock of the schedule, Unix milliseconds."""

    job: str
    host: str
    """Name of the host that ran it."""
    began_ms: int
    ended_ms: int | None
    """None: it is under way, or its process was killed."""
    outcome: str
    """`done`, or the code of what went wrong; empty until it has ended."""
    detail: str
