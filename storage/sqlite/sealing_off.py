"""A catalog file that was copied elsewhere is sealed: no release opens it again, unless it is unsealed here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from storage.errors import CallerError, CatalogCorrupt, CatalogUnavailable, WorldError
from storage.sqlite.schema import OUTDATED, SCHEMA_VERSION, SEALED, not_of_this_release, require_whole
from storage.sqlite_check import errors_with_text

IN_USE_WAIT_S = 2.0


@contextmanager
def held_alone(path: Path) -> Iterator[sqlite3.Connection]:
    """The only connection to the file: it is not given while any process has the catalog open, nor to anybody later.

    Raises:
        WorldError: `catalog_in_use`.
        CallerError: `catalog_outdated`.
        CatalogUnavailable, CatalogCorrupt: missing, damaged, or no catalog of this release.
    """
    if not path.exists():
        raise CatalogUnavailable("the catalog file is missing; restore it", subject=str(path))
    uri = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with closing(
            sqlite3.connect(uri, uri=True, timeout=IN_USE_WAIT_S, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            with errors_with_text():
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            version = _version(connection)
            if version in OUTDATED:
                raise CallerError(
                    "this catalog is of an earlier release; run `clipkeep catalog migrate` first",
                    subject=str(path),
                    code="catalog_outdated",
                )
            if version not in (SCHEMA_VERSION, SEALED + SCHEMA_VERSION):
                raise not_of_this_release(path, version)
            require_whole(connection, path)
            yield connection
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", None) or "SQLITE_ERROR"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise WorldError(
                "a process has the catalog open; stop the service, then run this again",
                subject=str(path),
                code="catalog_in_use",
            ) from error
        if name.startswith("SQLITE_CORRUPT") or name == "SQLITE_NOTADB":
            raise CatalogCorrupt(f"{error}; restore it from a backup", subject=str(path)) from error
        raise CatalogUnavailable(f"{error} ({name})", subject=str(path)) from error


def is_sealed(connection: sqlite3.Connection) -> bool:
    return _version(connection) > SEALED


def seal_off(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA user_version={SEALED + SCHEMA_VERSION}")


def unseal(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
