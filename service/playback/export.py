"""Exports: the MPEG-TS chunks of a range as one stream, each asked for and confirmed like one alone."""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import trio

from ingest import answers
from service.playback.gate import Viewer
from service.playback.listing import Listings
from service.playback.reading import ChunkReader, ReadChunk
from service.playback.refusals import Refused, not_found
from service.playback.services import PlaybackServices
from service.playback.sharing import Sharer
from service.timeline import ListedChunk
from storage.errors import ClipkeepError
from storage.rows.recordings import ChunkRow

Write = Callable[[bytes | memoryview], Awaitable[None]]


class Exports:
    """The exports of one process: `max_exports` are open at most, shared out among viewers and their accounts."""

    def __init__(self, services: PlaybackServices, listings: Listings, chunks: ChunkReader) -> None:
        self.services = services
        self.chunks = chunks
        self.under_way = services.shares(services.max_exports)
        self.listings = listings

    async def plan(self, viewer: Viewer, from_ms: int, to_ms: int) -> Export:
        """The MPEG-TS chunks of `Listings.ranged`, to be read one after the other.

        MP4 chunks can't be joined to a stream and are left out.

        Raises:
            Refused: `not_found`, there is nothing; and as `Listings.ranged`.
        """
        chunks = await self.listings.ranged(viewer, from_ms, to_ms)
        if not chunks:
            raise Refused("there are no recordings in this range")
        return Export(self, viewer, chunks)

    async def is_settled(self, viewer: Viewer, from_ms: int, to_ms: int, export: Export) -> bool:
        """Whether nothing of this export's range can have gone since somebody asked for it before."""
        return await self.listings.is_settled(viewer, from_ms, to_ms, export.from_ms)


class Export:
    """One planned export: either `probe`, or `open` and `stream`; and `close` in any case. `keep` comes before."""

    def __init__(self, exports: Exports, viewer: Viewer, chunks: Sequence[ListedChunk]) -> None:
        self.length_bytes = sum(chunk.length_bytes for chunk in chunks)
        self.from_ms = chunks[0].capture_ms
        self.etag = _etag(chunks)
        """Of all its bytes: a deletion, an expiry or a late chunk in between gives another one."""
        self.content_type = "video/mp2t"
        self.file_name = f"device-{viewer.device}-{self.from_ms}.ts"
        self.chunks = exports.chunks
        self._exports = exports
        self._limits = exports.services
        self._viewer = viewer
        self._planned = deque(Part(chunk, 0, chunk.length_bytes) for chunk in chunks)
        self._ahead: deque[Ahead] = deque()
        self._opened_by: Sharer | None = None

    def keep(self, start: int, stop: int) -> None:
        """Export the bytes `start <= i < stop` only. Chunks that are not needed for them are not read."""
        parts: deque[Part] = deque()
        begin = 0
        for part in self._planned:
            end = begin + part.chunk.length_bytes
            if begin < stop and start < end:
                parts.append(part._replace(start=max(start - begin, 0), stop=min(stop, end) - begin))
            begin = end
        self._planned = parts

    async def prepare(self, read: ReadChunk, part: Part, who: Sharer) -> None:
        """Make of a chunk what goes out for it."""
        read.keep(part.start, part.stop)

    async def probe(self) -> None:
        """Whether its first chunk can be read, short of the bytes.

        Raises:
            As `ChunkReader.find` and `ChunkReader.readable`.
        """
        row = await find_planned(self.chunks, self._viewer, self._planned[0].chunk)
        await self.chunks.readable(self._viewer, row)

    async def open(self) -> None:
        """Read the first chunk, so that what is wrong with it can still be answered.

        Raises:
            Refused: `overloaded`, `max_exports` are under way, or all of this viewer's share of them; and what
                `ChunkReader.read` raises.
        """
        who = await self.chunks.sharer(self._viewer)
        if not self._exports.under_way.try_take(who, 1):
            raise Refused.by(answers.OVERLOADED)
        self._opened_by = who
        await self._open_first(who)

    async def _open_first(self, who: Sharer) -> None:
        await self.chunks.memory.take(
            who, self._planned[0].chunk.length_bytes, wait_s=self._limits.memory_wait_s
        )
        self._ahead.append(Ahead(self._planned.popleft()))
        await self._ahead[0].fill(self, self._viewer, who)
        await self._next()

    def close(self) -> None:
        """Give everything back."""
        if self._opened_by is not None:
            self._exports.under_way.give(self._opened_by, 1)
        self._opened_by = None
        for ahead in self._ahead:
            ahead.release()
        self._ahead.clear()

    async def stream(self, write: Write) -> None:
        """Hand every chunk to `write` in turn, while the next ones are being read.

        Raises:
            ClipkeepError: it can't go on: entitlement was lost, a chunk was deleted or can't be read. What was
                written until then is good; nothing more is.
        """
        assert self._opened_by is not None, "open it first"
        failure: ClipkeepError | None = None
        async with trio.open_nursery() as nursery:
            try:
                while self._ahead or self._planned:
                    await self._read_ahead(nursery, self._opened_by)
                    await self._write_one(write)
                await self._write_rest(write)
            except ClipkeepError as error:  # raised below: a nursery would wrap it
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _read_ahead(self, nursery: trio.Nursery, who: Sharer) -> None:
        """Have the next chunk read, and those behind it as far as there is room for them at once: who waits for memory
        holds none, so that no two exports wait for each other."""
        if not self._ahead:
            await self.chunks.memory.take(who, self._planned[0].chunk.length_bytes)
            self._begin_next(nursery, who)
        while self._planned and len(self._ahead) <= self._limits.read_ahead_chunks:
            chunk_bytes = self._planned[0].chunk.length_bytes
            ahead_bytes = sum(ahead.part.chunk.length_bytes for ahead in self._ahead)
            if ahead_bytes + chunk_bytes > self._limits.read_ahead_bytes:
                return
            if not self.chunks.memory.try_take(who, chunk_bytes):
                return
            self._begin_next(nursery, who)

    def _begin_next(self, nursery: trio.Nursery, who: Sharer) -> None:
        self._ahead.append(Ahead(self._planned.popleft()))
        nursery.start_soon(self._ahead[-1].fill, self, self._viewer, who)

    async def _write_one(self, write: Write) -> None:
        await write((await self._next()).data)
        self._ahead.popleft().release()

    async def _write_rest(self, write: Write) -> None:
        """What comes after the last chunk."""

    async def _next(self) -> ReadChunk:
        """The chunk whose turn it is, and it may be sent now: it may have waited long."""
        ahead = self._ahead[0]
        await ahead.filled.wait()
        if ahead.read is None:
            assert ahead.error is not None, "filled with neither"
            raise ahead.error
        await self.chunks.confirm(self._viewer, ahead.read.row)
        return ahead.read


