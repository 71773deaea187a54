"""Every fault at every call that a sweep makes of its store: enumerated, not sampled. The passes after it end in the
same state as if nothing had happened (invariants 3, 6 and 7)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from retention.sweep.rewriting import SET_ASIDE_MS
from storage.errors import CorruptError, WorldError
from storage.faults import Fault, FaultKind, no_faults
from tests.retention.killed_sweeps import FIRST_MS, prepare
from tests.retention.sweeping import end_state
from tests.retention.world import DELAY_MS, RETRY_MS, TTL_MS, World, fast_folder
from tests.servers.catalogs import copy_catalog

CALLS = ("server_time_s", "get_range", "put", "delete_many", "delete_key")
KINDS = (
    FaultKind.BEFORE,  # a 500, after the bounded retries
    FaultKind.SLOW_DOWN,  # a 503
    FaultKind.AFTER,  # a time-out after the effect
    FaultKind.DENIED,
    FaultKind.FULL,
    FaultKind.MISSING,
    FaultKind.SHORT,
    FaultKind.FLIP,
)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A folder with work for every phase."""
    with fast_folder() as folder:
        prepare(folder / "template")
        yield folder / "template"


def copied(template: Path) -> World:
    folder = template.with_name("work")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)
    copy_catalog(template, folder)
    return World(folder, clock_ms=FIRST_MS, local=True)


def healed(world: World) -> dict[str, Any]:
    """What is left after the passes that follow."""
    world.store.plan = no_faults
    for later_ms in (RETRY_MS, SET_ASIDE_MS, *[max(DELAY_MS, 2 * TTL_MS) + 1] * 3):
        world.clock.ms += later_ms
        world.sweep().run()
    world.sound()
    assert set(world.states().values()) == {"COMMITTED"}
    assert world.objects() == set(world.states())
    assert world.catalog.erasing_devices() == world.catalog.unfinished_deletions() == []
    return end_state(world)


@pytest.mark.parametrize("op", CALLS)
def test_a_fault_at_any_call_ends_the_same(template: Path, op: str) -> None:
    with copied(template) as world:
        world.sweep().run()
        asked = world.store.asked[op]
        expected = healed(world)
    assert asked, "the pass makes such calls"
    for kind in KINDS:
        for nth in range(asked):
            with copied(template) as world:
                seen = iter(range(10**9))
                world.store.plan = lambda called, key, number: (
                    Fault(kind) if called == op and next(seen) == nth else None  # noqa: B023
                )
                with suppress(WorldError, CorruptError):
                    world.sweep().run()
                assert next(seen) > nth, (kind, nth)
                assert healed(world) == expected, (kind, nth)


@pytest.mark.parametrize("op", CALLS)
def test_a_call_that_fails_for_hours_ends_the_same(template: Path, op: str) -> None:
    """A store that is half broken: everything else goes on as it can."""
    with copied(template) as world:
        world.sweep().run()
        expected = healed(world)
    for kind in KINDS:
        with copied(template) as world:
            world.store.plan = lambda called, key, number: Fault(kind) if called == op else None  # noqa: B023
            for _ in range(3):
                with suppress(WorldError, CorruptError):
                    world.sweep().run()
                world.clock.ms += DELAY_MS
            assert healed(world) == expected, kind
