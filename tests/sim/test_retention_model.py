"""The whole of retention against a dict: hypothesis uploads, renews, deletes, erases, sweeps and kills as it likes.

The model knows for each (device, capture time) until which day it is kept, and forgets it when its owner deletes it,
its device is erased or its day is over. What the real thing serves must be just that, at every moment (invariants 1
and 2); catalog and store must agree (3 to 6); and what the model has forgotten must in the end be gone (7, 10).
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from retention.sweep import SweepRefused, SweepReport, is_ours
from storage.days import day_of_ms, ms_of_day
from storage.faults import Fault, FaultKind, no_faults
from storage.rows.devices import EraseState
from storage.rows.recordings import PreparedKey, SegmentCommit, Verdict
from tests.retention.world import (
    DELAY_MS,
    GRACE_DAYS,
    NOON,
    RETRY_MS,
    SLACK_MS,
    TTL_MS,
    Kept,
    World,
    content,
    fast_folder,
    monthly,
)
from tests.sim import EXAMPLES
from tests.sim.ingesting import uploaded

DEVICES = 3
CLASSES = (2, 60)
"""Storage days: one that ends within a story, one that a rewrite is worth."""
HOUR_MS = 3_600_000
REFUSED = {"plan_lapsed", "not_entitled_at_capture", "expired", "deleted", "terminated"}
"""Why a chunk may not be stored here; `terminated` is also said of one whose device was erased meanwhile."""


Upload = tuple[SegmentCommit, PreparedKey]


class Died(Exception):
    """A process that ended in the middle of a call."""


class Dying:
    """Stands before a part of the world: after so many calls in all, nothing more happens."""

    def __init__(self, real: Any, left: list[int], after: bool) -> None:
        self._real, self._left, self._after = real, left, after

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not callable(value) or name in ("locked", "holding_lease"):
            return value

        def call(*args: Any, **named: Any) -> Any:
            self._left[0] -= 1
            if self._left[0] <= 0 and not self._after:
                raise Died
            result = value(*args, **named)
            if self._left[0] <= 0:
                raise Died
            return result

        return call


class Retention(RuleBasedStateMachine):
    pending = Bundle("pending")

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.world = self.stack.enter_context(World(self.stack.enter_context(fast_folder())))
        self.kept: dict[tuple[int, int], int] = {}
        """(device, capture_ms) to the day it expires on."""
        self.ends: dict[int, int | None] = {}
        """The last entitled day of each device, None while its plan renews itself."""
        self.deleted: list[tuple[int, int, int]] = []
        """Ranges: device, first capture, the one behind the last."""
        self.expired: set[tuple[int, int]] = set()
        self.copied: set[tuple[int, int]] = set()
        """What was erased: nothing decrypts it any more."""
        self.keyless: list[Kept] = []
        """Copies whose keys a sweep by a wrong clock destroyed."""
        self.epochs: dict[int, int] = {}
        self.now = 0
        for _ in range(DEVICES):
            self.ends[self.world.add(monthly(day_of_ms(NOON) - 100, None, days=CLASSES[0]))] = None
        self.epochs = dict.fromkeys(self.ends, 0)
        for days in CLASSES:
            self.keep([(device, 3) for device in self.ends], days)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            with self.stack:
                self.quiet()

    # --- what devices and owners do -----------------------------------------------------------------------------

    def capture(self) -> int:
        self.now += 1
        return self.world.clock.ms + self.now

    def entitled(self, device: int) -> bool:
        last = self.ends[device]
        return last is None or self.today <= last

    @property
    def today(self) -> int:
        return self.world.entitlements.today()

    @rule(
        target=pending,
        chunks=st.lists(st.tuples(st.integers(1, DEVICES), st.integers(1, 3)), min_size=1, max_size=4),
        days=st.sampled_from(CLASSES),
    )
    def upload(self, chunks: list[tuple[int, int]], days: int) -> Any:
        """Chunks are admitted and their object is stored; the commit comes later, or never."""
        upload = self.put(chunks, days)
        return multiple() if upload is None else upload

    def put(self, chunks: list[tuple[int, int]], days: int) -> Upload | None:
        admitted = [
            (device, self.capture())
            for device, count in chunks
            for _ in range(count)
            if self.entitled(device)
        ]
        return self.world.put(admitted, expires_on=self.today + days + 1) if admitted else None

    @rule(
        target=pending,
        which=st.integers(0, 1000),
        days=st.sampled_from(CLASSES),
    )
    def upload_again(self, which: int, days: int) -> Any:
        """A device that did not hear the answer, or one that sends what was deleted."""
        ends = [(device, first) for device, first, _ in self.deleted]
        known = sorted({key for key in (*self.kept, *ends) if self.entitled(key[0])})
        if not known:
            return multiple()
        device, capture_ms = known[which % len(known)]
        expires_on = day_of_ms(capture_ms) + days + 1
        if expires_on <= self.today:  # refused before a byte is read
            return multiple()
        return self.world.put([(device, capture_ms)], expires_on=expires_on)

    @rule(
        chunks=st.lists(st.tuples(st.integers(1, DEVICES), st.integers(1, 3)), min_size=1, max_size=4),
        days=st.sampled_from(CLASSES),
    )
    def keep(self, chunks: list[tuple[int, int]], days: int) -> None:
        """As nearly every upload: stored and committed at once."""
        upload = self.put(chunks, days)
        if upload is not None:
            self.take(upload)

    @rule(
        chunks=st.lists(st.tuples(st.integers(1, DEVICES), st.integers(1, 3)), min_size=1, max_size=4),
        again=st.integers(0, 3),
        fault=st.sampled_from([None, None, None, FaultKind.BEFORE, FaultKind.AFTER, FaultKind.FULL]),
        meanwhile=st.sampled_from(["", "", "sweep", "midnight", "erase", "cancel", "delete"]),
    )
    def ingest(
        self, chunks: list[tuple[int, int]], again: int, fault: FaultKind | None, meanwhile: str
    ) -> None:
        """Through the door: requests to a server, which admits, packs, stores, commits and answers. Something may
        happen while the object is on its way."""
        sent = [(device, self.capture()) for device, count in chunks for _ in range(count)]
        sent += sorted(self.kept)[:again] + [(device, first) for device, first, _ in self.deleted[:again]]
        days = {device: self.days_of(device) for device, _ in sent}
        stored, entitled = set(self.kept), {device for device, _ in sent if self.entitled(device)}
        world, known = self.world, self.world.objects()
        answers = uploaded(world, sent, fault, lambda: self.happens(meanwhile, sent))
        world.copy_objects(known)
        for key, (status, code) in zip(sent, answers, strict=True):
            assert status in (200, 201, 403, 410, 503), (key, status, code)
            lost = fault or meanwhile == "midnight"  # by then its prepared key was reclaimed (invariant 5)
            assert status < 300 or (lost and status == 503) or code in REFUSED, (key, status, code)
            if status == 201:
                assert not fault
                assert key[0] in entitled, (key, "was not entitled")
                assert key not in stored, (key, "stored twice")
                assert not self.is_deleted(*key), "a deleted range came back"
                assert world.catalog.device(key[0]).erase_epoch == self.epochs[key[0]]
                self.kept[key] = day_of_ms(key[1]) + days[key[0]] + 1
                stored.add(key)
            elif status == 200:
                assert key in stored

    def days_of(self, device: int) -> int:
        row = self.world.bitmap.read(device)
        assert row is not None
        return row.class_days

    def happens(self, what: str, sent: list[tuple[int, int]]) -> None:
        device, first = sent[0]
        if what == "sweep":
            self.swept()
        elif what == "midnight":
            self.midnight()
            self.swept()
        elif what == "erase":
            self.erase(device)
            self.swept()
        elif what == "cancel":
            self.cancel(device)
        elif what == "delete":
            self.delete(device, first, first + 1)

    @rule(upload=consumes(pending))
    def commit(self, upload: Upload) -> None:
        self.take(upload)

    def take(self, upload: Upload) -> None:
        commit, _ = upload
        [verdicts] = self.world.catalog.commit([commit], now_ms=self.world.clock.ms)
        for row, verdict in zip(commit.index, verdicts.tolist(), strict=True):
            key = (int(row["device"]), int(row["capture_ms"]))
            if verdict == Verdict.STORED:
                assert key not in self.kept, "stored twice"
                assert not self.is_deleted(*key), "a deleted range came back"
                assert self.world.catalog.device(key[0]).erase_epoch == row["epoch"]
                self.kept[key] = commit.expires_on
            elif verdict in (Verdict.DUPLICATE, Verdict.CONFLICT):
                assert key in self.kept or key in self.expired  # over, but not swept yet
                assert verdict == Verdict.DUPLICATE
            elif verdict == Verdict.DELETED:
                assert self.is_deleted(*key)
            elif verdict == Verdict.EXPIRED:
                assert commit.expires_on <= self.today
            elif verdict == Verdict.ERASED:
                assert self.world.catalog.device(key[0]).erase_epoch > row["epoch"]

    @rule(
        device=st.integers(1, DEVICES), skip=st.integers(0, 5), count=st.integers(1, 6), dying=st.booleans()
    )
    def delete_range(self, device: int, skip: int, count: int, dying: bool) -> None:
        captures = sorted(ms for d, ms in self.kept if d == device)[skip : skip + count]
        if not captures:
            return
        first, stop = captures[0], captures[-1] + 1
        if dying:
            self.world.leave_deletion_unfinished(device, first, stop)
            self.forget_range(device, first, stop)
        else:
            self.delete(device, first, stop)

    def delete(self, device: int, first: int, stop: int) -> None:
        self.world.catalog.delete_range(
            device,
            first,
            stop,
            reason="test",
            who="test",
            now_ms=self.world.clock.ms,
            delete_after_ms=self.world.clock.ms + DELAY_MS,
        )
        self.forget_range(device, first, stop)

    def forget_range(self, device: int, first: int, stop: int) -> None:
        for ms in [ms for d, ms in self.kept if d == device and first <= ms < stop]:
            del self.kept[device, ms]
        self.deleted.append((device, first, stop))

    def is_deleted(self, device: int, capture_ms: int) -> bool:
        return any(d == device and first <= capture_ms < stop for d, first, stop in self.deleted)

    @rule(device=st.integers(1, DEVICES))
    def cancel(self, device: int) -> None:
        """The plan ends today."""
        today = self.today
        if self.entitled(device):
            ended = {"ends_on": today, "cancelled_on": today}
            self.world.change(device, lambda f: replace(f, plans=(replace(f.plans[-1], **ended),)))
            self.ends[device] = today

    @rule(device=st.integers(1, DEVICES))
    def renew(self, device: int) -> None:
        """Within the grace it brings the recordings back; after the erasure it starts empty (invariant 9)."""
        if not self.entitled(device):
            self.world.renew(device, monthly(self.today, None, days=CLASSES[0]))
            self.ends[device] = None

    @rule(device=st.integers(1, DEVICES))
    def erase(self, device: int) -> None:
        """As the cancellation of an account does, and its return a moment later."""
        facts = self.world.catalog.device(device)
        if facts.erase_state is EraseState.NONE and self.entitled(device):
            self.world.terminate(device, erase=True)
            self.epochs[device] += 1
            self.world.change(device, lambda f: replace(f, terminated_ms=None))
            self.ends[device] = self.today
            self.world.change(device, lambda f: replace(f, plans=(replace(f.plans[-1], ends_on=self.today),)))
            self.forget_device(device)

    def forget_device(self, device: int) -> None:
        for key in [key for key in self.kept if key[0] == device]:
            del self.kept[key]
            self.copied.add(key)

    # --- time, sweeps, faults -----------------------------------------------------------------------------------

    @rule(hours=st.sampled_from([1, 1, 6, 6, 24, 48, 24 * 40]))
    def time_passes(self, hours: int) -> None:
        """A service rolls its bitmap at midnight, and when it starts: rows reach no further than some months."""
        self.world.clock.ms += hours * HOUR_MS
        if hours > 48:
            self.world.entitlements.roll()

    @rule()
    def midnight(self) -> None:
        self.world.clock.ms = ms_of_day(day_of_ms(self.world.clock.ms) + 1) + SLACK_MS

    @rule(days=st.sampled_from([3, 40]))
    def clock_is_ahead(self, days: int) -> None:
        """A sweep refuses. Somebody insists; then the clock is set right, and what was closed takes uploads again."""
        world, jump_ms = self.world, days * 24 * HOUR_MS
        world.clock.jump(jump_ms)
        before = world.state()
        with pytest.raises(SweepRefused) as caught:
            world.sweep().run()
        assert caught.value.code == "clock_jumped"
        assert world.state() == before
        world.sweep().run(accept_clock=True)
        self.note_erasures()
        for key in [key for key, day in self.kept.items() if day <= world.catalog.closed_through]:
            del self.kept[key]
            self.expired.add(key)
        # After an earlier reopening keys of a later month are used: they may be there still.
        first, last = world.catalog.first_key_month, world.vault.last_month_destroyed()
        self.keyless += [copy for copy in world.kept if max(copy.key_id.month, first) <= last]
        world.clock.jump(-jump_ms)
        world.reopen()
        assert world.attacked(self.keyless) == set()

    @rule()
    def sweep(self) -> None:
        self.swept()

    @rule(kinds=st.lists(st.sampled_from(list(FaultKind)[1:6]), max_size=3), key_fails=st.booleans())
    def sweep_with_faults(self, kinds: list[FaultKind], key_fails: bool) -> None:
        """Faults of the store, each once, at the calls that delete, read and write."""
        left = list(kinds)

        def plan(op: str, key: str, nth: int) -> Fault | None:
            if left and (op == "delete_many" or (op in ("get_range", "put") and is_ours(key))):
                return Fault(left.pop())
            return Fault(FaultKind.BEFORE) if op == "delete_key" and key_fails and nth % 3 == 0 else None

        self.world.store.plan = plan
        self.swept()
        self.world.store.plan = no_faults

    @rule(calls=st.integers(1, 60), after=st.booleans())
    def sweep_that_dies(self, calls: int, after: bool) -> None:
        """The lease is not given back: the next one waits for it to run out."""
        left = [calls]
        parts = {n: Dying(getattr(self.world, n), left, after) for n in ("catalog", "store", "vault")}
        with suppress(Died):
            self.world.sweep(**parts).run()
        self.note_erasures()
        self.world.clock.ms += HOUR_MS
        self.world.entitlements.replay()

    def swept(self) -> SweepReport:
        # One whose erasure was under way when it was renewed, and that lapsed again since, takes two passes.
        lapsed = [d for d in self.ends if self.lapsed_past_grace(d) and not self.is_erasing(d)]
        erasing = [d for d in self.ends if self.is_erasing(d)]
        report = self.world.sweep().run()
        assert report.key_store_failure == ""
        self.note_erasures()
        for device in lapsed:
            assert self.world.catalog.device(device).erase_state is EraseState.ERASED
        assert not any(self.is_erasing(device) for device in erasing)
        return report

    def is_erasing(self, device: int) -> bool:
        return self.world.catalog.device(device).erase_state is EraseState.ERASING

    def note_erasures(self) -> None:
        """A sweep, also one that died, may have erased whose grace is over, and nobody else."""
        for device, epoch in self.epochs.items():
            found = self.world.catalog.device(device).erase_epoch
            if found != epoch:
                assert found == epoch + 1
                assert self.lapsed_past_grace(device)
                self.epochs[device] = found
                self.forget_device(device)

    @invariant()
    def serves_what_the_model_has(self) -> None:
        if not hasattr(self, "world"):
            return
        today = self.today
        for key in [key for key, expires_on in self.kept.items() if expires_on <= today]:
            del self.kept[key]
            self.expired.add(key)
        seen = {(kept.device, kept.capture_ms) for kept in self.world.kept}
        for device, capture_ms in sorted(seen):
            data = self.world.read(device, capture_ms)
            if (device, capture_ms) in self.kept and self.entitled(device):
                assert data == content(device, capture_ms)
            else:
                assert data is None

    def lapsed_past_grace(self, device: int) -> bool:
        last = self.ends[device]
        return last is not None and last < self.today - GRACE_DAYS

    @invariant()
    def catalog_and_store_agree(self) -> None:
        if hasattr(self, "world"):
            self.world.sound()

    def quiet(self) -> None:
        """In the end sweeps find nothing more to do: what is left is what the model has, and the rest is gone.

        All within one day: each midnight ends somebody's grace and some chunk's time, and begins it all anew."""
        world = self.world
        self.midnight()
        for _ in range(4):
            world.clock.ms += max(DELAY_MS, RETRY_MS, 2 * TTL_MS) + 1
            self.swept()
        assert day_of_ms(world.clock.ms) == day_of_ms(world.clock.ms - SLACK_MS)
        self.serves_what_the_model_has()
        assert set(world.states().values()) <= {"COMMITTED"}
        assert world.objects() == set(world.states())
        rows = {
            (row.device, row.capture_ms)
            for day in {row.expires_on for row in world.catalog.segments()}
            for row in world.catalog.day_rows(day)
        }
        assert rows == set(self.kept), (rows ^ set(self.kept), self.ends)
        assert world.catalog.unfinished_deletions() == world.catalog.erasing_devices() == []
        assert world.attacked() & self.copied <= set(self.kept)
        assert world.attacked(self.keyless) == set()


TestRetention = Retention.TestCase
TestRetention.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
