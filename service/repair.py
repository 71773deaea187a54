"""`clipkeep check --repair`: objects that the catalog does not know become tombstones, and sweeps delete those.

An orphan should never be: prepared keys reclaim themselves. So this is rare, asked for by a person, and slow to act.
Nothing is deleted here, and what is marked goes after the delete delay, at the sweep's pace, key by key. What looks
like an orphan may be all that is left of live recordings, when the catalog is an older one, or a new one: each object
says which segment it is, and one that this catalog cannot have made stops the whole repair (invariant 3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import date

from retention.sweep import SweepRefused, check_catalog, check_clock, read_mark
from service.checks import is_anothers
from service.folder import Opened
from storage.days import to_day
from storage.errors import ObjectMissing, SegmentCorrupt
from storage.objects import DELETE_BATCH_KEYS, ObjectInfo
from storage.recover import load_index
from storage.rows.recordings import Orphan

KEY = re.compile(r"v1/([1-9]\d{0,3})/(\d{4}-\d\d-\d\d)/[A-Za-z0-9_-]+/[0-9a-f]{23}")
"""What `Catalog.prepare` makes: class, expiry day, worker, time and random bits."""

Progress = Callable[[str, int, int], None]


def repair_orphans(
    opened: Opened,
    orphans: Sequence[ObjectInfo],
    *,
    older_than_s: float,
    allow_bulk: bool,
    progress: Progress,
) -> set[str]:
    """Make tombstones of those orphans that are old enough and whose keys are ours.

    Args:
        older_than_s: by the store's clock; never less than what `check` calls an orphan.
        allow_bulk: also when they are more than the bulk limit (invariant 14).

    Returns:
        Their keys.

    Raises:
        SweepRefused: a guard says no; nothing was changed.
        LeaseLost: a sweeper took over; what was marked before stays marked.
    """
    limits = opened.config.retention
    check_clock(opened.witness)
    check_catalog(opened.catalog, opened.bitmap, read_mark(opened.store))
    newest_s = opened.clock.now_ms() / 1000 - older_than_s
    chosen = [found for info in orphans if info.modified_s <= newest_s and (found := _as_ours(info))]
    if not chosen:
        return set()
    _refuse_too_many(len(chosen), limits.bulk_limit, allow_bulk)
    for number, orphan in enumerate(chosen, 1):
        _refuse_anothers(opened, orphan)
        progress("orphans", number, len(chosen))
    lease = opened.sweep_lease()
    with lease.taken():
        for start in range(0, len(chosen), DELETE_BATCH_KEYS):
            lease.renew()
            now_ms = opened.clock.now_ms()
            opened.catalog.adopt_orphans(
                chosen[start : start + DELETE_BATCH_KEYS],
                fence=lease.fence,
                now_ms=now_ms,
                delete_after_ms=now_ms + round(limits.delete_delay_s * 1000),
            )
    return {orphan.key for orphan in chosen}


def _as_ours(info: ObjectInfo) -> Orphan | None:
    """The orphan, when its key is one that we make; other people's objects are not touched."""
    match = KEY.fullmatch(info.key)
    if match is None:
        return None
    try:
        expires_on = to_day(date.fromisoformat(match[2]))
    except ValueError:
        return None
    return Orphan(info.key, int(match[1]), expires_on, info.size_bytes)


def _refuse_too_many(count: int, bulk_limit: int, allow_bulk: bool) -> None:
    if count > bulk_limit and not allow_bulk:
        raise SweepRefused(
            f"{count} objects that the catalog does not know, more than [retention] bulk_limit: is this the right"
            " catalog, and the right store? Nothing was changed. When it is, use --allow-bulk",
            code="bulk_limit",
        )


def _refuse_anothers(opened: Opened, orphan: Orphan) -> None:
    """Refuse when this segment cannot have been made by this catalog as it is: then it was restored or made anew."""
    try:
        footer, _ = load_index(opened.store, orphan.key)
    except (ObjectMissing, SegmentCorrupt):
        return  # never a whole segment, so nothing of it was acknowledged
    if is_anothers(opened.catalog, orphan.key, footer.segment_id):
        raise SweepRefused(
            f"it is segment {footer.segment_id}, which this catalog never gave to it: the catalog was restored or"
            " made anew, and such objects may hold recordings that were acknowledged since. Nothing was changed. Put"
            " the newer catalog back",
            subject=orphan.key,
            code="catalog_restored",
        )
