"""Files that lose their names while they are open: whoever stores something into them is told, and believes nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from retention.bitmap import EntitlementBitmap
from storage.errors import CatalogUnavailable, ClipkeepError, CorruptError, WorldError
from storage.keys import KeyId, KeyStore
from storage.sqlite import SqliteCatalog

KEY = KeyId(1, 0, 2026_01)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    SqliteCatalog.create(data / "catalog.db").close()
    KeyStore.create(data / "keys").close()
    EntitlementBitmap.create(data / "bitmap", 100)
    return data


def unlink(path: Path) -> None:
    path.unlink()


def replace_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


def move_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))


def copy_the_folder_over(path: Path) -> None:
    """As a restore by hand does."""
    moved = path.parent.with_name("moved")
    path.parent.rename(moved)
    shutil.copytree(moved, path.parent)


def remove_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def hide_behind_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("nowhere"))


WAYS = [
    unlink,
    replace_by_a_copy,
    move_the_folder,
    copy_the_folder_over,
    remove_the_folder,
    hide_behind_a_link,
]
Way = Callable[[Path], None]


@pytest.fixture
def catalog(data: Path) -> Iterator[SqliteCatalog]:
    with closing(SqliteCatalog.open(data / "catalog.db")) as catalog:
        yield catalog


def prepare(catalog: SqliteCatalog) -> int:
    [key] = catalog.prepare(worker="w0", class_days=7, expires_on=21_000, count=1, now_ms=1)
    return key.segment_id


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["catalog.db", "catalog.db-wal", "catalog.db-shm"])
def test_what_is_committed_to_a_lost_catalog_is_not_believed(
    data: Path, catalog: SqliteCatalog, way: Way, name: str
) -> None:
    """Invariant 1. The log and its index too: what is in one that lost its name nobody else will read."""
    prepare(catalog)
    catalog.require_files()
    way(data / name)
    with pytest.raises(CatalogUnavailable, match=r"catalog\.db.* was removed, replaced or moved") as caught:
        catalog.require_files()
    assert caught.value.code == "catalog_replaced"
    with pytest.raises(ClipkeepError):
        prepare(catalog)


def test_the_connections_that_come_later_do_not_take_another_catalog(
    data: Path, catalog: SqliteCatalog
) -> None:
    replace_by_a_copy(data / "catalog.db")
    with catalog.db.read(), pytest.raises(CatalogUnavailable) as caught, catalog.db.read():
        pass
    assert caught.value.code == "catalog_replaced"


@pytest.mark.parametrize("way", [move_the_folder, hide_behind_a_link])
def test_a_catalog_that_is_moved_back_is_good_again(data: Path, catalog: SqliteCatalog, way: Way) -> None:
    first = prepare(catalog)
    way(data / "catalog.db")
    with pytest.raises(CatalogUnavailable):
        prepare(catalog)
    if way is move_the_folder:
        (data.with_name("moved")).rename(data)
    else:
        (data / "elsewhere").replace(data / "catalog.db")
    catalog.require_files()
    assert prepare(catalog) > first
    with closing(SqliteCatalog.open(data / "catalog.db")) as other:
        assert prepare(other) > first + 1


def test_other_processes_open_and_close_it_as_they_like(data: Path, catalog: SqliteCatalog) -> None:
    """The last to close a database removes its log; one that is open keeps it."""
    for _ in range(3):
        with closing(SqliteCatalog.open(data / "catalog.db")) as other:
            prepare(other)
        with closing(sqlite3.connect(data / "catalog.db")) as tool:
            tool.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            tool.execute("VACUUM")
        catalog.require_files()
        prepare(catalog)
    assert catalog.db.cut_log()
    catalog.require_files()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["keys.db", "keys.db-wal", "keys.db-shm"])
def test_a_key_that_is_made_in_a_lost_key_store_is_not_handed_out(data: Path, way: Way, name: str) -> None:
    """Invariant 1: what it encrypts could be read by nobody after a restart."""
    with KeyStore.open(data / "keys") as keys:
        keys.ensure([KEY])
        keys.require_files()
        way(data / "keys" / name)
        with pytest.raises(WorldError, match=r"keys\.db.* was removed, replaced or moved") as caught:
            keys.require_files()
        assert caught.value.code == "key_store_replaced"
        with pytest.raises(ClipkeepError):
            keys.ensure([KeyId(2, 0, 2026_01)])


@pytest.mark.parametrize("name", ["master.key", "tokens.key"])
@pytest.mark.parametrize("way", [unlink, hide_behind_a_link])
def test_a_key_file_that_is_gone_is_told(data: Path, name: str, way: Way) -> None:
    """Without it, nothing that is stored from now on can be read after a restart, or no token is taken."""
    with KeyStore.open(data / "keys") as keys:
        keys.require_files()
        way(data / "keys" / name)
        with pytest.raises((WorldError, CorruptError), match=name):
            keys.require_files()
        if way is hide_behind_a_link:
            (data / "keys" / "elsewhere").replace(data / "keys" / name)
            keys.require_files()


@pytest.mark.parametrize("name", ["master.key", "tokens.key"])
def test_the_key_file_of_another_store_is_told(data: Path, tmp_path: Path, name: str) -> None:
    KeyStore.create(tmp_path / "other").close()
    with KeyStore.open(data / "keys") as keys:
        keys.require_files()
        (tmp_path / "other" / name).replace(data / "keys" / name)
        with pytest.raises(CorruptError, match=name):
            keys.require_files()


def test_a_rotation_is_no_loss(data: Path) -> None:
    with KeyStore.open(data / "keys") as keys, KeyStore.open(data / "keys") as other:
        keys.ensure([KEY])
        keys.require_files()
        other.rotate()
        keys.require_files()
        other.backup(data / "backup")
        keys.require_files()


@pytest.mark.parametrize("way", WAYS)
def test_a_bitmap_that_lost_its_name_is_told(data: Path, way: Way) -> None:
    with EntitlementBitmap.open(data / "bitmap", writable=True) as bitmap:
        bitmap.require_file()
        way(data / "bitmap")
        with pytest.raises(WorldError) as caught:
            bitmap.require_file()
        assert caught.value.code == "bitmap_replaced"


def test_a_mount_that_covers_the_folder_is_told(data: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a file system is not permitted here")
    with (
        closing(SqliteCatalog.open(data / "catalog.db")) as catalog,
        KeyStore.open(data / "keys") as keys,
        EntitlementBitmap.open(data / "bitmap", writable=True) as bitmap,
    ):
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "clipkeep-test", str(data)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting a file system is not permitted here")
        try:
            for ask in (catalog.require_files, keys.require_files, bitmap.require_file):
                with pytest.raises(WorldError, match="removed, replaced or moved away"):
                    ask()
        finally:
            subprocess.run(["umount", str(data)], check=True)
        for ask in (catalog.require_files, keys.require_files, bitmap.require_file):
            ask()
