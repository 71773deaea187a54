"""The catalog on PostgreSQL, 15 and later.

`database` holds connections and transactions, `connection` what one of them understands, `schema` the tables. All else
is `storage.sql`, which both engines share.
"""

from __future__ import annotations

from contextlib import closing

from storage.account_keys import AccountKeys, AccountVault
from storage.postgres.database import PostgresDatabase
from storage.postgres.schema import create_schema, drop_schema, require_schema
from storage.sql import SqlCatalog


class PostgresCatalog(SqlCatalog):
    """See `storage.catalog.Catalog`.

    Safe from several threads, processes and hosts, but not across a fork: open it in the process that uses it.
    """

    @classmethod
    def create(
        cls, url: str, vault: AccountVault | None = None, *, lock_timeout_ms: int | None = None
    ) -> PostgresCatalog:
        """Make the tables in an empty database. Raises CallerError `exists` when they are there.

        Args:
            vault: where account keys are; None: nobody reads or writes a text about people by this object.
        """
        database, keys = PostgresDatabase(url, lock_timeout_ms=lock_timeout_ms), AccountKeys(vault)
        try:
            create_schema(database, keys)
        except BaseException:
            database.close()
            raise
        return cls(database, keys)

    @classmethod
    def remove(cls, url: str) -> None:
        """Drop the tables that `create` made, and no others."""
        with closing(PostgresDatabase(url)) as database:
            drop_schema(database)

    @classmethod
    def open(
        cls,
        url: str,
        vault: AccountVault | None = None,
        *,
        lock_timeout_ms: int | None = None,
        answer_s: float | None = None,
    ) -> PostgresCatalog:
        """Open an existing catalog. `answer_s` is as of `storage.open_catalog.open_catalog`.

        Raises:
            CallerError: `no_catalog`.
            CatalogCorrupt: of another release.
            CatalogUnavailable: the server does not answer, or refuses.
        """
        database = PostgresDatabase(url, lock_timeout_ms=lock_timeout_ms, answer_s=answer_s)
        try:
            database.require_version()
            require_schema(database)
        except BaseException:
            database.close()
            raise
        return cls(database, AccountKeys(vault))
