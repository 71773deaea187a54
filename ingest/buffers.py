"""Memory for bodies: reused, because fresh pages cost more than the copy into them."""

from __future__ import annotations

from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

KEPT_BYTES = 512 * 1024 * 1024
"""The default of `ingest.budget_bytes`."""
SMALLEST_BYTES = 64 * 1024


class BufferPool:
    """Buffers in power-of-two sizes.

    They are anonymous mappings, whose pages the system gives when they are first written: a fresh buffer costs what
    was received into it. A bytearray would be filled with zeros at once, and a head that announces 16 MiB would
    cost them although nothing ever follows.

    Bodies come and go in waves, for all that wait on a segment are answered at once and then send again. A pool that
    keeps less than a wave has the system clear the same pages over and over: a quarter of the CPU at 256 connections
    of 1 MiB, where 64 MiB were kept. So it keeps what the budget allows, and `trim` gives back what no wave has used.

    Args:
        kept_bytes: what is lent and what is free are together kept below this, by letting free buffers go.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._lent_bytes = 0
        self._free_bytes = 0
        self._least_free_bytes = 0
        """Since the last `trim`: what nobody needed in all that time."""
        self._free: dict[int, list[mmap]] = {}

    @property
    def lent_bytes(self) -> int:
        """Of buffers that were taken and not given back."""
        return self._lent_bytes

    def take(self, size: int) -> mmap:
        """A buffer of at least `size` bytes with arbitrary content, its length a power of two.

        Raises:
            OSError: the system has no memory for it.
        """
        length = max(SMALLEST_BYTES, 1 << (size - 1).bit_length())
        free = self._free.get(length)
        if free:
            self._free_bytes -= length
            self._least_free_bytes = min(self._least_free_bytes, self._free_bytes)
            buffer = free.pop()
        else:
            self._let_go(self._lent_bytes + length + self._free_bytes - self._kept_bytes)
            buffer = mmap(-1, length, MAP_PRIVATE | MAP_ANONYMOUS)
        self._lent_bytes += length
        return buffer

    def give(self, buffer: mmap) -> None:
        """Take a buffer back. No view of it may be in use."""
        length = len(buffer)
        self._lent_bytes -= length
        if self._lent_bytes + self._free_bytes + length <= self._kept_bytes:
            self._free.setdefault(length, []).append(buffer)
            self._free_bytes += length

    def trim(self) -> None:
        """Give back to the system what has been free ever since the last call."""
        self._let_go(self._least_free_bytes)
        self._least_free_bytes = self._free_bytes

    def _let_go(self, size: int) -> None:
        """Let at least `size` bytes of free buffers go, the largest first, or all there are."""
        for length in sorted(self._free, reverse=True):
            free = self._free[length]
            while free and size > 0:
                free.pop()
                self._free_bytes -= length
                size -= length
        self._least_free_bytes = min(self._least_free_bytes, self._free_bytes)
