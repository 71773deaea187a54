"""Duration of an MP4 clip from its boxes (ISO/IEC 14496-12).

A whole file says it in its movie header. A fragmented one (cameras that write as they record) says it
nowhere for sure: its sample durations are added up. Sizes and counts come from the device, so each is
checked against the bytes that are there and against a bound of our own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

HEADER_BYTES = 8
"""Size and type of a box (§4.2); a 64-bit size takes 8 more."""

MAX_BOXES = 4096
"""Boxes looked at in one chunk, all levels together. A camera that writes a fragment per frame needs about
12 a frame with sound: 10 s at 30 frames/s. Past it the duration is unknown. All of them cost about 2 ms."""

MAX_SAMPLES = 300_000
"""Frames in one table: an hour at 80 frames/s. A longer table is not read, the duration is unknown."""

JUMP_S = 10
"""Time between fragments, beyond what their samples fill, that is still time: as `mpegts.JUMP_TICKS`."""

_UNKNOWN_32 = 0xFFFF_FFFF
_UNKNOWN_64 = 0xFFFF_FFFF_FFFF_FFFF

# tfhd (§8.8.7) and trun (§8.8.8) flags: which optional fields come before the one wanted.
_TFHD_BASE_DATA_OFFSET = 0x000001
_TFHD_DESCRIPTION_INDEX = 0x000002
_TFHD_DEFAULT_DURATION = 0x000008
_TRUN_DATA_OFFSET = 0x000001
_TRUN_FIRST_FLAGS = 0x000004
_TRUN_DURATION = 0x000100
_TRUN_SAMPLE_FIELDS = (0x000100, 0x000200, 0x000400, 0x000800)


class _Unreadable(Exception):
    """A bound was passed or a field lies outside its box. Never leaves this module."""


@dataclass(slots=True)
class _Track:
    """What a `trak` says: `id`, whether it is video, ticks per second, ticks of the samples in `moov`."""

    id: int = 0
    video: bool = False
    timescale: int = 0
    sample_ticks: int = 0


@dataclass(slots=True)
class _Movie:
    """What a `moov` says. `default_ticks`: sample duration by track id, from `trex`. Durations in ticks."""

    timescale: int = 0
    duration: int = 0
    fragmented: bool = False
    fragment_duration: int = 0
    tracks: list[_Track] = field(default_factory=list)
    default_ticks: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Fragment:
    """One track's part of a `moof`: when it starts on the track's clock, if that is said, and its samples."""

    decode_ticks: int | None
    sample_ticks: int


def duration_ticks(data: bytes | bytearray | memoryview) -> tuple[int | None, int]:
    """How long the clip in `data` plays: ticks and ticks per second (at least 1).

    A whole file: `moov/mvhd` (§8.2.2), else the sample table of its video track. A fragmented file: the
    samples in `moov` and in each `moof/traf/trun` of the video track (the first track, when none is
    video), by that track's clock, or what its fragments' start times span (`_fragments_ticks`);
    `mvex/mehd` (§8.8.2) only when no fragment has samples, for it is what the writer meant to write, not
    what is there.

    Args:
        data: bytes, one-dimensional and contiguous, boxes from 0. No view of it is left on return.

    Returns:
        (None, 1) when the duration is unknown: no `moov`, a zero or "unknown" value, a cut or damaged box,
        a bound passed. Never raises on any content. Memory: tables of at most MAX_SAMPLES, 16 bytes each.
    """
    try:
        ticks, timescale = _Reader(memoryview(data)).duration_ticks()
    except (struct.error, _Unreadable):
        # struct.error: a field past the end of its box.
        return None, 1
    return (ticks, timescale) if ticks > 0 and timescale > 0 else (None, 1)


def _fragments_ticks(fragments: list[_Fragment], timescale: int) -> int:
    """Ticks of all fragments of a track.

    The sum of their samples, or from the start of the first to the end of the last, if that is longer:
    a writer that sends each frame at once does not know how long it is shown and writes 0. Start times
    that leave the sum more than JUMP_S behind are a clock that was set, and not believed.
    """
    total = sum(f.sample_ticks for f in fragments)
    starts = [f.decode_ticks for f in fragments if f.decode_ticks is not None]
    if len(starts) < max(len(fragments), 2):
        return total
    steps = sorted(later - earlier for earlier, later in pairwise(starts))
    last_ticks = fragments[-1].sample_ticks or max(steps[len(steps) // 2], 0)
    spanned = starts[-1] - starts[0] + last_ticks
    return spanned if total < spanned <= total + JUMP_S * timescale else total


class _Reader:
    """One pass over one chunk; counts the boxes. Positions are bytes from the start of the chunk."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.boxes_left = MAX_BOXES

    def boxes(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Type, start and end of the content of each box in `data[start:end]`, in order (§4.2).

        A box that runs past `end` is cut there, and so is the last box, which may leave its size open.

        Raises:
            _Unreadable: a size smaller than the box's own header, or MAX_BOXES passed.
        """
        while end - start >= HEADER_BYTES:
            self.boxes_left -= 1
            if self.boxes_left < 0:
                raise _Unreadable
            size, kind = struct.unpack_from(">I4s", self.data, start)
            content = start + HEADER_BYTES
            if size == 1:
                (size,) = struct.unpack_from(">Q", self.data, content)
                content += 8
            elif size == 0:
                size = end - start
            if start + size < content:
                raise _Unreadable
            yield kind, content, min(start + size, end)
            start += size

    def u32(self, position: int, end: int) -> int:
        """Big-endian 32-bit number at `position`, which must lie before `end`."""
        return self.number(">I", 4, position, end)

    def u64(self, position: int, end: int) -> int:
        """Big-endian 64-bit number at `position`, which must lie before `end`."""
        return self.number(">Q", 8, position, end)

    def number(self, layout: str, size_bytes: int, position: int, end: int) -> int:
        if position + size_bytes > end:
            raise _Unreadable
        value: int = struct.unpack_from(layout, self.data, position)[0]
        return value

    def timed(self, start: int, end: int) -> tuple[int, int]:
        """Timescale and duration of `mvhd` (§8.2.2) or `mdhd` (§8.4.2), which begin alike; 0 if unknown."""
        if self.u32(start, end) >> 24 == 1:
            duration = self.u64(start + 24, end)
            return self.u32(start + 20, end), 0 if duration == _UNKNOWN_64 else duration
        duration = self.u32(start + 16, end)
        return self.u32(start + 12, end), 0 if duration == _UNKNOWN_32 else duration

    def duration_ticks(self) -> tuple[int, int]:
        """Ticks and timescale of the whole chunk; 0 where unknown."""
        movie: _Movie | None = None
        fragments: list[tuple[int, int]] = []
        for kind, start, end in self.boxes(0, len(self.data)):
            if kind == b"moov" and movie is None:
                movie = self.movie(start, end)
                if not movie.fragmented and movie.duration:
                    return movie.duration, movie.timescale
            elif kind == b"moof":
                fragments.append((start, end))
        if movie is None:
            return 0, 0
        track = next((t for t in movie.tracks if t.video), next(iter(movie.tracks), _Track()))
        default_ticks = movie.default_ticks.get(track.id, 0)
        found = [self.fragment(at, until, track.id, default_ticks) for at, until in fragments]
        in_fragments = _fragments_ticks([f for f in found if f is not None], track.timescale)
        if not in_fragments and movie.fragment_duration:
            return movie.fragment_duration, movie.timescale
        return track.sample_ticks + in_fragments, track.timescale

    def movie(self, start: int, end: int) -> _Movie:
        """`moov` (§8.2.1): `mvhd`, `mvex` and its tracks."""
        movie = _Movie()
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"mvhd":
                movie.timescale, movie.duration = self.timed(inner, inner_end)
            elif kind == b"trak":
                movie.tracks.append(self.track(inner, inner_end))
            elif kind == b"mvex":
                movie.fragmented = True
                self.extends(inner, inner_end, movie)
        return movie

    def extends(self, start: int, end: int, movie: _Movie) -> None:
        """`mvex` (§8.8.1): overall duration and the defaults of each track's samples, into `movie`."""
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"mehd":
                long = self.u32(inner, inner_end) >> 24 == 1
                read = self.u64 if long else self.u32
                movie.fragment_duration = read(inner + 4, inner_end)
            elif kind == b"trex":
                movie.default_ticks[self.u32(inner + 4, inner_end)] = self.u32(inner + 12, inner_end)

    def track(self, start: int, end: int) -> _Track:
        """`trak` (§8.3.1) and what is wanted of the boxes below it: `tkhd`, and `mdia` three levels deep."""
        track = _Track()
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"tkhd":
                long = self.u32(inner, inner_end) >> 24 == 1
                track.id = self.u32(inner + (20 if long else 12), inner_end)
            elif kind == b"mdia":
                self.media(inner, inner_end, track)
        return track

    def media(self, start: int, end: int, track: _Track) -> None:
        """`mdia` (§8.4.1): clock, kind and sample table of a track, into `track`."""
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"mdhd":
                track.timescale, _ = self.timed(inner, inner_end)
            elif kind == b"hdlr":
                track.video = self.u32(inner + 8, inner_end) == int.from_bytes(b"vide", "big")
            elif kind == b"minf":
                for _, table, table_end in self.only(b"stbl", inner, inner_end):
                    for _, times, times_end in self.only(b"stts", table, table_end):
                        track.sample_ticks = self.time_table_ticks(times, times_end)

    def only(self, wanted: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """The boxes of one type in `data[start:end]`."""
        return (box for box in self.boxes(start, end) if box[0] == wanted)

    def time_table_ticks(self, start: int, end: int) -> int:
        """Sum of `stts` (§8.6.1.2): pairs of sample count and ticks per sample."""
        pairs = self.table(start + 8, end, self.u32(start + 4, end), 2).astype(np.float64)
        # In floating point a hostile table can't overflow, and a real one is exact below 2**53.
        return int(pairs[:, 0] @ pairs[:, 1])

    def fragment(self, start: int, end: int, track_id: int, default_ticks: int) -> _Fragment | None:
        """One track's samples in one `moof` (§8.8.4); None when it has none."""
        decode_ticks: int | None = None
        total, runs = 0, 0
        for _, traf, traf_end in self.only(b"traf", start, end):
            ticks: int | None = None
            for kind, inner, inner_end in self.boxes(traf, traf_end):
                # §8.8.7, §8.8.12: header, then decode time, then the runs.
                if kind == b"tfhd":
                    ticks = self.header_ticks(inner, inner_end, track_id, default_ticks)
                elif kind == b"tfdt" and ticks is not None and decode_ticks is None:
                    long = self.u32(inner, inner_end) >> 24 == 1
                    decode_ticks = (self.u64 if long else self.u32)(inner + 4, inner_end)
                elif kind == b"trun" and ticks is not None:
                    total += self.run_ticks(inner, inner_end, ticks)
                    runs += 1
        return _Fragment(decode_ticks, total) if runs else None

    def header_ticks(self, start: int, end: int, track_id: int, default_ticks: int) -> int | None:
        """Ticks per sample that `tfhd` (§8.8.7) sets for its runs; None when it is another track's."""
        flags = self.u32(start, end)
        if self.u32(start + 4, end) != track_id:
            return None
        if not flags & _TFHD_DEFAULT_DURATION:
            return default_ticks
        skip = 8 * bool(flags & _TFHD_BASE_DATA_OFFSET) + 4 * bool(flags & _TFHD_DESCRIPTION_INDEX)
        return self.u32(start + 8 + skip, end)

    def run_ticks(self, start: int, end: int, default_ticks: int) -> int:
        """Ticks of the samples in one `trun` (§8.8.8)."""
        flags, samples = self.u32(start, end), self.u32(start + 4, end)
        if not flags & _TRUN_DURATION:
            if samples > MAX_SAMPLES:
                raise _Unreadable
            return samples * default_ticks
        skip = 4 * bool(flags & _TRUN_DATA_OFFSET) + 4 * bool(flags & _TRUN_FIRST_FLAGS)
        columns = sum(bool(flags & bit) for bit in _TRUN_SAMPLE_FIELDS)
        # The duration is the first of the fields a sample may have.
        return int(self.table(start + 8 + skip, end, samples, columns)[:, 0].sum(dtype=np.uint64))

    def table(self, start: int, end: int, rows: int, columns: int) -> npt.NDArray[np.uint32]:
        """`rows` x `columns` big-endian 32-bit numbers, as a view of the chunk, wholly before `end`."""
        if rows > MAX_SAMPLES or start + rows * columns * 4 > end:
            raise _Unreadable
        numbers = np.frombuffer(self.data, ">u4", rows * columns, start)
        return numbers.reshape(rows, columns)
