"""Sweeps that are killed: a child process of test_sweep, which forks one sweep after the other and lets each die
by SIGKILL one call later than the one before."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.killing import Counting, Steps, run_and_kill
from tests.retention.world import DELAY_MS, LEASE_MS, NOON, SLACK_MS, TODAY, TTL_MS, WEEK, World, monthly

DAY_MS = 86_400_000
FIRST_MS = (TODAY + WEEK + 1) * DAY_MS + SLACK_MS
"""When the pass that is killed runs: what was captured at NOON has just expired."""
SECOND_MS = FIRST_MS + LEASE_MS
END_MS = SECOND_MS + 2 * DAY_MS
KEYS_LEFT = 4
"""Data keys left after that: of the two devices whose chunks live on, for the two months in which they expire."""


def prepare(folder: Path) -> None:
    """A folder with work for every phase: expiry, prepared keys with and without an object, a second delete, a
    lapse, an erasure that was ordered, a deletion left unfinished, objects that are due, segments worth a rewrite,
    and neighbours that stay."""
    folder.mkdir()
    with World(folder, local=True) as world:
        stays, other = world.add(), world.add()
        lapsed = world.add(monthly(TODAY - 100, TODAY + 1, days=200))
        gone = world.add()
        late = TODAY + 201
        world.keep([(stays, NOON - 2 * DAY_MS)])
        world.keep([(stays, NOON), (other, NOON)])
        world.keep([(d, NOON + 2000) for d in (stays, other, lapsed, gone)], expires_on=late)
        world.keep([(lapsed, NOON + 4000)], expires_on=late)
        world.put([(stays, NOON + 4000)])
        world.clock.ms = NOON + TTL_MS + 1
        world.sweep().run()  # reclaims it, deletes it for the first time
        world.clock.ms = FIRST_MS - 2 * DAY_MS
        world.sweep().run()  # makes a tombstone of the oldest segment
        world.put([(other, NOON + 4000)])
        world.catalog.prepare(worker="w", class_days=31, expires_on=late, count=1, now_ms=world.clock.ms)
        world.terminate(gone, erase=True)
        world.keep([(other, NOON + 6000 + n) for n in range(4)], expires_on=late)
        world.keep([(stays, NOON + 6000 + n) for n in range(4)], expires_on=late)
        moment = {"now_ms": world.clock.ms, "delete_after_ms": world.clock.ms}
        world.catalog.delete_range(stays, NOON + 6000, NOON + 6002, reason="test", who="test", **moment)
        world.leave_deletion_unfinished(other, NOON + 6000, NOON + 6002)


def sweep(folder: Path, step: Steps) -> None:
    """A step is a call of a part of the world."""
    with World(folder, clock_ms=FIRST_MS, local=True) as world:
        parts = {
            name: Counting(getattr(world, name), step) for name in ("catalog", "store", "vault", "bitmap")
        }
        world.sweep(**parts).run()


assert DELAY_MS < DAY_MS, "the objects that are due when the pass runs are due by then"

if __name__ == "__main__":
    run_and_kill(Path(sys.argv[1]), sweep)
