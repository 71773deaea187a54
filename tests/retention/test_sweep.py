"""The sweep, phase by phase; against every fault of its store; beside another one; killed at every step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention.erasure import mark_erasing
from retention.sweep import MAX_REPORTED_FAILURES, Sweep, SweepRefused, SweepReport
from retention.sweep.planning import last_month_over
from storage.days import MS_PER_DAY, ms_of_day, to_date
from storage.errors import CatalogUnavailable, ClipkeepError, LeaseLost, StoreUnavailable, WorldError
from storage.faults import Fault, FaultKind, FaultyStore, Plan, no_faults
from storage.memory import MemoryStore
from storage.objects import DELETE_BATCH_KEYS
from storage.rows.devices import DeviceFacts, EraseState
from storage.rows.recordings import Tombstone, Verdict
from tests.retention.killed_sweeps import END_MS, KEYS_LEFT, SECOND_MS, prepare
from tests.retention.world import (
    DELAY_MS,
    GRACE_DAYS,
    LEASE_MS,
    LIMITS,
    NOON,
    RETRY_MS,
    SKEW_MS,
    SLACK_MS,
    TODAY,
    TTL_MS,
    WEEK,
    Kept,
    World,
    fast_folder,
    monthly,
)
from tests.servers.catalogs import drop_catalog, impatient_catalog_of

ROOT = Path(__file__).parents[2]
DAY_MS = MS_PER_DAY
ENDS = TODAY + WEEK + 1
"""The expiry day of what is captured today."""
EXPIRED_MS = ms_of_day(ENDS) + SLACK_MS
"""The first millisecond at which that day is swept."""


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


def swept(world: World, **changed: Any) -> SweepReport:
    return world.sweep(**changed).run()


def at(world: World, ms: int) -> SweepReport:
    """A pass at another time."""
    world.clock.ms = ms
    return swept(world)


def keep_today(world: World, device: int, count: int = 1, *, at_ms: int = NOON) -> list[int]:
    """Chunks of one device in a segment of their own; their capture times."""
    captures = [at_ms + 2000 * number for number in range(count)]
    world.keep([(device, capture_ms) for capture_ms in captures])
    return captures


def last_report(world: World) -> dict[str, Any]:
    report = world.catalog.last_sweep()
    assert report is not None
    return report


# --- age --------------------------------------------------------------------------------------------------------


def test_a_day_is_unindexed_then_its_objects_go_after_the_delay(world: World) -> None:
    """Invariants 2 and 6."""
    device = world.add()
    captures = keep_today(world, device, 3)
    [key] = world.objects()
    assert world.serves(device, *captures) == [True] * 3

    report = at(world, EXPIRED_MS)
    assert report.days == [
        {
            "day": to_date(ENDS).isoformat(),
            "segments": 1,
            "chunks": 3,
            "bytes": len(world.memory.objects[key]),
        }
    ]
    assert (report.unindexed_chunks, report.deleted_objects, report.delete_calls) == (3, 0, 0)
    assert world.serves(device, *captures) == [False] * 3
    assert world.catalog.closed_through == world.bitmap.closed_through == ENDS
    assert list(world.catalog.day_rows(ENDS)) == []
    assert world.states() == {key: "DELETING"}

    assert at(world, EXPIRED_MS + DELAY_MS - 1).deleted_objects == 0
    assert world.objects() == {key}
    size = len(world.memory.objects[key])
    report = at(world, EXPIRED_MS + DELAY_MS)
    assert (report.deleted_objects, report.deleted_bytes, report.delete_calls) == (1, size, 1)
    assert world.objects() == set()
    assert world.states() == {}
    assert last_report(world) == report.as_dict()


def test_the_day_boundary_and_the_slack_to_the_millisecond(world: World) -> None:
    """Invariants 2 and 3: denied from 00:00 UTC on, swept from the slack on, not before."""
    device = world.add()
    captures = keep_today(world, device)
    for ms, served in ((ms_of_day(ENDS) - 1, True), (ms_of_day(ENDS), False)):
        world.clock.ms = ms
        assert world.serves(device, *captures) == [served]
    assert at(world, EXPIRED_MS - 1).days == []
    assert world.catalog.closed_through == ENDS - 1
    assert len(at(world, EXPIRED_MS).days) == 1


def test_a_second_pass_changes_nothing(world: World) -> None:
    device = world.add()
    keep_today(world, device)
    at(world, EXPIRED_MS)
    before = world.state()
    report = swept(world)
    after = world.state()
    assert (report.days, report.deleted_objects, report.destroyed_keys) == ([], 0, 0)
    assert before.pop("reports") != after.pop("reports")
    assert before == after


def test_many_days_are_made_good_at_once_oldest_first(world: World) -> None:
    device = world.add()
    for days_ago in (3, 0, 5):
        keep_today(world, device, at_ms=NOON - days_ago * DAY_MS)
    report = at(world, EXPIRED_MS)
    assert [d["day"] for d in report.days] == [to_date(ENDS - days).isoformat() for days in (5, 3, 0)]


def test_expiry_costs_what_expired(world: World) -> None:
    """No listing, no look at an object but the mark, ceil(n / 1000) calls to delete; what lives is not touched."""
    device = world.add()
    count = 2 * DELETE_BATCH_KEYS + 1
    keys = world.catalog.prepare(worker="w0", class_days=31, expires_on=ENDS, count=count, now_ms=NOON)
    kept_commit, _ = world.put([(device, NOON)])
    commits = [
        replace(kept_commit, segment_id=key.segment_id, index=_moved(kept_commit.index, 1 + number))
        for number, key in enumerate(keys)
    ]
    world.catalog.commit([kept_commit, *commits], now_ms=NOON)
    live = keep_today(world, device, at_ms=NOON + DAY_MS)
    world.store.asked.clear()
    at(world, EXPIRED_MS)
    assert world.store.asked == {"server_time_s": 1, "get_range": 1, "put": 1}
    world.store.asked.clear()
    report = at(world, EXPIRED_MS + DELAY_MS)
    assert (report.deleted_objects, report.delete_calls) == (count + 1, 3)
    assert world.store.asked == {
        "server_time_s": 1,
        "get_range": 1,
        "delete_many": 3,
        "delete_key": count + 1,
    }
    assert world.serves(device, *live) == [True]
    assert len(world.states()) == 1


def _moved(index: Any, number: int) -> Any:
    moved = index.copy()
    moved["capture_ms"] += number
    return moved


def test_a_months_keys_go_with_its_last_day(world: World) -> None:
    """They are named by the month in which the chunks expire, so no chunk that lives needs them."""
    device = world.add()
    last_of_june = 20_269  # 2025-06-30
    first = keep_today(world, device, at_ms=NOON)  # expires 2025-06-23
    last = keep_today(world, device, at_ms=ms_of_day(last_of_june - WEEK - 1))
    july = keep_today(world, device, at_ms=ms_of_day(last_of_june - WEEK))
    report = at(world, ms_of_day(last_of_june) + SLACK_MS - 1)
    assert report.destroyed_keys == 0
    assert world.attacked() == {(device, ms) for ms in (*first, *last, *july)}
    report = at(world, ms_of_day(last_of_june) + SLACK_MS)
    assert report.destroyed_keys == 1
    assert world.attacked() == {(device, ms) for ms in july}
    assert world.serves(device, *july) == [True]


@pytest.mark.parametrize(
    ("expired_through", "month"),
    [(20_268, 202505), (20_269, 202506), (20_270, 202506), (20_453, 202512), (20_454, 202512)],
)
def test_the_month_whose_keys_go(expired_through: int, month: int) -> None:
    """20269 is 2025-06-30, 20453 is 2025-12-31."""
    assert last_month_over(expired_through) == month


# --- lapse ------------------------------------------------------------------------------------------------------


LAST = TODAY + 1
"""Last entitled day of the device that lapses; its chunks would be kept for months."""
LAPSED_MS = ms_of_day(LAST + 1)
ERASED_MS = ms_of_day(LAST + 1 + GRACE_DAYS)


def lapsing(world: World, ends_on: int = LAST) -> int:
    return world.add(monthly(TODAY - 100, ends_on, days=200))


def long_kept(world: World, *devices: int) -> list[int]:
    """A segment with two chunks of each device that expires in months."""
    captures = [NOON, NOON + 2000]
    world.keep([(d, ms) for d in devices for ms in captures], expires_on=TODAY + 201)
    return captures


def test_a_lapse_denies_at_once_and_destroys_after_its_grace(world: World) -> None:
    """Invariants 2, 9 and 10: the neighbour in the same segment still decrypts."""
    device, neighbour = lapsing(world), world.add()
    captures = long_kept(world, device, neighbour)
    for ms, served in ((LAPSED_MS - 1, True), (LAPSED_MS, False)):
        world.clock.ms = ms
        assert world.serves(device, *captures) == [served] * 2
    assert at(world, ERASED_MS - 1).erased_devices == []
    assert (device, NOON) in world.attacked()

    report = at(world, ERASED_MS)
    [erased] = report.erased_devices
    assert (erased["device"], erased["why"], erased["chunks"]) == (device, "lapsed", 2)
    assert report.destroyed_keys == 1
    facts = world.catalog.device(device)
    assert (facts.erase_state, facts.erase_epoch) == (EraseState.ERASED, 1)
    assert world.attacked() == {(neighbour, ms) for ms in captures}
    assert world.serves(neighbour, *captures) == [True] * 2
    assert world.catalog.erasing_devices() == []
    assert swept(world).erased_devices == []


def test_a_segment_with_nothing_left_goes_early(world: World) -> None:
    device, neighbour = lapsing(world), world.add()
    shared = world.keep([(device, NOON), (neighbour, NOON)], expires_on=TODAY + 201)
    alone = world.keep([(device, NOON + 2000)], expires_on=TODAY + 201)
    world.clock.ms = ERASED_MS
    swept(world, rewrite_bytes=0)
    assert world.states() == {shared: "COMMITTED", alone: "DELETING"}
    world.clock.ms = ERASED_MS + DELAY_MS
    swept(world, rewrite_bytes=0)
    assert world.objects() == {shared}


@pytest.mark.parametrize("when_ms", [LAPSED_MS, ERASED_MS - 1, ERASED_MS])
def test_a_renewal_before_the_erasure_brings_everything_back(world: World, when_ms: int) -> None:
    """Invariant 9. Also one that comes after the grace, but before the sweep does."""
    device = lapsing(world)
    captures = long_kept(world, device)
    at(world, LAPSED_MS)
    world.clock.ms = when_ms
    assert world.serves(device, *captures) == [False] * 2
    world.renew(device, monthly(when_ms // DAY_MS))
    assert world.serves(device, *captures) == [True] * 2
    assert swept(world).erased_devices == []
    assert world.serves(device, *captures) == [True] * 2


def test_a_renewal_after_the_erasure_starts_empty(world: World) -> None:
    """Invariant 9."""
    device = lapsing(world)
    captures = long_kept(world, device)
    at(world, ERASED_MS)
    world.renew(device, monthly(LAST + 4, days=200))
    assert world.serves(device, *captures) == [False] * 2
    assert world.catalog.device(device).erase_state is EraseState.NONE
    world.keep([(device, captures[0])], expires_on=TODAY + 201)  # the same time, recorded anew
    assert world.serves(device, *captures) == [True, False]
    assert swept(world).erased_devices == []
    assert world.serves(device, *captures) == [True, False]


def test_an_upload_admitted_before_the_erasure_loses_its_commit(world: World) -> None:
    """Invariant 9: nothing is written after key destruction."""
    device, neighbour = lapsing(world), world.add()
    late, _ = world.put([(device, NOON), (neighbour, NOON)], expires_on=TODAY + 201)
    world.clock.ms = ERASED_MS
    late_at_all = world.sweep(prepare_ttl_ms=10 * DAY_MS)
    late_at_all.run()
    [verdicts] = world.catalog.commit([late], now_ms=ERASED_MS)
    assert [Verdict(v) for v in verdicts] == [Verdict.ERASED, Verdict.STORED]
    assert world.serves(neighbour, NOON) == [True]
    assert world.attacked() == {(neighbour, NOON)}


@pytest.mark.parametrize(
    "plans",
    [
        (monthly(TODAY + 200),),  # beyond the reach of the row
        (monthly(TODAY - 100, TODAY - 50), monthly(TODAY + 300, TODAY + 330)),
        (monthly(TODAY + 9, TODAY + 8),),  # cancelled before it began
    ],
    ids=["to come", "lapsed, bought again for later", "never began"],
)
def test_the_bitmap_nominates_and_the_catalog_decides(world: World, plans: tuple[Any, ...]) -> None:
    device = world.add(*plans)
    assert device in world.bitmap.ended_devices(TODAY, GRACE_DAYS)
    assert swept(world).erased_devices == []
    assert world.catalog.device(device).erase_epoch == 0


def test_a_device_without_a_plan_is_left_alone(world: World) -> None:
    [facts] = world.entitlements.add_devices(1, account=1, plans=())
    assert swept(world).erased_devices == []
    assert world.catalog.device(facts.device) == facts


def test_a_bitmap_of_another_boot_nominates_nobody_so_the_catalog_is_asked(world: World) -> None:
    device = lapsing(world)
    row = world.bitmap.read(device)
    assert row is not None
    with world.bitmap.locked():
        world.bitmap.set_boot_id(b"another boot 123")
        world.bitmap.write(device, replace(row, days=(1 << 384) - 1))
    world.clock.ms = ERASED_MS
    assert [f.device for f in world.sweep().plan().erase] == [device]
    assert [d["device"] for d in swept(world).erased_devices] == [device]


def test_a_row_of_a_device_that_the_catalog_does_not_have_nominates_nobody(world: World) -> None:
    device = lapsing(world)
    row = world.bitmap.read(device)
    assert row is not None
    with world.bitmap.locked():
        world.bitmap.write(device + 1, row)
    assert [d["device"] for d in at(world, ERASED_MS).erased_devices] == [device]


# --- termination ------------------------------------------------------------------------------------------------


def test_termination_denies_at_once_and_destroys_after_the_grace_once(world: World) -> None:
    """The plan still runs: it must make no difference, at no pass."""
    device = world.add()
    captures = keep_today(world, device)
    world.terminate(device)
    assert world.serves(device, *captures) == [False]
    grace_ms = GRACE_DAYS * DAY_MS
    assert at(world, NOON + grace_ms - 1).erased_devices == []
    [erased] = at(world, NOON + grace_ms).erased_devices
    assert (erased["device"], erased["why"], erased["chunks"]) == (device, "terminated", 1)
    assert world.attacked() == set()
    for _ in range(2):
        assert swept(world).erased_devices == []
    facts = world.catalog.device(device)
    assert (facts.erase_state, facts.erase_epoch) == (EraseState.ERASED, 1)


def test_termination_with_erase_has_no_grace(world: World) -> None:
    device, neighbour = world.add(), world.add()
    captures = [NOON, NOON + 2000]
    world.keep([(d, ms) for d in (device, neighbour) for ms in captures])
    world.terminate(device, erase=True)
    world.terminate(device, erase=True)
    [erased] = swept(world).erased_devices
    assert erased["device"] == device
    assert world.attacked() == {(neighbour, ms) for ms in captures}
    assert world.serves(neighbour, *captures) == [True] * 2
    assert swept(world).erased_devices == []
    assert world.catalog.device(device).erase_epoch == 1


def test_a_device_that_anyone_marked_is_finished_by_the_next_pass(world: World) -> None:
    """As the cancellation of an account does: marked, with its reason, and nothing else. The plan shows why, the bulk
    limit does not hold it back, and key, rows and record are done."""
    device, neighbour = world.add(), world.add()
    captures = long_kept(world, device, neighbour)
    world.change(device, lambda facts: mark_erasing(facts, "account cancelled"))
    assert (device, NOON) in world.attacked()

    plan = world.sweep(bulk_limit=0).plan()
    assert plan.summary()["erase"] == [{"device": device, "why": "account cancelled"}]
    report = swept(world, bulk_limit=0)
    assert [(d["device"], d["why"], d["chunks"]) for d in report.erased_devices] == [
        (device, "account cancelled", 2)
    ]
    assert world.catalog.device(device).erase_state is EraseState.ERASED
    assert world.attacked() == {(neighbour, ms) for ms in captures}
    assert world.serves(neighbour, *captures) == [True] * 2
    [record] = world.catalog.erasures(device=device)
    assert (record.why, record.state, record.keys_destroyed) == ("account cancelled", "unindexed", 1)
    assert swept(world).erased_devices == []


def test_the_report_names_a_bounded_number_of_erasures(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand reports are kept, so one must not grow with the fleet."""
    monkeypatch.setattr("retention.sweep.report.MAX_REPORTED_ERASURES", 2)
    for device in [world.add() for _ in range(3)]:
        world.terminate(device, erase=True)
    world.add(monthly(TODAY - 100, TODAY - 50, days=200))
    report = swept(world)
    assert len(report.erased_devices) == 2
    assert report.erased_by_cause == {"terminated": 3, "lapsed": 1}


