"""Reading what a plan is made of. Writes nothing (invariant 13)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from retention.bitmap import EntitlementBitmap
from retention.entitlements import Entitlements
from retention.erasure import to_be_erased
from retention.sweep.planning import (
    MAX_ERASED,
    MAX_RECLAIMED,
    MAX_REWRITES,
    REWRITE_DAYS_LEFT,
    SweepFacts,
    SweepLimits,
    SweepMoment,
)
from storage.catalog.devices import DevicesCatalog
from storage.catalog.erasures import ErasuresCatalog
from storage.catalog.sweep import SweepCatalog
from storage.days import day_of_ms
from storage.rows.devices import DeviceFacts

NOMINEES_AT_ONCE = 1000
"""Devices asked about in one query: milliseconds."""


class FactsCatalog(SweepCatalog, ErasuresCatalog, DevicesCatalog, Protocol):
    """What is due, of recordings and of devices."""


def read_facts(
    catalog: FactsCatalog,
    bitmap: EntitlementBitmap,
    entitlements: Entitlements,
    limits: SweepLimits,
    *,
    now_ms: int,
) -> SweepFacts:
    """All that `plan_sweep` needs. Memory is bounded, however much there is to do."""
    moment = SweepMoment.at(now_ms, limits)
    erasable, count = _erasable(catalog, bitmap, entitlements, limits, now_ms)
    rewrites = MAX_REWRITES if limits.rewrite_bytes else 0
    after_day = day_of_ms(now_ms) + REWRITE_DAYS_LEFT
    return SweepFacts(
        moment,
        open_days=tuple(catalog.open_days(moment.expired_through)),
        stale_prepared=tuple(catalog.stale_prepared(moment.stale_before_ms, limit=MAX_RECLAIMED)),
        unfinished_deletions=tuple(catalog.unfinished_deletions()),
        erasing=tuple(catalog.erasing_devices(limit=MAX_ERASED)),
        erasable=tuple(erasable),
        erasable_count=count,
        due=catalog.due_totals(now_ms),
        half_dead=tuple(catalog.half_dead(after_day=after_day, now_ms=now_ms, limit=rewrites)),
    )


def _erasable(
    catalog: DevicesCatalog,
    bitmap: EntitlementBitmap,
    entitlements: Entitlements,
    limits: SweepLimits,
    now_ms: int,
) -> tuple[list[DeviceFacts], int]:
    """Devices to be marked for erasure, and how many there are. The bitmap nominates, the catalog decides."""
    today = entitlements.today()
    grace_days = limits.lapse_grace_days
    # Nobody has made the rows of this boot yet: ask about everyone.
    batches = (
        _nominated(catalog, bitmap, today, grace_days) if entitlements.recovered else _every_device(catalog)
    )
    found: list[DeviceFacts] = []
    count = 0
    for batch in batches:
        for facts in batch:
            if to_be_erased(facts, now_ms=now_ms, today=today, grace_days=grace_days):
                count += 1
                if len(found) < MAX_ERASED:
                    found.append(facts)
    return found, count


def _every_device(catalog: DevicesCatalog) -> Iterator[list[DeviceFacts]]:
    after = 0
    while batch := catalog.devices(after=after):
        yield batch
        after = batch[-1].device


def _nominated(
    catalog: DevicesCatalog, bitmap: EntitlementBitmap, today: int, grace_days: int
) -> Iterator[list[DeviceFacts]]:
    numbers = bitmap.ended_devices(today, grace_days)
    for start in range(0, len(numbers), NOMINEES_AT_ONCE):
        yield catalog.devices_numbered(numbers[start : start + NOMINEES_AT_ONCE].tolist())
