"""From the address that a person writes to the catalog it names. Nothing above this room knows an engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from storage.catalog import Catalog
from storage.errors import CallerError
from storage.promise import OF_A_FILE, Promise
from storage.server_backups import ServerBackups
from storage.urls import without_password
from storage.vault import Vault

SQLITE = "sqlite"
"""The address of a catalog in a file of the data folder."""


def create_catalog(address: str, file: Path, vault: Vault | None = None) -> Catalog:
    """Make an empty catalog, and open it.

    Args:
        address: `sqlite`, or `postgresql://user@host:port/database` as libpq reads it; what it lacks, the password
            best of all, comes from PGPASSWORD and the like, a service file or a password file.
        file: where the catalog is when its address is `sqlite`.
        vault: where the keys of accounts are. None: nobody reads or writes a text about people by this object.

    Raises:
        CallerError: `bad_catalog_url`; `exists`, there is a catalog already; `vault_in_catalog`, `not_empty`: the
            database has a vault, or tables of others.
        CatalogUnavailable: the file or the tables can't be made; the text says what to do.
    """
    # Each engine is imported where it is used: a command on the one need not wait for the other's library.
    if is_file(address):
        from storage.sqlite import SqliteCatalog

        return SqliteCatalog.create(file, vault)
    from storage.postgres import PostgresCatalog

    return PostgresCatalog.create(address, vault)


def open_catalog(
    address: str, file: Path, vault: Vault | None = None, *, answer_s: float | None = None
) -> Catalog:
    """Open an existing catalog; the other arguments are as `create_catalog` takes them.

    Args:
        answer_s: longest wait for one answer of a server, and then CatalogUnavailable: for processes with users who
            wait. None: as long as commands wait. A file answers or fails.

    Raises:
        CallerError: `bad_catalog_url`, `no_catalog`, `catalog_outdated`.
        CatalogCorrupt, CatalogUnavailable: it can't be used; the text says what to do.
    """
    if is_file(address):
        from storage.sqlite import SqliteCatalog

        return SqliteCatalog.open(file, vault)
    from storage.postgres import PostgresCatalog

    return PostgresCatalog.open(address, vault, answer_s=answer_s)


def remove_catalog(address: str, file: Path) -> None:
    """Take away a catalog that was just made, and is used by nobody. Other tables of a database stay."""
    if is_file(address):
        for suffix in ("", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        return
    from storage.postgres import PostgresCatalog

    PostgresCatalog.remove(address)


@dataclass(frozen=True, slots=True)
class MigratedCatalog:
    """What `migrate_catalog` did. `backup` is the copy that was made before, None when there is none: nothing had to be
    done, or the catalog is on a server, whose backups are the operator's."""

    subject: str
    before: str
    after: str
    backup: Path | None


def migrate_catalog(
    address: str, file: Path, vault: Vault, *, backup: Path, now_ms: int, half: str = "both"
) -> MigratedCatalog:
    """Bring a catalog of an earlier release to the newest revision, in one transaction.

    Args:
        vault: what account keys, which earlier releases kept in the catalog, are moved to.
        backup: where a copy of a file goes first; it must not exist.
        now_ms: Unix ms.
        half: `before`, what the new release needs, while the earlier one may run beside it; `after`, the rest; `both`.
            A file has no halves: one host serves it, which stops for a moment.

    Raises:
        CallerError, WorldError, CatalogCorrupt: it can't be done; nothing was changed.
    """
    if is_file(address):
        if half != "both":
            raise CallerError(
                "a catalog in a file is migrated in one: stop the service, and run `clipkeep catalog migrate`",
                subject=str(file),
                code="no_halves",
            )
        from storage.sqlite.migrations.run import migrate  # Alembic takes a second, and nobody else needs it

        done = migrate(file, backup=backup, vault=vault, now_ms=now_ms)
        return MigratedCatalog(str(file), done.before, done.after, done.backup)
    from storage.postgres import migrations

    before, after = migrations.migrate(address, migrations.Half(half), vault=vault, now_ms=now_ms)
    return MigratedCatalog(without_password(address), before, after, None)


def grant_to_service(address: str, role: str) -> list[str]:
    """Let a role of the catalog's server do what the service does, and not change the history; see
    `storage.postgres.privileges`. Returns the statements.

    Raises:
        CallerError: `not_a_server`; and what `storage.postgres.privileges.grant` raises.
        CatalogUnavailable: the server refused; nothing was changed.
    """
    if is_file(address):
        raise CallerError(
            "a catalog in a file has no roles: who may write the file may write all of it",
            code="not_a_server",
        )
    from storage.postgres import privileges

    return privileges.grant(address, role)


def promise_at(address: str) -> Promise:
    """What commits survive there, by the settings that a server has now.

    Args:
        address: of a catalog, or of a vault on a server.

    Raises:
        CallerError: the address is of no engine.
        CatalogUnavailable: the server does not answer.
    """
    if is_file(address):
        return OF_A_FILE
    from storage.postgres.database import PostgresDatabase

    with closing(PostgresDatabase(address)) as database:
        return database.promise()


def is_file(address: str) -> bool:
    """Whether the catalog is a file of the data folder.

    Raises:
        CallerError: `bad_catalog_url`, the address is of no engine.
    """
    if address == SQLITE:
        return True
    try:
        scheme = urlsplit(address).scheme
    except ValueError:
        scheme = ""
    if scheme not in ("postgresql", "postgres"):
        raise CallerError(
            "a catalog's address is `sqlite`, or postgresql://user@host:port/database", code="bad_catalog_url"
        )
    return False


def copy_catalog_aside(
    address: str, file: Path, to: Path, progress: Callable[[str, int, int], None]
) -> ServerBackups | None:
    """Copy a catalog in a file, consistently, beside who writes to it; or ask its server whether it is backed up.

    Args:
        to: the file to make, for a catalog in a file.

    Returns:
        What the server tells; None when there is a copy.

    Raises:
        CatalogUnavailable: no copy could be made, and nothing is left of it; or the server does not answer.
    """
    if is_file(address):
        from storage.sqlite.backup import copy_catalog_file

        copy_catalog_file(file, to, progress)
        return None
    from storage.postgres.server_backups import server_backups

    return server_backups(address)
