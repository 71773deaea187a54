"""What the catalog remembers of the end of recordings: erasures, and the passes of the sweep.

An erasure record holds a device's number and no personal data. It outlives the device, and no step of it is ever
taken back but one: what a restored backup of the key store brought back is destroyed, and so recorded, anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

MAX_SWEEP_REPORTS = 1000
"""Reports that are kept, the newest ones: of hourly passes those of six weeks. Failed passes likewise."""


@dataclass(frozen=True, slots=True)
class ErasureRecord:
    """One erasure, step by step. Times are Unix ms, None until the step is done."""

    erasure_id: int
    device: int
    epoch: int
    """The erase epoch that began with it: keys of lower ones are what it is about."""
    why: str
    """`lapsed`, `terminated`, …; never what a person wrote."""
    who: str
    """`sweep`, `operator` or `owner`."""
    marked_ms: int
    keys_destroyed_ms: int | None
    keys_destroyed: int
    unindexed_ms: int | None
    unindexed_chunks: int
    cleared_ms: int | None
    """When nothing was left that decrypts: keys, caches and backups (invariant 10)."""
    verified_ms: int | None
    verified: str
    """How: what was tried, in numbers."""

    @property
    def state(self) -> str:
        """How far it has come, in a word."""
        if self.cleared_ms is not None:
            return "cleared"
        if self.keys_destroyed_ms is None:
            return "marked"
        return "keys destroyed" if self.unindexed_ms is None else "unindexed"


class Records(ABC):
    """A part of `storage.catalog.Catalog`. Marking (`update_device` with a new erase epoch) makes an erasure record,
    and `unindex_device` notes its rows, each in its own transaction."""

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
    def retention_classes(self) -> list[int]:
        """Every retention class, in days, that a plan or an object has."""

    @abstractmethod
    def sweep_reports(self, *, limit: int) -> list[dict[str, Any]]:
        """The newest reports of passes, newest first."""

    @abstractmethod
    def note_failed_sweep(self, code: str, detail: str, *, now_ms: int) -> None:
        """Keep that a pass ended with an error."""

    @abstractmethod
    def failed_sweeps(self, *, limit: int) -> list[dict[str, Any]]:
        """The newest failed passes, newest first: `at_ms`, `code`, `detail`."""

    @abstractmethod
    def failures_since_success(self) -> int:
        """Passes that failed since the last one that ended well."""