@pytest.mark.parametrize("erase", [True, False])
def test_what_was_recorded_after_a_renewal_during_the_erasure_goes_too(world: World, erase: bool) -> None:
    """A lapse is marked, the sweep dies, the device is renewed and records, then it is terminated."""
    device = lapsing(world)
    captures = long_kept(world, device)
    world.clock.ms = ERASED_MS
    dying = world.sweep(vault=Failing(world.vault, "destroy_devices"))
    assert dying.run().key_store_failure
    world.renew(device, monthly(LAST + 4, days=200))
    world.keep([(device, ERASED_MS)], expires_on=LAST + 300)
    assert world.serves(device, *captures, ERASED_MS) == [False, False, True]
    world.terminate(device, erase=erase)
    swept(world)
    assert world.attacked() == (set() if erase else {(device, ERASED_MS)})
    at(world, ERASED_MS + GRACE_DAYS * DAY_MS)
    assert world.attacked() == set()
    assert world.catalog.device(device).erase_state is EraseState.ERASED
    assert swept(world).erased_devices == []


def test_a_renewal_during_the_erasure_that_lapses_before_it_ends(world: World) -> None:
    device = lapsing(world)
    long_kept(world, device)
    world.clock.ms = ERASED_MS
    world.sweep(vault=Failing(world.vault, "destroy_devices")).run()
    world.renew(device, monthly(LAST + 4, LAST + 5, days=200))
    world.keep([(device, ERASED_MS)], expires_on=LAST + 300)
    world.clock.ms = ERASED_MS + 20 * DAY_MS
    for _ in range(3):
        swept(world)
    assert world.attacked() == set()
    assert world.catalog.device(device).erase_epoch == 2
    assert world.catalog.device(device).erase_state is EraseState.ERASED


