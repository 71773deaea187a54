"""From a camera to the eye: a camera whose pictures carry the time at which they were taken, and what a page shows."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tests.e2e import ffmpeg

RATE = 25
WIDTH, HEIGHT = 320, 192
BITS = 16
"""The picture is a bar for each bit of its number, counted from the first one."""
BLOCK = WIDTH // BITS

LOOK = """([width, height, bits, block]) => {
  const video = document.querySelector('video');
  if (video.readyState < 2) return null;
  const canvas = document.createElement('canvas'); canvas.width = width; canvas.height = height;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0, canvas.width, canvas.height);
  const at = Date.now();
  let count = 0;
  for (let bit = 0; bit < bits; bit++) {
    const [red] = context.getImageData(bit * block + block / 2, 8, 1, 1).data;
    if (red > 127) count += 2 ** bit;
  }
  return [at, count];
}"""
"""The count in the picture that a page shows, and when it was read (Unix ms); null without a picture."""


@dataclass
class Filming:
    """A camera that is sending. `begun_s`: Unix time of its first picture."""

    begun_s: float
    late_s: float = 0.0
    """The latest that it took a picture behind its time, which is a fault of this machine."""


@contextmanager
def filming(output: Sequence[str], *, keyframe_s: int) -> Iterator[Filming]:
    """Take pictures at their time, encode them with ffmpeg as a camera does, and send them, until the end."""
    process = subprocess.Popen(
        ffmpeg.command(
            *(
                "-f",
                "rawvideo",
                "-pix_fmt",
                "gray",
                "-video_size",
                f"{WIDTH}x{HEIGHT}",
                "-framerate",
                str(RATE),
            ),
            *("-probesize", "32", "-analyzeduration", "0", "-i", "pipe:0"),
            *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"),
            *("-g", str(RATE * keyframe_s), "-sc_threshold", "0", *output),
        ),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    camera, ends = Filming(time.time()), threading.Event()
    filmer = threading.Thread(target=_film, args=(process, camera, ends))
    filmer.start()
    try:
        yield camera
    finally:
        ends.set()
        filmer.join()
        process.kill()
        process.wait()


def _film(process: subprocess.Popen[bytes], camera: Filming, ends: threading.Event) -> None:
    assert process.stdin is not None
    count = 0
    with process.stdin as pictures:
        while not ends.wait(max(camera.begun_s + count / RATE - time.time(), 0)):
            camera.late_s = max(camera.late_s, time.time() - camera.begun_s - count / RATE)
            line = b"".join(bytes([235 if count >> bit & 1 else 16]) * BLOCK for bit in range(BITS))
            try:
                pictures.write(line * HEIGHT)
                pictures.flush()
            except OSError:
                return
            count += 1


@dataclass
class Eye:
    """Ages of the pictures that a page showed, in s."""

    ages_s: list[float] = field(default_factory=list)

    def look(self, page: Any, camera: Filming) -> None:
        seen = page.evaluate(LOOK, [WIDTH, HEIGHT, BITS, BLOCK])
        if seen is not None:
            at_ms, count = seen
            self.ages_s.append(at_ms / 1000 - camera.begun_s - count / RATE)

    def usual_s(self) -> float:
        return median(self.ages_s)

    def told(self) -> str:
        ages = sorted(self.ages_s)
        return f"{self.usual_s():.1f} s, {ages[0]:.1f} to {ages[-1]:.1f}" if ages else "no picture"
