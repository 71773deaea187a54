"""The catalog's conformance suites in one class, but for those that take a vault."""

from __future__ import annotations

from storage.contracts.check import CheckContract
from storage.contracts.clips import ClipsContract
from storage.contracts.continuity import ContinuityContract
from storage.contracts.devices import DevicesContract
from storage.contracts.erasures import ErasuresContract
from storage.contracts.hosts import HostsContract
from storage.contracts.ingest import IngestContract
from storage.contracts.inits import InitsContract
from storage.contracts.kept import KeptContract
from storage.contracts.leases import LeasesContract
from storage.contracts.payment_records import PaymentRecordsContract
from storage.contracts.reading import ReadingContract
from storage.contracts.reports import ReportsContract
from storage.contracts.schedule import ScheduleContract
from storage.contracts.shares import SharesContract
from storage.contracts.sightings import SightingsContract
from storage.contracts.sweep import SweepContract
from storage.contracts.uploads import UploadsContract


class CatalogContract(
    IngestContract,
    InitsContract,
    UploadsContract,
    SightingsContract,
    KeptContract,
    ReadingContract,
    DevicesContract,
    LeasesContract,
    PaymentRecordsContract,
    HostsContract,
    ScheduleContract,
    SharesContract,
    ClipsContract,
    SweepContract,
    ErasuresContract,
    ReportsContract,
    CheckContract,
    ContinuityContract,
):
    """What `storage.catalog.Catalog` promises, but for what takes a vault: `books`, `account_keys`."""
