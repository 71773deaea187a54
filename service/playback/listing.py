"""What there is: pages of recordings, playlists, and the chunks of an export.

A listing is made in a thread, under the grant of the moment before it. What it says may be over by then, so the
gate is asked again when it is done, and a listing made under another grant is not given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import trio

from ingest import answers
from ingest.media import Media
from service.playback import hls
from service.playback.gate import Gate, Grant, Viewer
from service.playback.hls import ListedChunk, Span
from service.playback.refusals import Refused
from service.playback.services import PlaybackServices
from storage.catalog import ChunkRow

MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, beyond which no playlist can name a time."""
BATCH_ROWS = 4096
"""Rows asked of the catalog at once by a long listing: some 2 MB of them, and a read transaction of some 10 ms."""
STEPS_NUMBERED = 10_000
"""Steps of live numbering until it comes round: so that the numbers stay below 2**31, which is all that some
players have room for. By the defaults that is seven years of one token."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing: spans with their chunks; a span goes on in the next page when its time does."""

    spans: Sequence[tuple[Span, Sequence[ChunkRow]]]
    next_ms: int | None
    """`from_ms` of the next page; None after the last."""


class Listings:
    """All listings of one process: at most `listing_threads` are made at once.

    Every method raises Refused as `Gate.ask` does, and WorldError when the catalog can't be asked. A cancelled
    one waits for its thread, which the catalog's time-outs bound.
    """

    def __init__(self, services: PlaybackServices, gate: Gate) -> None:
        self._services = services
        self._gate = gate
        self._threads = trio.CapacityLimiter(services.listing_threads)

    async def page(
        self, viewer: Viewer, from_ms: int, to_ms: int, *, limit: int, finish: Callable[[Page], T]
    ) -> T:
        """Chunks captured in [from_ms, to_ms) that may be read, of any media, in order of capture.

        Args:
            limit: most chunks in it. Only the last page has fewer.
            finish: makes what is returned of it, in the thread.
        """

        def make(grant: Grant) -> T:
            # One more than fits: where the next page begins. It may be read, too, for what may not is not named.
            found = list(islice(self._rows(grant, from_ms, to_ms, limit + 1), limit + 1))
            next_ms = found[limit].capture_ms if len(found) > limit else None
            rows = iter(found[:limit])
            spans = hls.spans(map(_listed, found[:limit]), self._services.gap_ms)
            return finish(Page([(span, list(islice(rows, span.chunk_count))) for span in spans], next_ms))

        return await self._list(viewer, make)

    async def recorded(self, viewer: Viewer, from_ms: int, to_ms: int, *, finish: Callable[[str], T]) -> T:
        """A playlist that is complete: the MPEG-TS chunks captured in [from_ms, to_ms).

        Args:
            finish: makes what is returned of the text, in the thread.

        Raises:
            Refused: `range_too_large`, more than `max_listed_chunks`.
        """

        def make(grant: Grant) -> T:
            chunks = self._range(grant, from_ms, to_ms)
            gap_ms = self._services.gap_ms
            return finish(
                hls.playlist(chunks, token=viewer.token, ended=True, media_sequence=0, gap_ms=gap_ms)
            )

        return await self._list(viewer, make)

    async def live(self, viewer: Viewer, from_ms: int | None, *, finish: Callable[[str], T]) -> T:
        """A live playlist: the last `live_window_ms`.

        Its numbers are counted from an anchor that the request gives (see `hls`): `from_ms`, or the end
        of the token, and the same for `live_step_ms`; nothing captured before `from_ms` is listed.

        Raises:
            Refused: `range_too_large`, chunks so short that more than `max_listed_chunks` came since the anchor.
        """
        services = self._services

        def make(grant: Grant) -> T:
            reached_ms = services.clock.now_ms() - services.live_reach_ms
            if from_ms is None:
                # So that the first step after a token was made, for a number of steps, is a whole one.
                base_ms = grant.token_expires_ms - services.live_reach_ms
                anchor_ms, step = live_anchor(base_ms, reached_ms, services.live_step_ms)
            else:
                anchor_ms, step = live_anchor(from_ms, max(from_ms, reached_ms), services.live_step_ms)
            chunks = self._range(grant, max(anchor_ms, 0), MAX_TIME_MS + 1)
            window = hls.live_window(chunks, gap_ms=services.gap_ms, window_ms=services.live_window_ms)
            before = step % STEPS_NUMBERED * services.max_listed_chunks
            text = hls.playlist(
                window.chunks,
                token=viewer.token,
                ended=False,
                media_sequence=before + window.media_sequence,
                gap_ms=services.gap_ms,
                discontinuity_sequence=before + window.discontinuity_sequence,
                target_s=window.target_s,
            )
            return finish(text)

        return await self._list(viewer, make)

    async def all(self, viewer: Viewer, from_ms: int, to_ms: int) -> list[ListedChunk]:
        """Every chunk captured in [from_ms, to_ms) that may be read, of any media.

        Raises:
            Refused: `range_too_large`, as `recorded`.
        """
        return await self._list(viewer, lambda grant: self._range(grant, from_ms, to_ms))

    async def _list(self, viewer: Viewer, make: Callable[[Grant], T]) -> T:
        """Ask, make the listing in a thread, ask again."""
        grant = self._gate.ask(viewer)
        made = await trio.to_thread.run_sync(make, grant, limiter=self._threads)
        if self._gate.ask(viewer) != grant:  # midnight, or an erasure: what was listed may be over
            raise Refused.by(answers.OVERLOADED)
        return made

    def _range(self, grant: Grant, from_ms: int, to_ms: int) -> list[ListedChunk]:
        """All that may be read in [from_ms, to_ms), any media. Blocks."""
        limit = self._services.max_listed_chunks
        found = [_listed(row) for row in islice(self._rows(grant, from_ms, to_ms, BATCH_ROWS), limit + 1)]
        if len(found) > limit:
            raise Refused(f"more than {limit} chunks: ask for less at once", code="range_too_large")
        return found

    def _rows(self, grant: Grant, from_ms: int, to_ms: int, first_rows: int) -> Iterator[ChunkRow]:
        """The rows that the grant covers, from the catalog in batches; of the first one the size is given. Blocks."""
        batch_rows = first_rows
        while True:
            rows = self._services.catalog.chunks(grant.device, from_ms, to_ms, limit=batch_rows)
            yield from filter(grant.covers, rows)
            if len(rows) < batch_rows:
                return
            from_ms = rows[-1].capture_ms + 1
            batch_rows = BATCH_ROWS


def live_anchor(base_ms: int, reached_ms: int, step_ms: int) -> tuple[int, int]:
    """The last of the moments `base_ms + k * step_ms`, k any integer, that is not after `reached_ms`; and k."""
    step = (reached_ms - base_ms) // step_ms
    return base_ms + step * step_ms, step


_MEDIA = {int(media): media for media in Media}


def _listed(row: ChunkRow) -> ListedChunk:
    # A duration is above 0 by the catalog's contract with ingest; a rebuilt row of an odd segment may lie.
    return ListedChunk(row.capture_ms, row.duration_ms or 1, row.length, _MEDIA.get(row.media, Media.UNKNOWN))
