"""The catalog on SQLite: one file, WAL, every commit durable (synchronous=FULL).

`database` holds connections and transactions, `schema` the tables. All else is `storage.sql`, which both engines share.
"""

from __future__ import annotations

from pathlib import Path

from storage.account_keys import AccountKeys, AccountVault
from storage.sql import SqlCatalog
from storage.sqlite.database import SqliteDatabase
from storage.sqlite.schema import create_schema, require_schema


class SqliteCatalog(SqlCatalog):
    """See `storage.catalog.Catalog`.

    Safe from several threads (a connection for each transaction) and processes (SQLite's own locks), but not
    across a fork: open it in the process that uses it. A write waits for another one for up to
    `busy_timeout_s`, then raises CatalogUnavailable.
    """

    @classmethod
    def create(
        cls, path: Path, vault: AccountVault | None = None, *, busy_timeout_s: float = 10.0
    ) -> SqliteCatalog:
        """Create the file with an empty schema. Raises CallerError when it already exists.

        Args:
            vault: where account keys are; None: nobody reads or writes a text about people by this object.
        """
        database, keys = SqliteDatabase(path, busy_timeout_s=busy_timeout_s, create=True), AccountKeys(vault)
        try:
            create_schema(database, keys)
        except BaseException:
            database.discard()  # half a catalog could be neither opened nor created
            raise
        return cls(database, keys)

    @classmethod
    def open(
        cls, path: Path, vault: AccountVault | None = None, *, busy_timeout_s: float = 10.0
    ) -> SqliteCatalog:
        """Open an existing catalog.

        Raises:
            CatalogCorrupt: not a catalog, damaged, or of another schema version.
            CatalogUnavailable: the file is missing or cannot be read: nothing is created in its place.
        """
        database = SqliteDatabase(path, busy_timeout_s=busy_timeout_s)
        try:
            require_schema(database)
        except BaseException:
            database.close()
            raise
        return cls(database, AccountKeys(vault))
