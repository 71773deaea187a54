"""A sweep beside another one, and killed at every step."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retention.sweep import Sweep, SweepRefused
from storage.errors import CatalogUnavailable, LeaseLost
from storage.faults import FaultKind
from tests.retention.killed_sweeps import END_MS, KEYS_LEFT, SECOND_MS, prepare
from tests.retention.sweeping import (
    DAY_MS,
    EXPIRED_MS,
    ROOT,
    Replaced,
    at,
    busy_world,
    end_state,
    fault_at,
    keep_today,
    swept,
    with_tombstones,
)
from tests.retention.world import (
    DELAY_MS,
    LEASE_MS,
    LIMITS,
    NOON,
    TTL_MS,
    World,
    fast_folder,
)
from tests.servers.catalogs import drop_catalog, impatient_catalog_of


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


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