def test_rows_left_behind_an_erased_device_are_finished(world: World) -> None:
    device = world.add()
    keep_today(world, device)

    def erased_at_once(facts: DeviceFacts) -> DeviceFacts:
        return replace(facts, erase_state=EraseState.ERASED, erase_epoch=1, erase_reason="restored")

    world.change(device, erased_at_once)
    assert [f.device for f in world.catalog.erasing_devices()] == [device]
    [done] = swept(world).erased_devices
    assert (done["chunks"], done["why"]) == (1, "restored")
    assert world.catalog.erasing_devices() == []
    assert world.attacked() == set()


class Failing:
    """Stands before a store: one method raises. Counts nothing, changes nothing."""

    def __init__(self, real: Any, method: str, error: ClipkeepError | None = None) -> None:
        self._real, self._method = real, method
        self._error = error or WorldError("injected", code="key_store_unavailable")

    def __getattr__(self, name: str) -> Any:
        if name != self._method:
            return getattr(self._real, name)

        def fail(*args: Any, **named: Any) -> Any:
            raise self._error

        return fail


@pytest.mark.parametrize("method", ["destroy_devices", "destroy_months"])
def test_a_key_store_that_fails_stops_no_delete_and_no_row_goes_before_its_key(
    world: World, method: str
) -> None:
    device, other = lapsing(world), world.add()
    captures = long_kept(world, device)
    world.keep([(other, NOON - 10 * DAY_MS)])
    at(world, ERASED_MS - DELAY_MS)
    world.clock.ms = ERASED_MS
    report = world.sweep(vault=Failing(world.vault, method)).run()
    assert report.deleted_objects == 1
    assert "key_store_unavailable" in report.key_store_failure
    if method == "destroy_devices":
        assert report.erased_devices == []
        assert len(list(world.catalog.day_rows(TODAY + 201))) == 2
    assert world.serves(device, *captures) == [False] * 2
    assert swept(world).key_store_failure == ""
    assert world.attacked() & {(device, ms) for ms in captures} == set()


