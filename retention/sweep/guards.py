"""When nothing may be deleted at all."""

from __future__ import annotations

from retention.bitmap import EntitlementBitmap
from retention.sweep.highwater import HighWater
from retention.witness import ClockDoubted, ClockWitness
from storage.catalog.continuity import ContinuityCatalog
from storage.errors import ClipkeepError


class SweepRefused(ClipkeepError):
    """Nothing was changed, because something is not as it must be. The detail says what to do."""

    code = "sweep_refused"


def check_clock(witness: ClockWitness, *, accept: bool = False, keep: bool = False) -> None:
    """A wrong clock would expire live recordings (invariant 12).

    Args:
        accept: an operator says that it is right; a store's own clock is still asked.
        keep: note that it was believed.

    Raises:
        SweepRefused: `clock_skew`, `clock_jumped`.
    """
    try:
        ask = witness.note if keep else witness.require
        ask(accept=accept)
    except ClockDoubted as doubted:
        raise SweepRefused(doubted.detail, code=doubted.code) from doubted


def check_catalog(
    catalog: ContinuityCatalog, bitmap: EntitlementBitmap, mark: HighWater, *, accept: bool = False
) -> None:
    """A restored or new catalog knows less than was seen of it: its prepared keys may hold live chunks since, and
    devices that it takes for lapsed may have been renewed (invariant 3).

    Args:
        mark: what was seen by the store.
        accept: an operator says that this catalog is the newest there is; this host must not have seen a newer one.

    Raises:
        SweepRefused: `catalog_restored`.
    """
    known = HighWater.of(catalog)
    host = HighWater(bitmap.segment_high_water, bitmap.last_change)
    store = HighWater() if accept else mark
    for who, seen in (("this host has", host), ("the last sweep of this store had", store)):
        if known.raised_to(seen) != known:
            raise SweepRefused(
                f"the catalog is older than what {who} seen of it (change {known.change} of {seen.change}, segment"
                f" {known.segment_id} of {seen.segment_id}): it was restored or replaced, or this is the store of"
                " another catalog. Nothing was deleted. Put the newer catalog back; when it is lost, see"
                ' "A restored catalog" in docs/operations.md',
                code="catalog_restored",
            )
    if catalog.is_doubted and not accept:
        raise SweepRefused(
            "the catalog was found to be older than what had been seen of it, and has gone on since: what it takes for"
            " lapsed or unknown may live. Nothing was deleted. Put the newer catalog back; when it is lost, see"
            ' "A restored catalog" in docs/operations.md',
            code="catalog_restored",
        )
