"""The sweep against every fault of its store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retention.sweep import MAX_REPORTED_FAILURES
from storage.faults import Fault, FaultKind, no_faults
from storage.rows.recordings import Tombstone
from tests.retention.sweeping import (
    EXPIRED_MS,
    Replaced,
    at,
    fault_at,
    keep_today,
    swept,
    with_tombstones,
)
from tests.retention.world import (
    DELAY_MS,
    RETRY_MS,
    World,
    fast_folder,
)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


# --- faults of the store ----------------------------------------------------------------------------------------


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
