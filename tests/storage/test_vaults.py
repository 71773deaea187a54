"""The vault's contract, on a folder and on a real PostgreSQL server."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from storage.contracts.vault import NOW, A, Opener, VaultContract, fresh_ids
from storage.open_vault import create_vault, open_vault


class TestFolderVault(VaultContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        create_vault(tmp_path / "keys")
        return partial(open_vault, tmp_path / "keys")

    @pytest.fixture
    def master_key(self, tmp_path: Path) -> Path:
        return tmp_path / "keys" / "master.key"

    @pytest.fixture
    def nowhere(self, tmp_path: Path) -> Opener:
        return partial(open_vault, tmp_path / "other")

    def test_no_wrapped_account_key_is_left_in_the_files(self, opener: Opener, tmp_path: Path) -> None:
        """Invariant 10, whatever was made and destroyed in between; and places are used again."""
        with opener() as vault:
            alive: list[bytes] = []
            wrapped: dict[bytes, bytes] = {}
            for round_ in range(40):
                ids = fresh_ids(25)
                vault.make_account_keys(ids, now_ms=NOW + round_)
                alive += ids
                with closing(sqlite3.connect(tmp_path / "keys" / "keys.db")) as connection:
                    wrapped |= dict(connection.execute("SELECT id, wrapped FROM account_keys WHERE NOT free"))
                gone, alive = alive[::2], alive[1::2]
                assert vault.destroy_account_keys(gone) == len(gone)
            files = [str(path) for path in sorted((tmp_path / "keys").glob("keys.db*"))]
            data = subprocess.check_output(["cat", *files])
            assert {id_ for id_, blob in wrapped.items() if blob[12:28] in data} == set(alive)
            with closing(sqlite3.connect(tmp_path / "keys" / "keys.db")) as connection:
                [slots] = connection.execute("SELECT count(*) FROM account_keys").fetchone()
            assert slots < 60, "the most that there were at a time"

    def test_a_folder_without_account_keys_is_that_of_earlier_releases(
        self, opener: Opener, tmp_path: Path
    ) -> None:
        """They read it, as it is not changed by being opened; from the first account key on they refuse it."""

        def version() -> int:
            with closing(sqlite3.connect(tmp_path / "keys" / "keys.db")) as connection:
                return int(connection.execute("PRAGMA user_version").fetchone()[0])

        with opener() as vault:
            vault.ensure([A])
            vault.account_keys(fresh_ids(1))
            vault.destroy_account_keys(fresh_ids(1))
            vault.rotate()
            assert version() == 1
            vault.make_account_keys(fresh_ids(1), now_ms=NOW)
            assert version() == 2
        with opener() as vault:
            assert vault.get([A])

    @pytest.fixture
    def maker(self, tmp_path: Path) -> Callable[[], object]:
        return partial(create_vault, tmp_path / "keys")


class TestPostgresVault(VaultContract):
    @pytest.fixture
    def opener(self, database_url: str, master_key: Path) -> Opener:
        create_vault(database_url, master_key)
        return partial(open_vault, database_url, master_key)

    @pytest.fixture
    def master_key(self, tmp_path: Path) -> Path:
        return tmp_path / "master.key"

    @pytest.fixture
    def nowhere(self, postgres_url: str, master_key: Path) -> Opener:
        return partial(open_vault, postgres_url, master_key)

    @pytest.fixture
    def maker(self, database_url: str, master_key: Path) -> Callable[[], object]:
        return partial(create_vault, database_url, master_key)
