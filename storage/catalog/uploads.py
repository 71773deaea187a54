"""What devices with limits upload in a day, counted for all hosts together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol


class UploadsCatalog(Protocol):
    """Sums by day and device. Workers add to them every few seconds, and are told what the others have added."""

    @abstractmethod
    def add_uploads(self, day: int, uploads: Mapping[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
        """Add what devices uploaded on a day.

        Args:
            uploads: by device (bytes, chunks), each 0 or more. 0 of both asks for the sums.

        Returns:
            By device the sums of that day, with what everybody else has added.
        """

    @abstractmethod
    def drop_uploads(self, *, before_day: int, limit: int) -> int:
        """Forget sums of earlier days, at most so many. Returns how many went."""
