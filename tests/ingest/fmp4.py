"""fMP4 as stock encoders make it: an init segment, and its fragments."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg

VIDEO = "-f lavfi -i testsrc2=size=160x90:rate=25"
SOUND = "-f lavfi -i sine=frequency=440:sample_rate=48000"
H264 = "-c:v libx264 -preset ultrafast -g 25 -sc_threshold 0 -pix_fmt yuv420p"


@cache
def made(recipe: str, seconds: int = 3, more: str = "") -> tuple[bytes, tuple[bytes, ...]]:
    """What ffmpeg's HLS muxer sends: the init segment, and fragments of a second, in order.

    Args:
        recipe: inputs and encoders. more: options of the muxer.
    """
    with TemporaryDirectory() as folder:
        subprocess.run(
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *recipe.split()),
                *("-t", str(seconds), "-f", "hls", "-hls_segment_type", "fmp4", "-hls_time", "1"),
                *("-hls_list_size", "0", *more.split(), f"{folder}/list.m3u8"),
            ],
            check=True,
            timeout=60,
        )
        fragments = sorted(Path(folder).glob("*.m4s"), key=lambda path: int(path.stem.removeprefix("list")))
        return (Path(folder) / "init.mp4").read_bytes(), tuple(path.read_bytes() for path in fragments)


def camera(size: str = "160x90") -> tuple[bytes, tuple[bytes, ...]]:
    """Of a camera with picture and sound."""
    return made(f"{VIDEO.replace('160x90', size)} {SOUND} {H264} -c:a aac")


def boxed(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content