def test_more_erasures_than_the_bulk_limit_wait_and_the_rest_goes_on(world: World) -> None:
    """Invariant 14."""
    devices = [lapsing(world) for _ in range(3)]
    gone = world.add()
    long_kept(world, *devices)
    keep_today(world, gone, at_ms=NOON - 10 * DAY_MS)
    world.terminate(gone, erase=True)
    world.clock.ms = ERASED_MS
    sweep = world.sweep(bulk_limit=2)
    plan = sweep.plan()
    assert [f.device for f in plan.held_back] == devices
    assert [f.device for f in plan.erase] == [gone]  # a person asked for that one
    report = sweep.run()
    assert report.held_back_devices == 3
    assert [d["device"] for d in report.erased_devices] == [gone]
    assert len(report.days) == 1
    assert len(world.attacked()) == 6
    assert [f.device for f in sweep.plan(allow_bulk=True).erase] == devices
    assert [d["device"] for d in sweep.run(allow_bulk=True).erased_devices] == devices
    assert world.attacked() == set()


def test_exactly_the_bulk_limit_passes(world: World) -> None:
    for _ in range(2):
        lapsing(world)
    world.clock.ms = ERASED_MS
    assert len(swept(world, bulk_limit=2).erased_devices) == 2


# --- prepared keys ----------------------------------------------------------------------------------------------


