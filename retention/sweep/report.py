"""What a pass did: kept in the catalog, shown to people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from storage.errors import CorruptError, WorldError

MAX_REPORTED_FAILURES = 100
MAX_REPORTED_ERASURES = 1000

Progress = Callable[[str, int, int], None]
"""(phase, done, of)."""


@dataclass(slots=True)
class SweepReport:
    """What a pass did."""

    started_ms: int
    finished_ms: int = 0
    who: str = ""
    """Who ran it, and where."""
    days: list[dict[str, Any]] = field(default_factory=list)
    reclaimed_keys: int = 0
    finished_deletions: int = 0
    """Deletions of ranges that a killed command had left unfinished."""
    erased_devices: list[dict[str, Any]] = field(default_factory=list)
    """At most MAX_REPORTED_ERASURES of them; the erasure records have all."""
    erased_by_cause: dict[str, int] = field(default_factory=dict)
    """All of them, counted."""
    held_back_devices: int = 0
    """Erasures left out because they are more than the bulk limit."""
    unindexed_chunks: int = 0
    destroyed_keys: int = 0
    destroyed_account_keys: int = 0
    """Keys of accounts that a restored vault had again, or that no account ever had."""
    cleared_erasures: int = 0
    """Erasures of which nothing is left now that decrypts: no key, cache or backup."""
    delete_calls: int = 0
    deleted_objects: int = 0
    deleted_bytes: int = 0
    saved_per_month: float = 0.0
    """What these bytes would have cost, by `price_per_gb_month`."""
    slow_downs: int = 0
    """How often the store asked for fewer requests."""
    failed_deletes: dict[str, str] = field(default_factory=dict)
    """Key to the store's word, for at most MAX_REPORTED_FAILURES of them."""
    failed_delete_count: int = 0
    delete_failure: str = ""
    """Why deleting was broken off. The next pass goes on with it."""
    key_store_failure: str = ""
    """Why data keys could not be destroyed. The next pass goes on with them."""
    rewritten_segments: int = 0
    rewritten_bytes: int = 0
    """Bytes of the objects that were read for it."""
    freed_bytes: int = 0
    """What rewriting makes free, once the old objects are deleted."""
    failed_rewrites: dict[str, str] = field(default_factory=dict)
    """Key to why, for at most MAX_REPORTED_FAILURES of them. They are set aside and tried again."""

    def note_erased(self, device: int, why: str, *, chunks: int, size_bytes: int) -> None:
        """A device's keys and rows are gone."""
        self.erased_by_cause[why] = self.erased_by_cause.get(why, 0) + 1
        self.unindexed_chunks += chunks
        if len(self.erased_devices) < MAX_REPORTED_ERASURES:
            self.erased_devices.append({"device": device, "why": why, "chunks": chunks, "bytes": size_bytes})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def key_failures_noted(report: SweepReport) -> Iterator[None]:
    """A key store that fails is reported; objects go all the same."""
    try:
        yield
    except (WorldError, CorruptError) as error:
        report.key_store_failure = f"{error} ({error.code})"
