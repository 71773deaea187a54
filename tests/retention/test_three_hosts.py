"""Three hosts that sweep at the same moment, hour after hour: the work of one."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

from retention.sweep import SweepRefused
from storage.errors import LeaseLost
from tests.retention.sweeping import busy_world, end_state, keep_today, swept
from tests.retention.world import HOUR, World, fast_folder

HOSTS = 3
HOURS = 24


def test_a_day_in_which_three_hosts_sweep_at_once() -> None:
    """Whatever is due that day goes once, and what is live stays, byte for byte, as where one host sweeps."""
    assert day_of(HOSTS) == day_of(1)


def day_of(hosts: int) -> dict[str, Any]:
    """Live through a day with so many hosts. Returns what is left."""
    with fast_folder() as folder, World(folder, local=True) as world:
        busy_world(world)
        device = world.add()
        live = [capture for hour in range(HOURS) for capture in lived(world, folder, device, hosts)]
        swept(world)
        assert world.serves(device, *live) == [True] * len(live)
        assert {kept for kept in world.attacked() if kept[0] == device} == {(device, at) for at in live}
        world.sound()
        passes = world.catalog.sweep_reports(limit=1000)
        assert len(passes) > HOURS, "some passed in each hour"
        return end_state(world)


def lived(world: World, folder: Path, device: int, hosts: int) -> list[int]:
    """An hour: a chunk comes in, an older one's day is over, and every host sweeps. Returns the live chunk's time."""
    captures = keep_today(world, device, at_ms=world.clock.ms)
    children = [forked(folder, world.clock.ms) for _ in range(hosts)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * hosts
    world.clock.ms += HOUR
    return captures


def forked(folder: Path, clock_ms: int) -> int:
    """Sweep in a process that opens everything anew. Returns its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with World(folder, clock_ms=clock_ms, local=True) as mine:
                try:
                    mine.sweep().run()
                except LeaseLost:  # another one took over
                    pass
                except SweepRefused as error:
                    if error.code != "busy":  # another one is at it
                        raise
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child
