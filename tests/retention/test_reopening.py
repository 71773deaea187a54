"""The way back after a sweep by a clock that was ahead: new uploads are stored, nothing old comes back (2, 9, 10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retention.destruction import replay_destructions
from retention.reopening import adopt_key_months, closed, reopen
from retention.sweep import Lease, SweepRefused
from storage.days import MS_PER_DAY, day_of_ms, month_of_day
from storage.errors import CallerError, KeyDestroyed
from storage.keys import KeyId, KeyStore
from storage.rows.devices import EraseState
from tests.retention.world import (
    DELAY_MS,
    GRACE_DAYS,
    HOUR,
    LEASE_MS,
    NOON,
    TODAY,
    WEEK,
    World,
    fast_folder,
    monthly,
)

AHEAD_DAYS = 40
AHEAD_MS = AHEAD_DAYS * MS_PER_DAY


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder / "data"


def wrongly_swept(folder: Path, *, ends_on: int | None = None) -> int:
    """A device with a recording, and a sweep forty days ahead that somebody insisted on. The clock is right again."""
    folder.mkdir()
    with World(folder, local=True) as world:
        device = world.add(monthly(TODAY - 100, ends_on))
        world.keep([(device, NOON)])
        world.clock.jump(AHEAD_MS)
        world.sweep().run(accept_clock=True)
        assert world.catalog.closed_through == world.bitmap.closed_through == TODAY + AHEAD_DAYS
    return device


def reopened(folder: Path) -> int:
    """As `catalog reopen` does, then a new process opens the folder."""
    with World(folder, local=True) as world:
        return world.reopen()


def test_uploads_are_stored_and_served_again(folder: Path) -> None:
    device = wrongly_swept(folder)
    with World(folder, local=True) as world, pytest.raises(KeyDestroyed):
        world.put([(device, NOON + 1)])
    assert reopened(folder) == 0
    with World(folder, local=True) as world:
        assert world.entitlements.today() == TODAY
        world.keep([(device, NOON + 2000)])
        assert world.serves(device, NOON, NOON + 2000) == [False, True]
        world.sound()


def test_what_was_swept_never_comes_back(folder: Path) -> None:
    """Its rows are gone, its keys stay destroyed, and its objects go (invariants 2, 10)."""
    device = wrongly_swept(folder)
    reopened(folder)
    with World(folder, local=True, clock_ms=NOON) as world:
        attacker = world.keep([(device, NOON + 2000)])
        assert world.serves(device, NOON) == [False]
        assert world.catalog.rebuild_chunks([]) == 0
        old = KeyStore.open(folder / "keys")
        with old, pytest.raises(KeyDestroyed):
            old.ensure([KeyId(device, 0, month_of_day(TODAY + WEEK + 1))])
        assert list(dict(world.vault.every_key())) == [KeyId(device, 0, 202507)]
        world.clock.ms = NOON + AHEAD_MS + DELAY_MS
        world.sweep().run()
        world.clock.ms += DELAY_MS
        world.sweep().run()
        assert attacker not in world.objects()
        assert world.objects() == set()


def test_the_keys_of_what_came_after_go_with_their_month(folder: Path) -> None:
    device = wrongly_swept(folder)
    reopened(folder)
    with World(folder, local=True) as world:
        world.keep([(device, NOON + 2000)])
        world.clock.ms += 15 * MS_PER_DAY
        assert world.sweep().run().destroyed_keys == 0
        assert world.attacked() == {(device, NOON + 2000)}
        world.clock.ms += 45 * MS_PER_DAY
        assert world.sweep().run().destroyed_keys == 1
        assert world.attacked() == set()


def test_a_key_store_from_before_the_wrong_sweep_is_told_again(folder: Path) -> None:
    """Months destroyed by it stay destroyed, though their days are open again (invariants 9, 10)."""
    folder.mkdir()
    with World(folder, local=True) as world:
        device = world.add(monthly(TODAY - 100))
        world.keep([(device, NOON)])
        world.vault.backup(folder / "backup")
        world.clock.jump(AHEAD_MS)
        world.sweep().run(accept_clock=True)
        world.clock.jump(-AHEAD_MS)
        world.reopen()
    with World(folder, local=True) as world:
        world.keep([(device, NOON + 2000)])
    (folder / "keys").rename(folder / "lost")
    (folder / "backup").rename(folder / "keys")
    with World(folder, local=True) as world:
        assert world.vault.count() == 1
        replay_destructions(world.catalog, world.vault, now_ms=NOON)
        world.sweep().run(accept_clock=True)
        assert world.vault.count() == 0
        world.keep([(device, NOON + 4000)])
        assert world.serves(device, NOON + 4000) == [True]


def test_a_device_that_seemed_to_have_lapsed_records_again_and_lapses_again(folder: Path) -> None:
    last = TODAY + 20
    device = wrongly_swept(folder, ends_on=last)
    assert reopened(folder) == 1
    with World(folder, local=True) as world:
        facts = world.catalog.device(device)
        assert (facts.erase_state, facts.erase_epoch) == (EraseState.NONE, 1)
        world.keep([(device, NOON + 2000)], expires_on=TODAY + 200)
        assert world.serves(device, NOON + 2000) == [True]
        world.clock.ms = (last + GRACE_DAYS + 1) * MS_PER_DAY
        report = world.sweep().run()
        assert [erased["why"] for erased in report.erased_devices] == ["lapsed"]
        assert world.attacked() == set()


def test_a_run_that_was_killed_is_run_again(folder: Path) -> None:
    wrongly_swept(folder)
    with World(folder, local=True) as world:
        world.catalog.raise_first_key_month(202508)
        fence = world.catalog.acquire_lease("sweep", holder="x", ttl_ms=1, now_ms=NOON)
        assert fence is not None
        world.catalog.reopen_days(TODAY, fence=fence, delete_after_ms=NOON)
        world.catalog.release_lease("sweep", fence=fence)
    reopened(folder)
    with World(folder, local=True) as world:
        assert world.catalog.closed_through == world.bitmap.closed_through == TODAY


@pytest.mark.parametrize(
    ("through", "code"), [(TODAY - 1, "day_is_over"), (TODAY + AHEAD_DAYS, "not_closed")]
)
def test_days_that_are_over_stay_closed(folder: Path, through: int, code: str) -> None:
    wrongly_swept(folder)
    with World(folder, local=True) as world:
        before = world.state()
        lease = Lease(world.catalog, world.clock, ttl_ms=LEASE_MS)
        with pytest.raises(CallerError) as caught:
            reopen(
                world.catalog,
                world.vault,
                world.bitmap,
                world.clock,
                lease,
                through=through,
                delete_delay_ms=DELAY_MS,
            )
        assert caught.value.code == code
        assert world.state() == before


def test_a_sweep_at_work_is_not_interfered_with(folder: Path) -> None:
    wrongly_swept(folder)
    with World(folder, local=True) as world:
        world.catalog.acquire_lease("sweep", holder="other", ttl_ms=HOUR, now_ms=world.clock.ms)
        with pytest.raises(SweepRefused) as caught:
            world.reopen()
        assert caught.value.code == "busy"


def test_an_older_catalog_learns_which_months_have_no_keys_any_more(folder: Path) -> None:
    """Else every upload that expires in them would be refused, for ever."""
    device = wrongly_swept(folder)
    with World(folder, local=True) as world:
        assert closed(world.catalog, world.vault, world.bitmap, world.clock).last_month_destroyed
        adopt_key_months(world.catalog, world.vault)
        assert world.catalog.first_key_month == 0, "its days are closed: nothing to learn"
        month = world.vault.last_month_destroyed()
        fence = world.catalog.acquire_lease("sweep", holder="x", ttl_ms=1, now_ms=NOON)
        assert fence is not None
        world.catalog.reopen_days(
            TODAY, fence=fence, delete_after_ms=NOON
        )  # as a catalog of before the sweep is
        adopt_key_months(world.catalog, world.vault)
        assert world.catalog.first_key_month == month + 1
    with World(folder, local=True) as world:
        assert month_of_day(day_of_ms(NOON) + WEEK + 1) <= month
        world.put([(device, NOON + 1)])
