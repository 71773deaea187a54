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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from retention.bitmap import ERASED, TERMINATED, EntitlementBitmap
from retention.entitlements import Entitlements
from retention.erasure import erase_cause, mark_erased, mark_erasing, to_be_erased
from storage.catalog import Catalog, DayTotals, DeviceFacts, EraseState, SegmentRow, Tombstone
from storage.clock import Clock
from storage.days import day_of_ms, month_of_day, to_date
from storage.errors import CallerError, ClipkeepError, CorruptError, LeaseLost, NotFound, WorldError
from storage.keys import KeyStore
from storage.objects import DELETE_BATCH_KEYS, ObjectStore, checked_key

LEASE = "sweep"
SEGMENT_PREFIX = "v1/"
"""All that is ours in the store. A sweep deletes nothing else, whatever the catalog says."""
MAX_RECLAIMED = 10_000
"""Prepared keys reclaimed in one pass; the next one goes on."""
ERASE_BATCH_DEVICES = 500
"""Devices whose keys are destroyed in one transaction of the key store: it makes others wait 20 ms."""
MAX_REPORTED_FAILURES = 100

Progress = Callable[[str, int, int], None]
"""(phase, done, of)."""


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
    """What a pass would do at `now_ms`."""

    now_ms: int
    expired_through: int
    """The last expiry day that is over."""
    expire: tuple[DayTotals, ...] = ()
    reclaim: tuple[SegmentRow, ...] = ()
    erase: tuple[DeviceFacts, ...] = ()
    """Devices to be marked for erasure, or marked and not finished."""
    held_back: tuple[DeviceFacts, ...] = ()
    """Devices that would be marked, were they not more than the bulk limit (invariant 14)."""
    delete: tuple[Tombstone, ...] = ()
    """Objects deleted in this pass: tombstones due at its start, and what it reclaims. What it un-indexes is deleted
    by a later pass, after the delay."""

    @property
    def destroy_keys_through(self) -> int:
        """Last month (yyyymm) of which every expiry day is over: its data keys are destroyed."""
        month = month_of_day(self.expired_through + 1)
        return month - 1 if month % 100 > 1 else month - 89

    def summary(self) -> dict[str, Any]:
        """For `--dry-run`."""
        return {
            "expire": [_shown(totals) for totals in self.expire],
            "reclaim": [row.key for row in self.reclaim],
            "erase": [{"device": f.device, "why": erase_cause(f)} for f in self.erase],
            "held_back": [{"device": f.device, "why": erase_cause(f)} for f in self.held_back],
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
    held_back_devices: int = 0
    """Erasures left out because they are more than the bulk limit."""
    unindexed_chunks: int = 0
    destroyed_keys: int = 0
    delete_calls: int = 0
    deleted_objects: int = 0
    deleted_bytes: int = 0
    failed_deletes: dict[str, str] = field(default_factory=dict)
    """Key to the store's word, for at most MAX_REPORTED_FAILURES of them."""
    failed_delete_count: int = 0
    key_store_failure: str = ""
    """Why data keys could not be destroyed. The next pass goes on with them."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _shown(totals: DayTotals) -> dict[str, Any]:
    return {
        "day": to_date(totals.expires_on).isoformat(),
        "segments": totals.segments,
        "chunks": totals.chunks,
        "bytes": totals.size_bytes,
    }


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

    def plan(self, *, allow_bulk: bool = False) -> SweepPlan:
        """What `run` would do now. Writes nothing (invariant 13).

        Raises:
            SweepRefused: a guard says no.
        """
        self._check_clock()
        self._check_catalog()
        now_ms = self._clock.now_ms()
        # Midnight and the slack have passed.
        expired_through = day_of_ms(now_ms - self._limits.expiry_slack_ms)
        stale = self._catalog.stale_prepared(now_ms - self._limits.prepare_ttl_ms, limit=MAX_RECLAIMED)
        unfinished = self._catalog.erasing_devices()
        fresh = list(self._erasable(now_ms))
        held_back = len(fresh) > self._limits.bulk_limit and not allow_bulk
        return SweepPlan(
            now_ms,
            expired_through,
            expire=tuple(self._catalog.open_days(expired_through)),
            reclaim=tuple(stale),
            erase=(*unfinished, *(() if held_back else fresh)),
            held_back=tuple(fresh if held_back else ()),
            delete=(
                *self._tombstones(now_ms),
                *(Tombstone(row.segment_id, row.key, 0, 0, True) for row in stale),
            ),
        )

    def _erasable(self, now_ms: int) -> Iterator[DeviceFacts]:
        """Devices to be marked for erasure. The bitmap nominates, the catalog decides."""
        today = self._entitlements.today()
        for facts in self._nominated(today):
            if to_be_erased(facts, now_ms=now_ms, today=today, grace_days=self._limits.lapse_grace_days):
                yield facts

    def _nominated(self, today: int) -> Iterator[DeviceFacts]:
        if not self._entitlements.recovered:  # nobody has made the rows of this boot yet: ask about everyone
            after = 0
            while batch := self._catalog.devices(after=after):
                yield from batch
                after = batch[-1].device
            return
        numbers = {int(n) for n in self._bitmap.lapsed_devices(today, self._limits.lapse_grace_days)}
        numbers.update(int(n) for n in self._bitmap.devices_with(TERMINATED, without=ERASED))
        for number in sorted(numbers):
            with suppress(NotFound):
                yield self._catalog.device(number)

    def _tombstones(self, now_ms: int) -> Iterator[Tombstone]:
        for batch in self._due_batches(now_ms):
            yield from batch

    def _due_batches(self, now_ms: int) -> Iterator[list[Tombstone]]:
        after_id = 0
        while batch := self._catalog.due_tombstones(now_ms, after_id=after_id, limit=DELETE_BATCH_KEYS):
            yield batch
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

        Args:
            allow_bulk: erase also when more devices than the bulk limit have lapsed.

        Raises:
            SweepRefused: a guard says no, or another sweeper is at work. Nothing was changed.
            LeaseLost: another sweeper took over; nothing was done after that.
            WorldError: store or catalog failed; run it again later.
        """
        with self._lease():
            plan = self.plan(allow_bulk=allow_bulk)
            report = SweepReport(started_ms=plan.now_ms, held_back_devices=len(plan.held_back))
            self._entitlements.replay()  # a pass that was killed may have left a row unfinished
            self._expire(plan, report)
            self._reclaim(plan, report)
            self._erase(plan, report)
            self._delete(plan, report)
            self._renew()
            with _noted(report):
                report.destroyed_keys += self._key_store.destroy_months(plan.destroy_keys_through)
            self._renew()
            report.finished_ms = self._clock.now_ms()
            self._catalog.record_sweep(report.as_dict(), now_ms=report.finished_ms)
            return report

    @contextmanager
    def _lease(self) -> Iterator[None]:
        fence = self._acquire()
        if fence is None:
            raise SweepRefused(
                "another sweep is at work; wait for it, or for its lease to run out", code="busy"
            )
        self._fence = fence
        try:
            yield
        finally:
            with suppress(WorldError):  # it runs out by itself, and the first error is the one to tell
                self._catalog.release_lease(LEASE, fence=fence)

    def _acquire(self) -> int | None:
        return self._catalog.acquire_lease(
            LEASE, holder=self._holder, ttl_ms=self._limits.lease_ms, now_ms=self._clock.now_ms()
        )

    def _renew(self) -> None:
        """Keep the lease, before each step that takes time or that no fence guards (invariant 8).

        Raises:
            LeaseLost: somebody else has, or had, it.
        """
        fence = self._acquire()
        if fence == self._fence:
            return
        if fence is not None:
            self._catalog.release_lease(LEASE, fence=fence)
        raise LeaseLost("another sweeper took over; this one changes nothing more")

    def _expire(self, plan: SweepPlan, report: SweepReport) -> None:
        # Readers stop first: the bitmap's word goes out before the rows do.
        self._renew()
        with self._bitmap.locked():
            self._bitmap.raise_closed_through(plan.expired_through)
        for number, day in enumerate(plan.expire):
            self._renew()
            totals = self._catalog.close_day(
                day.expires_on, fence=self._fence, now_ms=plan.now_ms, delete_after_ms=self._delete_after_ms()
            )
            report.unindexed_chunks += totals.chunks
            report.days.append(_shown(totals))
            self._progress("expire", number + 1, len(plan.expire))
        self._catalog.advance_closed_through(plan.expired_through, fence=self._fence)

    def _delete_after_ms(self) -> int:
        return self._clock.now_ms() + self._limits.delete_delay_ms

    def _reclaim(self, plan: SweepPlan, report: SweepReport) -> None:
        if plan.reclaim:
            report.reclaimed_keys = self._catalog.reclaim(
                [row.segment_id for row in plan.reclaim], fence=self._fence, now_ms=plan.now_ms
            )

    def _erase(self, plan: SweepPlan, report: SweepReport) -> None:
        """Mark, destroy keys, un-index. Each step is safe to repeat; a renewal before the mark wins."""
        for start in range(0, len(plan.erase), ERASE_BATCH_DEVICES):
            marked = [self._mark(facts) for facts in plan.erase[start : start + ERASE_BATCH_DEVICES]]
            going = [facts for facts in marked if facts.erase_state is not EraseState.NONE]
            self._renew()
            with _noted(report):
                report.destroyed_keys += self._key_store.destroy_devices(
                    {facts.device: facts.erase_epoch for facts in going}
                )
            if report.key_store_failure:
                return  # rows must not go before keys: what is marked stays marked, for the next pass
            for number, facts in enumerate(going, start + 1):
                self._unindex(facts, report)
                self._progress("erase", number, len(plan.erase))

    def _mark(self, facts: DeviceFacts) -> DeviceFacts:
        if facts.erase_state is not EraseState.NONE:
            return facts
        self._renew()

        def decide(found: DeviceFacts) -> DeviceFacts:
            now_ms, today = self._clock.now_ms(), self._entitlements.today()
            grace_days = self._limits.lapse_grace_days
            if to_be_erased(found, now_ms=now_ms, today=today, grace_days=grace_days):
                return mark_erasing(found, erase_cause(found))
            return found

        return self._entitlements.change(facts.device, decide, what="sweep: erasing")

    def _unindex(self, facts: DeviceFacts, report: SweepReport) -> None:
        self._renew()
        gone = self._catalog.unindex_device(
            facts.device,
            fence=self._fence,
            now_ms=self._clock.now_ms(),
            delete_after_ms=self._delete_after_ms(),
        )
        self._entitlements.change(
            facts.device,
            lambda found: mark_erased(found, epoch=facts.erase_epoch),
            what="sweep: erased",
        )
        report.unindexed_chunks += gone.chunks
        report.erased_devices.append(
            {
                "device": facts.device,
                "why": facts.erase_reason,
                "chunks": gone.chunks,
                "bytes": gone.size_bytes,
            }
        )

    def _delete(self, plan: SweepPlan, report: SweepReport) -> None:
        done = 0
        for batch in self._due_batches(plan.now_ms):
            self._renew()
            self._delete_batch(batch, report)
            done += len(batch)
            self._progress("delete", done, max(done, len(plan.delete)))

    def _delete_batch(self, batch: Sequence[Tombstone], report: SweepReport) -> None:
        report.delete_calls += 1
        words = self._deleted(batch)
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
            shown = [t for t in batch if t.segment_id in failed]
            for tombstone in shown[: MAX_REPORTED_FAILURES - len(report.failed_deletes)]:
                report.failed_deletes[tombstone.key] = failed[tombstone.segment_id]

    def _deleted(self, batch: Sequence[Tombstone]) -> dict[int, str | None]:
        """Delete objects; for each tombstone's id None or what went wrong."""
        ours = {t.key for t in batch if _is_ours(t.key)}
        try:
            results = self._store.delete_many(sorted(ours)) if ours else {}
        except WorldError as error:
            results = dict.fromkeys(ours, error.code)
        results.update({t.key: "not_ours" for t in batch if t.key not in ours})
        return {t.segment_id: results.get(t.key, "no_answer") for t in batch}


@contextmanager
def _noted(report: SweepReport) -> Iterator[None]:
    """A key store that fails is reported; objects go all the same."""
    try:
        yield
    except (WorldError, CorruptError) as error:
        report.key_store_failure = f"{error} ({error.code})"


def _is_ours(key: str) -> bool:
    """Whether a key is one that this project makes. One damaged row must not stop the other deletes."""
    try:
        return checked_key(key).startswith(SEGMENT_PREFIX)
    except CallerError:
        return False
