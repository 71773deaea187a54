"""Rows of what is sold: packages, in versions."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PackageRow:
    """One version of a package. Rows are never removed, for plans name them; only `sold_until` is ever changed.

    Args:
        kind: "trial", "monthly" or "full" (paid in full for some months).
        months: that one paid in full lasts; else 0.
        days: that a trial lasts; else 0.
        retention_days: 1..255, of the chunks written while a plan of it runs.
        max_devices: of one account that may have a plan of it at a time; 0: any number.
        sold_from, sold_until: first and last day on which it is sold, day numbers; None: without an end.
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
