"""Boxes of an ISO base media file (ISO/IEC 14496-12 §4.2), and numbers and tables in them.

Sizes and counts come from the device, so each is checked against the bytes that are there and against a bound of our
own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

HEADER_BYTES = 8
"""Size and type of a box (§4.2); a 64-bit size takes 8 more."""

MAX_BOXES = 4096
"""Boxes looked at in one chunk, all levels together. A camera that writes a fragment per frame needs about
12 a frame with sound: 10 s at 30 frames/s. Past it the duration is unknown. All of them cost about 2 ms."""

MAX_SAMPLES = 300_000
"""Frames in one table: an hour at 80 frames/s. A longer table is not read, the duration is unknown."""

_UNKNOWN_32 = 0xFFFF_FFFF
_UNKNOWN_64 = 0xFFFF_FFFF_FFFF_FFFF


class Unreadable(Exception):
    """A bound was passed or a field lies outside its box."""


class Boxes:
    """One chunk; counts the boxes. Positions are bytes from the start of the chunk."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.boxes_left = MAX_BOXES
        self.cut = False
        """The box given last runs past the end of what holds it."""

    def boxes(self, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Type, start and end of the content of each box in `data[start:end]`, in order (§4.2).

        A box that runs past `end` is cut there, and so is the last box, which may leave its size open.

        Raises:
            Unreadable: a size smaller than the box's own header, or MAX_BOXES passed.
        """
        while end - start >= HEADER_BYTES:
            self.boxes_left -= 1
            if self.boxes_left < 0:
                raise Unreadable
            size, kind = struct.unpack_from(">I4s", self.data, start)
            content = start + HEADER_BYTES
            if size == 1:
                (size,) = struct.unpack_from(">Q", self.data, content)
                content += 8
            elif size == 0:
                size = end - start
            if start + size < content:
                raise Unreadable
            self.cut = start + size > end
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
            raise Unreadable
        value: int = struct.unpack_from(layout, self.data, position)[0]
        return value

    def only(self, wanted: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """The boxes of one type in `data[start:end]`."""
        return (box for box in self.boxes(start, end) if box[0] == wanted)

    def timed(self, start: int, end: int) -> tuple[int, int]:
        """Timescale and duration of `mvhd` (§8.2.2) or `mdhd` (§8.4.2), which begin alike; 0 if unknown."""
        if self.u32(start, end) >> 24 == 1:
            duration = self.u64(start + 24, end)
            return self.u32(start + 20, end), 0 if duration == _UNKNOWN_64 else duration
        duration = self.u32(start + 16, end)
        return self.u32(start + 12, end), 0 if duration == _UNKNOWN_32 else duration

    def table(self, start: int, end: int, rows: int, columns: int) -> npt.NDArray[np.uint32]:
        """`rows` x `columns` big-endian 32-bit numbers, as a view of the chunk, wholly before `end`."""
        if rows > MAX_SAMPLES or start + rows * columns * 4 > end:
            raise Unreadable
        numbers = np.frombuffer(self.data, ">u4", rows * columns, start)
        return numbers.reshape(rows, columns)
