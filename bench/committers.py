"""Committers of a bench: segments as ingest makes them, and processes that commit them side by side."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from storage.catalog import Catalog
    from storage.rows.recordings import PreparedKey, SegmentCommit

STEP_MS = 4_000
CLASS_DAYS = 30
DAY_MS = 86_400_000
CHUNK_BYTES = 65_424
BLOCK_KEYS = 32
"""Keys that are prepared at once, as by `ingest.keys_ahead`."""
START_S = 3.0
"""From the start of committers to their first commit: all of them have opened the catalog by then."""
WARM_S = 2.0
"""They commit so long before they are measured."""


class Segments:
    """Segments of devices `first` to `first + devices - 1` in turn: every row goes to another place of its table.

    Args:
        day: on which all of it is captured.
        turn: the first chunk's number among those of its device; each comes STEP_MS after the one before.
    """

    def __init__(self, catalog: Catalog, day: int, *, first: int, devices: int, turn: int = 0) -> None:
        self._catalog = catalog
        self.now_ms = day * DAY_MS + DAY_MS // 2
        self.expires_on = day + CLASS_DAYS + 1
        self._start_ms = day * DAY_MS
        self._first, self._devices = first, devices
        self.place = turn * devices
        self._keys: list[PreparedKey] = []

    def next(self, chunks: int) -> SegmentCommit:
        """A segment of so many chunks."""
        places = np.arange(self.place, self.place + chunks)
        self.place += chunks
        return self.made(self._first + places % self._devices, places // self._devices)

    def made(self, devices: np.ndarray, turns: np.ndarray) -> SegmentCommit:
        """The segment of these chunks."""
        from storage.rows.recordings import SegmentCommit
        from storage.segment import INDEX_DTYPE

        count = len(devices)
        index = np.zeros(count, dtype=INDEX_DTYPE)
        index["device"] = devices
        # One expiry day holds what was captured in one day, from ten minutes after midnight on: the times of long
        # fills lie closer together.
        within = DAY_MS - 1_200_000
        index["capture_ms"] = self._start_ms + 600_000 + turns * STEP_MS % within + turns * STEP_MS // within
        index["length"] = CHUNK_BYTES
        index["offset"] = np.arange(count) * CHUNK_BYTES
        index["duration_ms"] = STEP_MS
        random = os.urandom((12 + 29 + 4 + 8) * count)
        index["nonce"] = np.frombuffer(random, dtype="V12", count=count)
        index["facts"] = np.frombuffer(random, dtype="V29", count=count, offset=12 * count)
        index["crc32"] = np.frombuffer(random, dtype="<u4", count=count, offset=41 * count)
        index["crc64"] = np.frombuffer(random, dtype="<u8", count=count, offset=45 * count)
        return SegmentCommit(self._key().segment_id, self.expires_on, 12 * 1024 * 1024, 0, index)

    def _key(self) -> PreparedKey:
        if not self._keys:
            self._keys = self._catalog.prepare(
                worker="bench",
                class_days=CLASS_DAYS,
                expires_on=self.expires_on,
                count=BLOCK_KEYS,
                now_ms=self.now_ms,
            )
            self._keys.reverse()
        return self._keys.pop()

    def release(self) -> None:
        """Give back keys that were not used."""
        self._catalog.release([key.segment_id for key in self._keys])
        self._keys.clear()


@dataclass(frozen=True, slots=True)
class Committed:
    """What one committer did between two moments, the preparing of keys included."""

    commits: int
    chunks: int
    cpu_s: float
    elapsed_s: tuple[float, ...]
    """Of each commit."""


def commit_for(
    address: str,
    file: Path,
    day: int,
    first: int,
    devices: int,
    turn: int,
    chunks: int,
    from_s: float,
    to_s: float,
) -> Committed:
    """Commit segments of so many chunks, one after the other, and count those between two moments of `time.time`."""
    from storage.open_catalog import open_catalog

    catalog = open_catalog(address, file)
    segments = Segments(catalog, day, first=first, devices=devices, turn=turn)
    elapsed_s: list[float] = []
    began_cpu_s = time.process_time()
    is_counting = False
    while (began_s := time.time()) < to_s:
        if not is_counting and began_s >= from_s:
            is_counting, began_cpu_s = True, time.process_time()
        segment = segments.next(chunks)
        before_s = time.perf_counter()
        catalog.commit([segment], now_ms=segments.now_ms)
        if is_counting:
            elapsed_s.append(time.perf_counter() - before_s)
    cpu_s = time.process_time() - began_cpu_s
    segments.release()
    catalog.close()
    return Committed(len(elapsed_s), len(elapsed_s) * chunks, cpu_s, tuple(elapsed_s))


def _end_with_the_harness() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the harness's to end


def committing(
    address: str,
    file: Path,
    day: int,
    *,
    committers: int,
    devices: int,
    chunks: int,
    turn: int,
    seconds: float,
    meanwhile: Callable[[float, float], None],
) -> list[Committed]:
    """Let so many processes commit for so many seconds, each for devices of its own.

    Args:
        turn: of every device's next chunk.
        meanwhile: called at once with the moments between which they are measured.
    """
    from_s = time.time() + START_S + WARM_S
    to_s = from_s + seconds
    each = devices // committers
    with ProcessPoolExecutor(
        committers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_the_harness
    ) as pool:
        running: Sequence[Future[Committed]] = [
            pool.submit(commit_for, address, file, day, 1 + number * each, each, turn, chunks, from_s, to_s)
            for number in range(committers)
        ]
        meanwhile(from_s, to_s)
        return [one.result() for one in running]
