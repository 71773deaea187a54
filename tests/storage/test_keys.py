"""The key store: durable, agreed between processes, destructible (invariants 9, 10 and 11)."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from storage._key_files import MASTER_MAGIC, read_key_file, write_key_file
from storage.errors import CallerError, ClipkeepError, CorruptError, KeyDestroyed, NotFound, WorldError
from storage.keys import KeyId, KeyStore

A = KeyId(1, 0, 202601)
B = KeyId(1, 0, 202602)
C = KeyId(2, 0, 202601)
D = KeyId(2, 3, 202612)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    KeyStore.create(tmp_path / "keys").close()
    return tmp_path / "keys"


@pytest.fixture
def store(folder: Path) -> Iterator[KeyStore]:
    with KeyStore.open(folder, busy_timeout_s=0.05) as store:
        yield store


def python(code: str, folder: Path) -> subprocess.Popen[str]:
    """A real process with `store` open on the folder and the names of this module's imports."""
    prelude = (
        "import json, os, random, signal, sys, time\nfrom pathlib import Path\n"
        "from storage.keys import KeyId, KeyStore\nfrom storage._key_database import KeyDatabase\n"
        "folder = Path(sys.argv[1])\nstore = KeyStore.open(folder)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def raw(folder: Path) -> bytes:
    """What is in keys.db and its log. Read by another process: closing a descriptor on keys.db in this one would
    drop the locks that SQLite holds."""
    files = [str(path) for path in sorted(folder.glob("keys.db*"))]
    return subprocess.check_output(["cat", *files])


def wrapped_keys(folder: Path) -> dict[KeyId, bytes]:
    """The wrapped keys as they are in the rows, read around the store."""
    with closing(sqlite3.connect(folder / "keys.db")) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE name GLOB 'month_*'").fetchall()
        return {
            KeyId(device, epoch, int(name[6:])): wrapped
            for (name,) in names
            for device, epoch, wrapped in connection.execute(f"SELECT device, epoch, wrapped FROM {name}")
        }


class TestDestruction:
    def test_months_in_many_batches(self, store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("storage.keys.DESTROY_BATCH_ROWS", 7)
        store.ensure(KeyId(n, 0, 202601) for n in range(50))
        store.destroy_devices({3: 1, 49: 1})
        assert store.destroy_months(202601) == 48, "those of the erased devices were destroyed before"

    def test_no_wrapped_key_is_left_in_the_files(self, folder: Path, store: KeyStore) -> None:
        """Invariant 10. Many devices, months and epochs, made in mixed order: the case in which a B-tree keyed by
        device leaves copies of deleted rows in the free space of its pages."""
        rng = random.Random(1)
        ids = [
            KeyId(n, 0, month) for n in rng.sample(range(2**32), 1000) for month in (202601, 202602, 202607)
        ]
        rng.shuffle(ids)
        for start in range(0, len(ids), 100):
            store.ensure(ids[start : start + 100])
        wrapped = wrapped_keys(folder)
        assert (folder / "keys.db-wal").stat().st_size > 0
        before = raw(folder)
        assert all(before.count(wrapped[key_id]) >= 1 for key_id in ids)

        erased = {key_id.device for key_id in rng.sample(ids, 300)}
        store.destroy_devices(dict.fromkeys(erased, 1))
        assert (folder / "keys.db-wal").stat().st_size == 0
        self.assert_only(raw(folder), wrapped, {key_id for key_id in ids if key_id.device not in erased})

        store.destroy_months(202602)
        left = {key_id for key_id in ids if key_id.device not in erased and key_id.month > 202602}
        self.assert_only(raw(folder), wrapped, left)
        store.destroy_months(202612)
        self.assert_only(raw(folder), wrapped, set())

    @staticmethod
    def assert_only(data: bytes, wrapped: dict[KeyId, bytes], live: set[KeyId]) -> None:
        """Exactly the live keys are in `data`, once each: also no second copy that a later destruction misses."""
        for key_id, blob in wrapped.items():
            assert data.count(blob) == (key_id in live), key_id
            assert data.count(blob[12:28]) == (key_id in live), f"a part of {key_id}"

    def test_a_reader_holds_up_the_log_and_the_truth_is_told(self, folder: Path, store: KeyStore) -> None:
        store.ensure([A, C])
        wrapped = wrapped_keys(folder)
        with closing(sqlite3.connect(folder / "keys.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM state").fetchall()
            with pytest.raises(WorldError, match="destroyed for every process, but") as caught:
                store.destroy_device(1, below_epoch=1)
            assert caught.value.code == "key_store_unavailable"
            assert set(store.get([A, C])) == {C}
            assert wrapped[A] in raw(folder)
        assert store.destroy_device(1, below_epoch=1) == 0, "called again, it finishes the work"
        assert wrapped[A] not in raw(folder)
        assert wrapped[C] in raw(folder)


class TestProcesses:
    def test_two_racing_processes_agree(self, folder: Path) -> None:
        code = (
            "ids = [KeyId(n, 0, 202601 + n % 3) for n in range(600)]\n"
            "random.shuffle(ids)\nprint('ready', flush=True)\nsys.stdin.readline()\nkeys = {}\n"
            "for i in range(0, 600, 20):\n    keys |= store.ensure(ids[i:i + 20])\n"
            "print(json.dumps(sorted((k, v.hex()) for k, v in keys.items())))"
        )
        racers = [python(code, folder) for _ in range(2)]
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        answers = []
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        for racer in racers:
            answers.append(json.loads(racer.communicate(timeout=30)[0]))
            assert racer.returncode == 0
        assert answers[0] == answers[1]
        assert len(answers[0]) == 600

    def test_destruction_against_a_racing_process(self, folder: Path, store: KeyStore) -> None:
        """Invariant 9: once destroy has returned, the racer gets no key of that epoch, and none is in the store."""
        code = (
            "from storage.errors import KeyDestroyed\nn = 0\n"
            "while True:\n"
            "    try:\n        store.ensure([KeyId(1, 0, 202601 + n % 12)])\n"
            "    except KeyDestroyed:\n        break\n"
            "    n += 1\n"
            "    store.ensure([KeyId(1000 + n, 0, 202601)])\n"
            "    if n == 5: print('under way', flush=True)\n"
        )
        with python(code, folder) as racer, KeyStore.open(folder) as patient:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "under way\n"
            patient.destroy_device(1, below_epoch=1)
            assert not [
                key_id for key_id, blob in wrapped_keys(folder).items() if key_id.device == 1 and any(blob)
            ]
            assert racer.wait(30) == 0
        assert store.get(KeyId(1, 0, 202601 + n) for n in range(12)) == {}

    def test_sigkill_after_ensure_keeps_the_key(self, folder: Path, store: KeyStore) -> None:
        """Invariant 1 rests on this: every key that was handed out is there after the process was killed."""
        code = (
            "for n in range(10**6):\n"
            "    (key,) = store.ensure([KeyId(n, 0, 202601)]).values()\n"
            "    print(n, key.hex(), flush=True)\n"
        )
        with python(code, folder) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(60)]
            writer.kill()
            lines += writer.stdout.readlines()
        assert writer.returncode == -signal.SIGKILL
        whole = [line.split() for line in lines if line.endswith("\n")]
        promised = {KeyId(int(n), 0, 202601): bytes.fromhex(key) for n, key in whole}
        assert len(promised) >= 60
        assert store.get(promised) == promised

    @pytest.mark.parametrize("victim", ["KeyDatabase.scrub_log", "KeyStore._remove_batch"])
    def test_sigkill_within_destroy_is_made_good_by_calling_again(
        self, folder: Path, store: KeyStore, victim: str
    ) -> None:
        """Invariant 10: dead between the commit and what follows; no key comes back, and the bytes go at last."""
        made = store.ensure([A, B, C, D])
        wrapped = wrapped_keys(folder)
        code = (
            f"{victim} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"{'store.destroy_months(202601)' if 'batch' in victim else 'store.destroy_device(1, below_epoch=1)'}\n"
        )
        with python(code, folder) as eraser:
            assert eraser.wait(30) == -signal.SIGKILL
        gone = {A, C} if "batch" in victim else {A, B}
        assert store.get(made) == {key_id: made[key_id] for key_id in made.keys() - gone}
        assert store.count() == 2
        if "batch" in victim:
            store.destroy_months(202601)
        else:
            store.destroy_device(1, below_epoch=1)
        TestDestruction.assert_only(raw(folder), wrapped, wrapped.keys() - gone)


class TestFiles:
    def test_modes(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            with KeyStore.create(tmp_path / "keys") as store:
                store.ensure([A])
                modes = {
                    path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()
                }
        finally:
            os.umask(old)
        assert set(modes) >= {"master.key", "tokens.key", "keys.db", "keys.db-wal"}
        assert set(modes.values()) == {0o600}
        assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
        assert [path.name for path in tmp_path.iterdir()] == ["keys"], "nothing is left beside it"

    @pytest.mark.parametrize("name", ["master.key", "tokens.key", "keys.db"])
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
    def test_others_may_read_it(self, folder: Path, name: str, mode: int) -> None:
        (folder / name).chmod(mode)
        with pytest.raises(CallerError, match=f"chmod 600 .*{name}") as caught:
            KeyStore.open(folder)
        assert caught.value.code == "key_store_permissions"

    def test_create_leaves_an_existing_store_alone(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure([A])
        with pytest.raises(CallerError) as caught:
            KeyStore.create(folder)
        assert caught.value.code == "key_store_exists"
        assert store.get([A]) == made
        assert [path.name for path in folder.parent.iterdir()] == ["keys"]

    def test_create_without_a_place(self, tmp_path: Path) -> None:
        with pytest.raises(WorldError) as caught:
            KeyStore.create(tmp_path / "no" / "keys")
        assert caught.value.code == "key_store_unavailable"

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="clipkeep init") as caught:
            KeyStore.open(tmp_path / "keys")
        assert caught.value.code == "key_store_missing"

    @pytest.mark.parametrize("name", ["master.key", "tokens.key", "keys.db"])
    def test_missing_file(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        with pytest.raises(CorruptError, match=f"{name}.*missing.*backup") as caught:
            KeyStore.open(folder)
        assert caught.value.code == "key_store_corrupt"
        assert not (folder / name).exists(), "no empty one in its place"

    @pytest.mark.parametrize("name", ["master.key", "tokens.key"])
    def test_key_files_bit_by_bit_and_cut_anywhere(self, folder: Path, name: str) -> None:
        path = folder / name
        good = path.read_bytes()
        flips = []
        for position in range(len(good) * 8):
            flipped = bytearray(good)
            flipped[position // 8] ^= 1 << position % 8
            flips.append(bytes(flipped))
        cuts = (good[:size] for size in range(len(good)))
        for bad in (*flips, *cuts, good + b"\0"):
            path.write_bytes(bad)
            with pytest.raises(CorruptError, match=rf"{name}: field \w+: .*backup"):
                KeyStore.open(folder).close()
        path.write_bytes(good)
        KeyStore.open(folder).close()

    def test_database_bit_by_bit(self, folder: Path) -> None:
        """Invariant 11: a flipped bit may cost a key, but never yields a wrong one, and never a traceback of SQLite."""
        ids = [KeyId(n, 0, 202601 + n % 2) for n in range(40)]
        with KeyStore.open(folder) as store:
            made = store.ensure(ids)
        path = folder / "keys.db"
        good = path.read_bytes()
        rng = random.Random(2)
        in_header = range(0, 100 * 8, 5)
        anywhere = rng.sample(range(len(good) * 8), 300)
        for position in (*in_header, *anywhere):
            bad = bytearray(good)
            bad[position // 8] ^= 1 << position % 8
            for leftover in folder.glob("keys.db-*"):
                leftover.unlink()
            path.write_bytes(bad)
            caught: list[ClipkeepError] = []
            try:
                with KeyStore.open(folder, busy_timeout_s=0) as store:
                    assert store.get(ids).items() <= made.items()
            except ClipkeepError as error:
                caught.append(error)
            assert {error.code for error in caught} <= {"key_store_corrupt", "key_store_unavailable"}
            assert all(error.subject for error in caught)

    def test_a_flipped_row_is_named_and_its_neighbour_is_read(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure([A, C])
        with closing(sqlite3.connect(folder / "keys.db")) as connection:
            blob = bytearray(wrapped_keys(folder)[A])
            blob[20] ^= 4
            connection.execute("UPDATE month_202601 SET wrapped = ? WHERE device = 1", (blob,))
            connection.commit()
        with pytest.raises(CorruptError, match=r"device 1, epoch 0, month 202601.*field wrapped.*backup"):
            store.get([A])
        outcomes = store.ensure_each([A, C])
        assert isinstance(outcomes[A], CorruptError)
        assert outcomes[C] == made[C]

    @pytest.mark.parametrize("value", [b"", b"short", "text", None, 7, b"\0" * 59])
    def test_a_row_of_nonsense(self, folder: Path, store: KeyStore, value: object) -> None:
        store.ensure([A])
        with closing(sqlite3.connect(folder / "keys.db")) as connection:
            connection.execute("PRAGMA ignore_check_constraints = ON")
            connection.execute("UPDATE OR IGNORE month_202601 SET wrapped = coalesce(?, 1.5)", (value,))
            connection.commit()
        with pytest.raises(CorruptError, match="field wrapped"):
            store.get([A])

    def test_a_row_moved_to_another_device(self, folder: Path, store: KeyStore) -> None:
        """Invariant 11, one step earlier: a wrapped key unwraps only as its own device, epoch and month."""
        store.ensure([A])
        with closing(sqlite3.connect(folder / "keys.db")) as connection:
            connection.execute("UPDATE month_202601 SET device = 2")
            connection.commit()
        with pytest.raises(CorruptError, match="device 2"):
            store.get([C])

    def test_cut_database(self, folder: Path) -> None:
        with KeyStore.open(folder) as store:
            made = store.ensure(KeyId(n, 0, 202601) for n in range(200))
        good = (folder / "keys.db").read_bytes()
        for size in (0, 1, 50, 99, 100, 512, 4095, 4096, 8192, 12288, len(good) - 4096, len(good) - 1):
            (folder / "keys.db").write_bytes(good[:size])
            with pytest.raises(CorruptError, match=r"keys\.db") as caught, KeyStore.open(folder) as store:
                store.get(made)
            assert caught.value.code == "key_store_corrupt"

    def test_not_a_key_store(self, folder: Path) -> None:
        (folder / "keys.db").write_bytes(b"a letter to the editor\n" * 400)
        with pytest.raises(CorruptError, match="not a database"):
            KeyStore.open(folder)
        (folder / "keys.db").unlink()
        with closing(sqlite3.connect(folder / "keys.db")) as connection:
            connection.execute("CREATE TABLE state (x)")
        (folder / "keys.db").chmod(0o600)
        with pytest.raises(CorruptError, match="application_id"):
            KeyStore.open(folder)

    def test_the_master_key_of_another_store(self, folder: Path, tmp_path: Path) -> None:
        KeyStore.create(tmp_path / "other").close()
        os.replace(tmp_path / "other" / "master.key", folder / "master.key")
        with pytest.raises(CorruptError, match=r"master\.key.*different key stores"):
            KeyStore.open(folder)

    def test_a_rotation_is_noticed_by_a_running_process(self, folder: Path, store: KeyStore) -> None:
        """What a rotation will rely on: new rows take the key that the database names, old rows still unwrap."""
        made = store.ensure([A])
        old = read_key_file(folder / "master.key", MASTER_MAGIC)
        new_id = old[0][0] ^ 1
        write_key_file(folder / "master.new", MASTER_MAGIC, [*old, (new_id, bytes(range(32)))])
        os.replace(folder / "master.new", folder / "master.key")
        with closing(sqlite3.connect(folder / "keys.db")) as connection:
            connection.execute("UPDATE state SET wrapping_key_id = ?", (new_id,))
            connection.commit()
            made |= store.ensure([C])
            query = "SELECT wrapping_key_id FROM month_202601 ORDER BY device"
            assert [row[0] for row in connection.execute(query)] == [old[0][0], new_id]
        with KeyStore.open(folder) as again:
            assert again.get([A, C]) == made


class TestWorld:
    def test_busy_past_the_bound(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure([A])
        with closing(sqlite3.connect(folder / "keys.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert store.ensure([A]) == made, "reading needs no write lock"
            for call in (lambda: store.ensure([B]), lambda: store.destroy_device(1, below_epoch=1)):
                with pytest.raises(WorldError) as caught:
                    call()
                assert caught.value.code == "key_store_unavailable"
        assert set(store.ensure([A, B])) == {A, B}

    def test_full_disk_hands_out_nothing_and_heals(self, folder: Path, store: KeyStore) -> None:
        made = store.ensure([A])
        wanted = [KeyId(n, 0, 202601) for n in range(1, 500)]
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, limits[1]))
        try:
            with pytest.raises(WorldError, match="full disk") as caught:
                store.ensure(wanted)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.code == "key_store_unavailable"
        assert store.get([A, *wanted]) == made
        assert len(store.ensure(wanted)) == len(wanted)


class StoreEqualsDict(RuleBasedStateMachine):
    """The store against a dict, a dict of floors and a month (invariants 9 and 10)."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.tmp = tempfile.TemporaryDirectory()
        self.folder = Path(self.tmp.name) / "keys"
        self.store = KeyStore.create(self.folder)
        self.model: dict[KeyId, bytes] = {}
        self.floors: dict[int, int] = {}
        self.month = 0

    @rule(
        target=ids,
        device=st.integers(1, 3),
        epoch=st.integers(0, 2),
        month=st.sampled_from([202511, 202512, 202601, 202602]),
    )
    def name(self, device: int, epoch: int, month: int) -> KeyId:
        return KeyId(device, epoch, month)

    def gone(self, key_id: KeyId) -> bool:
        return key_id.month <= self.month or key_id.epoch < self.floors.get(key_id.device, 0)

    @rule(wanted=st.lists(ids, max_size=4))
    def ensure(self, wanted: list[KeyId]) -> None:
        if any(map(self.gone, wanted)):
            with pytest.raises(KeyDestroyed):
                self.store.ensure(wanted)
            return
        made = self.store.ensure(wanted)
        assert set(made) == set(wanted)
        assert all(self.model.setdefault(key_id, key) == key for key_id, key in made.items())

    @rule(wanted=st.lists(ids, max_size=4))
    def ensure_each(self, wanted: list[KeyId]) -> None:
        outcomes = self.store.ensure_each(wanted)
        assert set(outcomes) == set(wanted)
        for key_id, outcome in outcomes.items():
            if self.gone(key_id):
                assert isinstance(outcome, KeyDestroyed)
            else:
                assert isinstance(outcome, bytes)
                assert self.model.setdefault(key_id, outcome) == outcome

    @rule(device=st.integers(1, 3), below=st.integers(0, 3))
    def destroy_device(self, device: int, below: int) -> None:
        doomed = [k for k in self.model if k.device == device and k.epoch < below]
        assert self.store.destroy_device(device, below_epoch=below) == len(doomed)
        self.floors[device] = max(below, self.floors.get(device, 0))
        for key_id in doomed:
            del self.model[key_id]

    @rule(through=st.sampled_from([202510, 202511, 202512, 202601]))
    def destroy_months(self, through: int) -> None:
        doomed = [k for k in self.model if k.month <= through]
        assert self.store.destroy_months(through) == len(doomed)
        self.month = max(through, self.month)
        for key_id in doomed:
            del self.model[key_id]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = KeyStore.open(self.folder)

    @invariant()
    def equal(self) -> None:
        months = (202511, 202512, 202601, 202602)
        every = [
            KeyId(device, epoch, month) for device in (1, 2, 3) for epoch in range(3) for month in months
        ]
        assert self.store.get(every) == self.model
        assert self.store.count() == len(self.model)

    def teardown(self) -> None:
        self.store.close()
        self.tmp.cleanup()


TestStoreEqualsDict = StoreEqualsDict.TestCase
TestStoreEqualsDict.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
