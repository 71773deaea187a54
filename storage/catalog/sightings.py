"""The catalog as those use it who tell when a device was last seen: workers write, the desk reads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

from storage.rows.sightings import Sighting


class SightingsCatalog(Protocol):
    """What workers saw of devices. Numbers, codes and times; it decides nothing."""

    @abstractmethod
    def note_sightings(
        self, seen: Mapping[int, int], refused: Mapping[tuple[int, str], tuple[int, int]]
    ) -> None:
        """Take up what a worker saw. Times never go back, counts add up. A device that is not there, or whose account
        was cancelled, is left out.

        Args:
            seen: by device, when its newest upload was acknowledged, Unix ms.
            refused: by device and code, how many more requests were refused and when the newest was, Unix ms.
        """

    @abstractmethod
    def sightings(self, devices: Sequence[int]) -> dict[int, Sighting]:
        """Of these devices, some thousand at most; of each, also where nothing was seen of it."""

    @abstractmethod
    def silent(
        self, *, day: int, before_ms: int, after: int = 0, limit: int = 100
    ) -> list[tuple[int, int | None]]:
        """Devices numbered above `after` that may record on `day`, and of which nothing was taken since `before_ms`
        (Unix ms), in order of number: each with when something was."""

    @abstractmethod
    def drop_sightings(self, *, limit: int = 1000) -> int:
        """Forget what was seen of devices whose account was cancelled: a worker may have written it beside that.
        Returns how many rows went."""
