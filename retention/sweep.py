"""The sweep: the scheduled pass that turns expiry, lapse and termination into deleted objects.

Planning is apart from doing. `plan_sweep` reads facts and writes nothing: a dry run prints that plan. `Sweep.run`
carries it out in phases, each idempotent: a pass that was killed anywhere is simply run again.

    1 guard     the lease; the clock against the store's; the catalog against what this host has seen of it
    2 expire    un-index whole days, tombstones in the same transaction (invariant 6)
    3 reclaim   prepared keys past their time become tombstones (invariant 5)
    4 erase     lapsed and terminated devices past their grace: mark, destroy keys, un-index rows
    5 delete    objects whose delay is over, up to 1000 a call, each key on its own (invariant 7)
    6 forget    tombstones that the store confirmed, and data keys of months that are over
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from retention.bitmap import ERASED, TERMINATED, EntitlementBitmap
from retention.entitlements import Entitlements, entitled_from
from storage.catalog import Catalog, DayTotals, DeviceFacts, EraseState, SegmentRow, Tombstone
from storage.clock import Clock
from storage.days import MS_PER_DAY, day_of_ms, month_of_day, to_date
from storage.errors import ClipkeepError, WorldError
from storage.keys import KeyStore
from storage.objects import DELETE_BATCH_KEYS, ObjectStore

LEASE = "sweep"
MAX_RECLAIMED = 10_000
"""Prepared keys reclaimed in one pass; the next one goes on."""


class SweepRefused(ClipkeepError):
    """The sweep changed nothing, because something is not as it must be. The detail says what to do."""

    code = "sweep_refused"


@dataclass(frozen=True, slots=True)
class SweepLimits:
    """See `[retention]` in docs/operations.md."""

    expiry_slack_ms: int
    delete_delay_ms: int
    prepare_ttl_ms: int
    lapse_grace_days: int
    max_clock_skew_ms: int
    bulk_limit: int
    lease_ms: int
    retry_ms: int


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a pass would do now."""

    expire: tuple[DayTotals, ...] = ()
    reclaim: tuple[SegmentRow, ...] = ()
    erase: tuple[DeviceFacts, ...] = ()
    """Devices to be marked for erasure, or marked and not finished."""
    delete: tuple[Tombstone, ...] = ()
    """Objects deleted in this pass: tombstones due at its start, and what it reclaims. What it un-indexes is deleted
    by a later pass, after the delay."""
    destroy_keys_through: int = 0
    """Last month (yyyymm) whose data keys are destroyed."""

    def summary(self) -> dict[str, Any]:
        """For `--dry-run`."""
        return {
            "expire": [
                {
                    "day": to_date(d.expires_on).isoformat(),
                    "segments": d.segments,
                    "chunks": d.chunks,
                    "bytes": d.size_bytes,
                }
                for d in self.expire
            ],
            "reclaim": [row.key for row in self.reclaim],
            "erase": [{"device": f.device, "why": erase_cause(f)} for f in self.erase],
            "delete": [t.key for t in self.delete],
            "destroy_keys_through": self.destroy_keys_through,
        }


@dataclass(slots=True)
class SweepReport:
    """What a pass did."""

    started_ms: int
    finished_ms: int = 0
    days: list[dict[str, Any]] = field(default_factory=list)
    reclaimed_keys: int = 0
    erased_devices: list[dict[str, Any]] = field(default_factory=list)
    unindexed_chunks: int = 0
    destroyed_keys: int = 0
    delete_calls: int = 0
    deleted_objects: int = 0
    deleted_bytes: int = 0
    failed_deletes: dict[str, str] = field(default_factory=dict)
    """Key to the store's word, for at most MAX_REPORTED_FAILURES of them."""
    failed_delete_count: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


MAX_REPORTED_FAILURES = 100
Progress = Callable[[str, int, int], None]
"""(phase, done, of)."""


