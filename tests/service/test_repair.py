"""`check --repair`: orphans are marked, never what may be somebody's recordings; killed anywhere, it is run again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from retention.sweep import SweepRefused
from service import repair
from service.checks import CheckResult, check_folder
from service.commands.sweeping import check
from service.config import DAY_S
from service.folder import create_folder, open_folder
from service.repair import repair_orphans
from storage.errors import LeaseLost
from storage.rows.recordings import SegmentState
from tests.killing import Counting
from tests.retention.world import DELAY_MS, NOON, World, fast_folder
from tests.servers.catalogs import copy_catalog, empty_address, home_settings
from tests.servers.raw_catalogs import forget_segment_ids, run_raw


def quiet(phase: str, done: int, of: int) -> None:
    pass


class Folder:
    """A data folder with one live segment and some orphans: segments whose rows are gone."""

    def __init__(self, root: Path) -> None:
        create_folder(root, store_url=None, test_clock=False, environ={}, catalog_address=empty_address(root))
        self.root = root
        with World(root, local=True) as world:
            self.device = world.add()
            self.live = world.keep([(self.device, NOON)])

    def orphans(self, count: int = 1, *, age_s: float = 2 * DAY_S) -> list[str]:
        """Objects of this catalog that it has forgotten."""
        keys = []
        with World(self.root, local=True) as world:
            for number in range(count):
                _, prepared = world.put([(self.device, NOON + 1 + number)])
                world.catalog.release([prepared.segment_id])
                keys.append(prepared.key)
        for key in keys:
            self.age(key, age_s)
        return keys

    def age(self, key: str, age_s: float) -> None:
        path = self.root / "objects" / key
        then_s = path.stat().st_ctime - age_s
        os.utime(path, (then_s, then_s))

    def check(self) -> CheckResult:
        with open_folder(self.root, environ={}) as opened:
            return check_folder(opened, deep=False, progress=quiet)

    def repair(self, **changed: Any) -> set[str]:
        options: dict[str, Any] = {"older_than_s": DAY_S, "allow_bulk": False, "progress": quiet} | changed
        with open_folder(self.root, environ={}) as opened:
            found = check_folder(opened, deep=False, progress=quiet)
            return repair_orphans(opened, found.orphans, **options)

    def objects(self) -> set[str]:
        with World(self.root, local=True) as world:
            return world.objects()

    def sweep_later(self) -> None:
        """As cron does, once the delay is over by the host's clock."""
        with World(self.root, local=True) as world:
            newest = max(t for (t,) in self.sql("SELECT delete_after_ms FROM segments WHERE state = 2"))
            for ms in (newest + 1, newest + 1 + DELAY_MS):
                world.clock.ms = ms
                fence = world.catalog.acquire_lease("sweep", holder="t", ttl_ms=1, now_ms=ms)
                assert fence is not None
                due = world.catalog.due_tombstones(ms, after_id=0, limit=1000)
                world.store.delete_many([tombstone.key for tombstone in due])
                ids = [tombstone.segment_id for tombstone in due]
                world.catalog.deleted(ids, fence=fence, now_ms=ms, again_at_ms=ms)
                world.catalog.release_lease("sweep", fence=fence)

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        return run_raw(self.root, statement)


@pytest.fixture
def folder() -> Iterator[Folder]:
    with fast_folder() as root:
        yield Folder(root / "data")


def test_orphans_become_tombstones_and_sweeps_delete_them_after_the_delay(folder: Folder) -> None:
    """Invariants 4 and 6: nothing is deleted by the repair itself."""
    keys = set(folder.orphans(3))
    result = folder.check()
    assert (result.broken_count, result.orphan_count) == (3, 3)
    assert folder.repair() == keys
    assert folder.objects() == {folder.live, *keys}
    with World(folder.root, local=True) as world:
        assert {k for k, state in world.states().items() if state == "DELETING"} == keys
    assert folder.check().broken == []
    assert folder.repair() == set()
    folder.sweep_later()
    assert folder.objects() == {folder.live}
    assert folder.check().broken == []


