"""Rotation and backup of the key store (invariants 1, 9 and 10)."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storage._key_database import KeyDatabase
from storage._key_files import MASTER_MAGIC, read_key_file, replace_key_file
from storage.errors import CallerError, CorruptError, KeyDestroyed, WorldError
from storage.keys import KeyCount, KeyId, KeyStore
from tests.retention.world import fast_folder

IDS = [KeyId(n, 0, 202601 + n % 3) for n in range(1, 8)]
GONE = KeyId(7, 0, 202602)


@pytest.fixture
def folder() -> Iterator[Path]:
    with fast_folder() as tmp:
        KeyStore.create(tmp / "keys").close()
        yield tmp / "keys"


@pytest.fixture
def store(folder: Path) -> Iterator[KeyStore]:
    with KeyStore.open(folder) as store:
        yield store


def raw(folder: Path) -> bytes:
    """Every byte of the folder, read by another process: closing a descriptor here would drop SQLite's locks."""
    return subprocess.check_output(["cat", *sorted(map(str, folder.iterdir()))])


def wrapping_keys(folder: Path) -> list[tuple[int, bytes]]:
    return read_key_file(folder / "master.key", MASTER_MAGIC)


class TestRotation:
    def test_survivors_are_rewrapped_and_the_old_key_is_gone(self, folder: Path, store: KeyStore) -> None:
        """Invariant 10: no byte of the old wrapping key is left, nor any row wrapped with it."""
        made = store.ensure(IDS)
        store.destroy_device(7, below_epoch=1)
        [(old, secret)] = wrapping_keys(folder)
        told: list[tuple[str, int, int]] = []
        done = store.rotate(lambda *progress: told.append(progress))
        del made[IDS[-1]]
        assert store.get(IDS) == made
        assert (done.resumed, done.rewrapped, done.retired) == (False, 6, (old,))
        assert [number for number, _ in wrapping_keys(folder)] == [done.wrapping_key_id]
        assert told[-1] == ("rewrap", 6, 6)
        assert secret not in raw(folder)
        assert {path.name for path in folder.iterdir()} <= {
            *("master.key", "tokens.key", "keys.db", "keys.db-wal", "keys.db-shm")
        }
        with closing(sqlite3.connect(folder / "keys.db")) as connection:
            for month in (202601, 202602, 202603):
                rows = connection.execute(f"SELECT wrapping_key_id, wrapped FROM month_{month}").fetchall()
                assert {number for number, wrapped in rows if any(wrapped)} == {done.wrapping_key_id}

    def test_nothing_destroyed_comes_back(self, store: KeyStore) -> None:
        """Invariant 9."""
        store.ensure(IDS)
        store.destroy_device(1, below_epoch=1)
        store.destroy_months(202601)
        store.rotate()
        for gone in (IDS[0], KeyId(99, 0, 202601)):
            with pytest.raises(KeyDestroyed):
                store.ensure([gone])

    def test_again_and_again(self, folder: Path, store: KeyStore) -> None:
        secret, made = store.token_secret, store.ensure(IDS)
        seen = set()
        for _ in range(20):
            seen.add(store.rotate().wrapping_key_id)
        assert len(seen) == 20
        with KeyStore.open(folder) as again:
            assert again.get(IDS) == made
            assert again.token_secret == secret

    def test_rows_that_do_not_unwrap_keep_the_old_key(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure(IDS)
        with closing(sqlite3.connect(folder / "keys.db")) as connection:
            connection.execute("UPDATE month_202602 SET wrapped = ? WHERE device = 1", (bytes([1]) * 60,))
            connection.commit()
        for rewrapped_before in (False, True):
            with pytest.raises(CorruptError, match="device 1"):
                store.rotate()
            assert len(wrapping_keys(folder)) == 2, rewrapped_before
        del made[IDS[0]]
        assert store.get(IDS[1:]) == made
        assert store.destroy_device(1, below_epoch=1) == 1
        assert store.rotate().resumed
        assert len(wrapping_keys(folder)) == 1

    def test_a_running_service_goes_on(self, folder: Path, store: KeyStore) -> None:
        """Invariant 1: readers and writers in threads of other connections see no fault through many rotations."""
        made = store.ensure(IDS)
        faults: list[object] = []
        stop = threading.Event()

        def use(number: int) -> None:
            with KeyStore.open(folder) as mine:
                count = 0
                while not stop.is_set():
                    count += 1
                    fresh = KeyId(1000 + number, count, 202601)
                    outcomes = mine.ensure_each([*IDS, fresh])
                    faults.extend(o for o in outcomes.values() if not isinstance(o, bytes))
                    if {key_id: outcomes[key_id] for key_id in IDS} != made:
                        faults.append("another key")
                    with KeyStore.open(folder) as new:
                        if new.get([fresh]) != {fresh: outcomes[fresh]}:
                            faults.append("a fresh key is not there")

        threads = [threading.Thread(target=use, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(25):
            store.rotate()
        stop.set()
        for thread in threads:
            thread.join()
        assert not faults

    def test_two_at_once_do_the_work_of_one_or_two(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure(KeyId(n, 0, 202601) for n in range(500))
        rotators = [
            subprocess.Popen(
                [sys.executable, "-c", CODE, str(folder)],
                cwd=Path(__file__).parents[2],
            )
            for _ in range(2)
        ]
        assert [rotator.wait(30) for rotator in rotators] == [0, 0]
        assert len(wrapping_keys(folder)) == 1
        with KeyStore.open(folder) as again:
            assert again.get(made) == made

    def test_killed_at_every_line(self) -> None:
        """SIGKILL before every line of the rotation and of the replacing of its file, with a real process: every key
        can be read at once, keys can be made and destroyed, and a further call ends what was begun (invariants 1, 10).
        """
        with fast_folder() as work:
            with KeyStore.create(work / "template") as store:
                made = store.ensure(IDS)
                store.destroy_device(GONE.device, below_epoch=1)
                accounts = store.make_account_keys([bytes([n] * 16) for n in range(1, 4)], now_ms=0)
            made.pop(IDS[-1])
            old_secret = wrapping_keys(work / "template")[0][1]
            child = subprocess.run(
                [sys.executable, "-m", "tests.storage.killed_rotations", str(work)],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
                check=True,
            )
            passes = [json.loads(line) for line in child.stdout.splitlines()]
            assert [p["killed"] for p in passes] == [True] * (len(passes) - 1) + [False]
            functions = {p["step"].split(":")[1] for p in passes}
            assert functions >= {
                *("rotate", "_begin", "_rewrap_all", "_rewrap_batch", "_retire"),
                *("replace_key_file", "shred_leftovers", "write_key_file"),
            }
            for one in passes:
                self.assert_ends_well(Path(one["folder"]), made, accounts, old_secret, one["step"])

    @staticmethod
    def assert_ends_well(
        folder: Path, made: dict[KeyId, bytes], accounts: dict[bytes, bytes], old_secret: bytes, place: str
    ) -> None:
        with KeyStore.open(folder) as store:
            assert store.get(made) == made, place
            assert store.account_keys(list(accounts)) == accounts, place
            fresh = store.ensure([KeyId(50, 0, 202601)])
            with pytest.raises(KeyDestroyed):
                store.ensure([IDS[-1]])
            done = store.rotate()
            assert store.get([*made, *fresh]) == made | fresh, place
            assert store.account_keys(list(accounts)) == accounts, place
            assert [number for number, _ in wrapping_keys(folder)] == [done.wrapping_key_id], place
            assert store.inventory().wrapping_keys == {done.wrapping_key_id: 7 + 3}
        left = b"".join(path.read_bytes() for path in folder.iterdir())
        assert old_secret not in left, place
        assert {path.name for path in folder.iterdir()} == {"master.key", "tokens.key", "keys.db"}, place
        shutil.rmtree(folder)


CODE = (
    "import sys\nfrom pathlib import Path\nimport storage._key_rotation as r\nr.REWRAP_BATCH_ROWS = 7\n"
    "from storage.keys import KeyStore\nKeyStore.open(Path(sys.argv[1])).rotate()\n"
)


def test_a_key_file_that_is_replaced_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of the replaced file are overwritten: a reader that has it open must not take zeros for damage."""
    path = folder / "master.key"
    opened = Path.open
    replaced = []

    def open_and_replace(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = opened(self, mode, *args, **kwargs)
        if self == path and mode == "rb" and not replaced:
            replaced.append(True)
            replace_key_file(path, MASTER_MAGIC, [(9, bytes(range(32)))])
        return file

    monkeypatch.setattr(Path, "open", open_and_replace)
    assert read_key_file(path, MASTER_MAGIC) == [(9, bytes(range(32)))]
    assert replaced


class TestBackup:
    def test_a_backup_is_a_key_store(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure(IDS)
        old = os.umask(0)
        try:
            store.backup(folder.parent / "backup")
        finally:
            os.umask(old)
        store.ensure([KeyId(60, 0, 202601)])
        store.rotate()
        backup = folder.parent / "backup"
        assert stat.S_IMODE(backup.stat().st_mode) == 0o700
        assert {path.name for path in backup.iterdir()} == {"master.key", "tokens.key", "keys.db"}
        assert {stat.S_IMODE(path.stat().st_mode) for path in backup.iterdir()} == {0o600}
        with KeyStore.open(backup) as copied:
            assert copied.get(IDS) == made
            assert copied.token_secret == store.token_secret
            assert copied.count() == len(made)

    def test_it_overwrites_nothing(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure(IDS)
        with pytest.raises(CallerError) as caught:
            store.backup(folder)
        assert caught.value.code == "key_store_exists"
        assert store.get(IDS) == made
        assert [path.name for path in folder.parent.iterdir()] == ["keys"]

    def test_taken_in_the_midst_of_rotations_and_writes(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure(IDS)
        stop = threading.Event()

        def rotate() -> None:
            with KeyStore.open(folder) as mine:
                while not stop.is_set():
                    mine.rotate()

        thread = threading.Thread(target=rotate)
        thread.start()
        try:
            for number in range(15):
                backup = folder.parent / f"backup-{number}"
                store.backup(backup)
                with KeyStore.open(backup) as copied:
                    assert copied.get(IDS) == made
        finally:
            stop.set()
            thread.join()

    def test_two_rotations_while_it_is_copied(
        self, folder: Path, store: KeyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The wrapping key of the copy came after the first look at master.key, and was gone at the second one."""
        made, backup = store.ensure(IDS), folder.parent / "backup"
        copy_to, copies = KeyDatabase.copy_to, []

        def rotated_around(self: KeyDatabase, connection: sqlite3.Connection) -> None:
            copies.append(1)
            with KeyStore.open(folder) as other:
                if len(copies) <= rotated:
                    other.rotate()
                copy_to(self, connection)
                if len(copies) <= rotated:
                    other.rotate()

        monkeypatch.setattr(KeyDatabase, "copy_to", rotated_around)
        rotated = 2
        store.backup(backup)
        assert len(copies) == 3
        with KeyStore.open(backup) as copied:
            assert copied.get(IDS) == made
        rotated = 100
        with pytest.raises(WorldError, match="rotated during each of 10 copies"):
            store.backup(folder.parent / "another")
        assert not (folder.parent / "another").exists()


class TestInventory:
    def test_counts(self, folder: Path, store: KeyStore) -> None:
        store.ensure(IDS)
        store.destroy_devices({1: 1, 2: 4})
        found = store.inventory()
        assert found.months == {
            202601: KeyCount(2, 0),
            202602: KeyCount(2, 1),
            202603: KeyCount(1, 1),
        }
        assert (found.erased_devices, found.month_floor) == (2, 0)
        assert found.wrapping_keys == {found.current_wrapping_key: 5}
        assert store.count_of([1, 3, 99]) == {1: KeyCount(0, 1), 3: KeyCount(1, 0), 99: KeyCount(0, 0)}
        store.ensure([KeyId(1, 1, 202601)])
        assert store.count_of([1]) == {1: KeyCount(1, 1)}
        assert store.count_of([1], below_epochs={1: 1}) == {1: KeyCount(0, 1)}
        assert store.behind({1: 1, 2: 5, 3: 1}) == {2: 5, 3: 1}

    def test_every_key_is_what_can_be_unwrapped(self, store: KeyStore) -> None:
        made = store.ensure(IDS)
        store.destroy_device(1, below_epoch=1)
        del made[IDS[0]]
        assert dict(store.every_key()) == made
        assert dict(store.every_key(device=2)) == {IDS[1]: made[IDS[1]]}
