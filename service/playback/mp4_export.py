"""Exports as MP4: chunks as fragments, each in its slot of the file (`service.remuxing.layout`), asked for and
confirmed like one alone.

Where each byte lies is known before a chunk is read, and the same chunk becomes the same bytes each time. So a
download goes on where it broke. A chunk that can't be put into MP4 leaves its slot empty; the film stands still for
its time. An archive has checksums behind its files, so one that goes on is made from its beginning, and what the
client has is not sent.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from ingest import answers
from ingest.media import Media
from service.playback.export import Export, Exports, Part, Write, find_planned
from service.playback.film import Film, Placed, archive_bytes, entries, etag, films
from service.playback.gate import Viewer
from service.playback.listing import PLAYABLE
from service.playback.reading import ReadChunk
from service.playback.refusals import Refused
from service.playback.sharing import Sharer
from service.playback.sources import Sources
from service.remuxing import zipping
from service.remuxing.layout import (
    FREE_HEADER_BYTES,
    INIT_BYTES,
    Slot,
    filled_init,
    first_clock_hz,
    free,
    index,
    index_bytes,
)
from service.remuxing.remuxer import Fragment, Remuxer, RemuxFailed, Source

INIT_TRIES = 8
"""Chunks of a film that are looked at for its init: the first ones may be damaged."""
_ZEROS = memoryview(bytes(1 << 18))

_log = structlog.get_logger("playback")


class Mp4Exports:
    """The exports as MP4 of one process; they count among `exports`."""

    def __init__(self, exports: Exports, remuxer: Remuxer, sources: Sources) -> None:
        self._exports = exports
        self._sources = sources
        self._remuxer = remuxer

    async def plan(self, viewer: Viewer, from_ms: int, to_ms: int) -> Mp4Export:
        """The recordings of a range, those in MP4 with it: one film, or an archive of films where codecs change.

        Raises:
            Refused: as `Exports.plan`, but that MP4 alone will do; `range_too_large`, codecs change too often.
        """
        chunks = await self._exports.listings.ranged(viewer, from_ms, to_ms, media=PLAYABLE)
        if not chunks:
            raise Refused("there are no recordings in this range")
        made = films(chunks, self._exports.services.gap_ms)
        return Mp4Export(self._exports, self._remuxer, self._sources, viewer, made)


class _Step(NamedTuple):
    """A stretch of the file, of which the bytes `start <= i < stop` go out: the slot of a chunk, or what `make`
    gives."""

    length_bytes: int
    film: int
    placed: Placed | None = None
    make: Callable[[], bytes] | None = None
    start: int = 0
    stop: int = 0


class Mp4Export(Export):
    """One planned export as MP4."""

    def __init__(
        self, exports: Exports, remuxer: Remuxer, sources: Sources, viewer: Viewer, parts: Sequence[Film]
    ) -> None:
        super().__init__(exports, viewer, [parts[0].chunks[0].chunk])
        self._remuxer = remuxer
        self._sources = sources
        self._source_of: dict[int, Source] = {}
        self._films = parts
        self._entries = entries(parts, viewer.device) if len(parts) > 1 else []
        self._crc = 0
        self._crcs: list[int] = []
        self._inits: dict[int, bytes] = {}
        self._left_out = 0
        self.film_count = len(parts)
        self.length_bytes = archive_bytes(self._entries) if self._entries else parts[0].length_bytes
        self.etag = etag(parts)
        self.content_type = "application/zip" if self._entries else "video/mp4"
        self.file_name = f"device-{viewer.device}-{self.from_ms}.{'zip' if self._entries else 'mp4'}"
        self._steps: deque[_Step] = deque()
        self._by_number: list[_Step] = []
        self.keep(0, self.length_bytes)

    def keep(self, start: int, stop: int) -> None:
        """See `Export.keep`. Of an archive all chunks up to `stop` are read."""
        self._steps.clear()
        self._planned.clear()
        begin = 0
        for step in self._all_steps():
            end = begin + step.length_bytes
            first, last = max(start - begin, 0), min(stop, end) - begin
            if first < last or (self._entries and begin < stop):
                self._steps.append(step._replace(start=min(first, step.length_bytes), stop=max(last, 0)))
            begin = end
        self._by_number = list(self._steps)
        for number, step in enumerate(self._by_number):
            if step.placed is not None:
                self._planned.append(Part(step.placed.chunk, 0, step.placed.chunk.length_bytes, number))

    def _all_steps(self) -> list[_Step]:
        steps: list[_Step] = []
        for number, film in enumerate(self._films):
            if self._entries:
                entry = self._entries[number]
                steps.append(
                    _Step(zipping.header_bytes(entry), number, make=partial(self._entry_header, entry))
                )
            steps.append(_Step(INIT_BYTES, number, make=partial(self._film_header, number)))
            slots = [placed.slot for placed in film.chunks]
            steps.append(_Step(index_bytes(len(slots)), number, make=partial(self._index, number, slots)))
            steps += [_Step(placed.slot_bytes, number, placed) for placed in film.chunks]
            if self._entries:
                make = partial(self._entry_end, self._entries[number])
                steps.append(_Step(zipping.DESCRIPTOR_BYTES, number, make=make))
        if self._entries:
            begin = self.length_bytes - zipping.directory_bytes(self._entries)
            make = partial(zipping.directory, self._entries, self._crcs, begin)
            steps.append(_Step(self.length_bytes - begin, number, make=make))
        return steps

    async def probe(self) -> None:
        row = await find_planned(self.chunks, self._viewer, self._films[0].chunks[0].chunk)
        await self.chunks.readable(self._viewer, row)

    async def open(self) -> None:
        """Find the inits of all films that are asked for, and read the first chunk.

        Raises:
            Refused: as `Export.open`.
            RemuxFailed: a film has no chunk among its first ones that can be put into MP4.
        """
        who = await self.chunks.sharer(self._viewer)
        if not self._exports.under_way.try_take(who, 1):
            raise Refused.by(answers.OVERLOADED)
        self._opened_by = who
        for number in sorted({step.film for step in self._steps}):
            self._inits[number] = await self._init_of(number, who)
        if self._planned:
            await self._open_first(who)

    async def _init_of(self, number: int, who: Sharer) -> bytes:
        film = self._films[number]
        failure: RemuxFailed | None = None
        for placed in film.chunks[:INIT_TRIES]:
            row = await find_planned(self.chunks, self._viewer, placed.chunk)
            self._source_of[number] = source = await self._sources.of(self._viewer, row)
            read = await self.chunks.fetch(self._viewer, row)
            try:
                fragment = await self._rewrapped(placed, source, read, who)
                filled_init(fragment.init, film.ticks)
                first_clock_hz(fragment.init)
                await self.chunks.confirm(self._viewer, row)
                return fragment.init
            except RemuxFailed as error:
                failure = error
            except ValueError:
                failure = RemuxFailed("the header of this recording is too long")
            finally:
                read.release()
        assert failure is not None, "a film without chunks"
        raise failure

    async def _rewrapped(self, placed: Placed, source: Source, read: ReadChunk, who: Sharer) -> Fragment:
        """A chunk as a fragment. What broke a child does not have to be the chunk's fault, so it is tried again."""
        ask = partial(
            self._remuxer.placed,
            who,
            source._replace(media=Media(read.row.media)),
            read.data,
            at_ticks=placed.at_ticks,
            of_ticks=placed.of_ticks,
            until_ticks=placed.until_ticks,
            begins=placed.begins,
            sequence=placed.sequence,
        )
        try:
            return await ask()
        except RemuxFailed as error:
            if error.is_certain:
                raise
        return await ask()

    async def prepare(self, read: ReadChunk, part: Part, who: Sharer) -> None:
        """A chunk becomes its fragment, in the memory that was charged for it; one that can't is left out."""
        step = self._by_number[part.number]
        assert step.placed is not None, "a chunk without a slot"
        data = b""
        try:
            fragment = await self._rewrapped(step.placed, self._source_of[step.film], read, who)
            rest = step.length_bytes - len(fragment.data)
            if fragment.init == self._inits[step.film] and (rest == 0 or rest >= FREE_HEADER_BYTES):
                data = fragment.data
        except RemuxFailed:
            pass
        self._left_out += not data
        read.data = data

    async def stream(self, write: Write) -> None:
        await super().stream(write)
        if self._left_out:
            _log.warning("export_left_out", device=self._viewer.device, chunks=self._left_out)

    async def _write_one(self, write: Write) -> None:
        await self._write_made(write)
        read = await self._next()
        await self._write_step(write, self._steps.popleft(), read.data)
        self._ahead.popleft().release()

    async def _write_rest(self, write: Write) -> None:
        await self._write_made(write)

    async def _write_made(self, write: Write) -> None:
        """What lies before the next chunk."""
        while self._steps and (make := self._steps[0].make) is not None:
            step = self._steps.popleft()
            await self._write_step(write, step, make())

    async def _write_step(self, write: Write, step: _Step, data: bytes) -> None:
        """The bytes of a step that go out; what it has beside its data is a `free` box."""
        rest = step.length_bytes - len(data)
        filling = free(rest)
        begin = 0
        pieces: list[bytes | memoryview] = [data, filling, *self._zeros(rest - len(filling))]
        for piece in pieces:
            view = memoryview(piece)
            if self._entries:
                self._crc = zlib.crc32(view, self._crc)
            first, last = max(step.start - begin, 0), min(step.stop - begin, len(view))
            if first < last:
                await write(view[first:last])
            begin += len(view)

    def _zeros(self, length: int) -> list[memoryview]:
        whole, rest = divmod(length, len(_ZEROS))
        return [_ZEROS] * whole + [_ZEROS[:rest]]

    def _film_header(self, number: int) -> bytes:
        self._crc = 0
        return filled_init(self._inits[number], self._films[number].ticks)

    def _index(self, number: int, slots: list[Slot]) -> bytes:
        return index(slots, first_clock_hz(self._inits[number]))

    def _entry_header(self, entry: zipping.Entry) -> bytes:
        return zipping.header(entry)

    def _entry_end(self, entry: zipping.Entry) -> bytes:
        self._crcs.append(self._crc)
        return zipping.descriptor(entry, self._crc)