def erase_cause(facts: DeviceFacts) -> str:
    """Why a device's recordings are destroyed."""
    if facts.erase_state is not EraseState.NONE:
        return facts.erase_reason
    return "terminated" if facts.terminated_ms is not None else "lapsed"


def to_be_erased(facts: DeviceFacts, *, now_ms: int, today: int, grace_days: int) -> bool:
    """Whether a device's keys are to be destroyed: the catalog's facts alone decide, never the bitmap.

    A terminated device when `grace_days` have passed since; another when its last entitled day lies more than
    `grace_days` back. A device that never had a plan has nothing to erase.
    """
    if facts.erase_state is EraseState.ERASED:
        return False
    if facts.erase_state is EraseState.ERASING:
        return True
    if facts.terminated_ms is not None:
        return now_ms - facts.terminated_ms >= grace_days * MS_PER_DAY
    return bool(facts.plans) and not entitled_from(facts, today - grace_days)


def mark_erasing(facts: DeviceFacts, reason: str) -> DeviceFacts:
    """The facts of a device whose keys are to go: a new epoch, so that a later renewal starts empty."""
    return replace(
        facts, erase_state=EraseState.ERASING, erase_epoch=facts.erase_epoch + 1, erase_reason=reason
    )


def mark_erased(facts: DeviceFacts, today: int) -> DeviceFacts:
    """Keys and rows are gone. A device renewed meanwhile is an ordinary one again."""
    done = EraseState.NONE if entitled_from(facts, today) else EraseState.ERASED
    return replace(facts, erase_state=done)


