"""ffmpeg's part: real H.264, cut into chunks beforehand or pushed live, and the hashes of decoded frames."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from service.demo.simulator import Chunk
from service.supervisor import Address
from storage.errors import CallerError, WorldError

WIDTH, HEIGHT, FRAMES_PER_S = 320, 240, 15
CHUNK_S = 2
TOOL_TIMEOUT_S = 60.0
"""For encoding or decoding some seconds of small video, which takes a tenth of a second on a free core."""
LOG_TAIL_CHARS = 1500

_FORM = f"size={WIDTH}x{HEIGHT}:rate={FRAMES_PER_S}"
# One closed group of pictures per chunk, so that each chunk can be decoded by itself.
_GROUP = str(CHUNK_S * FRAMES_PER_S)
_H264 = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p"]
_H264 += ["-g", _GROUP, "-keyint_min", _GROUP, "-sc_threshold", "0"]


@dataclass(frozen=True, slots=True)
class Picture:
    """What a camera sees: a name for people, and a source of ffmpeg's."""

    place: str
    source: str


PICTURES = (
    Picture("gate", f"testsrc2={_FORM}"),
    Picture("yard", f"mandelbrot={_FORM}"),
    Picture("porch", f"smptebars={_FORM},hue=H=t"),
    Picture("garden", f"life={_FORM}:random_seed=7:ratio=0.1:mold=10:life_color=green:death_color=brown"),
    Picture("stairs", f"testsrc={_FORM}"),
    Picture("cellar", f"cellauto={_FORM}:rule=110:random_seed=7"),
    Picture("shed", f"rgbtestsrc={_FORM},hue=H=2*t"),
    Picture("attic", f"smptehdbars={_FORM},rotate=a=t/2"),
)


@dataclass(frozen=True, slots=True)
class Footage:
    """What a camera encoded: its chunks' bytes in order, each of CHUNK_S, and a hash of each frame as decoded.

    A camera that pushed live has no chunks here: ffmpeg cut them on the way out.
    """

    chunks: Sequence[bytes]
    frames: Sequence[str]

    def at(self, begin_ms: int) -> list[Chunk]:
        """The footage, as if captured from `begin_ms` on."""
        duration_ms = CHUNK_S * 1000
        return [
            Chunk(begin_ms + number * duration_ms, duration_ms, body)
            for number, body in enumerate(self.chunks)
        ]


class Ffmpeg:
    """A stock ffmpeg, run with bounds; a cancelled one is killed."""

    def __init__(self, program: str) -> None:
        self._program = program

    @classmethod
    def find(cls) -> Ffmpeg:
        """What IMAGEIO_FFMPEG_EXE names, else the one in the wheel, else the `ffmpeg` on the path.

        Raises:
            CallerError: there is none; the text says how to get one.
        """
        try:
            import imageio_ffmpeg

            program: str | None = imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError):
            program = shutil.which("ffmpeg")
        if program is None or shutil.which(program) is None:
            raise CallerError(
                "the demo needs a stock ffmpeg: `apt install ffmpeg`, or install it with: python -m pip install"
                " 'clipkeep[demo]' (`make setup` does so in a checkout)",
                subject=program or "ffmpeg",
                code="no_ffmpeg",
            )
        return cls(program)

    async def encode(self, picture: Picture, folder: Path, seconds: int) -> Footage:
        """Encode a picture, cut into chunks, in a folder of its own that does not exist yet."""
        os.mkdir(folder)
        segments = f"[f=segment:segment_time={CHUNK_S}:segment_format=mpegts]chunk%03d.ts"
        outputs = ("-f", "tee", f"{segments}|[f=mpegts]whole.ts")
        await self._run(*_looking_at(picture, seconds), *outputs, folder=folder)
        return Footage(_read_chunks(folder), await self.frame_hashes(str(folder / "whole.ts")))

    async def push_live(
        self,
        picture: Picture,
        keep: Path,
        seconds: int,
        *,
        ingest: Address,
        device: int,
        token: str,
        persistent: bool,
    ) -> None:
        """Push HLS over HTTP PUT in real time, as any stock ffmpeg does; the same packets go to the file `keep`.

        ffmpeg ignores what it is answered, so this says nothing about what was stored.

        Args:
            persistent: one connection for all requests, pipelined; else one for each.
        """
        url = f"http://{device}:{token}@{ingest}/v1/devices/{device}/live/stream.m3u8"
        options = f"f=hls:method=PUT:http_persistent={int(persistent)}:hls_time={CHUNK_S}:hls_list_size=4"
        # As cameras are set up: a short list, and segments that left it deleted. Clipkeep takes the DELETE kindly
        # and keeps the recording.
        hls = f"[{options}:hls_flags=delete_segments]{url}"
        await self._run(
            "-re",
            *_looking_at(picture, seconds),
            *("-f", "tee", f"{hls}|[f=mpegts]{keep.name}"),
            timeout_s=TOOL_TIMEOUT_S + seconds,
            folder=keep.parent,
        )

    async def footage_of(self, whole: Path) -> Footage:
        """Of a file that `push_live` kept."""
        return Footage((), await self.frame_hashes(str(whole)))

    async def frame_hashes(self, source: str) -> list[str]:
        """Decode a file or a playlist and return a hash of each frame, in order.

        Raises:
            WorldError: it can't be decoded.
        """
        out = await self._run(
            *("-i", source, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-")
        )
        return [line.rpartition(",")[2].strip() for line in out.splitlines() if line and line[0] != "#"]

    async def _run(
        self, *arguments: str, timeout_s: float = TOOL_TIMEOUT_S, folder: Path | None = None
    ) -> str:
        """Run in a folder, so that names of outputs need none of tee's escapes."""
        command = [self._program, "-hide_banner", "-nostdin", "-loglevel", "warning", *arguments]
        finished = None
        with trio.move_on_after(timeout_s):
            finished = await trio.run_process(
                command,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                # A Ctrl-C is for the demo, which ends its children itself.
                start_new_session=True,
                deliver_cancel=_kill,
                env=without_proxies(os.environ),
                cwd=folder,
            )
        if finished is None:
            raise WorldError(f"not done after {timeout_s:g} s", subject="ffmpeg", code="ffmpeg_failed")
        if finished.returncode:
            tail = finished.stderr.decode(errors="replace")[-LOG_TAIL_CHARS:].strip()
            raise WorldError(f"exit {finished.returncode}: {tail}", subject="ffmpeg", code="ffmpeg_failed")
        return finished.stdout.decode()


def without_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without `http_proxy`, which ffmpeg would obey even for this host's own address."""
    return {name: value for name, value in environ.items() if name.lower() not in ("http_proxy", "all_proxy")}


def _read_chunks(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("chunk*.ts"))]


def _looking_at(picture: Picture, seconds: int) -> list[str]:
    return ["-f", "lavfi", "-i", picture.source, "-t", str(seconds), "-map", "0:v", *_H264]


async def _kill(process: subprocess.Popen[bytes] | trio.Process) -> None:
    process.kill()
