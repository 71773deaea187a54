"""Which blocks of a bitmap file have their place on the disk: the rows of the others are not there.

A mapped file with holes is a trap. A store into a hole on a full disk is a SIGBUS, which ends the process without a
word; on a tmpfs so is a load, and each row of it that a stranger asks for takes a page. A small write into the hole
first does not help everywhere: a page (or a large folio) of the page cache may be longer than a block of the file
system, and is allocated as a whole when the mapping writes to it.

So the file is allocated in blocks of at least 2 MiB, as long as the longest folio, before the first row in one is
written, and a map in the header says which ones. Who reads a row looks there first, and never touches a hole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from storage.disk import allocate

MAP_BYTES = 2048
"""One bit for each block, the lowest bit of a byte first."""
MIN_BLOCK_BYTES = 1 << 21
"""The longest folio of Linux' page cache on machines with pages of 4 KiB."""


def block_shift(size_bytes: int) -> int:
    """Binary logarithm of the block length: for files of `size_bytes`, the shortest that the map has bits for."""
    least_bytes = max(MIN_BLOCK_BYTES, -(-size_bytes // (8 * MAP_BYTES)))
    return (least_bytes - 1).bit_length()


class Blocks:
    """The blocks of one open file.

    Args:
        fd: of the file; stays the caller's.
        size_bytes: of the file, holes included.
        map: `MAP_BYTES` bytes of its header, mapped: a change is seen by all processes at once.
    """

    def __init__(self, fd: int, size_bytes: int, map: memoryview | bytes) -> None:
        self._fd = fd
        self._size_bytes = size_bytes
        self._map = map
        self._shift = block_shift(size_bytes)

    def has(self, offset: int) -> bool:
        """Whether the byte at `offset` has its place on the disk. No lock, no I/O."""
        block = offset >> self._shift
        return self._map[block >> 3] >> (block & 7) & 1 == 1

    def allocate(self, offset: int) -> None:
        """Give the block of `offset` its place, durable or not; nothing when it has one. For the holder of the lock.

        Raises:
            OSError: above all ENOSPC. Nothing has changed.
        """
        if self.has(offset):
            return
        assert isinstance(self._map, memoryview), "the bitmap is open for writing"
        block = offset >> self._shift
        start, stop = self._span(block)
        allocate(self._fd, start, stop - start)
        self._map[block >> 3] |= 1 << (block & 7)

    def spans(self) -> list[tuple[int, int]]:
        """(start, stop) in bytes of every block that has its place, in order."""
        blocks = range(((self._size_bytes - 1) >> self._shift) + 1)
        return [self._span(block) for block in blocks if self._map[block >> 3] >> (block & 7) & 1]

    def _span(self, block: int) -> tuple[int, int]:
        return block << self._shift, min((block + 1) << self._shift, self._size_bytes)


def written_ranges(fd: int, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges between `start` and `stop`, in bytes of a file, that are not holes."""
    at = start
    while at < stop:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but hole up to the end
                return
            data, at = at, stop  # a file system that does not tell
        if data < stop:
            yield data, min(at, stop)
