"""From what a person writes to the vault it names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from storage.errors import CallerError
from storage.keys import KeyStore
from storage.server_backups import ServerBackups
from storage.vault import KeyId, Vault

FOLDER = "folder"
"""The address of the vault in `keys/` of the data folder."""


def place_of(address: str, keys: Path) -> str | Path:
    """What `[home] vault` names, as the functions below take it.

    Args:
        address: `folder`, or `postgresql://user@host:port/database`.
        keys: the folder that `folder` stands for.

    Raises:
        CallerError: `bad_vault_url`: it is neither.
    """
    if address == FOLDER:
        return keys
    if not is_server(address):
        raise CallerError(
            "a vault's address is `folder`, or postgresql://user@host:port/database", code="bad_vault_url"
        )
    return address


def is_server(where: str | Path) -> bool:
    """Whether it names a database, and not a folder."""
    return isinstance(where, str) and where.startswith(("postgresql://", "postgres://"))


def open_vault(where: str | Path, master_key: Path | None = None, *, answer_s: float | None = None) -> Vault:
    """Open an existing vault.

    Args:
        where: a folder, or a URL `postgresql://…` of a database of its own. What the URL lacks (password, `sslmode`)
            comes from the environment or a service file, as libpq reads them.
        master_key: the host's file of wrapping keys, for a database. A folder has its own in it.
        answer_s: longest wait for one answer of a server, as of `storage.open_catalog.open_catalog`.

    Raises:
        NotFound: `key_store_missing`: nothing is there.
        CallerError: `bad_vault_url`; `key_store_permissions`: others may read a key file.
        CorruptError: a file or a row is missing, cut, corrupt, or of another vault.
        WorldError: the server does not answer, or refuses.
    """
    if not is_server(where):
        return KeyStore.open(Path(where))
    from storage.postgres.vault import PostgresVault  # psycopg takes a tenth of a second to import

    return PostgresVault.open(str(where), _needed(master_key), answer_s=answer_s)


def create_vault(where: str | Path, master_key: Path | None = None) -> None:
    """Make a vault with fresh random secrets: all of it or, after a crash, nothing that is in the way.

    Args:
        where, master_key: as `open_vault`. A master.key that is there already is used for a new database, so that a
            call that was interrupted is repeated.

    Raises:
        CallerError: `key_store_exists`: a vault is there, and is left as it is. `vault_in_catalog`: the database is
            the catalog's: whoever has a copy of one must not have the other. `not_empty`: it has other tables.
        WorldError: no space, no permission, no answer.
    """
    if not is_server(where):
        KeyStore.create(Path(where)).close()
        return
    from storage.postgres.vault import PostgresVault

    PostgresVault.create(str(where), _needed(master_key)).close()


def remove_vault(where: str | Path, master_key: Path | None = None) -> None:
    """Take away a vault that `create_vault` has just made, and that nobody uses: all of its keys go with it. Other
    tables of the database stay."""
    if not is_server(where):
        shutil.rmtree(where, ignore_errors=True)
        return
    from storage.postgres.vault import PostgresVault

    PostgresVault.remove(str(where))
    _needed(master_key).unlink(missing_ok=True)


def copy_keys_aside(vault: Vault, where: str | Path, keys: Path, to: Path) -> ServerBackups | None:
    """Copy the key files of this host, and all keys where they are in a folder, consistently, beside who uses them.

    Args:
        keys: the folder `keys/` of the host.
        to: the folder to make, mode 0700; its parent is there.

    Returns:
        What the vault's server tells of its own backups; None where the vault is a folder.

    Raises:
        CallerError, WorldError: as `Vault.backup`; the server does not answer. OSError.
    """
    if not is_server(where):
        vault.backup(to)
        return None
    to.mkdir(mode=0o700)
    for name in ("master.key", "host.key"):
        if (keys / name).exists():
            with open(os.open(to / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write((keys / name).read_bytes())
                file.flush()
                os.fsync(file.fileno())
    from storage.postgres.server_backups import server_backups

    return server_backups(str(where))


class HasKeys(Protocol):
    """What an attack takes keys from."""

    def every_key(self, *, device: int | None = None) -> Iterator[tuple[KeyId, bytes]]:
        """See `Vault.every_key`."""

    def every_account_key(self) -> Iterator[tuple[bytes, bytes]]:
        """See `Vault.every_account_key`."""


@contextmanager
def opened_backup(folder: Path, master_key: Path) -> Iterator[HasKeys]:
    """A backup of a vault, to attack with: a copy of a folder, or the raw files of a PostgreSQL base backup.

    Args:
        master_key: the file of wrapping keys to attack a base backup with. A folder has its own in it.

    Raises:
        CallerError: `bad_backup`: it is neither, or a base backup that is not in plain format; `no_master_key`.
        CallerError, CorruptError: as `open_vault`.
    """
    if (folder / "PG_VERSION").exists() or (folder / "backup_manifest").exists():
        from storage.postgres.base_backup import BaseBackup

        yield BaseBackup(folder, master_key)
        return
    if not (folder / "keys.db").exists():
        raise CallerError(
            "this is neither a copy of keys/ nor a base backup in plain format: name the folder that has"
            " keys.db or PG_VERSION in it",
            subject=str(folder),
            code="bad_backup",
        )
    with KeyStore.open(folder) as key_store:
        yield key_store


def _needed(master_key: Path | None) -> Path:
    if master_key is None:
        raise CallerError(
            "a vault in a database needs the host's file of wrapping keys", code="master_key_missing"
        )
    return master_key
