"""Rewriting segments of which little is left: their live chunks move to a new object, the old one is deleted.

Nonce, ciphertext and tag are copied as they are, so no key is needed and nothing is encrypted anew. Each step may be
the last: a new key that is prepared but never swapped in reclaims itself, and the swap is one transaction that looks
again at what still points at the old segment. Readers that are at the old object keep it through the delete delay.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from retention.bitmap import EntitlementBitmap
from retention.sweep.lease import Lease
from retention.sweep.planning import SweepLimits, SweepPlan
from retention.sweep.report import MAX_REPORTED_FAILURES, Progress, SweepReport
from storage.catalog.ingest import IngestCatalog
from storage.catalog.sweep import SweepCatalog
from storage.clock import Clock
from storage.days import MS_PER_DAY
from storage.errors import CatalogUnavailable, CorruptError, ObjectMissing, WorldError
from storage.objects import ObjectStore
from storage.recover import load_segment_of
from storage.rows.recordings import SegmentCommit, SegmentRow
from storage.segment import repack

WORKER = "sweep"
"""Names the keys of rewritten segments; workers of the service are w0, w1, …"""
MAX_FAILED_IN_A_ROW = 3
"""Then the store is taken to be down, and the rest is left to the next pass."""
SET_ASIDE_MS = MS_PER_DAY
"""A segment that could not be rewritten is tried again the next day: it only costs space."""


class RewritingCatalog(IngestCatalog, SweepCatalog, Protocol):
    """A rewrite prepares a segment as a worker does, and swaps it for another."""


class Rewriting:
    """The rewrite phase of one pass. Memory: one segment and what is left of it."""

    def __init__(
        self,
        catalog: RewritingCatalog,
        store: ObjectStore,
        bitmap: EntitlementBitmap,
        clock: Clock,
        lease: Lease,
        limits: SweepLimits,
        *,
        progress: Progress,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._bitmap = bitmap
        self._clock = clock
        self._lease = lease
        self._limits = limits
        self._progress = progress

    def run(self, plan: SweepPlan, report: SweepReport) -> None:
        """
        Raises:
            LeaseLost, CatalogUnavailable: nothing is half done.
        """
        failed_in_a_row = 0
        for number, row in enumerate(plan.rewrite, 1):
            self._lease.renew()
            try:
                self._rewrite(row, report)
                failed_in_a_row = 0
            except CatalogUnavailable:
                raise
            except (CorruptError, ObjectMissing, WorldError) as error:
                self._set_aside(row, f"{error} ({error.code})", report)
                failed_in_a_row += 1
            if failed_in_a_row == MAX_FAILED_IN_A_ROW:
                return
            self._progress("rewrite", number, len(plan.rewrite))

    def _rewrite(self, row: SegmentRow, report: SweepReport) -> None:
        body, index = load_segment_of(self._store, row)
        refused = np.frombuffer(row.refused, dtype="<u4")
        ordinals = np.setdiff1d(np.arange(row.chunks, dtype="<u4"), refused)
        new, freed_bytes = self._put(row, body, index, ordinals)
        self._lease.renew()
        now_ms = self._clock.now_ms()
        swapped = self._catalog.swap_segment(
            row.segment_id,
            new,
            ordinals,
            fence=self._lease.fence,
            now_ms=now_ms,
            delete_after_ms=now_ms + self._limits.delete_delay_ms,
        )
        report.rewritten_segments += swapped
        report.rewritten_bytes += row.size_bytes
        report.freed_bytes += freed_bytes if swapped else 0

    def _put(
        self, row: SegmentRow, body: bytes, index: np.ndarray, ordinals: np.ndarray
    ) -> tuple[SegmentCommit, int]:
        """Store the new object under a prepared key. Returns it, and how many bytes shorter it is."""
        [prepared] = self._catalog.prepare(
            worker=WORKER,
            class_days=row.class_days,
            expires_on=row.expires_on,
            count=1,
            now_ms=self._clock.now_ms(),
        )
        with self._bitmap.locked():
            self._bitmap.raise_segment_high_water(prepared.segment_id)
        packed, crc32, moved = repack(
            body,
            index,
            ordinals,
            class_days=row.class_days,
            expires_on=row.expires_on,
            segment_id=prepared.segment_id,
        )
        self._store.put(prepared.key, packed, crc32)
        commit = SegmentCommit(prepared.segment_id, row.expires_on, len(packed), crc32, moved)
        return commit, row.size_bytes - len(packed)

    def _set_aside(self, row: SegmentRow, why: str, report: SweepReport) -> None:
        retry_at_ms = self._clock.now_ms() + SET_ASIDE_MS
        self._catalog.rewrite_failed(row.segment_id, why, fence=self._lease.fence, retry_at_ms=retry_at_ms)
        if len(report.failed_rewrites) < MAX_REPORTED_FAILURES:
            report.failed_rewrites[row.key] = why