class Sweep:
    """One pass over one data folder.

    Args:
        progress: called with (phase, done, of) as work goes on.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ObjectStore,
        key_store: KeyStore,
        bitmap: EntitlementBitmap,
        clock: Clock,
        limits: SweepLimits,
        progress: Progress = lambda phase, done, of: None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._key_store = key_store
        self._bitmap = bitmap
        self._entitlements = Entitlements(catalog, bitmap, clock)
        self._clock = clock
        self._limits = limits
        self._progress = progress
        self._holder = secrets.token_hex(8)
        self._fence = 0

    # --- planning -------------------------------------------------------------------------------------------------

    def plan(self) -> SweepPlan:
        """What `run` would do now. Writes nothing (invariant 13).

        Raises:
            SweepRefused: a guard says no.
        """
        self._check_clock()
        self._check_catalog()
        now_ms = self._clock.now_ms()
        through = self._expired_through(now_ms)
        stale = self._catalog.stale_prepared(now_ms - self._limits.prepare_ttl_ms, limit=MAX_RECLAIMED)
        return SweepPlan(
            expire=tuple(self._catalog.open_days(through)),
            reclaim=tuple(stale),
            erase=tuple(self._erasable(now_ms)),
            delete=(
                *self._tombstones(now_ms),
                *(Tombstone(row.segment_id, row.key, 0, 0, True) for row in stale),
            ),
            destroy_keys_through=_month_before(month_of_day(through + 1)),
        )

    def _expired_through(self, now_ms: int) -> int:
        """The last expiry day that is over: midnight and the slack have passed."""
        return day_of_ms(now_ms - self._limits.expiry_slack_ms)

    def _erasable(self, now_ms: int) -> Iterator[DeviceFacts]:
        """The bitmap nominates, the catalog decides."""
        today = self._entitlements.today()
        grace = self._limits.lapse_grace_days
        unfinished = self._catalog.erasing_devices()
        nominated = {int(n) for n in self._bitmap.lapsed_devices(today, grace)}
        nominated.update(int(n) for n in self._bitmap.devices_with(TERMINATED, without=ERASED))
        nominated.difference_update(facts.device for facts in unfinished)
        yield from unfinished
        for device in sorted(nominated):
            facts = self._catalog.device(device)
            if to_be_erased(facts, now_ms=now_ms, today=today, grace_days=grace):
                yield facts

    def _tombstones(self, now_ms: int) -> Iterator[Tombstone]:
        after_id = 0
        while batch := self._catalog.due_tombstones(now_ms, after_id=after_id, limit=DELETE_BATCH_KEYS):
            yield from batch
            after_id = batch[-1].segment_id

    # --- guards ---------------------------------------------------------------------------------------------------

    def _check_clock(self) -> None:
        """A wrong clock would expire live recordings (invariant 12)."""
        theirs_s = self._store.server_time_s()
        if theirs_s is None:
            return
        skew_ms = abs(theirs_s * 1000 - self._clock.now_ms())
        if skew_ms > self._limits.max_clock_skew_ms:
            raise SweepRefused(
                f"this host's clock and the store's differ by {skew_ms / 1000:.0f} s; nothing was deleted. Set the"
                " clock right, then sweep again",
                code="clock_skew",
            )

    def _check_catalog(self) -> None:
        """A restored catalog knows less than this host has seen: its prepared keys may hold live chunks since."""
        seen_change, change = self._bitmap.last_change, self._catalog.newest_change()
        seen_segment, segment = self._bitmap.segment_high_water, self._catalog.highest_segment_id()
        if change < seen_change or segment < seen_segment:
            raise SweepRefused(
                f"the catalog is older than what this host has seen (change {change} of {seen_change}, segment"
                f" {segment} of {seen_segment}): it was restored or replaced, and nothing was deleted. Put"
                " the newer catalog back",
                code="catalog_restored",
            )

    # --- doing ----------------------------------------------------------------------------------------------------

    def run(self, *, allow_bulk: bool = False) -> SweepReport:
        """Carry out one pass.

        Raises:
            SweepRefused: a guard says no, another sweeper is at work, or more erasures than the bulk limit.
            LeaseLost: another sweeper took over; nothing was done after that.
            WorldError: store or catalog failed; run it again later.
        """
        now_ms = self._clock.now_ms()
        fence = self._catalog.acquire_lease(
            LEASE, holder=self._holder, ttl_ms=self._limits.lease_ms, now_ms=now_ms
        )
        if fence is None:
            raise SweepRefused(
                "another sweep is at work; wait for it, or for its lease to run out", code="busy"
            )
        self._fence = fence
        try:
            plan = self.plan()
            fresh = [f for f in plan.erase if f.erase_state is EraseState.NONE]
            if len(fresh) > self._limits.bulk_limit and not allow_bulk:
                raise SweepRefused(
                    f"{len(fresh)} devices would be erased, more than the bulk limit of {self._limits.bulk_limit}."
                    " Look at `clipkeep sweep --dry-run`, then run it with --allow-bulk",
                    code="bulk_limit",
                )
            report = SweepReport(started_ms=now_ms)
            self._expire(plan, report)
            self._reclaim(plan, report)
            self._erase(plan, report)
            self._delete(report, now_ms)
            report.destroyed_keys += self._key_store.destroy_months(plan.destroy_keys_through)
            report.finished_ms = self._clock.now_ms()
            self._catalog.record_sweep(report.as_dict(), now_ms=report.finished_ms)
            return report
        finally:
            self._catalog.release_lease(LEASE, fence=fence)

    def _renew(self) -> None:
        """Keep the lease while working. Losing it shows at the next change: the fence is checked there."""
        self._catalog.acquire_lease(
            LEASE, holder=self._holder, ttl_ms=self._limits.lease_ms, now_ms=self._clock.now_ms()
        )

    def _expire(self, plan: SweepPlan, report: SweepReport) -> None:
        now_ms = self._clock.now_ms()
        through = self._expired_through(now_ms)
        # Readers stop first: the bitmap's word goes out before the rows do.
        with self._bitmap.locked():
            self._bitmap.raise_closed_through(through)
        for number, day in enumerate(plan.expire):
            self._renew()
            totals = self._catalog.close_day(
                day.expires_on,
                fence=self._fence,
                now_ms=now_ms,
                delete_after_ms=now_ms + self._limits.delete_delay_ms,
            )
            report.unindexed_chunks += totals.chunks
            report.days.append(
                {
                    "day": to_date(totals.expires_on).isoformat(),
                    "segments": totals.segments,
                    "chunks": totals.chunks,
                    "bytes": totals.size_bytes,
                }
            )
            self._progress("expire", number + 1, len(plan.expire))
        self._catalog.advance_closed_through(through, fence=self._fence)

    def _reclaim(self, plan: SweepPlan, report: SweepReport) -> None:
        if plan.reclaim:
            report.reclaimed_keys = self._catalog.reclaim(
                [row.segment_id for row in plan.reclaim], fence=self._fence, now_ms=report.started_ms
            )

    def _erase(self, plan: SweepPlan, report: SweepReport) -> None:
        for number, facts in enumerate(plan.erase):
            self._renew()
            self._erase_device(facts.device, report)
            self._progress("erase", number + 1, len(plan.erase))

    def _erase_device(self, device: int, report: SweepReport) -> None:
        """Mark, destroy keys, un-index. Each step is safe to repeat; a renewal before the mark wins."""

        def decide(facts: DeviceFacts) -> DeviceFacts:
            now_ms, today = self._clock.now_ms(), self._entitlements.today()
            if facts.erase_state is EraseState.NONE and to_be_erased(
                facts, now_ms=now_ms, today=today, grace_days=self._limits.lapse_grace_days
            ):
                return mark_erasing(facts, erase_cause(facts))
            return facts

        facts = self._entitlements.change(device, decide, what="sweep: erasing")
        if facts.erase_state is not EraseState.ERASING:
            return
        report.destroyed_keys += self._key_store.destroy_device(device, below_epoch=facts.erase_epoch)
        now_ms = self._clock.now_ms()
        gone = self._catalog.unindex_device(
            device,
            fence=self._fence,
            now_ms=now_ms,
            delete_after_ms=now_ms + self._limits.delete_delay_ms,
        )
        today = self._entitlements.today()
        self._entitlements.change(device, lambda f: mark_erased(f, today), what="sweep: erased")
        report.unindexed_chunks += gone.chunks
        report.erased_devices.append(
            {"device": device, "why": facts.erase_reason, "chunks": gone.chunks, "bytes": gone.size_bytes}
        )

    def _delete(self, report: SweepReport, started_ms: int) -> None:
        due = self._catalog.totals().tombstones
        done = after_id = 0
        while batch := self._catalog.due_tombstones(started_ms, after_id=after_id, limit=DELETE_BATCH_KEYS):
            after_id = batch[-1].segment_id
            self._renew()
            self._delete_batch(batch, report)
            done += len(batch)
            self._progress("delete", done, max(due, done))

    def _delete_batch(self, batch: list[Tombstone], report: SweepReport) -> None:
        report.delete_calls += 1
        try:
            results = self._store.delete_many([t.key for t in batch])
        except WorldError as error:
            results = {t.key: error.code for t in batch}
        words = {t.segment_id: results.get(t.key, "no_answer") for t in batch}
        gone = [t for t in batch if words[t.segment_id] is None]
        failed = {segment_id: word for segment_id, word in words.items() if word is not None}
        now_ms = self._clock.now_ms()
        if gone:
            self._catalog.deleted(
                [t.segment_id for t in gone],
                fence=self._fence,
                now_ms=now_ms,
                again_at_ms=now_ms + self._limits.prepare_ttl_ms,
            )
            report.deleted_objects += sum(not t.reclaimed for t in gone)
            report.deleted_bytes += sum(t.size_bytes for t in gone)
        if failed:
            self._catalog.delete_failed(failed, fence=self._fence, retry_at_ms=now_ms + self._limits.retry_ms)
            report.failed_delete_count += len(failed)
            for tombstone in batch:
                if tombstone.segment_id in failed and len(report.failed_deletes) < MAX_REPORTED_FAILURES:
                    report.failed_deletes[tombstone.key] = failed[tombstone.segment_id]


def _month_before(month: int) -> int:
    """yyyymm of the month before."""
    return month - 1 if month % 100 > 1 else month - 89
