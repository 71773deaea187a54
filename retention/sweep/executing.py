"""A pass: the plan carried out in phases, each idempotent. One that was killed anywhere is simply run again.

1 guard     the lease; the clock against the store's; the catalog against what host and store have seen of it
2 expire    un-index whole days, tombstones in the same transaction (invariant 6)
3 reclaim   prepared keys past their time become tombstones (invariant 5)
4 finish    deletions of ranges that a killed command left unfinished
5 erase     lapsed and terminated devices past their grace: mark, destroy keys, un-index rows
6 delete    objects whose delay is over (`deleting`)
7 forget    data keys of months that are over
8 rewrite   segments of which little is left (`rewriting`): last, because it takes longest and matters least
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol

from retention.account_keys import destroy_again, destroy_unused
from retention.bitmap import EntitlementBitmap
from retention.destruction import last_month_destroyed, note_destroyed, replay_destructions
from retention.entitlements import Entitlements, EntitlementsCatalog
from retention.erasure import erase_cause, mark_erased, mark_erasing, to_be_erased
from retention.sweep.deleting import Deleting, due_batches
from retention.sweep.facts import FactsCatalog, read_facts
from retention.sweep.guards import SweepRefused, check_catalog, check_clock
from retention.sweep.highwater import HighWater, raise_mark, read_mark, write_mark
from retention.sweep.lease import Lease
from retention.sweep.planning import SweepLimits, SweepPlan, plan_sweep, shown_day
from retention.sweep.report import Progress, SweepReport, key_failures_noted
from retention.sweep.rewriting import Rewriting, RewritingCatalog
from retention.witness import ClockWitness
from storage.catalog.account_keys import AccountKeysCatalog
from storage.catalog.leases import LeasesCatalog
from storage.catalog.reports import ReportsCatalog
from storage.clock import Clock, WitnessedClock
from storage.objects import DELETE_BATCH_KEYS, ObjectStore
from storage.rows.devices import DeviceFacts, EraseState
from storage.vault import Vault

ERASE_BATCH_DEVICES = 500
"""Devices whose keys are destroyed in one transaction of the key store, while commits wait: 20 ms."""


class SweepsCatalog(
    FactsCatalog,
    RewritingCatalog,
    EntitlementsCatalog,
    AccountKeysCatalog,
    LeasesCatalog,
    ReportsCatalog,
    Protocol,
):
    """A pass closes, rewrites, erases and deletes, and changes what devices may do. It reads no chunk."""


class Sweep:
    """One pass over one data folder.

    Args:
        progress: called with (phase, done, of) as work goes on.
        sleep: how time passes between deletes, in s.
        who: for the report.
        home: home's clock, where it is another machine's: leases go by it, and the clock of this host may not differ
            much from it.
    """

    def __init__(
        self,
        *,
        catalog: SweepsCatalog,
        store: ObjectStore,
        vault: Vault,
        bitmap: EntitlementBitmap,
        clock: WitnessedClock,
        limits: SweepLimits,
        progress: Progress = lambda phase, done, of: None,
        sleep: Callable[[float], None] = time.sleep,
        who: str = "",
        home: Clock | None = None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._vault = vault
        self._bitmap = bitmap
        self._entitlements = Entitlements(catalog, bitmap, clock)
        self._clock = clock
        self._witness = ClockWitness(
            catalog,
            clock,
            store,
            max_skew_ms=limits.max_clock_skew_ms,
            max_rest_ms=limits.max_rest_ms,
            home=home,
        )
        self._limits = limits
        self._progress = progress
        self._sleep = sleep
        self._who = who
        self._lease = Lease(catalog, home or clock, ttl_ms=limits.lease_ms)
        self.report: SweepReport | None = None
        """What the pass that `run` is at, or was, has done so far; of one that was refused there is none."""

    def plan(
        self, *, allow_bulk: bool = False, accept_catalog: bool = False, accept_clock: bool = False
    ) -> SweepPlan:
        """What `run` would do now. Writes nothing (invariant 13).

        Raises:
            SweepRefused: a guard says no.
        """
        check_clock(self._witness, accept=accept_clock)
        self._guard(accept_catalog=accept_catalog)
        return self._planned(allow_bulk=allow_bulk)

    def _guard(self, *, accept_catalog: bool) -> HighWater:
        """Returns the store's mark."""
        mark = HighWater() if accept_catalog else read_mark(self._store)
        check_catalog(self._catalog, self._bitmap, mark, accept=accept_catalog)
        return mark

    def _guard_and_note(self, *, accept_catalog: bool) -> HighWater:
        """`_guard`, for who may write: a catalog that was refused stays so until an operator accepts it, also when it
        has gone past what was seen."""
        try:
            return self._guard(accept_catalog=accept_catalog)
        except SweepRefused:
            self._catalog.note_doubt(True)
            raise

    def _planned(self, *, allow_bulk: bool) -> SweepPlan:
        facts = read_facts(
            self._catalog, self._bitmap, self._entitlements, self._limits, now_ms=self._clock.now_ms()
        )
        return plan_sweep(facts, self._limits, allow_bulk=allow_bulk)

    def due_keys(self, plan: SweepPlan) -> Iterator[str]:
        """The key of every object that carrying out this plan deletes, page by page: there may be millions."""
        yield from (row.key for row in plan.reclaim)
        for batch in due_batches(self._catalog, plan.moment.now_ms, limit=lambda: DELETE_BATCH_KEYS):
            yield from (tombstone.key for tombstone in batch)

    def run(
        self,
        *,
        allow_bulk: bool = False,
        accept_catalog: bool = False,
        accept_clock: bool = False,
        confirmed: str | None = None,
    ) -> SweepReport:
        """Carry out one pass.

        Args:
            allow_bulk: erase also when more devices than the bulk limit have lapsed.
            accept_catalog: this catalog is the newest there is, whatever the store has seen.
            accept_clock: this host's clock is right, whatever is known of the time. A store's own clock is still asked.
            confirmed: the `decision` of a plan that somebody was shown; None: nobody was.

        Raises:
            SweepRefused: a guard says no, or another sweeper is at work; `plan_changed`: it would do something else
                than was confirmed. Nothing was changed.
            LeaseLost: another sweeper took over; nothing was done after that.
            WorldError: store or catalog failed; run it again later.
        """
        with self._lease.taken():
            check_clock(self._witness, accept=accept_clock, keep=True)
            mark = self._guard_and_note(accept_catalog=accept_catalog)
            plan = self._planned(allow_bulk=allow_bulk)
            if confirmed not in (None, plan.decision):
                raise SweepRefused(
                    "a sweep would end other days or erase other devices by now than the plan that was confirmed; look"
                    " at a new plan",
                    code="plan_changed",
                )
            if accept_catalog:
                write_mark(self._store, mark := HighWater.of(self._catalog))
                self._catalog.note_doubt(False)
            mark = raise_mark(self._store, mark, self._catalog)
            report = SweepReport(
                started_ms=plan.moment.now_ms, who=self._who, held_back_devices=plan.held_back_count
            )
            self.report = report
            self._entitlements.replay()  # a pass that was killed may have left a row unfinished
            with key_failures_noted(report):  # and keys/ may have been restored from a backup
                report.destroyed_keys += replay_destructions(
                    self._catalog, self._vault, now_ms=plan.moment.now_ms
                )
                self._forget_account_keys(plan, report)
            self._expire(plan, report)
            self._reclaim(plan, report)
            self._finish_deletions(plan, report)
            self._erase(plan, report)
            self._delete(plan, report)
            self._forget_keys(report)
            report.cleared_erasures = self._catalog.clear_erasures(
                destroyed_before_ms=self._vault.gone_before(plan.moment.now_ms - self._limits.clear_after_ms),
                fence=self._lease.fence,
                now_ms=self._clock.now_ms(),
            )
            report.saved_per_month = report.deleted_bytes / 1e9 * self._limits.price_per_gb_month
            self._rewrite(plan, report)
            self._lease.renew()
            raise_mark(self._store, mark, self._catalog)
            report.finished_ms = self._clock.now_ms()
            self._catalog.record_sweep(report.as_dict(), now_ms=report.finished_ms)
            return report

    def _forget_account_keys(self, plan: SweepPlan, report: SweepReport) -> None:
        report.destroyed_account_keys += destroy_again(self._catalog, self._vault)
        report.destroyed_account_keys += destroy_unused(
            self._catalog, self._vault, now_ms=plan.moment.now_ms, before_page=self._lease.renew
        )

    def _expire(self, plan: SweepPlan, report: SweepReport) -> None:
        # Readers stop first: the bitmap's word goes out before the rows do.
        self._lease.renew()
        with self._bitmap.locked():
            self._bitmap.raise_closed_through(plan.moment.expired_through)
        for number, day in enumerate(plan.expire):
            self._lease.renew()
            totals = self._catalog.close_day(
                day.expires_on,
                fence=self._lease.fence,
                now_ms=plan.moment.now_ms,
                delete_after_ms=self._delete_after_ms(),
            )
            report.unindexed_chunks += totals.chunks
            report.days.append(shown_day(totals))
            self._progress("expire", number + 1, len(plan.expire))
        self._catalog.advance_closed_through(plan.moment.expired_through, fence=self._lease.fence)

    def _delete_after_ms(self) -> int:
        return self._clock.now_ms() + self._limits.delete_delay_ms

    def _reclaim(self, plan: SweepPlan, report: SweepReport) -> None:
        if plan.reclaim:
            report.reclaimed_keys = self._catalog.reclaim(
                [row.segment_id for row in plan.reclaim], fence=self._lease.fence, now_ms=plan.moment.now_ms
            )

    def _finish_deletions(self, plan: SweepPlan, report: SweepReport) -> None:
        for deletion_id in plan.finish_deletions:
            self._lease.renew()
            gone = self._catalog.finish_deletion(
                deletion_id, now_ms=self._clock.now_ms(), delete_after_ms=self._delete_after_ms()
            )
            report.finished_deletions += 1
            report.unindexed_chunks += gone.chunks

    def _erase(self, plan: SweepPlan, report: SweepReport) -> None:
        """Mark, destroy keys, un-index. Each step is safe to repeat; a renewal before the mark wins."""
        for start in range(0, len(plan.erase), ERASE_BATCH_DEVICES):
            marked = [self._mark(facts) for facts in plan.erase[start : start + ERASE_BATCH_DEVICES]]
            going = [facts for facts in marked if facts.erase_state is not EraseState.NONE]
            with self._lease.held(), key_failures_noted(report):
                report.destroyed_keys += self._vault.destroy_devices(
                    {facts.device: facts.erase_epoch for facts in going}
                )
            with key_failures_noted(report):
                note_destroyed(
                    self._catalog,
                    self._vault,
                    going,
                    fence=self._lease.fence,
                    now_ms=self._clock.now_ms(),
                )
            if report.key_store_failure:
                return  # rows must not go before keys: what is marked stays marked, for the next pass
            for number, facts in enumerate(going, start + 1):
                self._unindex(facts, report)
                self._progress("erase", number, len(plan.erase))

    def _mark(self, facts: DeviceFacts) -> DeviceFacts:
        if facts.erase_state is not EraseState.NONE:
            return facts
        self._lease.renew()

        def decide(found: DeviceFacts) -> DeviceFacts:
            now_ms, today = self._clock.now_ms(), self._entitlements.today()
            grace_days = self._limits.lapse_grace_days
            if to_be_erased(found, now_ms=now_ms, today=today, grace_days=grace_days):
                return mark_erasing(found, erase_cause(found))
            return found

        return self._entitlements.change(facts.device, decide, what="sweep: erasing")

    def _unindex(self, facts: DeviceFacts, report: SweepReport) -> None:
        self._lease.renew()
        gone = self._catalog.unindex_device(
            facts.device,
            fence=self._lease.fence,
            now_ms=self._clock.now_ms(),
            delete_after_ms=self._delete_after_ms(),
        )
        self._entitlements.change(
            facts.device,
            lambda found: mark_erased(found, epoch=facts.erase_epoch),
            what="sweep: erased",
        )
        report.note_erased(facts.device, facts.erase_reason, chunks=gone.chunks, size_bytes=gone.size_bytes)

    def _delete(self, plan: SweepPlan, report: SweepReport) -> None:
        deleting = Deleting(
            self._catalog,
            self._store,
            self._clock,
            self._lease,
            self._limits,
            sleep=self._sleep,
            progress=self._progress,
        )
        deleting.run(plan, report)

    def _forget_keys(self, report: SweepReport) -> None:
        """Destroy the keys of months of which every day is closed, by the catalog's word: that was fenced and is
        durable, so a sweeper that does it late destroys nothing that lives. A month may have millions of keys, so
        the lease is not held fast meanwhile: commits would wait for seconds."""
        self._lease.renew()
        with key_failures_noted(report):
            through = last_month_destroyed(self._catalog)
            report.destroyed_keys += self._vault.destroy_months(through)

    def _rewrite(self, plan: SweepPlan, report: SweepReport) -> None:
        rewriting = Rewriting(
            self._catalog,
            self._store,
            self._bitmap,
            self._clock,
            self._lease,
            self._limits,
            progress=self._progress,
        )
        rewriting.run(plan, report)
