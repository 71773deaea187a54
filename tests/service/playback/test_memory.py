"""service.playback.memory: waiting, and the end of it."""

from __future__ import annotations

import trio

from service.playback import (
    Memory,
)
from tests.service.world import (
    refused,
)


async def test_memory_is_waited_for_and_refused_in_the_end(autojump_clock: trio.abc.Clock) -> None:
    memory = Memory(100, wait_s=5)
    await memory.take(60)
    await memory.take(40)
    with refused("overloaded"):
        await memory.take(1)
    assert memory.held_bytes == 100
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.take, 50)
        await trio.sleep(4)
        memory.give(40)
        await trio.sleep(0.5)
        assert memory.held_bytes == 60
        memory.give(60)
    assert memory.held_bytes == 50
    memory.give(50)
    await memory.take(1000)  # alone it may pass the bound, else it never could
    with refused("overloaded"):
        await memory.take(1)
