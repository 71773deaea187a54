"""Deleting objects whose delay is over: up to 1000 a call, each key's result for itself (invariant 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from retention.sweep.lease import Lease
from retention.sweep.pace import SLOW_DOWN_WORDS, DeletePace
from retention.sweep.planning import SweepLimits, SweepPlan, is_ours
from retention.sweep.report import MAX_REPORTED_FAILURES, Progress, SweepReport
from storage.catalog.sweep import SweepCatalog
from storage.clock import Clock
from storage.errors import WorldError
from storage.objects import ObjectStore
from storage.rows.recordings import Tombstone

SLOW_TRIES = 8
"""How often one batch is asked for while the store asks for fewer requests; then it is set aside."""
MAX_FAILED_CALLS = 3
"""Calls that failed as a whole, one after the other, after which a pass leaves the rest to the next: each took the
store's own bounded retries, and a store that is down is not up sooner for being asked."""


def due_batches(
    catalog: SweepCatalog, now_ms: int, *, limit: Callable[[], int]
) -> Iterator[tuple[Tombstone, ...]]:
    """Pages of tombstones whose time has come at `now_ms`, in order of id."""
    after_id = 0
    while batch := tuple(catalog.due_tombstones(now_ms, after_id=after_id, limit=limit())):
        yield batch
        after_id = batch[-1].segment_id


class Deleting:
    """The delete phase of one pass.

    Args:
        sleep: how time passes, in s.
    """

    def __init__(
        self,
        catalog: SweepCatalog,
        store: ObjectStore,
        clock: Clock,
        lease: Lease,
        limits: SweepLimits,
        *,
        sleep: Callable[[float], None],
        progress: Progress,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._clock = clock
        self._lease = lease
        self._limits = limits
        self._pace = DeletePace(limits.max_deletes_per_s)
        self._sleep = sleep
        self._progress = progress
        self._failed_calls = 0

    def run(self, plan: SweepPlan, report: SweepReport) -> None:
        done = 0
        for batch in due_batches(self._catalog, plan.moment.now_ms, limit=lambda: self._pace.batch_keys):
            for left in self._worked_off(list(batch), report):
                done_now = done + len(batch) - left
                self._progress("delete", done_now, max(done_now, plan.deletes))
            if report.delete_failure:
                return
            done += len(batch)

    def _worked_off(self, queue: list[Tombstone], report: SweepReport) -> Iterator[int]:
        """Delete one page, in calls as large as the pace allows. Yields how many are left after each call."""
        slow_tries = 0
        while queue and not report.delete_failure:
            part, queue = queue[: self._pace.batch_keys], queue[self._pace.batch_keys :]
            self._lease.renew()
            began_ms = self._clock.now_ms()
            words = self._ask(part, report)
            took_s = (self._clock.now_ms() - began_ms) / 1000
            slow = [t for t in part if words[t.segment_id] in SLOW_DOWN_WORDS]
            if slow and slow_tries < SLOW_TRIES:
                slow_tries += 1
                report.slow_downs += 1
                self._settle([t for t in part if t not in slow], words, report)
                self._sleep(self._pace.slowed(len(part), took_s))
                queue = slow + queue
            else:
                slow_tries = 0
                self._settle(part, words, report)
                if wait_s := self._pace.succeeded(len(part), took_s):
                    self._sleep(wait_s)
            yield len(queue)

    def _ask(self, batch: Sequence[Tombstone], report: SweepReport) -> dict[int, str | None]:
        """Delete objects; for each tombstone's id None or what went wrong."""
        ours = {t.key for t in batch if is_ours(t.key)}
        results: dict[str, str | None] = {}
        if ours:
            report.delete_calls += 1
            try:
                results = self._store.delete_many(sorted(ours))
                self._failed_calls = 0
            except WorldError as error:
                results = dict.fromkeys(ours, error.code)
                self._failed_calls += error.code not in SLOW_DOWN_WORDS
                if self._failed_calls == MAX_FAILED_CALLS:
                    report.delete_failure = f"{error} ({error.code})"
        results.update({t.key: "not_ours" for t in batch if t.key not in ours})
        return {t.segment_id: results.get(t.key, "no_answer") for t in batch}

    def _settle(self, batch: Sequence[Tombstone], words: dict[int, str | None], report: SweepReport) -> None:
        """Forget what the store confirmed; set aside what it did not."""
        gone = [t for t in batch if words[t.segment_id] is None]
        failed = {t.segment_id: word for t in batch if (word := words[t.segment_id]) is not None}
        now_ms = self._clock.now_ms()
        fence = self._lease.fence
        if gone:
            again_at_ms = now_ms + self._limits.prepare_ttl_ms
            ids = [t.segment_id for t in gone]
            self._catalog.deleted(ids, fence=fence, now_ms=now_ms, again_at_ms=again_at_ms)
            report.deleted_objects += sum(not t.reclaimed for t in gone)
            report.deleted_bytes += sum(t.size_bytes for t in gone)
        if failed:
            self._catalog.delete_failed(failed, fence=fence, retry_at_ms=now_ms + self._limits.retry_ms)
            report.failed_delete_count += len(failed)
            shown = [t for t in batch if t.segment_id in failed]
            for tombstone in shown[: MAX_REPORTED_FAILURES - len(report.failed_deletes)]:
                report.failed_deletes[tombstone.key] = failed[tombstone.segment_id]