def test_a_prepared_key_past_its_time_is_reclaimed_and_deleted_twice(world: World) -> None:
    """Invariant 5: a stalled PUT that ends after the first delete leaves no orphan."""
    device = world.add()
    late, prepared = world.put([(device, NOON)])
    body = bytearray(world.memory.objects[prepared.key])
    assert at(world, NOON + TTL_MS).reclaimed_keys == 0
    assert world.states() == {prepared.key: "PREPARED"}

    reclaimed_ms = NOON + TTL_MS + 1
    report = at(world, reclaimed_ms)
    assert (report.reclaimed_keys, report.delete_calls) == (1, 1)
    assert world.objects() == set()
    assert world.states() == {prepared.key: "DELETING"}
    world.store.inner.put(prepared.key, body, late.crc32)  # the stalled PUT arrives
    [verdicts] = world.catalog.commit([late], now_ms=world.clock.ms)
    assert [Verdict(v) for v in verdicts] == [Verdict.RECLAIMED]

    at(world, reclaimed_ms + TTL_MS - 1)
    assert world.objects() == {prepared.key}
    at(world, reclaimed_ms + TTL_MS)
    assert (world.objects(), world.states()) == (set(), {})
    assert world.store.asked["list"] == 0


def test_a_commit_before_the_reclaim_wins(world: World) -> None:
    device = world.add()
    commit, _ = world.put([(device, NOON)])
    world.clock.ms = NOON + TTL_MS + 1

    def commit_first(*args: Any, **named: Any) -> int:
        world.catalog.commit([commit], now_ms=world.clock.ms)
        return reclaim(*args, **named)

    reclaim = world.catalog.reclaim
    world.sweep(catalog=Replaced(world.catalog, reclaim=commit_first)).run()
    assert world.serves(device, NOON) == [True]


class Replaced:
    """Stands before a part of the world; some of its methods are others."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real, self._methods = real, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods[name] if name in self._methods else getattr(self._real, name)


class Sent:
    """A `delete_many` that remembers what was sent."""

    def __init__(self, store: FaultyStore) -> None:
        self.keys: list[str] = []
        self._store = store

    def __call__(self, keys: Sequence[str]) -> dict[str, str | None]:
        self.keys += keys
        return self._store.delete_many(keys)


# --- dry run ----------------------------------------------------------------------------------------------------


def busy_world(world: World) -> None:
    """Something for every phase."""
    device, lapsed, gone = world.add(), lapsing(world), world.add()
    keep_today(world, device, at_ms=NOON - 2 * DAY_MS)
    keep_today(world, device)
    world.keep([(d, NOON) for d in (lapsed, gone)], expires_on=TODAY + 201)
    world.keep([(lapsed, NOON + 2000)], expires_on=TODAY + 201)
    world.put([(device, NOON)])
    world.catalog.prepare(worker="w0", class_days=31, expires_on=ENDS, count=2, now_ms=NOON)
    world.clock.ms = NOON + TTL_MS + 1
    swept(world)
    world.terminate(gone, erase=True)
    world.put([(device, NOON + 9)])
    world.clock.ms = EXPIRED_MS + DAY_MS


def test_a_dry_run_writes_nothing_and_lists_what_the_real_run_deletes(world: World) -> None:
    """Invariant 13, at several moments of a longer story."""
    busy_world(world)
    for _ in range(4):
        before = world.state()
        asked = world.store.asked.copy()
        plan = world.sweep().plan()
        due_keys = sorted(world.sweep().due_keys(plan))
        assert world.state() == before
        assert world.store.asked - asked == {"server_time_s": 1, "get_range": 1}

        sent = Sent(world.store)
        report = world.sweep(store=Replaced(world.store, delete_many=sent)).run()
        summary = plan.summary()
        assert sorted(sent.keys) == due_keys
        assert len(due_keys) == summary["delete_objects"]
        assert report.days == summary["expire"]
        assert report.reclaimed_keys == len(summary["reclaim"])
        assert [{k: d[k] for k in ("device", "why")} for d in report.erased_devices] == summary["erase"]
        json.dumps(summary)
        world.clock.ms += DELAY_MS
    assert sent.keys == []


# --- guards -----------------------------------------------------------------------------------------------------


def refused(world: World, **changed: Any) -> str:
    """The code of the refusal, after which everything is as before."""
    before = world.state()
    sweep = world.sweep(**changed)
    for act in (sweep.plan, sweep.run):
        with pytest.raises(SweepRefused) as caught:
            act()
    assert world.state() == before
    return caught.value.code


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_clock_that_disagrees_with_the_stores_stops_a_sweep(world: World, sign: int) -> None:
    """Invariant 12."""
    keep_today(world, world.add())
    skew_ms = 0
    store = MemoryStore(now_s=lambda: (world.clock.ms + skew_ms) / 1000)
    world.clock.ms = EXPIRED_MS
    skew_ms = sign * (SKEW_MS + 1)
    assert refused(world, store=store) == "clock_skew"
    skew_ms = sign * SKEW_MS
    assert len(swept(world, store=store).days) == 1


def test_a_store_without_a_clock_has_no_such_guard(world: World) -> None:
    keep_today(world, world.add())
    assert world.store.server_time_s() is None
    assert len(at(world, EXPIRED_MS + 1000 * DAY_MS).days) == 1


def test_a_clock_set_back_resurrects_nothing(world: World) -> None:
    """Invariant 12."""
    device = world.add()
    captures = keep_today(world, device)
    at(world, EXPIRED_MS)
    world.clock.ms = NOON
    assert world.serves(device, *captures) == [False]
    late, _ = world.put([(device, NOON + 1)])
    [verdicts] = world.catalog.commit([late], now_ms=NOON)
    assert [Verdict(v) for v in verdicts] == [Verdict.EXPIRED]
    with pytest.raises(SweepRefused):
        swept(world)
    world.sweep().run(accept_clock=True)
    assert world.catalog.closed_through == world.bitmap.closed_through == ENDS
    assert world.entitlements.today() == ENDS


def test_an_empty_catalog_deletes_nothing(world: World) -> None:
    """Invariant 3: objects that nothing knows are not the sweep's to judge."""
    device = world.add()
    keep_today(world, device)
    with fast_folder() as fresh, World(fresh, clock_ms=EXPIRED_MS + 1000 * DAY_MS) as empty:
        empty.sweep(store=world.store).run()
    assert len(world.objects()) == 1


