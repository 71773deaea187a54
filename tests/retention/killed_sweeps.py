"""Sweeps that are killed: a child process of test_sweep, which forks one sweep after the other and lets each die
by SIGKILL one call later than the one before."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class Counting:
    """Stands before a part of the world and kills this process after its n-th call."""

    def __init__(self, real: Any, called: Callable[[str], None]) -> None:
        self._real, self._called = real, called

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not callable(value):
            return value

        def call(*args: Any, **named: Any) -> Any:
            result = value(*args, **named)
            self._called(name)
            return result

        return call


def sweep_and_die(folder: Path, after_calls: int, told: int) -> None:
    """Run the pass; say the name of each call through the pipe `told`."""
    calls = 0

    def called(name: str) -> None:
        nonlocal calls
        calls += 1
        os.write(told, f"{name}\n".encode())
        if calls == after_calls:
            os.kill(os.getpid(), signal.SIGKILL)

    with World(folder, clock_ms=FIRST_MS, local=True) as world:
        parts = {
            name: Counting(getattr(world, name), called)
            for name in ("catalog", "store", "key_store", "bitmap")
        }
        world.sweep(**parts).run()


def main(work: Path) -> None:
    """Print a JSON line for each pass: its folder, the call after which it died, and whether it did."""
    after_calls = 0
    while True:
        after_calls += 1
        folder = work / str(after_calls)
        shutil.copytree(work / "template", folder)
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                sweep_and_die(folder, after_calls, told)
                status = 0
            finally:
                os._exit(status)
        os.close(told)
        with os.fdopen(heard) as pipe:
            calls = pipe.read().split()
        _, status = os.waitpid(child, 0)
        died = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print(json.dumps({"folder": str(folder), "call": calls[-1], "killed": died}), flush=True)
        if not died:
            sys.exit(os.waitstatus_to_exitcode(status))


assert DELAY_MS < DAY_MS, "the objects that are due when the pass runs are due by then"

if __name__ == "__main__":
    main(Path(sys.argv[1]))
