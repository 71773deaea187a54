"""A stock ffmpeg: the real camera and the real player."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg

FFMPEG_S = 60.0
"""Longest that one ffmpeg may run."""


def command(*args: str) -> list[str]:
    return [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "warning", *args]


def run(*args: str) -> str:
    """Run ffmpeg to its end; returns what it wrote to stdout."""
    done = subprocess.run(command(*args), capture_output=True, text=True, timeout=FFMPEG_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def film(path: Path, *, seconds: int, keyframe_s: int = 1) -> Path:
    """H.264 and AAC in MPEG-TS, with a picture that is never twice the same."""
    run(
        *("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate=25:duration={seconds}"),
        *("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={seconds}"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-g", str(25 * keyframe_s)),
        *("-sc_threshold", "0", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a", "64k"),
        *("-f", "mpegts", str(path)),
    )
    return path


def picture_hashes(*source: str) -> list[str]:
    """One hash per decoded video frame."""
    text = run(*source, "-map", "0:v:0", "-f", "framehash", "-hash", "crc32", "-")
    return [line.rpartition(",")[2].strip() for line in text.splitlines() if line and line[0] != "#"]


def camera(source: Path, output: Sequence[str], *, burst: bool = False) -> subprocess.Popen[str]:
    """Send a film as a camera does: at its own pace, or all at once after it was offline. Encodes nothing."""
    return subprocess.Popen(
        command(*([] if burst else ["-re"]), "-i", str(source), "-c", "copy", *output),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