@pytest.mark.parametrize("seen", ["change", "segment"])
def test_a_restored_catalog_deletes_nothing(world: World, seen: str) -> None:
    """Invariant 3: its prepared keys may hold what was acknowledged since."""
    device = world.add()
    _, prepared = world.put([(device, NOON)])
    with world.bitmap.locked():
        world.bitmap.raise_segment_high_water(prepared.segment_id + (seen == "segment"))
        world.bitmap.set_last_change(world.catalog.newest_change() + (seen == "change"))
    world.clock.ms = NOON + TTL_MS + 1
    assert refused(world) == "catalog_restored"
    assert world.objects() == {prepared.key}


def test_a_catalog_that_cannot_be_reached_deletes_nothing(world: World) -> None:
    keep_today(world, world.add())
    world.clock.ms = EXPIRED_MS
    before = world.state()
    for method in ("acquire_lease", "open_days", "stale_prepared", "newest_change", "due_totals"):
        broken = Failing(world.catalog, method, CatalogUnavailable("injected"))
        with pytest.raises(CatalogUnavailable):
            world.sweep(catalog=broken).run()
        assert world.state() == before


def test_a_store_that_does_not_answer_the_guard_stops_the_pass(world: World) -> None:
    keep_today(world, world.add())
    world.clock.ms = EXPIRED_MS
    before = world.state()
    world.store.plan = fault_at("server_time_s", 0, FaultKind.BEFORE)
    with pytest.raises(StoreUnavailable):
        swept(world)
    assert world.state() == before
    world.store.plan = no_faults
    assert len(swept(world).days) == 1  # and the lease was given back


# --- faults of the store ----------------------------------------------------------------------------------------


def fault_at(op: str, nth: int, kind: FaultKind) -> Plan:
    base: list[int] = []

    def plan(asked: str, key: str, number: int) -> Fault | None:
        if asked != op:
            return None
        base.append(number)
        return Fault(kind) if number - base[0] == nth else None

    return plan


def with_tombstones(world: World, count: int) -> list[str]:
    """A world with `count` objects that are due now."""
    device = world.add()
    keys = [world.keep([(device, NOON + n)]) for n in range(count)]
    at(world, EXPIRED_MS)
    world.clock.ms = EXPIRED_MS + DELAY_MS
    return keys


@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.AFTER, FaultKind.DENIED])
def test_a_delete_call_that_fails_is_tried_again_for_ever(world: World, kind: FaultKind) -> None:
    """Invariant 7. AFTER is a time-out after the effect: the objects are missing when it is tried again."""
    keys = with_tombstones(world, 3)
    for turn in range(3):
        world.store.plan = fault_at("delete_many", 0, kind)
        report = swept(world)
        assert (report.failed_delete_count, report.deleted_objects) == (3, 0)
        assert set(report.failed_deletes) == set(keys)
        totals = world.catalog.totals()
        assert (totals.failing_tombstones, totals.oldest_tombstone_ms) == (3, EXPIRED_MS + DELAY_MS)
        world.store.plan = no_faults
        assert at(world, world.clock.ms + RETRY_MS - 1).delete_calls == 0, turn
        world.clock.ms += 1
    report = swept(world)
    assert (report.failed_delete_count, report.deleted_objects) == (0, 3)
    assert (world.objects(), world.states()) == (set(), {})


@pytest.mark.parametrize("gone", [False, True])
def test_one_poisoned_object_never_stops_the_rest(world: World, gone: bool) -> None:
    """Invariant 7: a result for each key, and each counts alone."""
    keys = with_tombstones(world, 5)
    poisoned = keys[2]

    def plan(op: str, key: str, nth: int) -> Fault | None:
        bad = op == "delete_key" and key == poisoned
        return Fault(FaultKind.AFTER if gone else FaultKind.BEFORE, code="AccessDenied") if bad else None

    world.store.plan = plan
    report = swept(world)
    assert report.failed_deletes == {poisoned: "AccessDenied"}
    assert (report.failed_delete_count, report.deleted_objects) == (1, 4)
    assert set(world.states()) == {poisoned}
    world.store.plan = no_faults
    assert at(world, world.clock.ms + RETRY_MS).deleted_objects == 1
    assert (world.objects(), world.states()) == (set(), {})


def test_missing_objects_count_as_deleted(world: World) -> None:
    """Invariant 6."""
    keys = with_tombstones(world, 3)
    del world.memory.objects[keys[1]]
    assert swept(world).deleted_objects == 3
    assert world.states() == {}


