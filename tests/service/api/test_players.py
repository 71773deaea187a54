"""A stock ffmpeg as the player."""

from __future__ import annotations

import re
import subprocess
import threading
import time

import imageio_ffmpeg
import pytest

from ingest.media import duration_ms
from tests.service.api.server import Server
from tests.service.world import HOUR_MS, NOON_MS, Clip, World

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FRAMES = 25


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Twelve chunks of a second of real H.264."""
    folder = tmp_path_factory.mktemp("video")
    source = (
        f"-f lavfi -i testsrc2=size=160x120:rate={FRAMES} -t 12 -c:v libx264 -preset ultrafast -g {FRAMES}"
    )
    muxer = "-pix_fmt yuv420p -sc_threshold 0 -f hls -hls_time 1 -hls_list_size 0"
    command = f"{FFMPEG} -nostdin -v error {source} {muxer}".split()
    subprocess.run([*command, str(folder / "v.m3u8")], check=True, timeout=60)
    made = [path.read_bytes() for path in sorted(folder.glob("v*.ts"))]
    assert len(made) == 12
    return made


def recorded(video: list[bytes], start_ms: int) -> list[Clip]:
    made = [Clip(start_ms + i * 1000, data, duration_ms=1000) for i, data in enumerate(video)]
    assert all(duration_ms(clip.data, clip.media) == 1000 for clip in made)
    return made


def frames_played(url: str, *, live: int = 0) -> int:
    """Frames that a stock ffmpeg decodes, of a live playlist at most `live`. A chunk that it missed or could
    not read fails the test."""
    options, output = (["-live_start_index", "0"], ["-frames:v", str(live)]) if live else ([], [])
    command = [FFMPEG, "-nostdin", "-v", "warning", "-stats", *options, "-i", url]
    done = subprocess.run(
        [*command, *output, "-fps_mode", "passthrough", "-f", "null", "-"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    for complaint in ("Invalid", "Failed", "expired", "skipping", "error while", "HTTP error"):
        assert complaint not in done.stderr, done.stderr
    return int(re.findall(r"frame=\s*(\d+)", done.stderr)[-1])


def test_ffmpeg_plays_the_playlist_and_the_export(world: World, server: Server, video: list[bytes]) -> None:
    kept = recorded(video, NOON_MS - HOUR_MS)
    world.keep(*kept)
    device = f"{server.base}/v1/devices/1"
    query = f"from={kept[0].capture_ms}&to={NOON_MS}&token={world.token()}"
    assert frames_played(f"{device}/playlist.m3u8?{query}") == 12 * FRAMES
    assert frames_played(f"{device}/clip.ts?{query}") == 12 * FRAMES


def test_ffmpeg_follows_the_live_playlist(world: World, server: Server, video: list[bytes]) -> None:
    kept = recorded(video, NOON_MS)
    world.keep(*kept[:3])
    world.clock.ms = NOON_MS + 3000

    def record() -> None:
        for i in range(3, 12):
            time.sleep(0.3)
            world.clock.ms = NOON_MS + i * 1000
            world.keep(kept[i])

    camera = threading.Thread(target=record)
    camera.start()
    url = f"{server.base}/v1/devices/1/playlist.m3u8?token={world.token()}"
    # Not all: a decoder keeps a few frames back, and ffmpeg ends only when the next chunk comes.
    assert frames_played(url, live=6 * FRAMES) == 6 * FRAMES
    camera.join()
