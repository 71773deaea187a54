"""Long media as ffmpeg makes it, to be cut, and what ffmpeg finds in what became of it."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio_ffmpeg

NOISE = "-f lavfi -i testsrc2=size=320x180:rate=25,noise=alls=20:allf=t"
"""Pictures that do not compress: 2 MB a second at 16 Mbit/s."""
SOUND = "-f lavfi -i sine=frequency=440:sample_rate=48000"
RATE = "-b:v 1500k -maxrate 1500k -bufsize 1500k"
H264 = f"-c:v libx264 -preset ultrafast -sc_threshold 0 -pix_fmt yuv420p {RATE}"
H265 = f"-c:v libx265 -preset ultrafast -pix_fmt yuv420p {RATE} -x265-params log-level=none"
AAC = "-c:a aac -b:a 64k"
FRAGMENTED = "-movflags +frag_keyframe+empty_moov"
TS_RECIPES = {
    "h264": f"{NOISE} {SOUND} {H264} -bf 0 -g 25 {AAC} -f mpegts",
    "b-frames": f"{NOISE} {SOUND} {H264} -bf 3 -b_strategy 0 -g 50 {AAC} -f mpegts",
    "h265": f"{NOISE} {SOUND} {H265} -g 25 {AAC} -f mpegts",
    "no sound": f"{NOISE} {H264} -bf 0 -g 25 -f mpegts",
    "sound alone": f"{SOUND} -c:a aac -b:a 320k -f mpegts",
    "tables at frames": f"{NOISE} {SOUND} {H264} -bf 0 -g 25 {AAC} -mpegts_flags +pat_pmt_at_frames -f mpegts",
}
MP4_RECIPES = {
    "base is file": f"{NOISE} {SOUND} {H264} -bf 0 -g 25 {AAC} {FRAGMENTED} -f mp4",
    "base is moof": f"{NOISE} {SOUND} {H264} -bf 2 -g 25 {AAC} {FRAGMENTED}+default_base_moof -f mp4",
    "cmaf": f"{NOISE} {H264} -bf 0 -g 25 {FRAGMENTED}+cmaf -f mp4",
    "dash index": f"{NOISE} {SOUND} {H264} -bf 0 -g 25 {AAC} {FRAGMENTED}+dash+global_sidx -f mp4",
    "each frame": f"{NOISE} {H264} -bf 0 -g 25 -movflags +frag_every_frame+empty_moov -f mp4",
    "h265": f"{NOISE} {SOUND} {H265} -g 25 {AAC} {FRAGMENTED} -f mp4",
    "sound alone": f"{SOUND} -c:a aac -b:a 320k {FRAGMENTED} -frag_duration 1000000 -f mp4",
}


@cache
def made(recipe: str, seconds: int = 8) -> bytes:
    """What ffmpeg writes by it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "out"
        _ffmpeg(
            *recipe.rpartition(" -f ")[0].split(),
            "-t",
            str(seconds),
            "-f",
            recipe.rpartition(" ")[2],
            str(file),
        )
        return file.read_bytes()


def packets(data: bytes, stream: str = "v") -> list[tuple[int, int, str]]:
    """Each frame's times and a hash of it, as ffmpeg demuxes it. Decodes nothing."""
    text = _of(
        data, "-map", f"0:{stream}:0", "-c", "copy", "-copyts", "-f", "framehash", "-hash", "crc32", "-"
    )
    rows = [line.split(",") for line in text.splitlines() if line and line[0] != "#"]
    return [(int(row[1]), int(row[2]), row[5].strip()) for row in rows]


def frames(data: bytes, stream: str = "v") -> list[str]:
    """A hash of each frame, decoded."""
    text = _of(data, "-map", f"0:{stream}:0", "-f", "framehash", "-hash", "crc32", "-")
    return [line.rpartition(",")[2].strip() for line in text.splitlines() if line and line[0] != "#"]


def _of(data: bytes, *arguments: str) -> str:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "in"
        file.write_bytes(data)
        return _ffmpeg("-i", str(file), *arguments).decode()


def _ffmpeg(*arguments: str) -> bytes:
    done = subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *arguments],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
