"""The catalog interface: the database of accounts, devices, plans, segments and chunks.

It stores facts and decides races; it knows no rule of the agreement (those are pure functions in
`retention`, handed in where a decision must be taken inside a transaction) and has no clock (`now_ms`, Unix
milliseconds, is an argument). Days are day numbers (`storage.days`).

A module here for each caller. Who is given a catalog names in its type no more of it than it calls; who calls two
parts names a protocol of its own that inherits both. Whoever opens one has a `Catalog`, which is all of them.

All methods block and may be called from several threads and processes at once. Every method that changes
something is one transaction, durable when it returns. Errors: `CatalogUnavailable` when the database
cannot be read or written; `NotFound` for an unknown device.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from storage.catalog.account_keys import AccountKeysCatalog
from storage.catalog.books import BooksCatalog
from storage.catalog.check import CheckCatalog
from storage.catalog.clips import ClipsCatalog
from storage.catalog.continuity import ContinuityCatalog
from storage.catalog.devices import ChangesCatalog, DevicesCatalog
from storage.catalog.erasures import ErasuresCatalog
from storage.catalog.hosts import HostsCatalog
from storage.catalog.ingest import IngestCatalog
from storage.catalog.kept import KeptCatalog
from storage.catalog.payment_records import PaymentRecordsCatalog
from storage.catalog.reading import ReadingCatalog
from storage.catalog.reports import ReportsCatalog
from storage.catalog.schedule import ScheduleCatalog
from storage.catalog.shares import SharesCatalog
from storage.catalog.sightings import SightingsCatalog
from storage.catalog.sweep import SweepCatalog
from storage.catalog.uploads import UploadsCatalog


class Catalog(
    IngestCatalog,
    UploadsCatalog,
    SightingsCatalog,
    KeptCatalog,
    ReadingCatalog,
    DevicesCatalog,
    ChangesCatalog,
    BooksCatalog,
    AccountKeysCatalog,
    SharesCatalog,
    ClipsCatalog,
    PaymentRecordsCatalog,
    HostsCatalog,
    ScheduleCatalog,
    SweepCatalog,
    ErasuresCatalog,
    ReportsCatalog,
    CheckCatalog,
    ContinuityCatalog,
    Protocol,
):
    """All of it, as who opens one has it (`storage.open_catalog`). See the module docstring."""

    @abstractmethod
    def close(self) -> None:
        """Close all connections."""
