"""The last act: the whole service is killed in the middle of a burst, and nothing acknowledged is lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import trio

from service.demo.cameras import CHUNK_S
from service.demo.show import Update
from service.demo.simulator import Chunk, Simulator, numbered
from service.demo.stage import Camera, Stage

BACKLOG_CHUNKS = 150
"""Per camera: five minutes of video that it could not send."""
CONNECTIONS = 8
"""Per camera: so that many chunks are under way at any moment."""
KILL_AFTER = 1 / 3
"""Of the burst that has been acknowledged when SIGKILL comes."""
SETTLE_S = 0.2
"""After the kill: what was in the sockets is read, and every camera knows that its connections are gone."""


@dataclass(slots=True)
class Burst:
    """One camera's backlog: what it sends, every chunk with bytes of its own, and what was acknowledged."""

    camera: Camera
    chunks: dict[int, Chunk]
    simulator: Simulator
    before_kill: set[int] = field(default_factory=set)

    def sent(self, captures: set[int]) -> list[tuple[int, bytes]]:
        return [(capture_ms, self.chunks[capture_ms].body) for capture_ms in sorted(captures)]


async def crash(stage: Stage) -> None:
    """Send a burst, kill everything in it, start again, and read back all that was acknowledged."""
    show, clipkeep = stage.show, stage.clipkeep
    bursts = [_burst(stage, camera) for camera in stage.simulated]
    total = sum(len(burst.chunks) for burst in bursts)
    reached = trio.Event()
    with show.progress({burst.camera.name: len(burst.chunks) for burst in bursts}) as update:
        for burst in bursts:
            _count(burst, bursts, round(total * KILL_AFTER), reached, update)
        async with trio.open_nursery() as nursery:
            for burst in bursts:
                chunks = list(burst.chunks.values())
                nursery.start_soon(_send, burst.simulator, chunks)
            await reached.wait()
            under_way = sum(burst.simulator.under_way for burst in bursts)
            await clipkeep.kill()
            await trio.sleep(SETTLE_S)
            for burst in bursts:
                burst.before_kill = set(burst.simulator.acked)
            await clipkeep.start()
            await _check_acknowledged(stage, bursts, under_way)
    await _check_rest(stage, bursts, total)
    checked = await clipkeep.run("check", "--deep", ok=(0, 1))
    broken = checked["broken_count"]
    show.check(
        "clipkeep check --deep",
        "sound",
        f"{broken} broken: {checked['broken'][0]}"
        if broken
        else f"sound: {checked['segments']} segments, {checked['chunks']} chunks",
        not broken,
    )


async def _check_acknowledged(stage: Stage, bursts: list[Burst], under_way: int) -> None:
    """What was acknowledged before the kill, as it is right after the restart, before anything is mended."""
    count = sum(len(burst.before_kill) for burst in bursts)
    wrong = [
        line
        for burst in bursts
        for line in await stage.viewer(burst.camera).differing(burst.sent(burst.before_kill))
    ]
    _say_some(stage, wrong)
    stage.show.check(
        f"SIGKILL, {under_way} uploads under way",
        f"{count} acked chunks intact",
        f"{count - len(wrong)} of {count} byte for byte",
        not wrong and count > 0 and under_way > 0,
    )


async def _check_rest(stage: Stage, bursts: list[Burst], total: int) -> None:
    """The cameras have sent again what had no answer: now all of it is there."""
    statuses = Counter(status for burst in bursts for status in burst.simulator.acked.values())
    wrong = [
        line
        for burst in bursts
        for line in await stage.viewer(burst.camera).differing(burst.sent(set(burst.chunks)))
    ]
    _say_some(stage, wrong)
    retries = sum(burst.simulator.retries for burst in bursts)
    stage.show.say(f"the cameras tried {retries} times more; {statuses[200]} chunks were stored already")
    stage.show.check(
        "what had no answer is sent again",
        f"{total} chunks in the end",
        f"{total - len(wrong)} of {total} byte for byte",
        not wrong and statuses.total() == total,
    )


def _burst(stage: Stage, camera: Camera) -> Burst:
    """A backlog that ends now: the camera's footage again and again."""
    bodies = camera.filmed().chunks
    step_ms = CHUNK_S * 1000
    begin_ms = stage.clipkeep.now_ms() - BACKLOG_CHUNKS * step_ms
    chunks = [
        Chunk(begin_ms + number * step_ms, step_ms, numbered(bodies[number % len(bodies)], number))
        for number in range(BACKLOG_CHUNKS)
    ]
    return Burst(camera, {chunk.capture_ms: chunk for chunk in chunks}, stage.simulator(camera))


def _count(burst: Burst, bursts: list[Burst], enough: int, reached: trio.Event, update: Update) -> None:
    """Show each acknowledgement, and say when there are `enough` of all cameras together."""

    def on_ack(chunk: Chunk) -> None:
        update(burst.camera.name, len(burst.simulator.acked))
        if sum(len(other.simulator.acked) for other in bursts) >= enough:
            reached.set()

    burst.simulator.on_ack = on_ack


async def _send(simulator: Simulator, chunks: list[Chunk]) -> None:
    await simulator.send_all(chunks, connections=CONNECTIONS)


def _say_some(stage: Stage, wrong: list[str]) -> None:
    for line in wrong[:3]:
        stage.show.say(line)
