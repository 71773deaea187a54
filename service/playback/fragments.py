"""Chunks as fragmented MP4, for players: made for each who asks, of a chunk that is read like any other."""

from __future__ import annotations

from ingest.inits import MAX_INIT_BYTES
from ingest.media import Media
from service.playback.gate import Viewer
from service.playback.reading import ChunkReader
from service.playback.sharing import Sharer, Shares
from service.remuxing.remuxer import SLACK_BYTES, Fragment, Remuxer, Source
from storage.rows.recordings import ChunkRow


class ReadFragment:
    """A chunk as fMP4, checked and confirmed. Its memory is charged until `release`, which may be called again."""

    def __init__(self, row: ChunkRow, fragment: Fragment, memory: Shares, who: Sharer, charged: int) -> None:
        self.row = row
        self.init = fragment.init
        self.data = fragment.data
        self._memory = memory
        self._who = who
        self._charged = charged

    def release(self) -> None:
        self._memory.give(self._who, self._charged)
        self._charged = 0
        self.init = self.data = b""


class Fragments:
    """Makes them, of one process."""

    def __init__(self, chunks: ChunkReader, remuxer: Remuxer, memory_wait_s: float) -> None:
        self._chunks = chunks
        self._remuxer = remuxer
        self._memory_wait_s = memory_wait_s

    async def read(
        self, viewer: Viewer, row: ChunkRow, *, near_ms: int | None = None, silence: bool = False
    ) -> ReadFragment:
        """A chunk that `ChunkReader.find` found, as fMP4, to be sent at once. The caller releases it.

        Args:
            near_ms: near what time it is decoded: see `Remuxer.fragment`. A clip is decoded at its capture time.
            silence: pictures without sound get a track of silence.

        Raises:
            RemuxFailed: it can't be played so.
            As `ChunkReader.read`. None of the chunk leaves here then.
        """
        who = await self._chunks.sharer(viewer)
        memory = self._chunks.memory
        # Chunk, header and what becomes of them, asked for at once: who waits for memory holds none.
        charged = row.length + row.length // 8 + SLACK_BYTES + MAX_INIT_BYTES
        await memory.take(who, row.length + charged, wait_s=self._memory_wait_s)
        try:
            read = await self._chunks.fetch_charged(viewer, row, who)
            try:
                is_fragment = row.media == Media.FMP4
                init = await self._chunks.init(viewer, row) if is_fragment else b""
                source = Source(Media(row.media), init)
                # The clock of a clip begins with it. By capture time clips ascend: ffmpeg takes a fragment of a time
                # that it has read already for the one before.
                decode_ms = row.capture_ms if row.media == Media.MP4 else near_ms
                fragment = await self._remuxer.fragment(
                    who, source, read.data, decode_ms=decode_ms, silence=silence
                )
            finally:
                read.release()
            await self._chunks.confirm(viewer, row)
        except BaseException:
            memory.give(who, charged)
            raise
        return ReadFragment(row, fragment, memory, who, charged)
