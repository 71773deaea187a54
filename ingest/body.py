"""The memory of one body while it is received."""

from __future__ import annotations

from ingest.buffers import Buffer, BufferPool


class Body:
    """Bytes received so far, contiguous.

    A body that came in one piece stays where it is: in a receive buffer that is everybody's, it must be done with, or
    `keep` it, before the next receive. A sized one gets its memory at once when more is to come (untouched pages cost
    nothing); a chunked one grows by doubling.

    Args:
        pool: where the memory comes from and goes back to.
        content_length: bytes, None for a chunked body.
    """

    __slots__ = ("_buffer", "_expected_bytes", "_only", "_pool", "_view", "length")

    def __init__(self, pool: BufferPool, content_length: int | None) -> None:
        self._pool = pool
        self._expected_bytes = content_length or 0
        self._only: bytes | memoryview = b""
        self._buffer: Buffer | None = None
        self._view = memoryview(b"")
        self.length = 0

    def tail(self, size: int) -> memoryview:
        """The place for the next `size` bytes. Say with `received` how many came, before anything else is received."""
        self._make_room(self.length + size)
        return self._view[self.length : self.length + size]

    def received(self, size: int) -> None:
        """So many bytes were put into `tail`."""
        self.length += size
        if self._buffer is not None:
            self._pool.use(self._buffer, self.length)

    def append(self, piece: bytes | memoryview) -> None:
        """Put a piece behind what is there. A view is copied at once, unless it is the whole of a sized body."""
        if self.length or (isinstance(piece, memoryview) and len(piece) != self._expected_bytes):
            self.tail(len(piece))[:] = piece
            self.received(len(piece))
        else:
            self._only = piece
            self.length = len(piece)

    def keep(self) -> None:
        """Copy what still lies in somebody else's buffer."""
        if isinstance(self._only, memoryview):
            self._make_room(self.length)

    def take_last(self) -> bytes:
        """Take its last byte off. It is kept, and has one."""
        self.length -= 1
        return bytes(self._view[self.length : self.length + 1])

    def _make_room(self, size: int) -> None:
        if self._buffer is not None and size <= self._buffer.length:
            return
        larger = self._pool.take(max(size, self._expected_bytes))
        view = memoryview(larger.memory)
        view[: self.length] = self.data()
        self.release()
        self._buffer, self._view = larger, view
        self._pool.use(larger, self.length)

    def data(self) -> memoryview:
        """What was received, as a view that the caller releases."""
        return memoryview(self._only) if self._buffer is None else self._view[: self.length]

    def release(self) -> None:
        """Give the memory back. All views of it must be gone."""
        if self._buffer is not None:
            self._view.release()
            self._pool.give(self._buffer)
            self._buffer = None
        self._only = b""
