"""The catalog in SQL that every engine runs: `storage.sqlite` and `storage.postgres` give it connections.

By who calls: `commits` (ingest), `reads` (playback), `devices` (plans), `deletions` (ranges), `leases`, `sweeping` and
`rewriting` (the end of recordings), `records` (what is remembered of it), `continuity` (the catalog's facts about
itself), `checking`, `books` (accounts and what they agreed to). `connection` is what an engine gives.
"""

from __future__ import annotations

from storage.sql.books import Bookkeeping
from storage.sql.checking import Checking
from storage.sql.commits import Commits
from storage.sql.continuity import Continuing
from storage.sql.deletions import Deletions
from storage.sql.devices import Devices
from storage.sql.reads import Reads
from storage.sql.records import Recording
from storage.sql.rewriting import Rewriting


class SqlCatalog(Commits, Reads, Devices, Deletions, Recording, Rewriting, Continuing, Checking, Bookkeeping):
    """See `storage.catalog.Catalog`. Made by an engine, on its database."""

    def close(self) -> None:
        self.db.close()
