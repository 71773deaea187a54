"""The catalog on SQLite: one file, WAL, every commit durable (synchronous=FULL).

`database` holds connections and transactions, `schema` the tables; the rest is the catalog by who calls:
`commits` (ingest), `reads` (playback), `devices` (plans), `deletions` (ranges), `leases`, `sweeping` and `rewriting`
(the end of recordings), `records` (what is remembered of it), `continuity`, `checking`, `books` (accounts and what
they agreed to).
"""

from __future__ import annotations

from pathlib import Path

from storage.sqlite.books import Bookkeeping
from storage.sqlite.checking import Checking
from storage.sqlite.commits import Commits
from storage.sqlite.continuity import Continuing
from storage.sqlite.database import Database
from storage.sqlite.deletions import Deletions
from storage.sqlite.devices import Devices
from storage.sqlite.reads import Reads
from storage.sqlite.records import Recording
from storage.sqlite.rewriting import Rewriting
from storage.sqlite.schema import create_schema, require_schema


class SqliteCatalog(
    Commits, Reads, Devices, Deletions, Recording, Rewriting, Continuing, Checking, Bookkeeping
):
    """See `storage.catalog.Catalog`.

    Safe from several threads (a connection for each transaction) and processes (SQLite's own locks), but not
    across a fork: open it in the process that uses it. A write waits for another one for up to
    `busy_timeout_s`, then raises CatalogUnavailable.
    """

    @classmethod
    def create(cls, path: Path, *, busy_timeout_s: float = 10.0) -> SqliteCatalog:
        """Create the file with an empty schema. Raises CallerError when it already exists."""
        database = Database(path, busy_timeout_s=busy_timeout_s, create=True)
        try:
            create_schema(database)
        except BaseException:
            database.discard()  # half a catalog could be neither opened nor created
            raise
        return cls(database)

    @classmethod
    def open(cls, path: Path, *, busy_timeout_s: float = 10.0) -> SqliteCatalog:
        """Open an existing catalog.

        Raises:
            CatalogCorrupt: not a catalog, damaged, or of another schema version.
            CatalogUnavailable: the file is missing or cannot be read: nothing is created in its place.
        """
        database = Database(path, busy_timeout_s=busy_timeout_s)
        try:
            require_schema(database)
        except BaseException:
            database.close()
            raise
        return cls(database)

    def close(self) -> None:
        self._db.close()
