"""Pictures: of one moment, and a strip of many for a timeline. Key frames alone are decoded.

What was made is kept in memory, never on disk, within `max_still_bytes`. A picture is recorded video in clear: it is
given as a chunk is, after the gate and the catalog were asked about the chunk that it is of, and it leaves memory
when the keys of that chunk do (`purge`), when a range is deleted, and after KEPT_S.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import trio

from ingest.media import MAX_DURATION_MS
from service.playback.gate import Viewer
from service.playback.listing import Listings
from service.playback.reading import ChunkReader
from service.playback.refusals import Refused, not_found
from service.playback.services import PlaybackServices
from service.playback.sources import Sources
from service.remuxing.remuxer import Remuxer, RemuxFailed, Still
from storage.clock import today
from storage.days import month_of_day
from storage.rows.recordings import ChunkRow
from storage.vault import KeyId

KEPT_S = 600.0
"""How long a picture stays at most."""
COLUMNS = 10
"""Of a strip."""
PICTURE_COST_BYTES = 1024
"""What a kept picture costs beside its bytes: its row and its place."""


class Taken(NamedTuple):
    """A picture. `at_ms`: when it was recorded, Unix ms."""

    row: ChunkRow
    at_ms: int
    still: Still


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures in rows of `columns`, each in a place of `width` × `height` pixels. `times_ms`: when each was recorded;
    None: there is none, and its place is grey."""

    data: bytes
    columns: int
    width: int
    height: int
    times_ms: Sequence[int | None]
    rows: Sequence[ChunkRow]


_Key = tuple[int, int, int, int, int, int]
"""Device, erase epoch, capture time, CRC-32, ms in the chunk, width."""


class StillCache:
    """Pictures of one process, the least used go first."""

    def __init__(self, most_bytes: int) -> None:
        self.held_bytes = 0
        self._most_bytes = most_bytes
        self._kept: OrderedDict[_Key, tuple[Taken, float]] = OrderedDict()

    def get(self, key: _Key) -> Taken | None:
        found = self._kept.get(key)
        if found is None or trio.current_time() - found[1] > KEPT_S:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: _Key, taken: Taken) -> None:
        self._drop(key)
        self.held_bytes += _cost(taken)
        self._kept[key] = taken, trio.current_time()
        while self.held_bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    def keep_only(self, is_good: Callable[[ChunkRow], bool]) -> None:
        """Drop what is over, and what is too old."""
        oldest_s = trio.current_time() - KEPT_S
        for key in [k for k, (taken, at) in self._kept.items() if at < oldest_s or not is_good(taken.row)]:
            self._drop(key)

    def spans(self) -> dict[int, tuple[int, int]]:
        """Of each device the first capture time kept, and the one after the last."""
        found: dict[int, tuple[int, int]] = {}
        for device, _, capture_ms, *_ in self._kept:
            first, last = found.get(device, (capture_ms, capture_ms + 1))
            found[device] = min(first, capture_ms), max(last, capture_ms + 1)
        return found

    def _drop(self, key: _Key) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.held_bytes -= _cost(found[0])


def _cost(taken: Taken) -> int:
    return len(taken.still.data) + PICTURE_COST_BYTES


