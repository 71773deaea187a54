"""Bring a catalog of an earlier release up to date, in one transaction, after a copy of it was made.

The one module that imports Alembic and SQLAlchemy, which take a second: it is imported when somebody migrates.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from storage.errors import CatalogCorrupt, CatalogUnavailable, WorldError
from storage.sql.books.erasing import LEFT_IN_LOG
from storage.sqlite.schema import OUTDATED, REVISION, SCHEMA_VERSION, not_of_this_release, require_whole
from storage.sqlite_check import errors_with_text
from storage.vault import Vault

IN_USE_WAIT_S = 2.0
"""How long another process may take to close the catalog before it counts as running."""
FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was done. `backup` is None when nothing had to be."""

    before: str
    after: str
    backup: Path | None


def migrate(path: Path, *, backup: Path, vault: Vault | None = None, now_ms: int = 0) -> Migrated:
    """Bring the catalog at `path` to the newest revision. One that has it stays as it is.

    Args:
        backup: where a copy of the file as it is goes first; it must not exist.
        vault: what account keys, which earlier releases kept in the catalog, are moved to.
        now_ms: Unix ms; the age of a key that no account comes to refer to is told from it.

    Raises:
        WorldError: `catalog_in_use`, a process has it open; nothing was changed.
        CatalogUnavailable: the file is missing, the copy could not be made, or the disk is full; nothing was changed.
        CatalogCorrupt: damaged, or not of an earlier release; nothing was changed.
    """
    if not path.exists():
        raise CatalogUnavailable("the catalog file is missing; restore it", subject=str(path))
    try:
        with closing(_connected(path)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA_VERSION:
                return Migrated(REVISION, REVISION, None)
            if version not in OUTDATED:
                raise not_of_this_release(path, version)
            require_whole(connection, path)
            _copy(connection, backup)
            with _transaction(connection) as on:
                _upgrade(on, OUTDATED[version], vault, now_ms)
            # Pages of before may be in the file still, which those in the log take the place of.
            if not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                connection.execute("DELETE FROM meta WHERE name = ?", (LEFT_IN_LOG,))
            return Migrated(OUTDATED[version], REVISION, backup)
    except sqlite3.DatabaseError as error:
        raise _translated(error, path) from error
    except DBAPIError as error:
        raise _translated(error.orig, path) from error


def _connected(path: Path) -> sqlite3.Connection:
    """The only connection to the file: an exclusive one is not given while any process has one open."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=IN_USE_WAIT_S, isolation_level=None
    )
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        with errors_with_text():
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=OFF")  # tables are made anew; checked before the commit
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


def _copy(connection: sqlite3.Connection, backup: Path) -> None:
    """A whole, durable copy under its final name, or nothing."""
    try:
        os.close(os.open(backup, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        try:
            with closing(sqlite3.connect(backup)) as copy:
                connection.backup(copy)
            for place in (backup, backup.parent):
                fd = os.open(place, os.O_RDONLY)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
        except BaseException:
            backup.unlink()
            raise
    except (OSError, sqlite3.Error) as error:
        raise CatalogUnavailable(
            f"no copy could be made, so nothing was changed: {error}", subject=str(backup)
        ) from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[Connection]:
    """SQLAlchemy on this connection, inside one transaction, DDL included: committed at the end, else undone."""
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)

    @event.listens_for(engine, "begin")
    def begin(on: Connection) -> None:  # the driver is told to begin none by itself, see `_connected`
        on.exec_driver_sql("BEGIN EXCLUSIVE")

    with engine.begin() as on:
        yield on


def _upgrade(on: Connection, revision: str, vault: Vault | None, now_ms: int) -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes |= {"connection": on, "vault": vault, "now_ms": now_ms}
    if not on.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").first():
        command.stamp(config, revision)
    command.upgrade(config, REVISION)
    broken = on.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        raise CatalogCorrupt(
            f"{len(broken)} rows refer to rows that are not there, the first in table {broken[0][0]}; nothing was"
            " changed. Restore the catalog from a backup"
        )


def _translated(error: BaseException | None, path: Path) -> WorldError | CatalogCorrupt:
    name = getattr(error, "sqlite_errorname", None) or "SQLITE_ERROR"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return WorldError(
            "a process has the catalog open; stop the service, then run this again",
            subject=str(path),
            code="catalog_in_use",
        )
    if name.startswith("SQLITE_CORRUPT") or name == "SQLITE_NOTADB":
        return CatalogCorrupt(f"{error}; restore it from a backup", subject=str(path))
    return CatalogUnavailable(f"{error} ({name}); nothing was changed", subject=str(path))
