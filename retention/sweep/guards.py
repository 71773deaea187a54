"""When nothing may be deleted at all."""

from __future__ import annotations

from retention.bitmap import EntitlementBitmap
from storage.catalog import Catalog
from storage.clock import Clock
from storage.errors import ClipkeepError
from storage.objects import ObjectStore


class SweepRefused(ClipkeepError):
    """Nothing was changed, because something is not as it must be. The detail says what to do."""

    code = "sweep_refused"


def check_clock(store: ObjectStore, clock: Clock, *, max_skew_ms: int) -> None:
    """A wrong clock would expire live recordings (invariant 12).

    Raises:
        SweepRefused: `clock_skew`.
    """
    theirs_s = store.server_time_s()
    if theirs_s is None:
        return
    skew_ms = abs(theirs_s * 1000 - clock.now_ms())
    if skew_ms > max_skew_ms:
        raise SweepRefused(
            f"this host's clock and the store's differ by {skew_ms / 1000:.0f} s; nothing was deleted. Set the"
            " clock right, then sweep again",
            code="clock_skew",
        )


def check_catalog(catalog: Catalog, bitmap: EntitlementBitmap) -> None:
    """A restored catalog knows less than this host has seen: its prepared keys may hold live chunks since.

    Raises:
        SweepRefused: `catalog_restored`.
    """
    seen_change, change = bitmap.last_change, catalog.newest_change()
    seen_segment, segment = bitmap.segment_high_water, catalog.highest_segment_id()
    if change < seen_change or segment < seen_segment:
        raise SweepRefused(
            f"the catalog is older than what this host has seen (change {change} of {seen_change}, segment"
            f" {segment} of {seen_segment}): it was restored or replaced, and nothing was deleted. Put"
            " the newer catalog back",
            code="catalog_restored",
        )
