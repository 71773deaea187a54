"""Memory for bodies: reused, because fresh pages cost more than the copy into them."""

from __future__ import annotations

from contextlib import suppress
from mmap import MADV_DONTNEED, MADV_NOHUGEPAGE, MAP_ANONYMOUS, MAP_PRIVATE, PAGESIZE, mmap

KEPT_BYTES = 512 * 1024 * 1024
"""The default of `ingest.budget_bytes`."""
SMALLEST_BYTES = 64 * 1024


class Buffer:
    """Memory of one body. Its pages are the system's until they are first written."""

    __slots__ = ("is_old", "length", "memory", "touched", "used")

    def __init__(self, length: int) -> None:
        self.memory = mmap(-1, length, MAP_PRIVATE | MAP_ANONYMOUS)
        self.length = length
        self.used = 0
        """Bytes, from the start, that hold something."""
        self.touched = 0
        """Bytes, from the start, that were ever written: what it takes of the system."""
        self.is_old = False
        """A `trim` has seen it lent, with bytes touched that are not used."""


class BufferPool:
    """Buffers in power-of-two sizes.

    They are anonymous mappings, whose pages the system gives when they are first written: a fresh buffer costs what
    was received into it. A bytearray would be filled with zeros at once, and a head that announces 16 MiB would
    cost them although nothing ever follows.

    Bodies come and go in waves, for all that wait on a segment are answered at once and then send again. A pool that
    keeps less than a wave has the system clear the same pages over and over: a quarter of the CPU at 256 connections
    of 1 MiB, where 64 MiB were kept. So it keeps what the budget allows, and `trim` gives back what no wave has used.

    What it keeps beyond what bodies hold is spare: free buffers, and the pages of lent ones that an earlier body has
    written and this one has not reached. `shrink` gives spare bytes back when the budget needs them.

    Args:
        kept_bytes: what is lent and what is free are together kept below this, by letting free buffers go.
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._lent_bytes = 0
        self._free_bytes = 0
        self._least_free_bytes = 0
        """Since the last `trim`: what nobody needed in all that time."""
        self._free: dict[int, list[Buffer]] = {}
        self._reused: dict[Buffer, None] = {}
        """Lent buffers that came with pages of an earlier body."""
        self.spare_bytes = 0
        """Written, and not used by any body now."""

    @property
    def lent_bytes(self) -> int:
        """Of buffers that were taken and not given back."""
        return self._lent_bytes

    def take(self, size: int) -> Buffer:
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
            self._reused[buffer] = None
        else:
            self._let_go(self._lent_bytes + length + self._free_bytes - self._kept_bytes)
            buffer = Buffer(length)
            # Where the system gives huge pages unasked, a first byte takes 2 MiB. Not all kernels have them.
            with suppress(OSError):
                buffer.memory.madvise(MADV_NOHUGEPAGE)
        self._lent_bytes += length
        return buffer

    def use(self, buffer: Buffer, used: int) -> None:
        """So many bytes of a lent buffer hold something now: not fewer than before."""
        touched = buffer.touched
        if used > touched:
            self.spare_bytes -= touched - buffer.used
            buffer.touched = used
        else:
            self.spare_bytes -= used - buffer.used
        buffer.used = used

    def give(self, buffer: Buffer) -> None:
        """Take a buffer back. No view of it may be in use."""
        self._lent_bytes -= buffer.length
        self._reused.pop(buffer, None)
        self.spare_bytes += buffer.used
        buffer.used = 0
        buffer.is_old = False
        if self._lent_bytes + self._free_bytes + buffer.length <= self._kept_bytes:
            self._free.setdefault(buffer.length, []).append(buffer)
            self._free_bytes += buffer.length
        else:
            self.spare_bytes -= buffer.touched

    def shrink(self, spare_bytes: int) -> None:
        """Give back to the system until no more than so many bytes are spare: free buffers first."""
        for length in sorted(self._free, reverse=True):
            while self._free[length] and self.spare_bytes > spare_bytes:
                self._drop_one(length)
        while self._reused and self.spare_bytes > spare_bytes:
            self._cut(next(iter(self._reused)))
        self._least_free_bytes = min(self._least_free_bytes, self._free_bytes)

    def trim(self) -> None:
        """Give back to the system what nobody has used ever since the last call."""
        self._let_go(self._least_free_bytes)
        self._least_free_bytes = self._free_bytes
        for buffer in list(self._reused):
            if buffer.is_old:
                self._cut(buffer)
            buffer.is_old = True

    def _let_go(self, size: int) -> None:
        """Let at least `size` bytes of free buffers go, the largest first, or all there are."""
        for length in sorted(self._free, reverse=True):
            while self._free[length] and size > 0:
                self._drop_one(length)
                size -= length
        self._least_free_bytes = min(self._least_free_bytes, self._free_bytes)

    def _drop_one(self, length: int) -> None:
        self.spare_bytes -= self._free[length].pop().touched
        self._free_bytes -= length

    def _cut(self, buffer: Buffer) -> None:
        """Give the pages back that the body in a lent buffer has not reached."""
        del self._reused[buffer]
        start = (buffer.used + PAGESIZE - 1) // PAGESIZE * PAGESIZE
        if buffer.touched > start:
            buffer.memory.madvise(MADV_DONTNEED, start, buffer.length - start)
        self.spare_bytes -= buffer.touched - buffer.used
        buffer.touched = buffer.used
