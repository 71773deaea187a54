"""Clips of tens of MiB, and what becomes of them when they are uploaded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tests.e2e import ffmpeg
from tests.e2e.service import Device, Service

MIB = 1024 * 1024
PACKET = 188
FRAGMENTED = ("-bsf:a", "aac_adtstoasc", "-movflags", "+frag_keyframe+empty_moov")


def made(folder: Path, *, loops: int = 0) -> Path:
    """MPEG-TS of H.264 with B-frames, and AAC: some 42 MB of 20 s, so often more."""
    once = folder / "once.ts"
    ffmpeg.run(
        *("-f", "lavfi", "-i", "testsrc2=size=640x360:rate=25:duration=20,noise=alls=40:allf=t"),
        *("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=20"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "50", "-sc_threshold", "0"),
        *("-b:v", "17M", "-maxrate", "17M", "-bufsize", "17M", "-pix_fmt", "yuv420p"),
        *("-c:a", "aac", "-b:a", "64k", "-f", "mpegts", str(once)),
    )
    if not loops:
        return once
    film = folder / "film.ts"
    ffmpeg.run("-stream_loop", str(loops), "-i", str(once), "-c", "copy", "-f", "mpegts", str(film))
    return film


def as_fragments(film: Path) -> Path:
    """The same as fragmented MP4, as ffmpeg writes it when it is told no more than that."""
    ffmpeg.run("-i", str(film), "-c", "copy", *FRAGMENTED, str(film.with_suffix(".mp4")))
    return film.with_suffix(".mp4")


def assert_played_back(service: Service, device: Device, film: Path, capture_ms: int) -> list[int]:
    """Through the playlist, each picture once. Returns the capture times of its chunks."""
    token = service.viewer_token(device.number)
    found = json.loads(service.get(f"/v1/devices/{device.number}/recordings", token=token).body)
    assert len(found["spans"]) == 1, "no gap"
    chunks = [(chunk["capture_ms"], chunk["duration_ms"]) for chunk in found["spans"][0]["chunks"]]
    assert chunks[0][0] == capture_ms
    for (begin_ms, duration_ms), (next_ms, _) in itertools.pairwise(chunks):
        assert abs(begin_ms + duration_ms - next_ms) <= 45, "sound and picture end a frame apart"
    query = f"from={capture_ms - 1000}&to={chunks[-1][0] + 60_000}&token={token}"
    path = f"/v1/devices/{device.number}/playlist.m3u8?{query}"
    text = service.get(path).body.decode()
    assert text.count("#EXTINF") == len(chunks)
    assert "DISCONTINUITY" not in text
    address = f"http://{service.api[0]}:{service.api[1]}{path}"
    assert ffmpeg.picture_hashes("-i", address) == ffmpeg.picture_hashes("-i", str(film))
    return [begin_ms for begin_ms, _ in chunks]


def assert_kept(service: Service, device: Device, film: Path, times: list[int]) -> None:
    """A transport stream is byte for byte what was sent, but for tables before a chunk that were sent before it."""
    token = service.viewer_token(device.number)
    data, at = film.read_bytes(), 0
    for capture_ms in times:
        reply = service.get(f"/v1/devices/{device.number}/chunks/{capture_ms}", token=token)
        assert len(reply.body) <= 16 * MIB
        own = 0 if data.startswith(reply.body, at) else 2 * PACKET
        assert data.startswith(reply.body[own:], at)
        assert all(reply.body[i : i + PACKET] in data[:at] for i in range(0, own, PACKET))
        at += len(reply.body) - own
    assert at == len(data)
