"""A catalog goes from its file to a server, whole and compared; and back, as long as nothing was written there.

What may follow what:

    file open, database empty       -> sealed, copying
    file sealed, copying            -> sealed, copying (again: it goes on), or back to open and empty
    file sealed, database whole     -> the copy is in use; back to open and empty while the two are alike
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from storage.errors import CallerError
from storage.open_catalog import SQLITE, is_file

Progress = Callable[[str, int, int], None]
"""What is done, how many, of how many."""


def copy_catalog(address: str, file: Path, *, to: str, home: int, progress: Progress) -> int:
    """Seal the file, copy all rows, compare them, and make the database a catalog. A copy that was stopped goes on;
    one that was finished is compared again.

    Args:
        address: of the catalog that there is.
        file: where that is.
        to: `postgresql://…`, an empty database.
        home: whose catalog it is; see `Continuity.home`.

    Returns:
        How many rows it has.

    Raises:
        CallerError: `not_a_file`: the catalog is on a server already. `bad_catalog_url`. `exists`: the database is not
            empty, or has changed since.
        WorldError: `catalog_in_use`, the service runs; or the server refused.
        CatalogCorrupt: the file is damaged, or the copy is not alike.
    """
    from storage.postgres import copying
    from storage.postgres.database import PostgresDatabase
    from storage.sqlite.sealing_off import held_alone, is_sealed, seal_off

    _require_places(address, to)
    with held_alone(file) as source, closing(PostgresDatabase(to)) as database:
        if copying.is_whole(database):
            if not is_sealed(source) or copying.differences(source, database, progress):
                raise CallerError(
                    "a catalog is already in this database, and it is not the same as the file; nothing was changed."
                    " Name an empty database: CREATE DATABASE makes one",
                    subject=database.subject,
                    code="exists",
                )
            return copying.count_rows(source, copying.tables_of(source))
        copying.begin(database, home)
        seal_off(source)
        rows = copying.copy_rows(source, database, progress)
        copying.copy_numbers(source, database)
        copying.require_alike(source, database, progress)
        copying.finish(database)
        return rows


def take_back(file: Path, *, to: str, home: int, before: Callable[[], None], progress: Progress) -> None:
    """Remove the copy, and open the file again. A database without a table has nothing to be removed.

    Args:
        home: whose catalog the file is.
        before: called when it is decided, before anything is removed.

    Raises:
        CallerError: `committed`: the copy has changed since it was made, so the file is no longer the catalog.
            `not_sealed`: the file was not copied. `exists`, `not_empty`: what is in the database is no copy of it.
        WorldError: `catalog_in_use`: the service runs.
    """
    from storage.errors import WorldError
    from storage.postgres import PostgresCatalog, copying
    from storage.postgres.database import PostgresDatabase
    from storage.sqlite.sealing_off import held_alone, is_sealed, unseal

    _require_places(SQLITE, to)
    with held_alone(file) as source:
        if not is_sealed(source):
            raise CallerError(
                "this catalog is in use as it is, and not sealed", subject=str(file), code="not_sealed"
            )
        with closing(PostgresDatabase(to)) as database:
            if copying.others_at_work(database):
                raise WorldError(
                    "a process has the catalog open; stop the service, then run this again",
                    subject=database.subject,
                    code="catalog_in_use",
                )
            is_whole = copying.is_whole(database)
            is_there = is_whole or copying.is_begun(database, home)
            if not is_there:
                copying.require_nothing(database)
            if is_whole and copying.differences(source, database, progress):
                raise CallerError(
                    "the new catalog has been written to since it was copied, so the file is out of date: going back"
                    " would lose what was acknowledged",
                    subject=database.subject,
                    code="committed",
                )
        before()
        if is_there:
            PostgresCatalog.remove(to)
        unseal(source)


def _require_places(address: str, to: str) -> None:
    if not is_file(address):
        raise CallerError(
            "the catalog is on a server already; its own tools copy it (pg_dump)", code="not_a_file"
        )
    if is_file(to):
        raise CallerError(
            "--to names a database: postgresql://user@host:port/database", code="bad_catalog_url"
        )
