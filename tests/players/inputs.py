"""What cameras send, in the kinds that docs/playback.md names: made and uploaded by a real ffmpeg."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.e2e import ffmpeg
from tests.e2e.service import Device, Service

FRAMES_PER_S = 25
FILM_S = 8
"""How long each camera records, by one start of it."""

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "-pix_fmt", "yuv420p")
HEVC = (
    *("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    *("-x265-params", "log-level=error:bframes=0:scenecut=0:open-gop=0"),
)
AAC = ("-c:a", "aac", "-b:a", "64k")


@dataclass(frozen=True)
class Input:
    """One kind of upload.

    Attributes:
        name: as the table calls it.
        send: uploads it from the folder of films, for one device.
        codecs: what ffmpeg encodes with; no `-c:v`: audio alone; no `-c:a`: no audio.
        starts: how often the camera was started.
    """

    name: str
    send: Callable[[Service, Device, Path, Input], None]
    codecs: Sequence[str]
    starts: int = 1

    @property
    def has_pictures(self) -> bool:
        return "-c:v" in self.codecs

    @property
    def frames(self) -> int:
        """Pictures that were encoded in all."""
        return FRAMES_PER_S * FILM_S * self.starts if self.has_pictures else 0

    @property
    def length_s(self) -> int:
        return FILM_S * self.starts


def encoded(folder: Path, codecs: Sequence[str]) -> Path:
    """A film of FILM_S with a key frame each second. Matroska holds all of these codecs. Made once per folder."""
    path = folder / f"{abs(hash(tuple(codecs)))}.mkv"
    if not path.exists():
        picture = ("-f", "lavfi", "-i", f"testsrc2=size=320x180:rate={FRAMES_PER_S}:duration={FILM_S}")
        sound = ("-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={FILM_S}")
        inputs = [*(picture if "-c:v" in codecs else ()), *(sound if "-c:a" in codecs else ())]
        key_frames = ("-g", str(FRAMES_PER_S), "-keyint_min", str(FRAMES_PER_S), "-sc_threshold", "0")
        ffmpeg.run(*inputs, *codecs, *(key_frames if "-c:v" in codecs else ()), str(path))
    return path


def as_hls(*options: str, first: str = "") -> Callable[[Service, Device, Path, Input], None]:
    """ffmpeg's HLS muxer, at the pace of a camera that was offline."""

    def send(service: Service, device: Device, folder: Path, what: Input) -> None:
        host, port = service.ingest
        base = f"http://{device.number}:{device.token}@{host}:{port}/v1/devices/{device.number}/live"
        suffix = "m4s" if "fmp4" in options else "ts"
        output = [
            *(
                "-f",
                "hls",
                "-method",
                "PUT",
                "-hls_time",
                "1",
                "-hls_list_size",
                "5",
                "-http_persistent",
                "1",
            ),
            *(*options, "-hls_segment_filename", f"{base}/seg%05d.{suffix}", f"{base}/index.m3u8"),
        ]
        for _ in range(what.starts):
            _, said = (process := ffmpeg.camera(encoded(folder, what.codecs), output)).communicate(
                timeout=ffmpeg.FFMPEG_S
            )
            assert process.returncode == 0, said

    return send


def as_clips(suffix: str, *options: str) -> Callable[[Service, Device, Path, Input], None]:
    """Files of two seconds each, sent as a camera does that records into files."""

    def send(service: Service, device: Device, folder: Path, what: Input) -> None:
        at_ms = int(time.time() * 1000) - 600_000
        source = encoded(folder, what.codecs)
        connection = HTTPConnection(*service.ingest)
        for start_s in range(0, FILM_S, 2):
            clip = folder / f"clip.{suffix}"
            ffmpeg.run(
                *("-y", "-ss", str(start_s), "-t", "2", "-i", str(source)),
                *("-c", "copy", *options, str(clip)),
            )
            connection.request(
                "PUT",
                f"/v1/devices/{device.number}/chunks/{at_ms + 1000 * start_s}",
                clip.read_bytes(),
                {"Authorization": f"Bearer {device.token}"},
            )
            with connection.getresponse() as answer:
                said = answer.read()
                assert answer.status == 201, (what.name, said)
        connection.close()

    return send


def then(*sends: Callable[[Service, Device, Path, Input], None]) -> Callable[..., None]:
    """One after the other, of the same device."""

    def send(service: Service, device: Device, folder: Path, what: Input) -> None:
        for one in sends:
            one(service, device, folder, Input(what.name, one, what.codecs))

    return send


TS = as_hls()
FMP4 = as_hls("-hls_segment_type", "fmp4")

INPUTS = (
    Input("MPEG-TS, H.264 and AAC", TS, (*H264, *AAC)),
    Input("MPEG-TS, H.264, no audio", TS, H264),
    Input("MPEG-TS, H.264 and MP3, camera restarted", TS, (*H264, "-c:a", "libmp3lame"), starts=2),
    Input("MPEG-TS, H.264 and AC-3", TS, (*H264, "-c:a", "ac3")),
    Input("MPEG-TS, H.265 and AAC", TS, (*HEVC, *AAC)),
    Input("MPEG-TS, AAC alone", TS, AAC),
    Input("MP4 clips, header first, H.264 and AAC", as_clips("mp4", "-movflags", "faststart"), (*H264, *AAC)),
    Input("QuickTime clips, header last, H.264 and AAC", as_clips("mov"), (*H264, *AAC)),
    Input(
        "MP4 clips, fragmented, H.265 and AAC",
        as_clips("mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"),
        (*HEVC, *AAC),
    ),
    Input("fMP4 HLS, H.264 and AAC", FMP4, (*H264, *AAC)),
    Input("fMP4 HLS, H.265 and Opus", FMP4, (*HEVC, "-c:a", "libopus")),
    Input(
        "MP4 clips, then MPEG-TS, H.264 and AAC",
        then(as_clips("mp4"), TS),
        (*H264, *AAC),
        starts=2,
    ),
)
