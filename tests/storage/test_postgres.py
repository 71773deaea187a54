"""The catalog on PostgreSQL: the contracts, on a real server, by a role that has no more privileges than it needs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from storage.contracts.account_keys import AccountKeysContract
from storage.contracts.books import BooksContract
from storage.contracts.catalog import CatalogContract
from storage.contracts.given import Opener
from storage.keys import KeyStore
from storage.open_vault import create_vault, open_vault
from storage.postgres import PostgresCatalog
from storage.vault import Vault
from tests.storage.with_vault import PostgresWithVault, adopt_keys, adopt_postgres


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    def opener(self, service_url: str) -> Opener:
        return partial(PostgresCatalog.open, service_url)


class TestPostgresBooks(BooksContract):
    @pytest.fixture
    def opener(self, service_url: str, tmp_path: Path) -> Opener:
        return adopt_postgres(service_url, tmp_path / "keys")


class TestPostgresAccountKeys(AccountKeysContract):
    @pytest.fixture
    def opener(self, service_url: str, tmp_path: Path) -> Opener:
        return adopt_postgres(service_url, tmp_path / "keys")

    @pytest.fixture
    def vault(self, opener: Opener, tmp_path: Path) -> Iterator[Vault]:
        with KeyStore.open(tmp_path / "keys") as vault:
            yield vault


class TestAccountKeysOnPostgresAlone(AccountKeysContract):
    """Catalog and vault each in a database."""

    @pytest.fixture
    def opener(self, url: str, database_url: str, tmp_path: Path) -> Opener:
        create_vault(database_url, tmp_path / "master.key")
        opener = partial(open_both, url, database_url, tmp_path / "master.key")
        adopt_keys(opener())
        return opener

    @pytest.fixture
    def vault(self, opener: Opener, database_url: str, tmp_path: Path) -> Iterator[Vault]:
        with open_vault(database_url, tmp_path / "master.key") as vault:
            yield vault


def open_both(url: str, vault_url: str, master_key: Path) -> PostgresCatalog:
    return PostgresWithVault.open(url, open_vault(vault_url, master_key))
