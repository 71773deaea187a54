"""The catalog as the desk reads it to say how much is kept."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from storage.rows.kept import KeptDay, KeptState


class KeptCatalog(Protocol):
    """Sums of chunk rows. Each row is looked at, some 1 us of CPU."""

    @abstractmethod
    def kept_states(self, devices: Sequence[int]) -> dict[int, KeptState]:
        """Of these devices, some thousand at most; those that do not exist are left out."""

    @abstractmethod
    def kept(self, device: int, expiry_days: Sequence[int]) -> dict[int, list[KeptDay]]:
        """What is served of a device while its rights last, by expiry day (UTC day number), each with its capture days
        in order. Days that have ended are left out.

        Args:
            expiry_days: 64 at most.
        """
