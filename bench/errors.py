"""The one error of this room: a bench that cannot measure says why and what to do."""

from __future__ import annotations

from storage.errors import ClipkeepError


class BenchError(ClipkeepError):
    """A bench could not start, or what it started did not behave."""

    code = "bench"
