"""A data folder lies on a disk of its host; and a backup made by hand is one that can be put back."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from retention.numbers import BLOCKS
from service import folder as folder_module
from service.folder import DataFolder, create_folder, open_folder
from service.mounted import FUSE, NETWORK, file_system, require_local, warning
from storage.errors import CallerError
from tests.retention.world import NOON, World, fast_folder
from tests.servers.catalogs import empty_address, sqlite_only


def test_this_machines_own_disks_are_taken(tmp_path: Path) -> None:
    kind = file_system(tmp_path / "not" / "there yet")
    assert kind is not None
    assert kind not in NETWORK
    require_local(tmp_path, kind)
    assert file_system(Path("/proc")) == 0x9FA0


@pytest.mark.parametrize("kind", NETWORK)
def test_a_network_file_system_is_refused_at_init(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    monkeypatch.setattr(folder_module, "file_system", lambda path: kind)
    with pytest.raises(CallerError) as caught:
        create_folder(
            tmp_path / "data",
            store_url=None,
            test_clock=False,
            environ={},
            catalog_address=empty_address(tmp_path / "data"),
        )
    assert caught.value.code == "network_file_system"
    assert NETWORK[kind] in caught.value.detail
    assert not (tmp_path / "data").exists()


def test_what_may_be_one_is_said() -> None:
    assert "FUSE" in str(warning(FUSE))
    assert warning(0xEF53) is None


@sqlite_only
def test_a_backup_by_hand_is_put_back_as_operations_md_says() -> None:
    """Catalog, keys, then objects, in this order; a new bitmap; and all that was acknowledged by then is there."""
    with fast_folder() as root:
        data, backup = DataFolder(root / "data"), root / "backup"
        create_folder(
            data.root, store_url=None, test_clock=False, environ={}, catalog_address=empty_address(data.root)
        )
        with open_folder(data.root, environ={}) as opened:
            opened.settle_numbers()
        data.payments.mkdir(exist_ok=True)
        (data.payments / "one.json").write_text("{}")
        with World(data.root, local=True) as world:
            device = world.add()
            world.keep([(device, NOON)])
            backup.mkdir()
            with (
                closing(sqlite3.connect(data.catalog)) as live,
                closing(sqlite3.connect(backup / "catalog.db")) as copy,
            ):
                live.backup(copy)
            world.vault.backup(backup / "keys")
        shutil.copytree(data.objects, backup / "objects")
        shutil.copytree(data.payments, backup / "payments")
        shutil.copy(data.config, backup / "config.toml")
        shutil.rmtree(data.root)
        backup.rename(data.root)
        data.root.chmod(0o700)
        with open_folder(data.root, environ={}) as opened:
            assert opened.settle_numbers(ask_store=True)
        with World(data.root, local=True) as world:
            world.entitlements.recover()
            assert world.serves(device, NOON) == [True]
            world.sound()
            assert world.add() > BLOCKS["device"], "above what may have been given since"
