"""`clipkeep backup` and `clipkeep restore`: what comes back, what passes for no backup, what is refused."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import storage.sqlite.backup as file_backup
from service.backups.files import copy_file
from service.backups.making import Destinations, make_backup, prune
from service.backups.manifest import DATA, KEYS, NAME, UNFINISHED, read_manifest
from service.backups.restoring import MARK, Backup, restore
from service.folder import Opened, open_folder
from storage.errors import CallerError, ClipkeepError, CorruptError
from tests.retention.world import NOON, World, fast_folder
from tests.servers.catalogs import sqlite_only
from tests.service.test_cli import Run, run

__all__ = ["run"]
pytestmark = sqlite_only


def fill(data: Path) -> None:
    """Devices with recordings, a payment that was written down, and a notice."""
    data.mkdir(mode=0o700)
    (data / "config.toml").write_text("# mine\n")
    (data / "config.toml").chmod(0o600)
    with World(data, local=True) as world:
        devices = [world.add() for _ in range(4)]
        for at in range(3):
            world.keep([(device, NOON + at * 4000) for device in devices])
        world.sweep().run()
    for folder, name in (("payments", "c1.json"), ("notices", "n1.eml")):
        (data / folder).mkdir(mode=0o700)
        (data / folder / name).write_text("{}")


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def to(tmp_path: Path) -> Destinations:
    places = Destinations(tmp_path / "backups", tmp_path / "keys-backups")
    places.data.mkdir(mode=0o700)
    places.keys.mkdir(mode=0o700)
    return places


def made_of(data: Path, to: Destinations, now_ms: int = NOON) -> Backup:
    with open_folder(data) as opened:
        made = make_backup(opened, to, now_ms=now_ms, progress=lambda *_: None)
    return Backup.read(made.data, made.keys)


def chunks(opened: Opened) -> list[object]:
    return [list(opened.catalog.chunks(d.device, 0, 1 << 45, limit=99)) for d in opened.catalog.devices()]


def folders(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir() if each.is_dir())


# --- there and back ---------------------------------------------------------------------------------------------


def test_a_home_goes_there_and_back(filled: Path, to: Destinations, tmp_path: Path, run: Run) -> None:
    places = ("--to", to.data, "--keys-to", to.keys)
    done = run("backup", *places, "--verify", "--data", filled, "--json")
    assert done.code == 0, done
    assert done.document["recordings_read"] == 4, "the newest of each device"
    part, keys = Path(done.document["backup"]), Path(done.document["keys"])
    assert folders(to.data) == [part.name] == folders(to.keys)
    assert {kept.path for kept in read_manifest(part, DATA).files} == {
        *("catalog.db", "config.toml", "payments/c1.json", "notices/n1.eml")
    }
    assert {kept.path for kept in read_manifest(keys, KEYS).files} == {
        *("keys/keys.db", "keys/master.key", "keys/tokens.key")
    }
    again = tmp_path / "again"
    done = run("restore", "--from", part, "--keys", keys, "--data", again, "--json")
    assert done.code == 0, done
    told = " ".join(done.document["next"])
    assert all(word in told for word in ("objects", "check", "--accept-catalog", "keys rotate", "new-token"))
    assert not (again / "entitlements.bitmap").exists(), (
        "whoever makes it knows that the catalog may be older"
    )
    assert all((path.stat().st_mode & 0o077) == 0 for path in (again, *again.rglob("*")))
    shutil.copytree(filled / "objects", again / "objects")
    with open_folder(filled) as before, open_folder(again) as after:
        assert chunks(before) == chunks(after) != []
        assert after.settle_numbers(ask_store=True) is False
    assert run("check", "--deep", "--data", again).code == 0
    bitmap = (again / "entitlements.bitmap").stat()
    assert bitmap.st_blocks * 512 < bitmap.st_size / 100, "it is sparse"


def test_neither_part_has_what_the_other_is_for(filled: Path, to: Destinations) -> None:
    backup = made_of(filled, to)
    secrets = [
        (filled / "keys" / name).read_bytes()[20:52] for name in ("master.key", "tokens.key")
    ]  # the first secret of each
    data = b"".join(path.read_bytes() for path in backup.data.rglob("*") if path.is_file())
    assert not any(secret in data for secret in secrets)
    keys = b"".join(path.read_bytes() for path in backup.keys.rglob("*") if path.is_file())
    assert all(secret in keys for secret in secrets)
    assert b"CREATE TABLE devices" in data
    assert b"CREATE TABLE devices" not in keys


def test_a_copy_is_of_one_moment_whatever_is_committed_meanwhile(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_backup, "PAGES_AT_ONCE", 5)
    words: list[int] = []
    with closing(sqlite3.connect(filled / "catalog.db", isolation_level=None)) as writer:
        writer.execute("CREATE TABLE written (at INTEGER)")
        writer.execute("INSERT INTO written VALUES (0)")

        def meanwhile(phase: str, done: int, of: int) -> None:
            writer.execute("INSERT INTO written VALUES (?)", (done,))
            words.append(done)

        file_backup.copy_catalog_file(filled / "catalog.db", tmp_path / "copy.db", meanwhile)
        assert len(words) > 10
        assert words == sorted(words), "no commit made it begin anew"
        assert writer.execute("SELECT count(*) FROM written").fetchone() == (len(words) + 1,)
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT at FROM written").fetchall() == [(0,)]
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert sorted(path.name for path in tmp_path.glob("copy.db*")) == ["copy.db"], "a database by itself"


def test_holes_stay_holes(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(32 << 20)
        for at in (0, (10 << 20) + 17, (32 << 20) - 9):
            file.seek(at)
            file.write(b"something")
    before = sparse.stat()
    assert before.st_blocks * 512 < 1 << 20
    size, digest = copy_file(sparse, tmp_path / "copy")
    after = (tmp_path / "copy").stat()
    assert (size, after.st_size) == (32 << 20, 32 << 20)
    assert after.st_blocks * 512 < 1 << 20
    said = subprocess.run(
        ["sha256sum", tmp_path / "copy", sparse], capture_output=True, text=True, check=True
    )
    assert [line.split()[0] for line in said.stdout.splitlines()] == [digest, digest]


def test_what_the_configuration_names_in_the_folder_goes_with_it(filled: Path, to: Destinations) -> None:
    (filled / "texts").mkdir(mode=0o700)
    (filled / "texts" / "receipt.txt").write_text("Danke")
    (filled / "gateway.keys").write_text("signs")
    (filled / "gateway.keys").chmod(0o600)
    (filled / "config.toml").write_text(
        '[notices]\ntemplates = "texts"\n[payments]\nkey_file = "gateway.keys"\n'
    )
    backup = made_of(filled, to)
    assert (backup.data / "texts/receipt.txt").read_text() == "Danke"
    assert (backup.keys / "gateway.keys").read_text() == "signs", "a secret goes with the keys"
    assert not (backup.data / "gateway.keys").exists()


# --- killed ---------------------------------------------------------------------------------------------------------


def test_killed_at_every_line_it_leaves_nothing_that_passes_for_a_backup() -> None:
    with fast_folder() as work:
        fill_template(work / "template")
        child = subprocess.run(
            [sys.executable, "-m", "tests.service.backups.killed_backups", str(work)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
            check=True,
        )
        passes = [json.loads(line) for line in child.stdout.splitlines()]
        assert [one["killed"] for one in passes] == [True] * (len(passes) - 1) + [False]
        assert {one["step"].split(":")[1] for one in passes} >= {"_fill", "make_backup", "remove_unfinished"}
        whole, left = 0, []
        for one in passes:
            folder = Path(one["folder"])
            to = Destinations(folder / "backups", folder / "keys-backups")
            if any(name.startswith(UNFINISHED) for name in folders(to.data) + folders(to.keys)):
                left.append(folder)
            for name in folders(to.data):
                if name.startswith(UNFINISHED):
                    with pytest.raises(CallerError) as refused:
                        read_manifest(to.data / name, DATA)
                    assert refused.value.code == "no_backup"
                else:
                    Backup.read(to.data / name, to.keys / name)
                    whole += 1
        assert 0 < whole < len(passes) / 2, "those killed after it was whole"
        # The one after such a kill is whole, and takes away what was left.
        assert len(left) > 10
        middle = left[-1]
        to = Destinations(middle / "backups", middle / "keys-backups")
        backup = made_of(middle / "data", to, NOON + 60_000)
        assert backup.manifest.name in folders(to.data)
        assert not any(name.startswith(UNFINISHED) for name in folders(to.data) + folders(to.keys))


def fill_template(template: Path) -> None:
    template.mkdir()
    fill(template / "data")
    (template / "backups").mkdir(mode=0o700)
    (template / "keys-backups").mkdir(mode=0o700)


def test_a_restore_that_was_killed_begins_anew(
    filled: Path, to: Destinations, tmp_path: Path, run: Run
) -> None:
    backup = made_of(filled, to)
    half = tmp_path / "half"
    restore(backup, half)
    (half / "config.toml").unlink()
    (half / "catalog.db").write_bytes(b"half")
    (half / MARK).touch()
    assert run("serve", "--data", half, "--json").code == 1, "a folder without config.toml was not finished"
    assert run("restore", "--from", backup.data, "--keys", backup.keys, "--data", half).code == 0
    assert (half / "catalog.db").read_bytes() == (backup.data / "catalog.db").read_bytes()
    assert not (half / MARK).exists()


# --- refused --------------------------------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_left_alone(filled: Path, to: Destinations, run: Run) -> None:
    backup = made_of(filled, to)
    before = sorted(filled.rglob("*"))
    done = run("restore", "--from", backup.data, "--keys", backup.keys, "--data", filled, "--json")
    assert done.error == "not_empty"
    assert sorted(filled.rglob("*")) == before


@pytest.mark.parametrize("name", ["catalog.db", "config.toml", "payments/c1.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_what_is_not_what_was_written_is_refused(
    filled: Path, to: Destinations, tmp_path: Path, name: str, how: str
) -> None:
    backup = made_of(filled, to)
    path = backup.data / name
    data = bytearray(path.read_bytes())
    path.unlink()
    if how == "flipped":
        data[len(data) // 2] ^= 1
    if how != "gone":
        path.write_bytes(data[: -1 if how == "cut" else None])
    with pytest.raises(CorruptError) as refused:
        Backup.read(backup.data, backup.keys)
    assert refused.value.code == "backup_damaged"
    assert refused.value.subject == str(path)


def test_parts_that_do_not_belong_together_are_refused(filled: Path, to: Destinations) -> None:
    one, other = made_of(filled, to), made_of(filled, to, NOON + 5000)
    for data, keys, code in (
        (one.data, other.keys, "another_backup"),
        (one.keys, one.data, "no_backup"),
        (one.data, one.data, "no_backup"),
        (to.data, to.keys, "no_backup"),
    ):
        with pytest.raises(ClipkeepError) as refused:
            Backup.read(data, keys)
        assert refused.value.code == code


@pytest.mark.parametrize("path", ["../config.toml", "/etc/passwd", "keys/../../x", ""])
def test_a_manifest_leads_nowhere_else(filled: Path, to: Destinations, path: str) -> None:
    backup = made_of(filled, to)
    document = json.loads((backup.data / NAME).read_text())
    document["files"][0]["path"] = path
    (backup.data / NAME).write_text(json.dumps(document))
    with pytest.raises(CorruptError) as refused:
        read_manifest(backup.data, DATA)
    assert refused.value.code == "backup_damaged"


def test_destinations_are_there_apart_private_and_not_in_the_data(
    filled: Path, to: Destinations, tmp_path: Path
) -> None:
    inside, beside, shared = filled / "b", to.data / "keys", tmp_path / "shared"
    for path in (inside, beside, shared):
        path.mkdir(mode=0o700)
    shared.chmod(0o750)
    for places, code in (
        (Destinations(tmp_path / "unmounted", to.keys), "no_destination"),
        (Destinations(to.data, to.data), "keys_beside"),
        (Destinations(to.data, beside), "keys_beside"),
        (Destinations(beside, to.data), "keys_beside"),
        (Destinations(inside, to.keys), "inside_data"),
        (Destinations(to.data, shared), "destination_open"),
    ):
        with pytest.raises(CallerError) as refused:
            made_of(filled, places)
        assert refused.value.code == code
    assert folders(to.data) == ["keys"]


def test_one_device_is_warned_of(filled: Path, to: Destinations, run: Run) -> None:
    told = to.warnings(filled)
    assert len(told) == 3
    assert "are on one device" in told[0]
    done = run("backup", "--to", to.data, "--keys-to", to.keys, "--data", filled)
    assert done.err.count("warning: ") == 4, "that objects are not in it, too"
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and memory.stat().st_dev != filled.stat().st_dev:
        assert all("one device" not in each for each in Destinations(to.data, memory).warnings(filled))


# --- a rehearsal that finds something, and what is old -------------------------------------------------------------


def test_a_rehearsal_finds_recordings_that_the_copy_can_not_read(
    filled: Path, to: Destinations, run: Run
) -> None:
    for path in (filled / "objects").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            data = bytearray(path.read_bytes())
            data[40:200] = bytes(160)
            path.write_bytes(data)
    places = ("--to", to.data, "--keys-to", to.keys)
    assert run("backup", *places, "--verify", "--data", filled, "--json").error == "backup_unfit"
    [name] = folders(to.data)
    parts = ("--from", to.data / name, "--keys", to.keys / name)
    store = (filled / "objects").absolute().as_uri()
    assert run("restore", *parts, "--verify", "--store", store, "--json").error == "backup_unfit"
    assert not list((filled / "run").glob("rehearsal-*"))


def test_old_backups_of_this_home_go_and_nothing_else(filled: Path, to: Destinations, tmp_path: Path) -> None:
    fill(tmp_path / "other")
    old, new = made_of(filled, to), made_of(filled, to, NOON + 60_000)
    others = made_of(tmp_path / "other", to, NOON - 60_000)
    (to.data / "photos").mkdir()
    gone = prune(to, home=old.manifest.home, before_ms=NOON + 30_000)
    assert gone == [old.manifest.name]
    kept = sorted([new.manifest.name, others.manifest.name])
    assert folders(to.keys) == kept
    assert folders(to.data) == sorted([*kept, "photos"])


def test_old_ones_stay_until_one_is_good(filled: Path, to: Destinations, run: Run) -> None:
    old = made_of(filled, to)  # of long ago
    places = ("--to", to.data, "--keys-to", to.keys, "--prune", "--verify", "--data", filled, "--json")
    moved = filled / "objects.away"
    (filled / "objects").rename(moved)
    (filled / "objects").mkdir()
    for path in moved.iterdir():
        if path.is_file():
            shutil.copy(path, filled / "objects" / path.name)
    assert run("backup", *places).code == 1
    assert old.manifest.name in folders(to.data)
    shutil.rmtree(filled / "objects")
    moved.rename(filled / "objects")
    done = run("backup", *places)
    assert done.code == 0, done
    assert old.manifest.name in done.document["removed"]
    assert old.manifest.name not in folders(to.data) + folders(to.keys)
