"""The catalog in SQL that every engine runs: `storage.sqlite` and `storage.postgres` give it connections.

A part for each interface of `storage.catalog`: `commits` (ingest), `reads` (reading), `devices` and `deletions`,
`books`, `shares`, `clips`, `payment_records`, `uploads`, `sightings`, `kept`, `leases`, `hosts`, `schedule`, `sweeping`
with `rewriting`, `erasures`, `reports`, `checking`, `continuity`. `connection` is what an engine gives.
"""

from __future__ import annotations

from storage.account_keys import AccountKeys
from storage.sql.books import Bookkeeping
from storage.sql.checking import Checking
from storage.sql.clips import Clips
from storage.sql.commits import Commits
from storage.sql.connection import Database
from storage.sql.continuity import Continuing
from storage.sql.erasures import Erasures
from storage.sql.hosts import Hosts
from storage.sql.kept import Kept
from storage.sql.payment_records import PaymentRecords
from storage.sql.reads import Reads
from storage.sql.reports import Reports
from storage.sql.schedule import Schedule
from storage.sql.shares import Shares
from storage.sql.sightings import Sightings
from storage.sql.sweeping import Sweeping
from storage.sql.uploads import Uploads


class SqlCatalog(
    Commits,
    Uploads,
    Sightings,
    Kept,
    Reads,
    Bookkeeping,
    Shares,
    Clips,
    PaymentRecords,
    Hosts,
    Schedule,
    Sweeping,
    Erasures,
    Reports,
    Checking,
    Continuing,
):
    """See `storage.catalog.Catalog`. Made by an engine, on its database."""

    def __init__(self, database: Database, keys: AccountKeys) -> None:
        super().__init__(database)
        self.keys = keys

    def close(self) -> None:
        self.db.close()
