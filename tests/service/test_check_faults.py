"""`check` and `check --repair` on a store that fails: every fault at every listing and every look at one object. An
answer that is missing is an error, never a finding, and marks nothing (invariant 3)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from retention.sweep.highwater import HighWater, write_mark
from service.checks import check_folder
from service.config import DAY_S
from service.folder import open_folder
from service.repair import repair_orphans
from storage.errors import CorruptError, StoreDenied, StoreUnavailable
from storage.faults import Fault, FaultKind, FaultyStore
from storage.rows.recordings import SegmentState
from tests.retention.world import fast_folder
from tests.service.test_repair import Folder, quiet

KINDS = (FaultKind.BEFORE, FaultKind.AFTER, FaultKind.SLOW_DOWN, FaultKind.DENIED)


@pytest.fixture
def folder() -> Iterator[Folder]:
    """One live segment and three orphans, in a store that was swept before."""
    with fast_folder() as root:
        folder = Folder(root / "data")
        folder.orphans(3)
        with open_folder(folder.root, environ={}) as opened:
            write_mark(opened.store, HighWater.of(opened.catalog))
        yield folder


@pytest.mark.parametrize("op", ["list", "head"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_a_check_is_an_error(folder: Folder, op: str, kind: FaultKind) -> None:
    nth = 0
    while True:
        with open_folder(folder.root, environ={}) as opened:
            store = FaultyStore(
                opened.store,
                lambda called, key, number: Fault(kind) if (called, number) == (op, nth) else None,  # noqa: B023
                sleep=time.sleep,
            )
            failing = replace(opened, store=store)
            if nth == {"list": 1, "head": 6}[op]:
                result = check_folder(failing, deep=False, progress=quiet)
                assert store.asked[op] == nth
                assert (result.orphan_count, result.broken_count) == (3, 3)
                return
            with pytest.raises((StoreUnavailable, StoreDenied)):
                check_folder(failing, deep=False, progress=quiet)
        nth += 1


def test_a_listing_that_forgets_objects_finds_nothing_missing(folder: Folder) -> None:
    """Each object that a listing left out is asked for by itself."""
    with open_folder(folder.root, environ={}) as opened:
        store = FaultyStore(opened.store, sleep=time.sleep)
        store.list = lambda prefix: iter(())  # type: ignore[method-assign]
        result = check_folder(replace(opened, store=store), deep=False, progress=quiet)
    assert (result.broken, store.asked["head"]) == ([], 1)


@pytest.mark.parametrize("op", ["server_time_s", "get_range", "head"])
@pytest.mark.parametrize("kind", [*KINDS, FaultKind.SHORT])
def test_a_fault_of_a_repair_marks_nothing(folder: Folder, op: str, kind: FaultKind) -> None:
    """Each orphan is looked into before the first is marked."""
    with open_folder(folder.root, environ={}) as opened:
        orphans = check_folder(opened, deep=False, progress=quiet).orphans
        for nth in range(100):
            store = FaultyStore(
                opened.store,
                lambda called, key, number: Fault(kind) if (called, number) == (op, nth) else None,  # noqa: B023
                sleep=time.sleep,
            )
            try:
                done = repair_orphans(
                    replace(opened, store=store),
                    orphans,
                    older_than_s=DAY_S,
                    allow_bulk=False,
                    progress=quiet,
                )
            except (StoreUnavailable, StoreDenied, CorruptError):
                assert all(row.state is not SegmentState.DELETING for row in opened.catalog.segments())
                continue
            assert nth >= store.asked[op] >= 1
            assert len(done) == 3
            return
    raise AssertionError("the repair never came through")


def test_a_read_that_flipped_on_its_way_is_no_damage(folder: Folder) -> None:
    """Each object is read once more before it is called corrupt."""
    with open_folder(folder.root, environ={}) as opened:
        store = FaultyStore(
            opened.store,
            lambda op, key, nth: Fault(FaultKind.FLIP) if (op, nth) == ("get_range", 0) else None,
            sleep=time.sleep,
        )
        unharmed = FaultyStore(opened.store, sleep=time.sleep)
        check_folder(replace(opened, store=unharmed), deep=True, progress=quiet)
        result = check_folder(replace(opened, store=store), deep=True, progress=quiet)
        assert (result.broken_count, result.orphan_count) == (3, 3)
        assert store.asked["get_range"] == unharmed.asked["get_range"] + 1
