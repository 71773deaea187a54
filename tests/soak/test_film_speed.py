"""An hour as MP4: how fast, and in how much memory. What it prints is per second of CPU too, since machines are
busy."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from storage.days import MAX_TIME_MS
from tests.e2e import ffmpeg
from tests.service.conftest import world as world
from tests.service.playback.test_mp4_export import clip_of
from tests.service.remuxing.test_remuxer import children, resident_bytes
from tests.service.world import HOUR_MS, NOON_MS, World, playing

pytestmark = pytest.mark.soak
CHUNKS = 900
"""Of 4 s, some 2 MB each: 4 Mbit/s. All of them lie in the memory of this process."""
STILLS = 50


def film(folder: Path) -> list[bytes]:
    ffmpeg.run(
        *("-f", "lavfi", "-i", "testsrc2=size=1280x720:rate=25:duration=12"),
        *("-f", "lavfi", "-i", "sine=sample_rate=48000:duration=12"),
        *("-c:v", "libx264", "-preset", "veryfast", "-b:v", "4M", "-g", "50", "-c:a", "aac"),
        *("-f", "segment", "-segment_time", "4", "-segment_format", "mpegts", f"{folder}/%03d.ts"),
    )
    return [path.read_bytes() for path in sorted(folder.glob("*.ts"))][:3]


def cpu_s(process: int) -> float:
    fields = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def test_an_hour_as_mp4_is_fast_and_memory_stays_flat(world: World, tmp_path: Path) -> None:
    cut = film(tmp_path)
    begin_ms = NOON_MS - 2 * HOUR_MS
    for first in range(0, CHUNKS, 3):
        world.keep(*(clip_of(data, begin_ms + 4000 * (first + i)) for i, data in enumerate(cut)))
    async with playing(world) as playback:
        export = await playback.mp4_exports.plan(world.viewer(), 0, MAX_TIME_MS)
        sent = 0
        most = 0

        async def write(data: bytes | memoryview) -> None:
            nonlocal sent, most
            sent += len(data)
            most = max(most, resident_bytes(os.getpid()))

        await export.open()
        before, own_s, began_s = resident_bytes(os.getpid()), time.process_time(), time.perf_counter()
        begun_s = sum(map(cpu_s, children()))
        await export.stream(write)
        wall_s = time.perf_counter() - began_s
        remuxers = children()
        children_s = sum(map(cpu_s, remuxers)) - begun_s
        rates = [round(sent / 1e6 / each) for each in (time.process_time() - own_s, children_s, wall_s)]
        print(f"{sent / 1e6:.0f} MB; MB a second of our CPU, of the children's, by the clock: {rates}")
        held = [resident_bytes(child) >> 20 for child in remuxers]
        print(f"grew by {(most - before) >> 20} MiB; the children have {held} MiB")
        export.close()
        assert sent == export.length_bytes
        assert most - before < 96 << 20
        times = []
        for i in range(STILLS):
            began_s = time.perf_counter()
            await playback.stills.still(world.viewer(), begin_ms + 4000 * i + 1500, 320)
            times.append((time.perf_counter() - began_s) * 1000)
        print(f"stills: median {sorted(times)[STILLS // 2]:.0f} ms, most {max(times):.0f} ms")
