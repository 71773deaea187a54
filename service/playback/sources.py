"""What a chunk needs to be put into MP4 or to be seen: its container, and the init segment of fragments."""

from __future__ import annotations

from ingest.media import Media
from service.playback.gate import Viewer
from service.playback.reading import ChunkReader
from service.remuxing.remuxer import Source
from storage.rows.recordings import ChunkRow


class Sources:
    """Looks up the init segments of one process's chunks."""

    def __init__(self, chunks: ChunkReader) -> None:
        self._chunks = chunks

    async def of(self, viewer: Viewer, row: ChunkRow) -> Source:
        """What a chunk is, for whoever may read it.

        Raises:
            As `ChunkReader.init`.
        """
        if row.media != Media.FMP4:
            return Source(Media(row.media))
        return Source(Media.FMP4, await self._chunks.init(viewer, row))
