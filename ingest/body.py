"""The memory of one body while it is received."""

from __future__ import annotations

from ingest.buffers import SMALLEST_BYTES, BufferPool


class Body:
    """Bytes received so far, contiguous.

    A sized body gets its memory at once (untouched pages cost nothing); a chunked one grows by doubling.

    Args:
        pool: where the memory comes from and goes back to.
        content_length: bytes, None for a chunked body.
        max_bytes: a chunked body never grows past it.
    """

    __slots__ = ("_buffer", "_max_bytes", "_pool", "_view", "length")

    def __init__(self, pool: BufferPool, content_length: int | None, max_bytes: int) -> None:
        self._pool = pool
        self._max_bytes = max_bytes
        self._buffer = pool.take(content_length or SMALLEST_BYTES)
        self._view = memoryview(self._buffer)
        self.length = 0

    def tail(self, size: int) -> memoryview:
        """The place for the next `size` bytes. Add what was received to `length` afterwards."""
        return self._view[self.length : self.length + size]

    def append(self, piece: bytes) -> None:
        """Copy a piece behind what is there."""
        end = self.length + len(piece)
        if end > len(self._buffer):
            larger = self._pool.take(end)
            larger[: self.length] = self._view[: self.length]
            self._view.release()
            self._pool.give(self._buffer)
            self._buffer, self._view = larger, memoryview(larger)
        self._view[self.length : end] = piece
        self.length = end

    def data(self) -> memoryview:
        """What was received. Valid until `release`."""
        return self._view[: self.length]

    def release(self) -> None:
        """Give the memory back. All views of it must be gone."""
        self._view.release()
        self._pool.give(self._buffer)
