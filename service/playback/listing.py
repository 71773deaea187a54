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
from service import timeline
from service.playback import hls
from service.playback.following import STARTING_MS, Following
from service.playback.gate import Gate, Grant, Viewer
from service.playback.hls import TARGETS_LISTED
from service.playback.live import LiveList
from service.playback.refusals import Refused, only_mp4, range_only
from service.playback.services import PlaybackServices
from service.playback.sharers import Sharers
from service.timeline import BATCH_ROWS, KEY_FRAME_ROWS, ListedChunk, Span
from storage.days import MS_PER_DAY
from storage.rows.recordings import ChunkRow

STARTING_POLL_S = 0.5
LOOKED_BACK = 8
"""Chunks before a moment that are looked at for the one that it lies in, and for its key frame."""
PAST_HOUR_MS = 3_600_000
"""How much of the recordings a live playlist points to when there is nothing new."""

STREAMS = frozenset({Media.MPEG_TS})
"""What can be joined as it is."""
PLAYABLE = hls.PLAYABLE
"""What can be put into MP4."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing: spans with their chunks; a span goes on in the next page when its time does."""

    spans: Sequence[tuple[Span, Sequence[ChunkRow]]]
    next_ms: int | None
    """`from_ms` of the next page; None after the last."""


@dataclass(frozen=True, slots=True)
class LivePlaylist:
    """A live playlist, and, when there is nothing new in it, the range in which the newest recordings are."""

    text: str
    recorded: tuple[int, int] | None


