"""The vault's contract, on a folder and on a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from storage.open_vault import create_vault, open_vault
from tests.storage.vault_contract import Opener, VaultContract


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
