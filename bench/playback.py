"""What reading costs: the first byte of a chunk, the playlist of a day, the export of an hour.

Two cameras have recorded: one a whole day of small chunks, for the playlist, and one an hour of chunks of
usual size, for single reads and the export. Objects are local files, so what is measured is the service; what
the store itself takes for the same bytes is given beside the first byte.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import tempfile
import time
from array import array
from collections.abc import Generator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.clipkeep_server import ClipkeepServer, viewer_token
from bench.errors import BenchError
from bench.fill import fill
from bench.load import quantiles_ms
from bench.machine import Cores
from bench.procfs import session_cpu_s, session_memory
from bench.results import GB, MB
from bench.run import KIB, check_bounds
from bench.servers import Running, Setup

STEP_MS = 4000
"""A chunk every 4 s: 21,600 a day."""
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
READ_BYTES = 1024 * 1024
TIMEOUT_S = 60.0
SAMPLE_S = 0.1
"""Between two looks at the service's memory during an export."""
SEED = 1


@dataclass(frozen=True)
class PlaybackSettings:
    """What `playback` runs with. Sizes in bytes."""

    day_chunks: int = 21_600
    day_chunk_bytes: int = 2 * KIB
    hour_chunks: int = 900
    hour_chunk_bytes: int = 1024 * KIB
    reads: int = 500
    playlists: int = 10
    exports: int = 3

    def checked(self) -> PlaybackSettings:
        """Return self when it can be run.

        Raises:
            BenchError: a value is out of bounds; together they keep it below 15 GB of disk.
        """
        check_bounds(
            [
                ("day-chunks", self.day_chunks, 1, 86_400),
                ("day-chunk", self.day_chunk_bytes, 188, 64 * KIB),
                ("hour-chunks", self.hour_chunks, 1, 900),
                ("hour-chunk", self.hour_chunk_bytes, 188, 16 * KIB * KIB),
                ("reads", self.reads, 1, 100_000),
                ("playlists", self.playlists, 1, 1000),
                ("exports", self.exports, 1, 100),
            ]
        )
        return self


@dataclass(frozen=True, slots=True)
class PlaybackMeasurement:
    """One kind of read. `ms` are quantiles over its repetitions: to the first byte of a chunk, or of a whole
    playlist or export. `more_memory_bytes` is what the service's memory grew by, at most, while it ran."""

    kind: str
    count: int
    ms: dict[str, float]
    body_bytes: int
    store_ms: dict[str, float] | None = None
    mb_per_s: float | None = None
    cpu_s_per_gb: float | None = None
    more_memory_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


STEPS = (
    "uploading a day and an hour, then reading first bytes",
    "playlists of a day",
    "exports of an hour",
)


def measure_playback(settings: PlaybackSettings, cores: Cores) -> Generator[PlaybackMeasurement, None, None]:
    """Measure Clipkeep's reads, one kind after the other.

    Raises:
        BenchError: it does not start, refuses what it should give, or gives what it should refuse.
    """
    now_ms = int(time.time() * 1000)
    start_ms = now_ms - DAY_MS - HOUR_MS
    with tempfile.TemporaryDirectory(prefix="clipkeep-bench-") as name:
        folder = Path(name)
        objects = folder / "objects"
        objects.mkdir()
        setup = Setup(
            store_port=0,
            folder=folder,
            devices=2,
            workers=1,
            cpus=cores.server,
            store_url=objects.as_uri(),
            starts_on=datetime.fromtimestamp((start_ms - DAY_MS) / 1000, UTC).date().isoformat(),
        )
        with ClipkeepServer().start(setup) as running:
            sizes = _record(running, settings, start_ms)
            yield _first_bytes(_reader(setup, running, 1), settings, start_ms, sizes[1], objects)
            yield _playlists(_reader(setup, running, 0), settings, start_ms)
            yield _exports(_reader(setup, running, 1), settings, start_ms, sizes[1], running.session)


def _record(running: Running, settings: PlaybackSettings, start_ms: int) -> tuple[int, int]:
    day, hour = running.target.devices
    counts = (settings.day_chunks, settings.hour_chunks)
    wanted = (settings.day_chunk_bytes, settings.hour_chunk_bytes)
    first, second = (
        fill(running.target, (device,), size_bytes=size, count=count, start_ms=start_ms, step_ms=STEP_MS)
        for device, size, count in zip((day, hour), wanted, counts, strict=True)
    )
    return first, second


