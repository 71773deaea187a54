"""What the tests of the sweep stand on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retention.sweep import SweepReport
from storage.days import MS_PER_DAY, ms_of_day
from storage.errors import ClipkeepError, WorldError
from storage.faults import Fault, FaultKind, FaultyStore, Plan
from tests.retention.world import (
    DELAY_MS,
    GRACE_DAYS,
    NOON,
    SLACK_MS,
    TODAY,
    TTL_MS,
    WEEK,
    Kept,
    World,
    monthly,
)

ROOT = Path(__file__).parents[2]
DAY_MS = MS_PER_DAY
ENDS = TODAY + WEEK + 1
"""The expiry day of what is captured today."""
EXPIRED_MS = ms_of_day(ENDS) + SLACK_MS
"""The first millisecond at which that day is swept."""


def swept(world: World, **changed: Any) -> SweepReport:
    return world.sweep(**changed).run()


def at(world: World, ms: int) -> SweepReport:
    """A pass at another time."""
    world.clock.ms = ms
    return swept(world)


def keep_today(world: World, device: int, count: int = 1, *, at_ms: int = NOON) -> list[int]:
    """Chunks of one device in a segment of their own; their capture times."""
    captures = [at_ms + 2000 * number for number in range(count)]
    world.keep([(device, capture_ms) for capture_ms in captures])
    return captures


def last_report(world: World) -> dict[str, Any]:
    report = world.catalog.last_sweep()
    assert report is not None
    return report


LAST = TODAY + 1
"""Last entitled day of the device that lapses; its chunks would be kept for months."""
LAPSED_MS = ms_of_day(LAST + 1)
ERASED_MS = ms_of_day(LAST + 1 + GRACE_DAYS)


def lapsing(world: World, ends_on: int = LAST) -> int:
    return world.add(monthly(TODAY - 100, ends_on, days=200))


def long_kept(world: World, *devices: int) -> list[int]:
    """A segment with two chunks of each device that expires in months."""
    captures = [NOON, NOON + 2000]
    world.keep([(d, ms) for d in devices for ms in captures], expires_on=TODAY + 201)
    return captures


class Failing:
    """Stands before a store: one method raises. Counts nothing, changes nothing."""

    def __init__(self, real: Any, method: str, error: ClipkeepError | None = None) -> None:
        self._real, self._method = real, method
        self._error = error or WorldError("injected", code="key_store_unavailable")

    def __getattr__(self, name: str) -> Any:
        if name != self._method:
            return getattr(self._real, name)

        def fail(*args: Any, **named: Any) -> Any:
            raise self._error

        return fail


class Replaced:
    """Stands before a part of the world; some of its methods are others."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real, self._methods = real, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods[name] if name in self._methods else getattr(self._real, name)


class Sent:
    """A `delete_many` that remembers what was sent."""

    def __init__(self, store: FaultyStore) -> None:
        self.keys: list[str] = []
        self._store = store

    def __call__(self, keys: Sequence[str]) -> dict[str, str | None]:
        self.keys += keys
        return self._store.delete_many(keys)


def busy_world(world: World) -> None:
    """Something for every phase."""
    device, lapsed, gone = world.add(), lapsing(world), world.add()
    keep_today(world, device, at_ms=NOON - 2 * DAY_MS)
    keep_today(world, device)
    world.keep([(d, NOON) for d in (lapsed, gone)], expires_on=TODAY + 201)
    world.keep([(lapsed, NOON + 2000)], expires_on=TODAY + 201)
    world.put([(device, NOON)])
    world.catalog.prepare(worker="w0", class_days=31, expires_on=ENDS, count=2, now_ms=NOON)
    world.clock.ms = NOON + TTL_MS + 1
    swept(world)
    world.terminate(gone, erase=True)
    world.put([(device, NOON + 9)])
    world.clock.ms = EXPIRED_MS + DAY_MS


def fault_at(op: str, nth: int, kind: FaultKind) -> Plan:
    base: list[int] = []

    def plan(asked: str, key: str, number: int) -> Fault | None:
        if asked != op:
            return None
        base.append(number)
        return Fault(kind) if number - base[0] == nth else None

    return plan


def with_tombstones(world: World, count: int) -> list[str]:
    """A world with `count` objects that are due now."""
    device = world.add()
    keys = [world.keep([(device, NOON + n)]) for n in range(count)]
    at(world, EXPIRED_MS)
    world.clock.ms = EXPIRED_MS + DELAY_MS
    return keys


def end_state(world: World) -> dict[str, Any]:
    """All that is left when everything has been swept, less what tells when, and less the names of segments: those
    of a rewrite are random."""
    state = world.state()
    for name in ("reports", "changes", "header", "mark"):
        state.pop(name)
    state["objects"] = len(state["objects"])
    state["segments"] = sorted(
        (row.expires_on, row.class_days, row.state, row.chunks, row.live_chunks, row.size_bytes, row.refused)
        for row in state["segments"]
    )
    state["rows"] = sorted(
        (row.device, row.capture_ms, row.ordinal, row.offset, row.length, row.epoch)
        for rows in state["rows"]
        for row in rows
    )
    state["served"] = {(k.device, k.capture_ms): world.read(k.device, k.capture_ms) for k in known(world)}
    return state


def known(world: World) -> list[Kept]:
    return [
        Kept(device, NOON + offset, None, b"", b"")  # type: ignore[arg-type]
        for device in range(1, 6)
        for offset in (-2 * DAY_MS, 0, 2000, 4000, 6000, 6001, 6002, 6003)
    ]
