"""A catalog that was restored, with all of its host or without, deletes nothing (invariant 3)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retention import numbers
from retention.bitmap import EntitlementBitmap
from retention.sweep import SweepRefused, highwater
from retention.sweep.highwater import HighWater, read_mark
from storage.checksums import crc32
from storage.errors import CorruptError, StoreUnavailable
from storage.faults import Fault, FaultKind
from tests.retention.world import DELAY_MS, NOON, SLACK_MS, TODAY, TTL_MS, WEEK, World, fast_folder, monthly
from tests.servers.catalogs import copy_catalog

EXPIRED_MS = (TODAY + WEEK + 1) * 86_400_000 + SLACK_MS
LATER_MS = NOON + 60 * 86_400_000


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "now"


def begun(folder: Path) -> int:
    """A host with one device whose plan ends soon, and a segment that is stored and not committed yet."""
    folder.mkdir()
    with World(folder, local=True) as world:
        device = world.add(monthly(TODAY - 100, TODAY + 1, days=200))
        world.keep([(device, NOON)], expires_on=TODAY + 201)
        world.sweep().run()
    return device


def goes_on(folder: Path, device: int) -> None:
    """After the backup: the plan is renewed, more is recorded, a sweep runs."""
    with World(folder, local=True) as world:
        world.renew(device, monthly(TODAY, None, days=200))
        world.keep([(device, NOON + 4000)], expires_on=TODAY + 201)
        world.sweep().run()


def roll_back(folder: Path, *, with_bitmap: bool) -> Path:
    """The host as it was, and the objects as they are."""
    old = folder.with_name("then")
    objects = old / "objects"
    shutil.rmtree(objects)
    shutil.copytree(folder / "objects", objects)
    if not with_bitmap:
        (old / "entitlements.bitmap").unlink()
    return old


@pytest.mark.parametrize("with_bitmap", [True, False])
def test_a_host_that_was_rolled_back_deletes_nothing(folder: Path, with_bitmap: bool) -> None:
    """The disk went back with all that is on it, or is a new one: only the store remembers. The device was renewed
    since, and its recordings must not be taken for lapsed."""
    device = begun(folder)
    with World(folder, local=True) as world:
        late, prepared = world.put([(device, NOON + 2000)], expires_on=TODAY + 201)
    shutil.copytree(folder, folder.with_name("then"))
    copy_catalog(folder, folder.with_name("then"))
    with World(folder, local=True) as world:
        world.catalog.commit([late], now_ms=NOON)
    goes_on(folder, device)
    old = roll_back(folder, with_bitmap=with_bitmap)
    if not with_bitmap:
        EntitlementBitmap.create(old / "entitlements.bitmap", 100)
    with World(old, clock_ms=LATER_MS, local=True) as world:
        if not with_bitmap:
            world.entitlements.recover()
        before = world.state()
        for act in (world.sweep().run, world.sweep().plan):
            with pytest.raises(SweepRefused) as caught:
                act()
            assert caught.value.code == "catalog_restored"
        assert world.state() == before
        assert prepared.key in world.objects()
        assert world.vault.count() == 1

        assert [facts.device for facts in world.sweep().plan(accept_catalog=True).erase] == [device]
        assert world.state() == before
        world.sweep().run(accept_catalog=True)
        world.sweep().run()
        assert world.vault.count() == 0


@pytest.mark.parametrize("found_by", ["sweep", "start"])
def test_a_restored_catalog_that_has_gone_on_deletes_nothing_either(folder: Path, found_by: str) -> None:
    """It grew past the mark in a day of recording, or an hour, and the next sweep took it for the newest."""
    device = begun(folder)
    shutil.copytree(folder, folder.with_name("then"))
    copy_catalog(folder, folder.with_name("then"))
    goes_on(folder, device)
    old = roll_back(folder, with_bitmap=False)
    EntitlementBitmap.create(old / "entitlements.bitmap", 100)
    with World(old, local=True) as world:
        if found_by == "start":
            numbers.settle(
                world.catalog, world.bitmap, world.store, lock=old / "numbers.lock", ask_store=True
            )
        world.entitlements.recover()
        if found_by == "sweep":
            with pytest.raises(SweepRefused):
                world.sweep().run()
        other = world.add(monthly(TODAY, None))
        for second in range(20):
            world.keep([(other, NOON + 1000 * second)])
            world.renew(other, monthly(TODAY, None))
        mark = read_mark(world.store)
        assert HighWater.of(world.catalog).raised_to(mark) == HighWater.of(world.catalog), (
            "it has gone past it"
        )
        world.clock.ms = LATER_MS
        for act in (world.sweep().run, world.sweep().plan):
            with pytest.raises(SweepRefused) as caught:
                act()
            assert caught.value.code == "catalog_restored"
        assert world.vault.count() == 2
        assert [facts.device for facts in world.sweep().plan(accept_catalog=True).erase] == [device]
        world.sweep().run(accept_catalog=True)
        assert world.sweep().run(), "and from then on as before"


def test_the_store_of_another_catalog(folder: Path) -> None:
    device = begun(folder)
    goes_on(folder, device)
    with World(folder, local=True) as full, fast_folder() as other, World(other) as new:
        new.clock.ms = LATER_MS
        with pytest.raises(SweepRefused) as caught:
            new.sweep(store=full.store).run()
        assert caught.value.code == "catalog_restored"


def test_the_mark_goes_on_with_the_catalog_and_costs_a_put_only_then(folder: Path) -> None:
    folder.mkdir()
    with World(folder) as world:
        assert read_mark(world.store) == HighWater()
        device = world.add()
        world.keep([(device, NOON)])
        for turn in range(3):
            world.store.asked.clear()
            world.sweep().run()
            assert read_mark(world.store.inner) == HighWater.of(world.catalog)
            assert world.store.asked["put"] == (turn == 0)
        world.terminate(device, erase=True)
        world.sweep().run()  # erases, which are changes of their own
        assert read_mark(world.store.inner) == HighWater.of(world.catalog)


@pytest.mark.parametrize("kind", [FaultKind.BEFORE, FaultKind.AFTER, FaultKind.FULL, FaultKind.DENIED])
def test_a_store_that_does_not_take_the_mark_is_swept_all_the_same(folder: Path, kind: FaultKind) -> None:
    """A full one above all."""
    folder.mkdir()
    with World(folder) as world:
        world.keep([(world.add(), NOON)])
        world.store.plan = lambda op, key, nth: Fault(kind) if op == "put" else None
        for ms in (EXPIRED_MS, EXPIRED_MS + DELAY_MS, EXPIRED_MS + DELAY_MS + TTL_MS):
            world.clock.ms = ms
            world.sweep().run()
        assert world.objects() == set()


def test_a_mark_that_cannot_be_read_stops_the_pass(folder: Path) -> None:
    folder.mkdir()
    with World(folder) as world:
        world.keep([(world.add(), NOON)])
        world.sweep().run()
        world.clock.ms = EXPIRED_MS
        before = world.state()
        world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE) if op == "get_range" else None
        with pytest.raises(StoreUnavailable):
            world.sweep().run()
        assert world.state() == before


@pytest.mark.parametrize("body", [b"", b"clipkeep", b"clipkeep: segment -000000000000000001, change 0\n" * 2])
def test_a_damaged_mark_is_not_taken_for_none(folder: Path, body: bytes) -> None:
    folder.mkdir()
    with World(folder) as world:
        world.store.inner.put(highwater.KEY, bytearray(body), crc32(body))
        with pytest.raises(CorruptError) as caught:
            world.sweep().run()
        assert caught.value.code == "mark_corrupt"
        assert "--accept-catalog" in caught.value.detail
        world.sweep().run(accept_catalog=True)
        world.sweep().run()
