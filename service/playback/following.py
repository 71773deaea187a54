"""The live lists of devices, moved on in the catalog by whoever finds something new. Everything here blocks."""

from __future__ import annotations

from collections.abc import Sequence

from retention.sweep.rewriting import WORKER as REWRITER
from service.playback.gate import Grant
from service.playback.hls import PLAYABLE, TARGETS_LISTED, listable
from service.playback.live import LiveList, Window, appended, begun, last_run
from service.playback.services import PlaybackServices
from service.timeline import ListedChunk, timed
from storage.rows.recordings import MAX_CAPTURE_MS, ChunkRow, LiveListRow, SegmentMark

TAIL_ROWS = 1000
"""The newest chunks that a list is made of, and by which its target duration is chosen; also the most that are appended
at once. More are skipped, as by a viewer who was away."""
STARTING_MS = 30_000
"""A camera that sent its newest chunk within this time may be sending its first ones: see `Listings.live`."""
MOVED_EVERY_MS = 500
"""A list is moved on no more often, however short the chunks and however many ask: each time is a write."""
FORGOTTEN_MS = 3_600_000
"""A list that nobody asked for in this time is made anew, with a target duration of its own: no player is left that
knows the old one. Above any player's reload time, and a laptop's nap at lunch."""
SET_BACK_AFTER_MS = 30_000
"""How long a list stands still before chunks with earlier times count as those of a clock that was set back, and not as
late ones: several chunks of any camera."""
SET_BACK_MOST_MS = 86_400_000
"""How far a clock may be set back at once and be followed: a wrong time zone, or daylight saving."""
SET_BACK_CHUNKS = 3
"""So many in a row are needed for it."""


class Following:
    """Reads and moves on the live lists of any device, for one process."""

    def __init__(self, services: PlaybackServices) -> None:
        self._catalog = services.catalog
        self._clock = services.clock
        self._window = Window(services.live_window_ms, services.gap_ms)

    def follow(self, grant: Grant, *, can_wait: bool = False) -> LiveList | None:
        """What the live playlist lists now, less what may not be named any more; None before the first chunk.

        Args:
            can_wait: whoever asks comes again at once. Of a camera that has just begun none is made yet then: the
                first chunks tell its target duration, which stays.
        """
        row = self._catalog.live_list(grant.device)
        live = LiveList.from_text(row.state) if row is not None and row.epoch == grant.epoch else None
        moved = self._moved(grant, live, can_wait=can_wait)
        if moved is not None and moved != live:
            version = (row.version if row is not None else 0) + 1
            if self._catalog.put_live_list(grant.device, LiveListRow(version, grant.epoch, moved.to_text())):
                live = moved
            else:  # another process was first: what it made of it counts
                row = self._catalog.live_list(grant.device)
                live = LiveList.from_text(row.state) if row is not None and row.epoch == grant.epoch else None
        return live.without_deleted(self._stored(grant, live)) if live is not None else None

    def _moved(self, grant: Grant, live: LiveList | None, *, can_wait: bool) -> LiveList | None:
        now_ms = self._clock.now_ms()
        # Before any chunk is looked for, so that what comes later is known by it.
        mark = self._catalog.segment_mark()
        if live is None:
            tail = self._tail(grant)
            if can_wait and len(tail) < TARGETS_LISTED and tail and _is_fresh(tail[-1], now_ms):
                return None
            return begun(tail, self._window, now_ms=now_ms, mark=mark) if tail else None
        if 0 <= now_ms - live.moved_ms < MOVED_EVERY_MS:
            return live
        last_ms = live.entries[-1].capture_ms
        rows = self._catalog.chunks_stored_after(
            grant.device, live.stored_after, last_ms, MAX_CAPTURE_MS, limit=TAIL_ROWS + 1
        )
        found = _settled(grant, rows)
        new = [chunk for chunk in found if chunk.capture_ms > last_ms]
        if not new:
            return self._set_back(grant, live, now_ms=now_ms, mark=mark)
        last = found[0] if found[0].capture_ms == last_ms else None
        forgotten = max(new[0].capture_ms, live.moved_ms) < now_ms - FORGOTTEN_MS
        if len(rows) > TAIL_ROWS or forgotten:
            target_s = None if forgotten else live.target_s
            tail = [chunk for chunk in self._tail(grant) if chunk.capture_ms > last_ms]
            return begun(
                tail or new,
                self._window,
                now_ms=now_ms,
                mark=mark,
                before=live,
                target_s=target_s,
            )
        return appended(live, last, new, self._window, now_ms=now_ms, mark=mark)

    def _set_back(self, grant: Grant, live: LiveList, *, now_ms: int, mark: SegmentMark) -> LiveList:
        """Follow a camera whose clock was set back: what it sends now has times before those that are listed."""
        if 0 <= now_ms - live.moved_ms < SET_BACK_AFTER_MS:
            return live
        last_ms = live.entries[-1].capture_ms
        rows = self._catalog.chunks_stored_after(
            grant.device, live.mark, max(last_ms - SET_BACK_MOST_MS, 0), last_ms, limit=TAIL_ROWS
        )
        # A rewrite moves old chunks to a new segment.
        fresh = [row for row in rows if row.segment_key.split("/")[3:4] != [REWRITER]]
        run = last_run(_settled(grant, fresh), self._window.gap_ms)
        if len(run) < SET_BACK_CHUNKS:
            return live
        since = LiveList(
            live.target_s,
            live.media_sequence,
            live.discontinuity_sequence,
            live.entries,
            live.moved_ms,
            live.mark,
            stored_after=live.mark,
        )
        return appended(since, None, run, self._window, now_ms=now_ms, mark=mark)

    def _tail(self, grant: Grant) -> list[ListedChunk]:
        return _settled(grant, self._catalog.latest_chunks(grant.device, limit=TAIL_ROWS))

    def _stored(self, grant: Grant, live: LiveList) -> set[int]:
        """Capture times of all that is listed and may still be named, and maybe others."""
        found: set[int] = set()
        times = [entry.capture_ms for entry in live.entries]
        first = 0
        for i in range(1, len(times) + 1):
            if i == len(times) or times[i] < times[i - 1]:  # a stretch in which times ascend
                rows = self._catalog.chunks(
                    grant.device, times[first], times[i - 1] + 1, limit=10 * TAIL_ROWS
                )
                found.update(row.capture_ms for row in rows if grant.covers(row))
                first = i
        return found


def _is_fresh(chunk: ListedChunk, now_ms: int) -> bool:
    return 0 <= now_ms - chunk.capture_ms - chunk.duration_ms < STARTING_MS


def _settled(grant: Grant, rows: Sequence[ChunkRow]) -> list[ListedChunk]:
    """The chunks that may be read and listed, and whose duration will not change: not the last one, when only the next
    one can tell how long it plays."""
    found = [row for row in rows if grant.covers(row) and row.media in PLAYABLE]
    chunks = timed(found)
    return listable(chunks[:-1] if found and not found[-1].duration_ms else chunks)
