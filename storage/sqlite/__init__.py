"""The catalog on SQLite: one file, WAL, every commit durable (synchronous=FULL).

`database` holds connections and transactions, `schema` the tables; the rest is the catalog by who calls:
`commits` (ingest), `reads` (playback), `devices` (plans), `sweeping` (the end of recordings), `checking`.
"""

from __future__ import annotations

from pathlib import Path

from storage.sqlite.checking import Checking
from storage.sqlite.commits import Commits
from storage.sqlite.database import Database
from storage.sqlite.devices import Devices
from storage.sqlite.reads import Reads
from storage.sqlite.schema import create_schema, require_schema
from storage.sqlite.sweeping import Sweeping


class SqliteCatalog(Commits, Reads, Devices, Sweeping, Checking):
    """See `storage.catalog.Catalog`.

    Safe from several threads (a connection each) and processes (SQLite's own locks). A write waits for
    another process's write for up to `busy_timeout_s`, then raises CatalogUnavailable.
    """

    @classmethod
    def create(cls, path: Path, *, busy_timeout_s: float = 10.0) -> SqliteCatalog:
        """Create the file with an empty schema. Raises CallerError when it already exists."""
        database = Database(path, busy_timeout_s=busy_timeout_s, create=True)
        create_schema(database)
        return cls(database)

    @classmethod
    def open(cls, path: Path, *, busy_timeout_s: float = 10.0) -> SqliteCatalog:
        """Open an existing catalog.

        Raises:
            CatalogCorrupt: not a catalog, damaged, or of another schema version.
            CatalogUnavailable: the file is missing or cannot be read: nothing is created in its place.
        """
        database = Database(path, busy_timeout_s=busy_timeout_s)
        require_schema(database)
        return cls(database)

    def close(self) -> None:
        self._db.close()