class Stills:
    """The pictures of one process.

    Every method raises Refused as `Gate.ask` does, and WorldError when catalog, store or key store can't be asked.
    """

    def __init__(
        self,
        services: PlaybackServices,
        listings: Listings,
        chunks: ChunkReader,
        remuxer: Remuxer,
        sources: Sources,
    ) -> None:
        self.cache = StillCache(services.max_still_bytes)
        self._services = services
        self._catalog = services.catalog
        self._listings = listings
        self._chunks = chunks
        self._remuxer = remuxer
        self._sources = sources

    async def still(self, viewer: Viewer, at_ms: int, width: int) -> Taken:
        """The key frame at or before a moment.

        Args:
            width: most pixels across.

        Raises:
            Refused: `not_found`, nothing was recorded then.
            RemuxFailed: `no_picture` or `unplayable_media`, what was recorded has no picture.
        """
        (found,) = await self._listings.rows_at(viewer, [(at_ms, at_ms + 1)])
        if not found:
            raise not_found()
        return await self._taken(viewer, found, at_ms, width)

    async def strip(self, viewer: Viewer, from_ms: int, to_ms: int, count: int, width: int) -> Strip:
        """So many pictures of a range: of the middle of each part of it, or else of what was recorded after that.

        Raises:
            Refused: `not_found`, there is no picture at all.
        """
        bounds = [from_ms + (to_ms - from_ms) * i // count for i in range(count + 1)]
        parts = pairwise(bounds)
        moments = [(begin + (end - begin) // 2, max(end, begin + 1)) for begin, end in parts]
        places = await self._listings.rows_at(viewer, moments)
        height = max(width * 9 // 16 & ~1, 2)
        taken: list[Taken | None] = []
        for (at_ms, _), found in zip(moments, places, strict=True):
            try:
                taken.append(await self._taken(viewer, found, at_ms, width) if found else None)
            except RemuxFailed:
                taken.append(None)
            except Refused as refused:
                if refused.code not in ("not_found", "expired"):
                    raise
                taken.append(None)
        there = [each for each in taken if each is not None]
        if not there:
            raise Refused("there are no pictures in this range")
        who = await self._chunks.sharer(viewer)
        pictures = [each.still.data if each else b"" for each in taken]
        columns = min(count, COLUMNS)
        data = await self._remuxer.strip(who, pictures, columns=columns, width=width, height=height)
        for row in {each.row.capture_ms: each.row for each in there}.values():
            await self._chunks.confirm(viewer, row)  # it took a while: none of it may be gone
        times = [each.at_ms if each else None for each in taken]
        return Strip(data, columns, width, height, times, [each.row for each in there])

    async def _taken(self, viewer: Viewer, rows: Sequence[ChunkRow], at_ms: int, width: int) -> Taken:
        """The picture of a moment: of the last of these chunks, or of one before it that has a key frame."""
        failure: RemuxFailed | None = None
        for row in reversed(rows):
            try:
                return await self._of_chunk(viewer, row, max(at_ms - row.capture_ms, 0), width)
            except RemuxFailed as error:
                failure = failure or error
        assert failure is not None, "asked of no chunk"
        raise failure

    async def _of_chunk(self, viewer: Viewer, row: ChunkRow, offset_ms: int, width: int) -> Taken:
        offset_ms = (
            min(offset_ms, MAX_DURATION_MS) // 1000 * 1000
        )  # whoever drags along a timeline asks for each ms
        key = (row.device, row.epoch, row.capture_ms, row.crc32, offset_ms, width)
        kept = self.cache.get(key)
        if kept is not None:
            await self._chunks.confirm(viewer, row)
            return kept
        source = await self._sources.of(viewer, row)
        read = await self._chunks.read(viewer, row)
        try:
            who = await self._chunks.sharer(viewer)
            still = await self._remuxer.still(who, source, read.data, at_ms=offset_ms, width=width)
            now = await self._chunks.confirm(viewer, row)
        finally:
            read.release()
        taken = Taken(now, row.capture_ms + still.offset_ms, still)
        self.cache.put(key, taken)
        return taken

    async def purge(self, is_live: Callable[[KeyId], bool]) -> None:
        """Forget what is over: of keys that are, of days that have expired, of ranges that were deleted. Keys are
        looked at before anything else happens."""
        day = today(self._services.clock, self._services.bitmap.least_day)

        def is_good(row: ChunkRow) -> bool:
            key = KeyId(row.device, row.epoch, month_of_day(row.expires_on))
            return row.expires_on > day and is_live(key)

        self.cache.keep_only(is_good)
        spans = self.cache.spans()
        if not spans:
            return
        deleted = await trio.to_thread.run_sync(self._deleted, spans)
        self.cache.keep_only(lambda row: row.device not in deleted)

    def _deleted(self, spans: dict[int, tuple[int, int]]) -> set[int]:
        """Devices of which something kept may have been deleted. Blocks."""
        has_deletions = self._catalog.has_deletions
        return {device for device, (first, last) in spans.items() if has_deletions(device, first, last)}