class Listings:
    """All listings of one process: at most `listing_threads` are made at once.

    Every method raises Refused as `Gate.ask` does, and WorldError when the catalog can't be asked. A cancelled
    one waits for its thread, which the catalog's time-outs bound.
    """

    def __init__(self, services: PlaybackServices, gate: Gate, sharers: Sharers) -> None:
        self._services = services
        self._gate = gate
        self._following = Following(services)
        self._sharers = sharers
        self._threads = services.shares(services.listing_threads)
        self._answer_s = services.answer_s
        self._limiter = trio.CapacityLimiter(services.listing_threads)

    async def page(
        self, viewer: Viewer, from_ms: int, to_ms: int, *, limit: int, finish: Callable[[Page], T]
    ) -> T:
        """Chunks captured in [from_ms, to_ms) that may be read, of any media, in order of capture. Each row has the
        duration that it is listed with (`timeline.timed`).

        Args:
            limit: most chunks in it. Only the last page has fewer.
            finish: makes what is returned of it, in the thread.
        """

        def make(grant: Grant) -> T:
            # One more than fits: where the next page begins. It may be read, too, for what may not is not named.
            found = list(islice(self._rows(grant, from_ms, to_ms, limit + 1), limit + 1))
            next_ms = found[limit].capture_ms if len(found) > limit else None
            chunks = timeline.timed(found)[:limit]
            pairs = zip(found, chunks, strict=False)
            rows = iter([row._replace(duration_ms=chunk.duration_ms) for row, chunk in pairs])
            spans = timeline.spans(chunks, self._services.gap_ms)
            return finish(Page([(span, list(islice(rows, span.chunk_count))) for span in spans], next_ms))

        return await self._list(viewer, make)

    async def recorded(self, viewer: Viewer, from_ms: int, to_ms: int, *, finish: Callable[[str], T]) -> T:
        """A playlist that is complete: the chunks of `ranged`, of all media that can be played.

        Args:
            finish: makes what is returned of the text, in the thread.

        Raises:
            Refused: `range_too_large`, more than `max_listed_chunks`.
        """

        def make(grant: Grant) -> T:
            chunks = self._ranged(grant, from_ms, to_ms, hls.PLAYABLE)
            listed = hls.entries(chunks, self._services.gap_ms)
            silence = hls.mixes_sound(chunks)
            return finish(hls.playlist(listed, token=viewer.token, ended=True, silence=silence))

        return await self._list(viewer, make)

    async def live(self, viewer: Viewer, from_ms: int | None, *, finish: Callable[[LivePlaylist], T]) -> T:
        """A live playlist: the last `live_window_ms`, see `live`.

        While a camera that has just begun, or is still to begin, has fewer than TARGETS_LISTED chunks, it waits for the
        next ones, for `live_wait_s` at most: some players give up on a shorter list for good, and others on an empty
        one.

        Args:
            from_ms: the earliest capture time to be listed.

        Raises:
            Refused: `range_only`, by a share link.
        """

        def make(grant: Grant) -> tuple[T, bool]:
            if grant.share is not None:
                raise range_only()
            live = self._following.follow(grant, can_wait=can_wait)
            if live is not None and from_ms is not None:
                live = live.from_time(from_ms)
            starting = live is None or self._is_starting(live)
            return finish(self._live_playlist(live, viewer.token)), starting

        deadline_s = trio.current_time() + self._services.live_wait_s
        while True:
            can_wait = trio.current_time() < deadline_s
            made, starting = await self._list(viewer, make)
            if not starting or not can_wait:
                return made
            await trio.sleep(STARTING_POLL_S)

    def _is_starting(self, live: LiveList) -> bool:
        silent_ms = self._services.clock.now_ms() - live.moved_ms
        return len(live.entries) < TARGETS_LISTED and 0 <= silent_ms < STARTING_MS

    def _live_playlist(self, live: LiveList | None, token: str) -> LivePlaylist:
        if live is None:
            text = hls.playlist([], token=token, ended=False, comments=["nothing has been recorded yet"])
            return LivePlaylist(text, None)
        recorded, comments = None, []
        if live.entries:
            last = live.entries[-1]
            end_ms = last.capture_ms + last.duration_ms
            silent_ms = self._services.clock.now_ms() - live.moved_ms
            if not 0 <= silent_ms < max(STARTING_MS, TARGETS_LISTED * live.target_s * 1000):
                recorded = max(end_ms - PAST_HOUR_MS, 0), end_ms
                query = f"from={recorded[0]}&to={recorded[1]}"
                comments = [
                    f"nothing new since {hls.rfc3339(end_ms)}; the hour before that, as a recording:",
                    f"playlist.m3u8?{query}&token=...",
                ]
        text = hls.playlist(
            live.entries,
            token=token,
            ended=False,
            media_sequence=live.media_sequence,
            discontinuity_sequence=live.discontinuity_sequence,
            target_s=live.target_s,
            comments=comments,
            silence=True,  # a microphone may be switched on while somebody watches
        )
        return LivePlaylist(text, recorded)

    async def ranged(
        self, viewer: Viewer, from_ms: int, to_ms: int, *, media: frozenset[Media] = STREAMS
    ) -> list[ListedChunk]:
        """The chunks, MPEG-TS alone or of what media is asked for (`PLAYABLE`), with what was recorded in
        [from_ms, to_ms), and those before them that are needed to decode it: see `timeline.beginning`.

        Raises:
            Refused: `range_too_large`, as `recorded`; `only_mp4`, there are chunks, and none of these media.
        """
        return await self._list(viewer, lambda grant: self._ranged(grant, from_ms, to_ms, media))

    async def rows_at(self, viewer: Viewer, moments: Sequence[tuple[int, int]]) -> list[list[ChunkRow]]:
        """Of each moment the chunk that it lies in, with those before it that it may need, in order; or else the first
        one after it, before its end; or none.

        Args:
            moments: (at_ms, end_ms): at_ms < end_ms.
        """

        def make(grant: Grant) -> list[list[ChunkRow]]:
            return [self._at(grant, at_ms, end_ms) for at_ms, end_ms in moments]

        return await self._list(viewer, make)

    def _at(self, grant: Grant, at_ms: int, end_ms: int) -> list[ChunkRow]:
        before = self._earlier(grant, at_ms + 1, limit=LOOKED_BACK)
        rows = [row for row in before if grant.covers(row) and row.media in PLAYABLE]
        if rows:
            gap_ms, listed = self._services.gap_ms, timeline.timed(rows)
            if at_ms < listed[-1].capture_ms + listed[-1].duration_ms + gap_ms:
                first = len(rows) - 1
                while first and timeline.follows(listed[first - 1], listed[first], gap_ms):
                    first -= 1
                return rows[first:]
        after = self._chunks(grant, at_ms + 1, end_ms, limit=1)
        return [row for row in after if grant.covers(row) and row.media in PLAYABLE]

    async def is_settled(self, viewer: Viewer, asked_from_ms: int, asked_to_ms: int, first_ms: int) -> bool:
        """Whether none of the recordings of this range can have been deleted or have expired since somebody asked
        for them; the first one that is left is of `first_ms`. What is left may begin with the oldest day that is kept:
        then the day before that, swept by now, may have been part of it."""

        def make(grant: Grant) -> bool:
            if grant.clip is not None:
                return True  # nothing of one goes but with all of it
            from_ms, to_ms = grant.clamped(asked_from_ms, asked_to_ms)
            expired = grant.is_past(from_ms) and grant.is_past(first_ms - MS_PER_DAY)
            return not expired and not self._services.catalog.has_deletions(grant.device, from_ms, to_ms)

        return await self._list(viewer, make)

    async def stretches(
        self, viewer: Viewer, from_ms: int, to_ms: int, *, limit: int
    ) -> tuple[list[tuple[int, int]], int | None]:
        """When something was recorded in [from_ms, to_ms), without gaps: what a timeline is drawn of.

        Args:
            limit: most chunks that are looked at.

        Returns:
            (from_ms, to_ms) of each stretch, and where to ask on; None: that was all.
        """

        def make(grant: Grant) -> tuple[list[tuple[int, int]], int | None]:
            rows = list(islice(self._rows(grant, from_ms, to_ms, limit + 1), limit + 1))
            next_ms = rows[limit].capture_ms if len(rows) > limit else None
            return timeline.stretches(rows[:limit], self._services.gap_ms), next_ms

        return await self._list(viewer, make)

    async def which(self, viewer: Viewer, ranges: Sequence[tuple[int, int]]) -> list[bool]:
        """Which of some ranges [from_ms, to_ms) have something that may be read. Looks at BATCH_ROWS of each at most:
        what begins with more that has just expired counts as empty until the sweep has passed."""
        catalog = self._services.catalog

        def make(grant: Grant) -> list[bool]:
            def has_any(from_ms: int, to_ms: int) -> bool:
                first = catalog.chunks(grant.device, from_ms, to_ms, limit=1)
                if not first or grant.covers(first[0]):
                    return bool(first)
                return any(map(grant.covers, catalog.chunks(grant.device, from_ms, to_ms, limit=BATCH_ROWS)))

            return [has_any(from_ms, to_ms) for from_ms, to_ms in ranges]

        return await self._list(viewer, make)

    async def _list(self, viewer: Viewer, make: Callable[[Grant], T]) -> T:
        """Ask, make the listing in a thread, ask again."""
        grant = self._gate.ask(viewer)
        async with self._threads.hold(await self._sharers.of(viewer), wait_s=self._answer_s):
            made = await trio.to_thread.run_sync(make, grant, limiter=self._limiter)
        if self._gate.ask(viewer) != grant:  # midnight, or an erasure: what was listed may be over
            raise Refused.by(answers.OVERLOADED)
        return made

    def _ranged(
        self, grant: Grant, from_ms: int, to_ms: int, media: frozenset[Media] = STREAMS
    ) -> list[ListedChunk]:
        """See `ranged`. Blocks."""
        limit, gap_ms = self._services.max_listed_chunks, self._services.gap_ms
        rows = list(islice(self._rows(grant, from_ms, to_ms, BATCH_ROWS), limit + 1))
        if len(rows) > limit:
            raise Refused(f"more than {limit} chunks: ask for less at once", code="range_too_large")
        earlier = self._earlier(grant, from_ms)
        found = timeline.timed([*filter(grant.covers, earlier), *rows])
        chunks = [chunk for chunk in found if chunk.media in media]
        first = timeline.beginning(chunks, from_ms, gap_ms)
        if media == STREAMS and rows and first == len(chunks):
            raise only_mp4()
        return chunks[first:]

    def _rows(self, grant: Grant, from_ms: int, to_ms: int, first_rows: int) -> Iterator[ChunkRow]:
        """The rows that the grant covers, from the catalog in batches; of the first one the size is given. Blocks."""
        batch_rows = first_rows
        from_ms, to_ms = grant.clamped(from_ms, to_ms)
        while True:
            rows = self._chunks(grant, from_ms, to_ms, limit=batch_rows)
            yield from filter(grant.covers, rows)
            if len(rows) < batch_rows:
                return
            from_ms = rows[-1].capture_ms + 1
            batch_rows = BATCH_ROWS

    def _chunks(self, grant: Grant, from_ms: int, to_ms: int, *, limit: int) -> list[ChunkRow]:
        """Of what is recorded, or of the kept clip that the grant is for."""
        catalog = self._services.catalog
        if grant.clip is None:
            return catalog.chunks(grant.device, from_ms, to_ms, limit=limit)
        return catalog.clip_chunks(grant.device, grant.clip, from_ms, to_ms, limit=limit)

    def _earlier(self, grant: Grant, before_ms: int, *, limit: int = KEY_FRAME_ROWS) -> list[ChunkRow]:
        """The newest chunks from before a moment."""
        catalog = self._services.catalog
        if grant.clip is None:
            return catalog.latest_chunks(grant.device, limit=limit, before_ms=before_ms)
        return catalog.clip_chunks(grant.device, grant.clip, 0, before_ms, limit=limit, newest_first=True)
