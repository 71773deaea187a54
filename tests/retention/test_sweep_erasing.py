"""The sweep and devices whose plan lapsed or that were terminated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from retention.erasure import mark_erasing
from retention.sweep import SweepRefused
from storage.rows.devices import DeviceFacts, EraseState
from storage.rows.recordings import Verdict
from tests.retention.sweeping import (
    DAY_MS,
    ERASED_MS,
    LAPSED_MS,
    LAST,
    Failing,
    at,
    keep_today,
    lapsing,
    long_kept,
    swept,
)
from tests.retention.world import (
    DELAY_MS,
    GRACE_DAYS,
    NOON,
    TODAY,
    World,
    fast_folder,
    monthly,
)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


# --- lapse ------------------------------------------------------------------------------------------------------


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


def test_a_pass_that_would_erase_others_than_were_confirmed_changes_nothing(world: World) -> None:
    first, second = lapsing(world), lapsing(world)
    world.clock.ms = ERASED_MS
    sweep = world.sweep(bulk_limit=1)
    confirmed = sweep.plan().decision
    sweep = world.sweep(bulk_limit=2)  # somebody raised it in between
    with pytest.raises(SweepRefused) as refused:
        sweep.run(confirmed=confirmed)
    assert refused.value.code == "plan_changed"
    assert world.catalog.last_sweep() is None
    assert not world.catalog.erasures()
    report = sweep.run(confirmed=sweep.plan().decision)
    assert [d["device"] for d in report.erased_devices] == [first, second]
