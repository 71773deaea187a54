"""From plans to a bitmap row. Pure: no clock, no database.

A row has room for 384 days. It begins PAST_DAYS before today, one day more than the longest retention, so that
the capture day of any chunk that is still kept can be asked for; today and 127 days lie ahead. A monthly plan has
no end and a bought plan may start in a year, so no row can hold all there is to come: the nightly roll compiles
a device again before its window runs out (`EntitlementBitmap.devices_needing_roll`, with a horizon below 128
days). A row that nobody rolls fails closed: days past its window are denied.

A row has one retention class and one limit class, those of the plan that runs today. So a device is also compiled
again on the day on which another of its plans starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from retention.plans import MAX_RETENTION_DAYS, Plan, windows
from retention.row import RING_DAYS, Row
from storage.days import to_date

PAST_DAYS = MAX_RETENTION_DAYS + 1
"""How far back a row reaches: the same for all, so that two rows compiled on one day compare bit by bit."""


def compile_row(
    plans: Sequence[Plan],
    *,
    today: int,
    flags: int,
    token_generation: int,
    erase_epoch: int,
    viewer_generation: int = 0,
) -> Row:
    """Return the row that says what `plans` allow.

    Args:
        plans: all plans of one device, in any order; may be empty.
        today: day number, 0 or more.
        flags: PRESENT and what the operator set; they go into the row as they are.
        token_generation, erase_epoch, viewer_generation: as they are.

    Returns:
        `days` holds the plans' windows as far as they lie in `[first_day, first_day + 384)`;
        `class_days` and `limit_class` are 0 when there is no plan with a day in it.
    """
    own = [plan for plan in plans if plan.ends_on is None or plan.ends_on >= plan.starts_on]
    first_day = max(0, today - PAST_DAYS)
    days = 0
    for first, last in windows(own):
        start = max(first, first_day)
        stop = first_day + RING_DAYS if last is None else min(last + 1, first_day + RING_DAYS)
        if start < stop:
            days |= (1 << stop - first_day) - (1 << start - first_day)
    class_days, limit_class = _classes(own, to_date(today))
    return Row(
        flags, class_days, first_day, token_generation, erase_epoch, days, viewer_generation, limit_class
    )


def _classes(plans: Sequence[Plan], today: date) -> tuple[int, int]:
    """Retention and limits of the plan that runs today, else of the next to start, else of the last that ended.
    Where two run at once (a plan paid for during a trial, an import), the longer retention counts: what was
    promised is never shortened. Of two with the same retention, the one without limits."""
    found = [plan for plan in plans if plan.runs(today)]
    if not found and (coming := [plan for plan in plans if plan.starts_on > today]):
        soonest = min(plan.starts_on for plan in coming)
        found = [plan for plan in coming if plan.starts_on == soonest]
    if not found:
        # Neither running nor to come: each has ended, so each has a last day.
        ended = [(plan.ends_on, plan) for plan in plans if plan.ends_on is not None]
        last = max((ends_on for ends_on, _ in ended), default=None)
        found = [plan for ends_on, plan in ended if ends_on == last]
    best = max(found, key=lambda plan: (plan.retention_days, -plan.limit_class), default=None)
    return (0, 0) if best is None else (best.retention_days, best.limit_class)
