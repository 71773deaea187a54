"""Catalogs whose account keys are in a vault: what the suites of the account books open, in other processes too."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from storage.account_keys import AccountKeys
from storage.contracts.given import Opener
from storage.keys import KeyStore
from storage.postgres import PostgresCatalog
from storage.sqlite import SqliteCatalog
from storage.vault import Vault


class SqliteWithVault(SqliteCatalog):
    """Closes its vault, too."""

    def close(self) -> None:
        super().close()
        close_vault(self.keys)


class PostgresWithVault(PostgresCatalog):
    """Closes its vault, too."""

    def close(self) -> None:
        super().close()
        close_vault(self.keys)


def close_vault(keys: AccountKeys) -> None:
    assert isinstance(keys.vault, Vault)
    keys.vault.close()


def make_sqlite(path: Path) -> Opener:
    """A new catalog at `path`, and a vault in `keys/` beside it."""
    with KeyStore.create(path.with_name("keys")) as vault:
        SqliteCatalog.create(path, vault).close()
    return partial(open_sqlite, path)


def open_sqlite(path: Path) -> SqliteCatalog:
    return SqliteWithVault.open(path, KeyStore.open(path.with_name("keys")))


def adopt_postgres(url: str, keys: Path) -> Opener:
    """The catalog at `url`, which was made without a vault, and a vault that has the keys whose ids it has."""
    KeyStore.create(keys).close()
    adopt_keys(open_postgres(url, keys))
    return partial(open_postgres, url, keys)


def open_postgres(url: str, keys: Path) -> PostgresCatalog:
    return PostgresWithVault.open(url, KeyStore.open(keys))


def adopt_keys(catalog: PostgresCatalog) -> None:
    ids = [row.key_id for row in catalog.account_keys()]
    vault = catalog.keys.vault
    assert isinstance(vault, Vault)
    vault.make_account_keys(ids, now_ms=0)
    catalog.close()
