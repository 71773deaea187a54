"""A restored catalog gives no number and no token that may be out, and says that it was restored."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from retention.bitmap import EntitlementBitmap
from retention.numbers import BLOCKS, KEY, read_ceilings, settle
from storage.checksums import crc32
from storage.contracts.blocks import writing_books
from storage.errors import CorruptError, StoreUnavailable, WorldError
from storage.faults import Fault, FaultKind
from storage.rows.accounts import AccountRow, SessionRow
from tests.retention.world import NOON, ROWS, World, fast_folder
from tests.servers.catalogs import copy_catalog


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        (folder / "data").mkdir()
        yield folder / "data"


def settled(world: World, **more: int) -> bool:
    return settle(
        world.catalog,
        world.bitmap,
        world.store,
        lock=world.folder / "numbers.lock",
        ask_store=True,
        more=more,
    )


def voided(world: World, device: int) -> int:
    """The generation after `device new-token`."""
    changed = world.change(device, lambda f: replace(f, token_generation=f.token_generation + 1))
    return changed.token_generation


def account(world: World, name: str) -> int:
    with writing_books(world.catalog, now_ms=NOON) as books:
        return books.add_account(AccountRow(0, "owner", name, NOON)).account


def begun(folder: Path) -> None:
    """A device; then the catalog is backed up."""
    with World(folder, local=True) as world:
        assert not settled(world)
        world.add()
        with writing_books(world.catalog, now_ms=NOON) as books:
            books.add_session(SessionRow(bytes(32), 1, NOON, 2 * NOON))
    (folder / "then").mkdir()
    copy_catalog(folder, folder / "then")


def restored(folder: Path) -> None:
    """The backup takes the place of the catalog, on a host that remembers nothing."""
    copy_catalog(folder / "then", folder)
    (folder / "entitlements.bitmap").unlink()
    EntitlementBitmap.create(folder / "entitlements.bitmap", ROWS * 100)


def test_the_first_change_of_all_is_no_restored_catalog(folder: Path) -> None:
    """The catalog has it a moment before the bitmap; who looks in between waits."""
    with World(folder, local=True) as world, ThreadPoolExecutor(1) as pool:
        assert not settled(world)
        with world.bitmap.locked():
            [facts] = world.catalog.add_devices(1, account=1, plans=[], now_ms=NOON)
            looking = pool.submit(settled, world)
            with pytest.raises(TimeoutError):
                looking.result(0.2)
            world.bitmap.set_last_change(facts.device)
        assert not looking.result()


def test_a_new_device_never_gets_a_lost_ones_number_or_token(folder: Path) -> None:
    begun(folder)
    with World(folder, local=True) as world:
        lost, lost_account = world.add(), account(world, "lost")
        lost_generations = {voided(world, 1), voided(world, 1)}
    restored(folder)
    with World(folder, local=True) as world:
        assert settled(world)
        world.entitlements.recover()
        assert world.add() > lost == 2
        assert account(world, "new") > lost_account
        assert voided(world, 1) > max(lost_generations) == 3
        assert voided(world, world.add()) > 3
        with world.catalog.books() as books:
            assert books.session(bytes(32)) is None, "it may have been ended since"
        assert not settled(world), "once is enough"


def test_in_ordinary_life_numbers_go_on_without_a_gap(folder: Path) -> None:
    begun(folder)
    for number in (2, 3):
        with World(folder, local=True) as world:
            assert not settled(world)
            assert world.add() == number


def test_a_host_that_was_rolled_back_with_all_that_is_on_it_learns_from_the_store(folder: Path) -> None:
    begun(folder)
    with World(folder, local=True) as world:
        world.add()
        world.sweep().run()
    copy_catalog(folder / "then", folder)
    with World(folder, local=True) as world:
        assert settled(world)


def test_no_number_is_given_that_the_store_was_not_told_of(folder: Path) -> None:
    with World(folder, local=True) as world:
        settled(world)
        top = world.catalog.ceilings()
        assert top == read_ceilings(world.store)
        assert top["device"] == BLOCKS["device"]
        with pytest.raises(WorldError) as caught:
            world.catalog.add_devices(top["device"] + 1, account=1, plans=(), now_ms=NOON)
        assert caught.value.code == "numbers_used_up"
        settled(world, device=top["device"] + 1)
        assert len(world.catalog.add_devices(top["device"] + 1, account=1, plans=(), now_ms=NOON)) > 1000


def test_a_store_that_is_away_reserves_nothing(folder: Path) -> None:
    with World(folder, local=True) as world:
        world.store.plan = lambda op, key, nth: Fault(FaultKind.BEFORE) if op == "put" else None
        with pytest.raises(StoreUnavailable):
            settled(world)
        assert world.catalog.ceilings() == {}


def test_what_somebody_else_wrote_there_is_not_believed(folder: Path) -> None:
    with World(folder, local=True) as world:
        body = bytearray(b"something".ljust(512))
        world.store.put(KEY, body, crc32(body))
        with pytest.raises(CorruptError):
            settled(world)


def without_a_bitmap(folder: Path) -> None:
    (folder / "entitlements.bitmap").unlink()
    EntitlementBitmap.create(folder / "entitlements.bitmap", ROWS)


@pytest.mark.parametrize("applied", ["all", "more than there is", "nothing yet"])
def test_a_new_host_beside_one_that_serves_is_no_restored_catalog(folder: Path, applied: str) -> None:
    """It would log everybody out each time a host joins, or begins with an empty disk."""
    begun(folder)
    without_a_bitmap(folder)
    with World(folder, local=True) as world:
        newest = world.catalog.newest_change()
        seen = {"all": newest, "more than there is": newest + 1, "nothing yet": 0}[applied]
        world.catalog.register_host("other", name="other", release="1", max_stale_ms=5000)
        world.catalog.beat("other", applied=seen, load_pct=0, lag_ms=0, clock_ms=0)
        assert settled(world) is (applied != "all")


def test_hosts_reserve_one_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the store keeps the lower ceilings of two that read it at the same moment."""
    monkeypatch.setattr("retention.numbers.LOCK_WAIT_S", 0.2)
    with World(folder, local=True) as world:
        _, now_ms = world.catalog.hosts()
        fence = world.catalog.acquire_lease("numbers", holder="other", ttl_ms=60_000, now_ms=now_ms)
        assert fence is not None
        with pytest.raises(WorldError) as caught:
            settled(world)
        assert caught.value.code == "numbers_busy"
        assert world.catalog.ceilings() == {}
        world.catalog.release_lease("numbers", fence=fence)
        settled(world)
        assert world.catalog.ceilings() == read_ceilings(world.store)
