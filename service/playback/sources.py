"""What a chunk needs to be put into MP4 or to be seen: its container, and the init segment of fragments."""

from __future__ import annotations

from functools import partial

import trio

from ingest.media import Media
from service.playback.gate import Viewer
from service.playback.reading import ChunkReader
from service.playback.refusals import not_found
from service.playback.services import PlaybackServices
from service.remuxing.remuxer import Source
from storage.media_facts import unpack_facts
from storage.rows.recordings import ChunkRow


class Sources:
    """Looks up the init segments of one process's chunks."""

    def __init__(self, services: PlaybackServices, chunks: ChunkReader) -> None:
        self._catalog = services.catalog
        self._chunks = chunks
        self._limiter = trio.CapacityLimiter(services.lookup_threads)

    async def of(self, viewer: Viewer, row: ChunkRow) -> Source:
        """What a chunk is, for whoever may read it.

        Raises:
            Refused: `not_found`, its init segment is gone; and as `ChunkReader.fetch`.
        """
        if row.media != Media.FMP4:
            return Source(Media(row.media))
        number = unpack_facts(row.facts).parameters
        look = partial(self._catalog.init, viewer.device, number, row.expires_on)
        found = await trio.to_thread.run_sync(look, limiter=self._limiter)
        if found is None:
            raise not_found()
        read = await self._chunks.fetch(viewer, found)
        try:
            return Source(Media.FMP4, bytes(read.data))
        finally:
            read.release()
