"""Deleting at a pace: a store that asks for fewer requests, one that is down, an operator's limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from retention.sweep.deleting import MAX_FAILED_CALLS, SLOW_TRIES
from storage.faults import Fault, FaultKind, no_faults
from storage.objects import DELETE_BATCH_KEYS
from tests.retention.world import DELAY_MS, NOON, RETRY_MS, SLACK_MS, TODAY, WEEK, World, fast_folder

DAY_MS = 86_400_000
EXPIRED_MS = (TODAY + WEEK + 1) * DAY_MS + SLACK_MS


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


def with_due(world: World, count: int) -> None:
    """`count` objects that are due now: tombstones of prepared keys that never got one."""
    world.catalog.prepare(worker="w0", class_days=31, expires_on=TODAY + 8, count=count, now_ms=NOON)
    world.clock.ms = EXPIRED_MS


def fault_on_calls(*calls: int, kind: FaultKind = FaultKind.SLOW_DOWN) -> Any:
    count = iter(range(10**9))

    def plan(op: str, key: str, nth: int) -> Fault | None:
        return Fault(kind) if op == "delete_many" and next(count) in calls else None

    return plan


def test_slow_down_is_asked_again_more_slowly_and_nothing_counts_as_failed(world: World) -> None:
    with_due(world, 2500)
    world.store.plan = fault_on_calls(0, 1)
    report = world.sweep().run()
    assert (report.failed_delete_count, report.delete_failure, report.slow_downs) == (0, "", 2)
    assert report.delete_calls > 5
    assert world.clock.ms - EXPIRED_MS > 2000
    assert world.catalog.due_totals(world.clock.ms).objects == 0
    assert world.catalog.totals().failing_tombstones == 0


def test_a_store_that_only_says_slow_down_is_left_for_the_next_pass(world: World) -> None:
    """Invariant 7."""
    with_due(world, 10)
    world.store.plan = fault_on_calls(*range(SLOW_TRIES + 100))
    report = world.sweep().run()
    assert report.failed_delete_count == 10
    world.store.plan = no_faults
    world.clock.ms += RETRY_MS
    assert world.sweep().run().failed_delete_count == 0
    assert world.catalog.totals().failing_tombstones == 0


def test_single_keys_that_say_slow_down_are_asked_again_the_others_are_done(world: World) -> None:
    with_due(world, 10)
    said: set[str] = set()

    def plan(op: str, key: str, nth: int) -> Fault | None:
        if op != "delete_key" or key in said or len(said) == 3:
            return None
        said.add(key)
        return Fault(FaultKind.BEFORE, code="SlowDown")

    world.store.plan = plan
    report = world.sweep().run()
    assert (report.failed_delete_count, report.slow_downs, len(said)) == (0, 1, 3)


def test_a_store_that_is_down_is_not_asked_for_ever(world: World) -> None:
    with_due(world, 10 * DELETE_BATCH_KEYS)
    world.store.plan = fault_on_calls(*range(100), kind=FaultKind.BEFORE)
    report = world.sweep().run()
    assert report.delete_calls == MAX_FAILED_CALLS
    assert "store_unavailable" in report.delete_failure
    assert report.failed_delete_count == MAX_FAILED_CALLS * DELETE_BATCH_KEYS
    assert world.catalog.last_sweep() == report.as_dict()


def test_failures_with_successes_between_do_not_end_a_pass(world: World) -> None:
    with_due(world, 8 * DELETE_BATCH_KEYS)
    world.store.plan = fault_on_calls(0, 1, 3, 4, 6, kind=FaultKind.BEFORE)
    report = world.sweep().run()
    assert (report.delete_calls, report.delete_failure) == (8, "")


def test_an_operators_limit_holds_and_the_lease_is_kept(world: World) -> None:
    with_due(world, 50)
    report = world.sweep(max_deletes_per_s=5.0, lease_ms=2000).run()
    assert report.delete_calls == 10
    assert world.clock.ms - EXPIRED_MS == 10_000


def test_the_second_deletion_of_a_reclaimed_key_is_not_lost_at_any_pace(world: World) -> None:
    with_due(world, 20)
    world.sweep(max_deletes_per_s=3.0).run()
    assert len(world.states()) == 20
    world.clock.ms += DELAY_MS
    world.sweep(max_deletes_per_s=3.0).run()
    assert world.states() == {}
