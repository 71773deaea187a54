"""Catalogs of earlier releases on PostgreSQL, brought up to date.

One linear chain, with the revisions of SQLite's. It begins with the first release that knew this engine, so that has no
step: a new schema is a new entry of STEPS (frozen when it is released) and the same in the schema that `create` makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType

from storage.errors import CatalogCorrupt
from storage.postgres.database import PostgresDatabase
from storage.postgres.schema import revision_of
from storage.sqlite.schema import REVISION

STEPS: Mapping[str, tuple[str, str]] = MappingProxyType({})
"""By the revision that it starts from: the one that it makes, and its statements."""


def migrate(url: str) -> tuple[str, str]:
    """Bring a catalog to the newest revision, all steps in one transaction. One that has it stays as it is.

    Returns:
        The revision before, and after.

    Raises:
        CallerError: `no_catalog`.
        CatalogCorrupt: not of an earlier release; nothing was changed.
        CatalogUnavailable: the server refused; nothing was changed.
    """
    with closing(PostgresDatabase(url)) as database, database.hold() as connection:
        before = found = revision_of(connection, database.subject)
        while found != REVISION:
            if found not in STEPS:
                raise CatalogCorrupt(
                    f"schema {found}, and no way from there to {REVISION}, which this release reads: it is of another"
                    " release",
                    subject=database.subject,
                )
            found, statements = STEPS[found]
            connection.execute(statements)
            connection.execute("UPDATE alembic_version SET version_num = ?", (found,))
    return before, found
