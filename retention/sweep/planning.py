"""What a pass would do: a pure function of frozen facts and a moment. No catalog, no store, no clock.

A plan is bounded: what may be millions (objects to delete, prepared keys to reclaim) is in it as counts and as the
moment that selects them; a dry run reads their keys, and the real run the rows, page by page by that same moment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from retention.destruction import last_month_over
from retention.erasure import erase_cause
from storage.days import MS_PER_DAY, day_of_ms, to_date
from storage.errors import CallerError
from storage.objects import checked_key
from storage.rows.devices import DeviceFacts, EraseState
from storage.rows.recordings import DayTotals, Due, SegmentRow

SEGMENT_PREFIX = "v1/"
"""All that is ours in the store. A sweep deletes nothing else, whatever the catalog says."""
MAX_RECLAIMED = 10_000
"""Prepared keys reclaimed in one pass; the next one goes on."""
MAX_ERASED = 100_000
"""Devices erased in one pass, some 100 MB of facts; the next one goes on."""
MAX_REWRITES = 1000
"""Segments rewritten in one pass, whatever their bytes."""
REWRITE_DAYS_LEFT = 30
"""A segment whose day is no further off is left to it."""


@dataclass(frozen=True, slots=True)
class SweepLimits:
    """See `[retention]` in docs/operations.md."""

    expiry_slack_ms: int
    delete_delay_ms: int
    prepare_ttl_ms: int
    lapse_grace_days: int
    max_clock_skew_ms: int
    max_rest_ms: int
    bulk_limit: int
    lease_ms: int
    retry_ms: int
    rewrite_bytes: int = 0
    """Most bytes of segments read for rewriting in one pass; 0 rewrites nothing."""
    max_deletes_per_s: float | None = None
    clear_after_ms: int = 7 * MS_PER_DAY
    """From the destruction of keys until no cache and no backup of them is left."""
    price_per_gb_month: float = 0.0
    """Of stored bytes, for the report."""


@dataclass(frozen=True, slots=True)
class SweepMoment:
    """What the moment of a pass decides by itself."""

    now_ms: int
    expired_through: int
    """The last expiry day that is over: midnight and the slack have passed."""
    stale_before_ms: int
    """Keys prepared before are reclaimed."""

    @classmethod
    def at(cls, now_ms: int, limits: SweepLimits) -> SweepMoment:
        return cls(now_ms, day_of_ms(now_ms - limits.expiry_slack_ms), now_ms - limits.prepare_ttl_ms)


@dataclass(frozen=True, slots=True)
class SweepFacts:
    """What the catalog said at one moment."""

    moment: SweepMoment
    open_days: tuple[DayTotals, ...] = ()
    """Days up to `expired_through` that still hold something."""
    stale_prepared: tuple[SegmentRow, ...] = ()
    unfinished_deletions: tuple[int, ...] = ()
    erasing: tuple[DeviceFacts, ...] = ()
    """Marked, not finished."""
    erasable: tuple[DeviceFacts, ...] = ()
    """To be marked: at most MAX_ERASED of them."""
    erasable_count: int = 0
    """All of them."""
    due: Due = field(default_factory=Due)
    half_dead: tuple[SegmentRow, ...] = ()
    """Segments worth a rewrite, the best first."""


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """What a pass does."""

    moment: SweepMoment
    expire: tuple[DayTotals, ...] = ()
    reclaim: tuple[SegmentRow, ...] = ()
    finish_deletions: tuple[int, ...] = ()
    erase: tuple[DeviceFacts, ...] = ()
    """Devices marked and not finished, then those to be marked."""
    held_back: tuple[DeviceFacts, ...] = ()
    """Devices that would be marked, were they not more than the bulk limit (invariant 14)."""
    held_back_count: int = 0
    due: Due = field(default_factory=Due)
    """Objects deleted in this pass, beside those of `reclaim`. What it un-indexes goes in a later one, after the
    delay."""
    rewrite: tuple[SegmentRow, ...] = ()

    @property
    def deletes(self) -> int:
        """How many objects this pass deletes."""
        return self.due.objects + len(self.reclaim)

    @property
    def destroy_keys_through(self) -> int:
        """The month whose data keys go, and all before it."""
        return last_month_over(self.moment.expired_through)

    @property
    def decision(self) -> str:
        """What this plan decides, as one word: the days that end, the devices that are newly erased, the months whose
        keys go. Two plans that decide the same have the same. What was decided before is not in it, for that changes
        from second to second: objects whose delay is over, erasures that are under way."""
        devices = [_shown_erasure(facts) for facts in self.erase if facts.erase_state is EraseState.NONE]
        days = [totals.expires_on for totals in self.expire]
        return sha256(json.dumps([days, devices, self.destroy_keys_through]).encode()).hexdigest()[:32]

    def summary(self) -> dict[str, Any]:
        """For `--dry-run`, all but the keys of the objects due (`Sweep.due_keys`)."""
        return {
            "expire": [shown_day(totals) for totals in self.expire],
            "reclaim": [row.key for row in self.reclaim],
            "finish_deletions": list(self.finish_deletions),
            "erase": [_shown_erasure(facts) for facts in self.erase],
            "held_back": [_shown_erasure(facts) for facts in self.held_back],
            "held_back_devices": self.held_back_count,
            "rewrite": [row.key for row in self.rewrite],
            "destroy_keys_through": self.destroy_keys_through,
            "delete_objects": self.deletes,
            "delete_bytes": self.due.size_bytes,
        }


def plan_sweep(facts: SweepFacts, limits: SweepLimits, *, allow_bulk: bool = False) -> SweepPlan:
    """What a pass over these facts does."""
    held_back = facts.erasable_count > limits.bulk_limit and not allow_bulk
    return SweepPlan(
        facts.moment,
        expire=facts.open_days,
        reclaim=facts.stale_prepared,
        finish_deletions=facts.unfinished_deletions,
        erase=(*facts.erasing, *(() if held_back else facts.erasable)),
        held_back=facts.erasable if held_back else (),
        held_back_count=facts.erasable_count if held_back else 0,
        due=facts.due,
        rewrite=_within(facts.half_dead, limits.rewrite_bytes),
    )


def _within(candidates: Sequence[SegmentRow], budget_bytes: int) -> tuple[SegmentRow, ...]:
    """The best candidates that the budget has room for; one that it has not is passed over."""
    chosen = []
    for row in candidates[:MAX_REWRITES]:
        if row.size_bytes <= budget_bytes:
            budget_bytes -= row.size_bytes
            chosen.append(row)
    return tuple(chosen)


def is_ours(key: str) -> bool:
    """Whether a key is one that this project makes. One damaged row must not stop the other deletes."""
    try:
        return checked_key(key).startswith(SEGMENT_PREFIX)
    except CallerError:
        return False


def shown_day(totals: DayTotals) -> dict[str, Any]:
    return {
        "day": to_date(totals.expires_on).isoformat(),
        "segments": totals.segments,
        "chunks": totals.chunks,
        "bytes": totals.size_bytes,
    }


def _shown_erasure(facts: DeviceFacts) -> dict[str, Any]:
    return {"device": facts.device, "why": erase_cause(facts)}
