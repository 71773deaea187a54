"""Rows of what is sold: packages, in versions."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PackageRow:
    """One version of a package. Rows are never removed, for plans name them; only `sold_until` and `applied_ms` ever
    change.

    Args:
        kind: "trial", "monthly" or "full" (paid in full for some months).
        months: that one paid in full lasts; else 0.
        days: that a trial lasts; else 0.
        retention_days: 1..255, of the chunks written while a plan of it runs.
        max_devices: of one account that may have a plan of it at a time; 0: any number.
        sold_from, sold_until: first and last day on which it is sold, day numbers; None: without an end.
        max_bytes_per_day, max_chunks_per_s: of one device while a plan of it runs; 0: no limit.
        limit_class: 1..MAX_LIMIT_CLASS: the number of this pair of limits, the same for all packages that have it;
            0 where both are 0.
        applied_ms: since when its price is to be that of monthly plans of earlier versions too; None: it is for
            purchases.
        prices: currency -> [fee of the period, monthly fee that refunds are counted with], minor units; {} of a trial.
    """

    package: str
    version: int  # 1, 2, … of each package
    kind: str
    months: int
    days: int
    retention_days: int
    max_devices: int
    sold_from: int
    sold_until: int | None
    made_ms: int
    prices: dict[str, list[int]] = field(default_factory=dict)
    max_bytes_per_day: int = 0
    max_chunks_per_s: int = 0
    limit_class: int = 0
    applied_ms: int | None = None


MAX_LIMIT_CLASS = 127
"""Pairs of limits that packages may have between them: what the header of an entitlement bitmap has room for, and one
byte of a row can name."""
