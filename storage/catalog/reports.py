"""The catalog as metrics and lists for the operator see it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

from storage.rows.recordings import Totals

MAX_SWEEP_REPORTS = 1000
"""Reports that are kept, the newest ones: of hourly passes those of six weeks. Failed passes likewise."""


class ReportsCatalog(Protocol):
    """Sums, and what became of the passes of the sweep."""

    @abstractmethod
    def totals(self) -> Totals:
        """Sums over everything; may take a while on a large catalog."""

    @abstractmethod
    def retention_classes(self) -> list[int]:
        """Every retention class, in days, that a plan or an object has."""

    @abstractmethod
    def record_sweep(self, report: dict[str, Any], *, now_ms: int) -> None:
        """Keep the report of a pass."""

    @abstractmethod
    def last_sweep(self) -> dict[str, Any] | None:
        """The newest report, or None."""

    @abstractmethod
    def sweep_reports(self, *, limit: int) -> list[dict[str, Any]]:
        """The newest reports of passes, newest first."""

    @abstractmethod
    def note_failed_sweep(self, code: str, detail: str, *, now_ms: int) -> None:
        """Keep that a pass ended with an error."""

    @abstractmethod
    def failed_sweeps(self, *, limit: int) -> list[dict[str, Any]]:
        """The newest failed passes, newest first: `at_ms`, `code`, `detail`."""

    @abstractmethod
    def failures_since_success(self) -> int:
        """Passes that failed since the last one that ended well."""
