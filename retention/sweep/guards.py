"""When nothing may be deleted at all."""

from __future__ import annotations

from retention.bitmap import EntitlementBitmap
from retention.sweep.highwater import HighWater
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


def check_catalog(catalog: Catalog, bitmap: EntitlementBitmap, mark: HighWater) -> None:
    """A restored or new catalog knows less than was seen of it: its prepared keys may hold live chunks since, and
    devices that it takes for lapsed may have been renewed (invariant 3).

    Args:
        mark: what was seen by the store.

    Raises:
        SweepRefused: `catalog_restored`.
    """
    known = HighWater.of(catalog)
    host = HighWater(bitmap.segment_high_water, bitmap.last_change)
    for who, seen in (("this host has", host), ("the last sweep of this store had", mark)):
        if known.raised_to(seen) != known:
            raise SweepRefused(
                f"the catalog is older than what {who} seen of it (change {known.change} of {seen.change}, segment"
                f" {known.segment_id} of {seen.segment_id}): it was restored or replaced, or this is the store of"
                " another catalog. Nothing was deleted. Put the newer catalog back; when it is lost, see"
                ' "A restored catalog" in docs/operations.md',
                code="catalog_restored",
            )
