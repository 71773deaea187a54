"""A home uses its own store alone: another bucket, a share that is not mounted and another home's are refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from retention.home_store import KEY, accept, read_home, require_own
from storage.checksums import crc32
from storage.errors import CallerError, CorruptError, StoreUnavailable
from storage.faults import Fault, FaultKind
from tests.retention.test_numbers import settled
from tests.retention.world import World, fast_folder


@pytest.fixture
def world() -> Iterator[World]:
    with fast_folder() as folder:
        (folder / "data").mkdir()
        with World(folder / "data", local=True) as world:
            world.catalog.settle_home(1 << 62)
            yield world


def test_the_first_start_takes_the_store_and_the_next_ones_know_it(world: World) -> None:
    assert read_home(world.store) is None
    require_own(world.catalog, world.store, "file:///here")
    assert read_home(world.store) == world.catalog.home == 1 << 62
    settled(world)
    require_own(world.catalog, world.store, "file:///here")


def test_a_store_that_was_used_before_there_was_a_mark_is_taken(world: World) -> None:
    settled(world)
    require_own(world.catalog, world.store, "file:///here")
    assert read_home(world.store) == world.catalog.home


def test_an_empty_store_is_not_that_of_a_home_which_has_used_one(world: World) -> None:
    settled(world)
    require_own(world.catalog, world.store, "file:///here")
    world.store.delete_many([KEY, "sweep/numbers"])
    with pytest.raises(CallerError, match="CLIPKEEP_S3_ENDPOINT") as refused:
        require_own(world.catalog, world.store, "file:///here")
    assert refused.value.code == "another_store"
    assert read_home(world.store) is None, "nothing was written"
    accept(world.catalog, world.store)
    require_own(world.catalog, world.store, "file:///here")


def test_another_homes_store_is_refused(world: World) -> None:
    body = bytearray(b"clipkeep-home: 00000000000000000007\n")
    world.store.put(KEY, body, crc32(body))
    with pytest.raises(CallerError, match="another home") as refused:
        require_own(world.catalog, world.store, "file:///here")
    assert refused.value.code == "another_store"
    assert read_home(world.store) == 7


@pytest.mark.parametrize(
    "text", [b"", b"clipkeep-home: 7\n", b"\xff" * 36, b"clipkeep-home: 0000000000000000007x\n"]
)
def test_what_no_home_wrote_is_told(world: World, text: bytes) -> None:
    body = bytearray(text)
    world.store.put(KEY, body, crc32(body))
    with pytest.raises(CorruptError) as refused:
        require_own(world.catalog, world.store, "file:///here")
    assert refused.value.code == "store_home_corrupt"


def test_a_store_that_does_not_answer_is_no_other_one(world: World) -> None:
    world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE)  # type: ignore[attr-defined]
    with pytest.raises(StoreUnavailable):
        require_own(world.catalog, world.store, "file:///here")
