"""The catalog as the schedule of a home sees it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from storage.catalog.leases import LeasesCatalog
from storage.rows.schedule import RunRow


class ScheduleCatalog(LeasesCatalog, Protocol):
    """The newest run of each job. Who writes here holds the lease of the schedule; two at once do no harm."""

    @abstractmethod
    def scheduled_runs(self) -> dict[str, RunRow]:
        """By job."""

    @abstractmethod
    def note_run(self, run: RunRow) -> None:
        """Put this in place of what is known of that job."""
