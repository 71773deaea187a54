"""What keeps a sweep from deleting: wrong clocks, restored catalogs, a store that is away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from retention.sweep import SweepRefused
from storage.errors import CatalogUnavailable, StoreUnavailable
from storage.faults import FaultKind, no_faults
from storage.memory import MemoryStore
from storage.rows.recordings import Verdict
from tests.retention.sweeping import (
    DAY_MS,
    ENDS,
    EXPIRED_MS,
    Failing,
    at,
    fault_at,
    keep_today,
    swept,
)
from tests.retention.world import (
    NOON,
    SKEW_MS,
    TTL_MS,
    World,
    fast_folder,
)


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder, World(folder) as world:
        yield world


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