def test_a_store_that_forgets_a_key_in_its_answer(world: World) -> None:
    keys = with_tombstones(world, 2)
    store = Replaced(world.store, delete_many=lambda sent: {keys[0]: None})
    report = world.sweep(store=store).run()
    assert report.failed_deletes == {keys[1]: "no_answer"}
    assert set(world.states()) == {keys[1]}


@pytest.mark.parametrize("key", ["../../etc/passwd", "", "other/prefix/object", "v1/a b"])
def test_a_key_that_is_not_ours_is_never_deleted_and_stops_nothing(world: World, key: str) -> None:
    keys = with_tombstones(world, 2)
    foreign = Tombstone(10_000, key, 5, 0, False)
    due = world.catalog.due_tombstones

    def with_foreign(now_ms: int, *, after_id: int, limit: int) -> list[Tombstone]:
        found = due(now_ms, after_id=after_id, limit=limit)
        return [*found, foreign] if found else []

    report = world.sweep(catalog=Replaced(world.catalog, due_tombstones=with_foreign)).run()
    assert report.failed_deletes == {key: "not_ours"}
    assert report.deleted_objects == len(keys)


def test_the_report_names_a_bounded_number_of_failures(world: World) -> None:
    keys = with_tombstones(world, MAX_REPORTED_FAILURES + 5)
    world.store.plan = fault_at("delete_many", 0, FaultKind.BEFORE)
    report = swept(world)
    assert report.failed_delete_count == len(keys)
    assert len(report.failed_deletes) == MAX_REPORTED_FAILURES


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_fails_all_of_it_goes_in_the_end_and_nothing_else(data: st.DataObject) -> None:
    """Invariants 3 and 7: survivable are all faults of single keys and calls."""
    with fast_folder() as folder, World(folder) as world:
        with_tombstones(world, 6)
        live = keep_today(world, 1, at_ms=EXPIRED_MS)
        kinds = st.sampled_from([None, None, FaultKind.BEFORE, FaultKind.AFTER, FaultKind.SLOW_DOWN])

        def plan(op: str, key: str, nth: int) -> Fault | None:
            kind = data.draw(kinds) if op in ("delete_many", "delete_key") else None
            return kind and Fault(kind)

        world.store.plan = plan
        for _ in range(4):
            at(world, world.clock.ms + RETRY_MS)
        world.store.plan = no_faults
        at(world, world.clock.ms + RETRY_MS)
        assert len(world.objects()) == 1
        assert list(world.states().values()) == ["COMMITTED"]
        assert world.serves(1, *live) == [True]


# --- two sweepers -----------------------------------------------------------------------------------------------


def test_two_sweepers_at_once_do_the_work_of_one(world: World) -> None:
    """Invariant 8."""
    with_tombstones(world, 2)
    codes = []

    def meanwhile(phase: str, done: int, of: int) -> None:
        before = world.state()
        with pytest.raises(SweepRefused) as caught:
            swept(world)
        codes.append(caught.value.code)
        assert world.state() == before

    sweep = Sweep(
        **{name: getattr(world, name) for name in ("catalog", "store", "vault", "bitmap", "clock")},
        limits=LIMITS,
        progress=meanwhile,
    )
    assert sweep.run().deleted_objects == 2
    assert codes == ["busy"]
    assert swept(world).deleted_objects == 0


def test_a_dry_run_needs_no_lease(world: World) -> None:
    world.catalog.acquire_lease("sweep", holder="other", ttl_ms=LEASE_MS, now_ms=world.clock.ms)
    world.sweep().plan()


def test_a_long_pass_keeps_its_lease(world: World) -> None:
    for days_ago in range(5):
        keep_today(world, 1 if days_ago else world.add(), at_ms=NOON - days_ago * DAY_MS)
    world.clock.ms = EXPIRED_MS

    def take_long(*args: Any, **named: Any) -> Any:
        world.clock.ms += LEASE_MS - 1
        return close_day(*args, **named)

    close_day = world.catalog.close_day
    report = world.sweep(catalog=Replaced(world.catalog, close_day=take_long)).run()
    assert len(report.days) == 5


STEPS = ["close_day", "reclaim", "unindex_device", "deleted", "delete_failed", "advance_closed_through"]