class Part(NamedTuple):
    """The bytes `start <= i < stop` of a chunk. `number`: of its place in the export, for who counts them."""

    chunk: ListedChunk
    start: int
    stop: int
    number: int = 0


class Ahead:
    """One chunk that an export reads ahead: planned, then either read or failed."""

    __slots__ = ("error", "filled", "part", "read")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.filled = trio.Event()
        self.read: ReadChunk | None = None
        self.error: ClipkeepError | None = None

    async def fill(self, export: Export, viewer: Viewer, who: Sharer) -> None:
        """Read it, as if it had been asked for alone: what was deleted since the planning is not sent. Its memory was
        taken."""
        chunks = export.chunks
        try:
            try:
                row = await find_planned(chunks, viewer, self.part.chunk)
            except BaseException:
                chunks.memory.give(who, self.part.chunk.length_bytes)
                raise
            read = await chunks.fetch_charged(viewer, row, who)
            try:
                await export.prepare(read, self.part, who)
            except BaseException:
                read.release()
                raise
            self.read = read
        except ClipkeepError as error:
            self.error = error
        self.filled.set()

    def release(self) -> None:
        if self.read is not None:
            self.read.release()


async def find_planned(chunks: ChunkReader, viewer: Viewer, planned: ListedChunk) -> ChunkRow:
    """The row of a planned chunk, of the length and content that were promised for it."""
    row = await chunks.find(viewer, planned.capture_ms)
    if (row.length, row.crc32) != (planned.length_bytes, planned.crc32):
        raise not_found()
    return row


_TAGGED = struct.Struct("<qII")


def _etag(chunks: Sequence[ListedChunk]) -> str:
    """A strong tag (RFC 9110 §8.8.1): which chunks in which order, each by length and CRC-32."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(_TAGGED.pack(chunk.capture_ms, chunk.length_bytes, chunk.crc32))
    return f'"{digest.hexdigest()[:32]}"'
