"""What workers saw of devices: when each was last taken something from, and what it was refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """Requests of one device that were refused for one reason, since its first.

    Args:
        code: of the ingest port, as `plan_lapsed`.
        last_ms: when the newest was refused, Unix ms by the clock of the host that refused it.
    """

    code: str
    count: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """
    Args:
        seen_ms: when the newest upload was acknowledged, Unix ms by the clock of the host that took it; None: none was.
        refused: the newest first.
    """

    device: int
    seen_ms: int | None = None
    refused: tuple[Refused, ...] = ()

    @property
    def refusals(self) -> int:
        """How many there were."""
        return sum(one.count for one in self.refused)