@pytest.mark.parametrize(("age_s", "repaired"), [(DAY_S - 60, 0), (DAY_S + 60, 1)])
def test_young_ones_are_left_alone(folder: Folder, age_s: float, repaired: int) -> None:
    folder.orphans(age_s=age_s)
    assert len(folder.repair()) == repaired


@pytest.mark.parametrize(
    "name",
    [
        "v1/7/2025-06-23/w0/mine.txt",
        "v1/7/2025-13-40/w0/00000000000000000000000",
        "v1/0/2025-06-23/w0/00000000000000000000000",
        "v1/README",
        "v2/7/2025-06-23/w0/00000000000000000000000",
        "other/7/2025-06-23/w0/00000000000000000000000",
    ],
)
def test_keys_that_are_not_ours_are_never_touched(folder: Folder, name: str) -> None:
    path = folder.root / "objects" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"somebody's")
    folder.age(name, 10 * DAY_S)
    assert folder.repair() == set()
    assert path.exists()


def test_a_damaged_orphan_of_ours_goes_too(folder: Folder) -> None:
    [key] = folder.orphans()
    (folder.root / "objects" / key).write_bytes(b"cut")
    folder.age(key, 2 * DAY_S)
    assert folder.repair() == {key}


def test_more_than_the_bulk_limit_stop_and_ask(folder: Folder) -> None:
    """Invariant 14."""
    keys = folder.orphans(3)
    with (folder.root / "config.toml").open("w") as file:
        file.write(f"{home_settings(folder.root)}[retention]\nbulk_limit = 2\n")
    with pytest.raises(SweepRefused) as caught:
        folder.repair()
    assert caught.value.code == "bulk_limit"
    assert folder.check().orphan_count == 3
    assert folder.repair(allow_bulk=True) == set(keys)


def test_an_older_catalog_marks_nothing(folder: Folder) -> None:
    """Invariant 3: segments that it never made are somebody's recordings; not even --allow-bulk helps."""
    with World(folder.root, local=True) as world:
        later = world.keep([(folder.device, NOON + 5)])
    folder.sql("DELETE FROM segments WHERE segment_id = 2")
    forget_segment_ids(folder.root, 1)
    folder.age(later, 2 * DAY_S)
    with pytest.raises(SweepRefused) as caught:
        folder.repair(allow_bulk=True)
    assert caught.value.code == "catalog_restored"
    assert later in folder.objects()


def test_an_older_catalog_that_was_used_since_marks_nothing(folder: Folder) -> None:
    """It has given the numbers again, to other keys."""
    with World(folder.root, local=True) as world:
        later = world.keep([(folder.device, NOON + 5)])
    folder.sql("DELETE FROM segments WHERE segment_id = 2")
    forget_segment_ids(folder.root, 1)
    with World(folder.root, local=True) as world:
        world.keep([(folder.device, NOON + 50)])
    folder.age(later, 2 * DAY_S)
    with pytest.raises(SweepRefused) as caught:
        folder.repair(allow_bulk=True)
    assert caught.value.code == "catalog_restored"


def test_a_new_catalog_beside_a_full_store_marks_nothing(folder: Folder, tmp_path: Path) -> None:
    """Invariant 3: as after `init` in an empty folder that names the old store."""
    folder.age(folder.live, 2 * DAY_S)
    create_folder(
        tmp_path / "new",
        store_url=None,
        test_clock=False,
        environ={},
        catalog_address=empty_address(tmp_path / "new"),
    )
    store = (folder.root / "objects").absolute().as_uri()
    with open_folder(tmp_path / "new", store_url=store, environ={}) as opened:
        found = check_folder(opened, deep=False, progress=quiet)
        assert found.orphan_count == 1
        with pytest.raises(SweepRefused) as caught:
            repair_orphans(opened, found.orphans, older_than_s=DAY_S, allow_bulk=True, progress=quiet)
    assert caught.value.code == "catalog_restored"
    assert folder.objects() == {folder.live}


def test_a_key_that_the_catalog_knows_by_now_stays_what_it_is(folder: Folder) -> None:
    [key] = folder.orphans()
    with open_folder(folder.root, environ={}) as opened:
        found = check_folder(opened, deep=False, progress=quiet)
        folder.sql(
            "INSERT INTO segments (key, class_days, expires_on, state, prepared_ms)"
            f" VALUES ('{key}', 31, 20262, 0, {NOON})"
        )
        repair_orphans(opened, found.orphans, older_than_s=DAY_S, allow_bulk=False, progress=quiet)
        row = opened.catalog.segment_with_key(key)
    assert row is not None
    assert row.state is SegmentState.PREPARED