class _Reader:
    """One device's recordings over one keep-alive connection."""

    def __init__(self, port: int, device: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._path = f"/v1/devices/{device}/"
        self._token = token

    def get(self, path: str, *, token: str | None = None) -> http.client.HTTPResponse:
        bearer = self._token if token is None else token
        self._connection.request("GET", self._path + path, headers={"Authorization": f"Bearer {bearer}"})
        return self._connection.getresponse()

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def _reader(setup: Setup, running: Running, index: int) -> Generator[_Reader, None, None]:
    """Open one; it must be refused with a token that is not its own."""
    device = running.target.devices[index].number
    reader = _Reader(running.api_port, device, viewer_token(setup, running.data, device))
    try:
        refused = reader.get("recordings?from=0&to=1", token="forged")
        refused.read()
        if refused.status != 401:
            raise BenchError(f"a forged viewer token was answered {refused.status}", subject="promise broken")
        yield reader
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"a read failed: {error}", subject="playback") from error
    finally:
        reader.close()


def _expect(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    if response.status != 200:
        raise BenchError(f"a read was answered {response.status}: {response.read(200)!r}", subject="playback")
    return response


def _first_bytes(
    opened: contextlib.AbstractContextManager[_Reader],
    settings: PlaybackSettings,
    start_ms: int,
    size_bytes: int,
    objects: Path,
) -> PlaybackMeasurement:
    choose = random.Random(SEED)
    took_s = array("d")
    with opened as reader:
        for _ in range(settings.reads):
            capture_ms = start_ms + choose.randrange(settings.hour_chunks) * STEP_MS
            began_s = time.perf_counter()
            response = _expect(reader.get(f"chunks/{capture_ms}"))
            response.read(1)
            took_s.append(time.perf_counter() - began_s)
            if 1 + len(response.read()) != size_bytes:
                raise BenchError("a chunk came with another length", subject="playback")
    store_ms = _store_reads(objects, settings.reads, size_bytes, choose)
    return PlaybackMeasurement("first byte", settings.reads, quantiles_ms(took_s), size_bytes, store_ms)


def _store_reads(objects: Path, reads: int, size_bytes: int, choose: random.Random) -> dict[str, float]:
    """Time reads of as many bytes, straight from the store's files."""
    files = [path for path in objects.rglob("*") if path.is_file() and path.stat().st_size > size_bytes]
    took_s = array("d")
    for _ in range(reads):
        path = choose.choice(files)
        began_s = time.perf_counter()
        with path.open("rb", buffering=0) as file:
            file.read(size_bytes)
        took_s.append(time.perf_counter() - began_s)
    return quantiles_ms(took_s)


def _playlists(
    opened: contextlib.AbstractContextManager[_Reader], settings: PlaybackSettings, start_ms: int
) -> PlaybackMeasurement:
    to_ms = start_ms + settings.day_chunks * STEP_MS
    took_s = array("d")
    text = b""
    with opened as reader:
        for _ in range(settings.playlists):
            began_s = time.perf_counter()
            text = _expect(reader.get(f"playlist.m3u8?from={start_ms}&to={to_ms}")).read()
            took_s.append(time.perf_counter() - began_s)
    if text.count(b"#EXTINF") != settings.day_chunks:
        raise BenchError(f"a playlist listed {text.count(b'#EXTINF')} chunks", subject="playback")
    return PlaybackMeasurement("playlist of a day", settings.playlists, quantiles_ms(took_s), len(text))


def _exports(
    opened: contextlib.AbstractContextManager[_Reader],
    settings: PlaybackSettings,
    start_ms: int,
    size_bytes: int,
    session: int,
) -> PlaybackMeasurement:
    to_ms = start_ms + settings.hour_chunks * STEP_MS
    before = session_memory(session).rss_bytes
    most, total = before, 0
    cpu_s = session_cpu_s(session)
    took_s = array("d")
    scratch = bytearray(READ_BYTES)
    with opened as reader:
        for _ in range(settings.exports):
            began_s = looked_s = time.perf_counter()
            response = _expect(reader.get(f"clip.ts?from={start_ms}&to={to_ms}"))
            while count := response.readinto(scratch):
                total += count
                if time.perf_counter() - looked_s > SAMPLE_S:
                    looked_s = time.perf_counter()
                    most = max(most, session_memory(session).rss_bytes)
            took_s.append(time.perf_counter() - began_s)
    if total != settings.exports * settings.hour_chunks * size_bytes:
        raise BenchError(f"exports came to {total} bytes", subject="playback")
    return PlaybackMeasurement(
        "export of an hour",
        settings.exports,
        quantiles_ms(took_s),
        total,
        mb_per_s=total / MB / sum(took_s),
        cpu_s_per_gb=(session_cpu_s(session) - cpu_s) / (total / GB),
        more_memory_bytes=most - before,
    )