@pytest.mark.parametrize("given_back", [False, True])
@pytest.mark.parametrize("step", [*STEPS, "delete_many", "destroy_months"])
def test_a_sweeper_that_lost_its_lease_changes_nothing(world: World, step: str, given_back: bool) -> None:
    """Invariant 8: it sleeps before a step; another takes over, and may have finished, or not.

    What no fence guards (keys, objects) is decided and durable before, so doing it late does no harm.
    """
    busy_world(world)
    swept(world)
    live = keep_today(world, 1, at_ms=world.clock.ms)
    busy = world.add()
    world.keep([(busy, world.clock.ms)], expires_on=world.clock.ms // DAY_MS + 1)
    world.terminate(busy, erase=True)
    world.put([(1, world.clock.ms + 1)])
    world.clock.ms += DAY_MS
    if step == "delete_failed":
        world.store.plan = fault_at("delete_many", 0, FaultKind.BEFORE)
    there: dict[str, Any] = {}

    def asleep(*args: Any, **named: Any) -> Any:
        if not there:
            world.clock.ms += LEASE_MS
            fence = world.catalog.acquire_lease("sweep", holder="b", ttl_ms=10**9, now_ms=world.clock.ms)
            assert fence is not None
            if given_back:
                world.catalog.release_lease("sweep", fence=fence)
            there.update(world.state())
        return real(*args, **named)

    part = {"delete_many": "store"}.get(step, "vault" if step.startswith("destroy") else "catalog")
    real = getattr(getattr(world, part), step)
    sweep = world.sweep(**{part: Replaced(getattr(world, part), **{step: asleep})})
    with pytest.raises(LeaseLost):
        sweep.run()
    after = world.state()
    for name in {"delete_many": ["objects"]}.get(step, ["keys"] if step.startswith("destroy") else []):
        del there[name], after[name]
    assert after == there
    assert world.serves(1, *live) == [True]
    took = world.catalog.acquire_lease("sweep", holder="c", ttl_ms=1, now_ms=world.clock.ms)
    assert (took is not None) == given_back


def test_nobody_takes_the_lease_while_keys_are_destroyed(world: World, tmp_path: Path) -> None:
    """Invariant 8: a stale sweeper destroys nothing, because the lease is held fast while it does."""
    device = world.add()
    keep_today(world, device)
    world.terminate(device, erase=True)
    sooner = impatient_catalog_of(world.folder)
    destroyed = world.vault.destroy_devices

    def asleep(below_epochs: dict[int, int]) -> int:
        world.clock.ms += LEASE_MS
        with pytest.raises(CatalogUnavailable):
            sooner.acquire_lease("sweep", holder="b", ttl_ms=10**9, now_ms=world.clock.ms)
        return destroyed(below_epochs)

    report = world.sweep(vault=Replaced(world.vault, destroy_devices=asleep)).run()
    sooner.close()
    assert report.destroyed_keys == 1
    assert world.attacked() == set()


def test_a_sweeper_that_lost_its_lease_before_it_destroys_keys_destroys_none(world: World) -> None:
    """Invariant 8."""
    device = world.add()
    captures = keep_today(world, device)
    world.terminate(device, erase=True)
    holding = world.catalog.holding_lease

    def asleep(*, fence: int) -> Any:
        world.clock.ms += LEASE_MS
        assert world.catalog.acquire_lease("sweep", holder="b", ttl_ms=1, now_ms=world.clock.ms)
        return holding(fence=fence)

    with pytest.raises(LeaseLost):
        world.sweep(catalog=Replaced(world.catalog, holding_lease=asleep)).run()
    assert world.attacked() == {(device, ms) for ms in captures}


# --- killed -----------------------------------------------------------------------------------------------------


def end_state(world: World) -> dict[str, Any]:
    """All that is left when everything has been swept, less what tells when, and less the names of segments: those
    of a rewrite are random."""
    state = world.state()
    for name in ("reports", "changes", "header", "mark"):
        state.pop(name)
    state["objects"] = len(state["objects"])
    state["segments"] = sorted(
        (row.expires_on, row.class_days, row.state, row.chunks, row.live_chunks, row.size_bytes, row.refused)
        for row in state["segments"]
    )
    state["rows"] = sorted(
        (row.device, row.capture_ms, row.ordinal, row.offset, row.length, row.epoch)
        for rows in state["rows"]
        for row in rows
    )
    state["served"] = {(k.device, k.capture_ms): world.read(k.device, k.capture_ms) for k in known(world)}
    return state


def known(world: World) -> list[Kept]:
    return [
        Kept(device, NOON + offset, None, b"", b"")  # type: ignore[arg-type]
        for device in range(1, 6)
        for offset in (-2 * DAY_MS, 0, 2000, 4000, 6000, 6001, 6002, 6003)
    ]


def finished(folder: Path) -> dict[str, Any]:
    """What is left after the pass that follows a kill, and all later ones."""
    with World(folder, clock_ms=SECOND_MS, local=True) as world:
        swept(world)
        assert world.catalog.erasing_devices() == []
        assert world.vault.count() == KEYS_LEFT
        for ms in (SECOND_MS + DELAY_MS, SECOND_MS + DELAY_MS + TTL_MS, END_MS):
            at(world, ms)
        assert world.bitmap.unfinished == 0
        assert not any(world.catalog.broken_rows())
        assert set(world.states().values()) == {"COMMITTED"}
        records = world.catalog.erasures()
        assert [record.state for record in records] == ["unindexed"] * 2
        erasures = [(r.device, r.epoch, r.why, r.keys_destroyed, r.unindexed_chunks) for r in records]
        return {**end_state(world), "erasures": sorted(erasures)}


def test_killed_at_any_step_a_second_pass_ends_the_same() -> None:
    """A real process dies by SIGKILL after its n-th call to catalog, store, key store or bitmap; n counts up until a
    pass completes."""
    with fast_folder() as folder:
        prepare(folder / "template")
        command = [sys.executable, "-m", "tests.retention.killed_sweeps", str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120, cwd=ROOT)
        outcomes = [json.loads(line) for line in done.stdout.splitlines()]
        assert [o["killed"] for o in outcomes] == [True] * (len(outcomes) - 1) + [False]
        steps = {"close_day", "reclaim", "update_device", "destroy_devices", "unindex_device", "delete_many"}
        steps |= {
            "finish_deletion",
            "prepare",
            "raise_segment_high_water",
            "get_range",
            "put",
            "swap_segment",
        }
        assert steps | {"deleted", "destroy_months", "write"} <= {o["step"] for o in outcomes}
        expected = finished(folder / "template")
        assert any(expected["served"].values())
        for outcome in outcomes:
            assert finished(Path(outcome["folder"])) == expected, outcome
            shutil.rmtree(outcome["folder"])
            drop_catalog(Path(outcome["folder"]))
