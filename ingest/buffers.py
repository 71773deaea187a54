"""Memory for bodies and segments: reused, because fresh pages cost more than the copy into them."""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

KEPT_BYTES = 64 * 1024 * 1024
"""Free memory that a pool keeps for reuse; what is above goes back to the system. A guess that fits a burst of
four largest chunks."""
SMALLEST_BYTES = 64 * 1024


class BufferPool:
    """Buffers in power-of-two sizes.

    They are anonymous mappings, whose pages the system gives when they are first written: a fresh buffer costs what
    was received into it. A bytearray would be filled with zeros at once, and a head that announces 16 MiB would
    cost them although nothing ever follows.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._free_bytes = 0
        self._free: dict[int, list[mmap]] = {}

    def take(self, size: int) -> mmap:
        """A buffer of at least `size` bytes with arbitrary content, its length a power of two."""
        length = max(SMALLEST_BYTES, 1 << (size - 1).bit_length())
        free = self._free.get(length)
        if free:
            self._free_bytes -= length
            return free.pop()
        return mmap(-1, length, MAP_PRIVATE | MAP_ANONYMOUS)

    def give(self, buffer: mmap) -> None:
        """Take a buffer back. No view of it may be in use."""
        length = len(buffer)
        if self._free_bytes + length <= self._kept_bytes:
            self._free.setdefault(length, []).append(buffer)
            self._free_bytes += length
