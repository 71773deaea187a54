"""Media of real encoders for the tests of rewrapping, made once a run, and what a real player finds in what became of
it."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ingest.media import Media
from service.remuxing.remuxer import Source
from tests.e2e import ffmpeg

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-pix_fmt", "yuv420p")
H265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:bframes=2", "-g", "25")
FORMS: dict[str, tuple[str, ...]] = {
    "ts-h264-aac": (*H264, "-c:a", "aac", "-f", "mpegts"),
    "ts-h265-aac": (*H265, "-c:a", "aac", "-f", "mpegts"),
    "ts-h265-ac3": (*H265, "-c:a", "ac3", "-f", "mpegts"),
    "ts-h264-mp2": (*H264, "-c:a", "mp2", "-f", "mpegts"),
    "ts-h264-mp3": (*H264, "-c:a", "libmp3lame", "-f", "mpegts"),
    "ts-h264-opus": (*H264, "-c:a", "libopus", "-f", "mpegts"),
    "ts-h264": (*H264, "-an", "-f", "mpegts"),
    "ts-aac": ("-vn", "-c:a", "aac", "-f", "mpegts"),
    "mp4": (*H264, "-c:a", "aac", "-f", "mp4"),
    "mp4-faststart-h265": (*H265, "-c:a", "aac", "-movflags", "faststart", "-f", "mp4"),
    "mp4-fragmented": (*H264, "-c:a", "aac", "-movflags", "frag_keyframe+empty_moov", "-f", "mp4"),
}
SECONDS = 4


def _input(seconds: float) -> tuple[str, ...]:
    video = f"testsrc2=size=160x90:rate=25:duration={seconds}"
    return ("-f", "lavfi", "-i", video, "-f", "lavfi", "-i", f"sine=sample_rate=48000:duration={seconds}")


@cache
def made(form: str) -> bytes:
    """A chunk of SECONDS."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "chunk")
        ffmpeg.run(*_input(SECONDS), *FORMS[form], str(path))
        return path.read_bytes()


@cache
def session(form: str, chunks: int = 3) -> tuple[bytes, ...]:
    """Chunks of 2 s of one recording in MPEG-TS, as stock ffmpeg cuts them."""
    with TemporaryDirectory() as folder:
        ffmpeg.run(
            *_input(2 * chunks), *FORMS[form][:-2], "-f", "segment", "-segment_time", "2",
            *("-segment_format", "mpegts", f"{folder}/%03d.ts"),
        )  # fmt: skip
        return tuple(path.read_bytes() for path in sorted(Path(folder).iterdir()))


@cache
def fragments() -> tuple[bytes, tuple[bytes, ...]]:
    """An init, and fragments of 2 s, as stock ffmpeg sends them to an HLS server."""
    with TemporaryDirectory() as folder:
        ffmpeg.run(
            *_input(6), *H264, "-c:a", "aac", "-f", "hls", "-hls_segment_type", "fmp4", "-hls_time", "2",
            *("-hls_segment_filename", f"{folder}/%03d.m4s", f"{folder}/list.m3u8"),
        )  # fmt: skip
        init = next(Path(folder).glob("*.mp4")).read_bytes()
        return init, tuple(path.read_bytes() for path in sorted(Path(folder).glob("*.m4s")))


def source_of(form: str) -> Source:
    return Source(Media.MPEG_TS if form.startswith("ts") else Media.MP4)


def pictures(data: bytes, folder: Path) -> list[str]:
    """A hash of each picture that a real decoder makes of it."""
    path = folder / "media"
    path.write_bytes(data)
    return ffmpeg.picture_hashes("-i", str(path))


def sound_samples(data: bytes, folder: Path) -> int:
    path, wave = folder / "media", folder / "sound.raw"
    path.write_bytes(data)
    ffmpeg.run("-y", "-i", str(path), "-map", "0:a:0", "-f", "s16le", "-ac", "1", str(wave))
    return wave.stat().st_size // 2


def complaints(path: Path) -> str:
    """What a real decoder says against a file."""
    command = ffmpeg.command("-i", str(path), "-map", "0", "-c", "copy", "-f", "null", "-")
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


def duration_s(path: Path) -> float:
    """How long a real player says that a file is."""
    command = [word if word != "warning" else "info" for word in ffmpeg.command("-i", str(path))]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", said)
    assert found is not None, said
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