def test_beside_a_sweep_it_is_refused(folder: Folder) -> None:
    """Invariant 8."""
    folder.orphans()
    with open_folder(folder.root, environ={}) as opened:
        now_ms = opened.clock.now_ms()
        opened.catalog.acquire_lease("sweep", holder="other", ttl_ms=60_000, now_ms=now_ms)
        with pytest.raises(SweepRefused) as caught:
            folder.repair()
    assert caught.value.code == "busy"


def test_a_repair_that_lost_its_lease_marks_nothing_more(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.orphans(2)
    monkeypatch.setattr(repair, "DELETE_BATCH_KEYS", 1)
    with open_folder(folder.root, environ={}) as opened:
        found = check_folder(opened, deep=False, progress=quiet)
        real, adopted = opened.catalog.adopt_orphans, []

        def asleep(*args: Any, **named: Any) -> int:
            if adopted:
                opened.catalog.acquire_lease("sweep", holder="b", ttl_ms=1, now_ms=1 << 60)
            adopted.append(args)
            return real(*args, **named)

        monkeypatch.setattr(opened.catalog, "adopt_orphans", asleep)
        with pytest.raises(LeaseLost):
            repair_orphans(opened, found.orphans, older_than_s=DAY_S, allow_bulk=False, progress=quiet)
    assert folder.check().orphan_count == 1


def _repair_and_die(root: Path, after_calls: int) -> None:
    calls = 0

    def called(name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == after_calls:
            os.kill(os.getpid(), signal.SIGKILL)

    repair.DELETE_BATCH_KEYS = 1
    with open_folder(root, environ={}) as opened:
        found = check_folder(opened, deep=False, progress=quiet)
        object.__setattr__(opened, "catalog", Counting(opened.catalog, called))
        repair_orphans(opened, found.orphans, older_than_s=DAY_S, allow_bulk=False, progress=quiet)


def test_killed_at_any_step_a_second_repair_ends_the_same(folder: Folder) -> None:
    """A real process dies by SIGKILL after its n-th call to the catalog; n counts up until a repair completes."""
    context = multiprocessing.get_context("spawn")
    status, after_calls = -signal.SIGKILL, 0
    keys: set[str] = set()
    while status:
        after_calls += 1
        keys |= set(folder.orphans(2))
        child = context.Process(target=_repair_and_die, args=(folder.root, after_calls))
        child.start()
        child.join(30)
        status = child.exitcode or 0
        assert status in (0, -signal.SIGKILL)
        folder.sql("UPDATE leases SET expires_ms = 0")
        folder.repair()
        assert folder.check().broken == []
        with World(folder.root, local=True) as world:
            assert {k for k, state in world.states().items() if state == "DELETING"} == keys
    assert after_calls > 8
    folder.sweep_later()
    assert folder.objects() == {folder.live}


def test_check_after_a_restore_says_what_is_missing(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Young objects too: they were "not in the catalog yet", and the check "sound"."""
    backup = folder.root.with_name("backup")
    backup.mkdir()
    copy_catalog(folder.root, backup)
    with World(folder.root, local=True) as world:
        world.keep([(1, NOON + 10_000), (1, NOON + 12_000)])
        world.keep([(1, NOON + 20_000)])
    copy_catalog(backup, folder.root)
    lost = folder.check().lost
    assert (lost.objects, lost.chunks, lost.devices) == (2, 3, {1})
    assert (lost.from_ms, lost.to_ms) == (NOON + 10_000, NOON + 20_000)
    for as_json in (False, True):
        with pytest.raises(typer.Exit):
            check(data=folder.root, json=as_json)
        told = capsys.readouterr().out
        assert ("2 objects with 3 chunks" in told) != as_json
        assert as_json or "catalog rebuild" in told
    assert json.loads(told)["lost"]["devices"] == [1]
    with pytest.raises(SweepRefused):
        folder.repair(older_than_s=0.0)
