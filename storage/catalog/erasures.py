"""The catalog as those see it who make recordings unrecoverable, and who prove it.

An erasure record holds a device's number and no personal data. It outlives the device, and no step of it is ever
taken back but one: what a restored backup of the key store brought back is destroyed, and so recorded, anew.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Protocol

from storage.rows.devices import DeviceFacts, ErasureRecord
from storage.rows.recordings import Unindexed


class ErasuresCatalog(Protocol):
    """Erasures and their records. Marking (`ChangesCatalog.update_device` with a new erase epoch) makes a record, and
    `unindex_device` notes its rows, each in its own transaction."""

    @abstractmethod
    def erasing_devices(self, *, limit: int = -1) -> list[DeviceFacts]:
        """Devices marked ERASING whose keys are still to be destroyed, and ERASED ones for which
        `unindex_device` has not ended since; at most `limit`, all when negative."""

    @abstractmethod
    def unindex_device(self, device: int, *, fence: int, now_ms: int, delete_after_ms: int) -> Unindexed:
        """Remove the rows of a device's chunks of earlier erase epochs; fully dead segments become tombstones.

        May be several transactions; each is fenced, and after a crash the same call does the rest.
        """

    @abstractmethod
    def note_keys_destroyed(
        self, destroyed: Mapping[int, tuple[int, int]], *, fence: int | None, now_ms: int
    ) -> None:
        """The keys of these devices are gone: device → (erase epoch, how many keys). The first word counts.

        Args:
            fence: of a sweep's lease; None for who destroyed them outside of a sweep: it is a fact, whoever says it.
        """

    @abstractmethod
    def clear_erasures(self, *, destroyed_before_ms: int, fence: int, now_ms: int) -> int:
        """Mark erasures as cleared whose rows are gone, and whose keys were destroyed at or before that time.
        Returns how many."""

    @abstractmethod
    def reopen_erasures(self, devices: Collection[int], *, now_ms: int) -> int:
        """A restored key store had keys of these devices again, which were destroyed now: their records start their
        wait anew. Returns how many."""

    @abstractmethod
    def note_verified(self, erasure_id: int, how: str, *, now_ms: int) -> None:
        """Keep that somebody tried to decrypt and could not."""

    @abstractmethod
    def erasures(
        self, *, device: int | None = None, after_id: int = 0, limit: int = 1000
    ) -> list[ErasureRecord]:
        """Erasure records with an id above `after_id`, oldest first; of one device only, when named."""

    @abstractmethod
    def erased_epochs(self, *, after: int = 0, limit: int = 1000) -> dict[int, int]:
        """For devices numbered above `after` whose keys were ever destroyed, in order: the newest epoch of that."""

    @abstractmethod
    def erasure_counts(self) -> dict[str, int]:
        """How many erasures are `marked`, `keys destroyed`, `unindexed`."""

    @abstractmethod
    def oldest_waiting_erasure_ms(self) -> int | None:
        """When the oldest one was marked of those whose keys or rows are still there; None: there is none."""
