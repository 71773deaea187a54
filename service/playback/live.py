"""What a live playlist lists, and under which numbers. Pure.

A player that reloads a live playlist relies on what must not change under it (RFC 8216 §6.2.1, §6.2.2): each chunk
keeps its media sequence number, what leaves the front is counted (discontinuities apart), chunks are appended and never
inserted, and the target duration stays. Any process of any host may answer the next reload, after any restart, and
chunks may come late, be deleted or expire meanwhile: so none of it can be worked out from the chunks that are stored.
A `LiveList` is the answer itself: what the playlist of one device lists. It is kept in the catalog
(`Catalog.live_list`) and moved on by the first request that finds something new, by compare and swap. Who loses reads
what the other made of it. So devices that nobody watches cost nothing, and watched ones a small write a chunk.

`begun` makes the first one, `appended` the next; the caller asks the catalog for what is new. Numbers start at 0, count
only what was listed, and never go back while the device's recordings are not erased.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

from service.playback.hls import EMPTY_TARGET_S, TARGETS_LISTED, Entries, Entry, rounded_s
from service.timeline import ListedChunk, follows
from storage.rows.recordings import NOTHING_STORED, SegmentMark

MAX_ENTRIES = 500
"""Most chunks listed, whatever their length: some 12 kB in the catalog, a minute of chunks of an eighth of a second."""
YOUNG_CHUNKS = 10
"""With fewer chunks than this to judge by, the target duration is at least EMPTY_TARGET_S, unless they are alike: see
`_target_s`."""
OUTLIER = 3
"""A chunk of more than so many times the median does not decide the target duration."""


class Window(NamedTuple):
    """How much a live playlist lists: `window_ms` of media at least; `gap_ms` as for `timeline.follows`."""

    window_ms: int
    gap_ms: int


@dataclass(frozen=True, slots=True)
class LiveList:
    """`media_sequence` and `discontinuity_sequence` are those of the first entry; there is always one."""

    target_s: int
    media_sequence: int
    discontinuity_sequence: int
    entries: tuple[Entry, ...]
    moved_ms: int
    """When it was last appended to, by the server's clock; when it was made, if what it was made of was new then."""
    mark: SegmentMark
    """What was stored then."""
    stored_after: SegmentMark = NOTHING_STORED
    """Only chunks that were stored after it are new: the camera's clock was set back then, and the times from there on
    are in chunks that were listed long ago."""

    def to_text(self) -> str:
        numbers = [self.target_s, self.media_sequence, self.discontinuity_sequence]
        listed = [_text_of(entry) for entry in self.entries]
        document = [*numbers, self.moved_ms, self.mark, self.stored_after, listed]
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> LiveList:
        *numbers, listed = json.loads(text)
        target_s, sequence, breaks, moved_ms, mark, stored_after = numbers
        found = tuple(_entry_of(*numbers) for numbers in listed)
        return cls(target_s, sequence, breaks, found, moved_ms, _mark(mark), _mark(stored_after))

    def without_deleted(self, stored: Collection[int]) -> LiveList:
        """The chunks that may still be named, by capture time: those after the last one that may not, for numbers are
        consecutive. There may be none."""
        gone = [i for i, entry in enumerate(self.entries) if entry.capture_ms not in stored]
        return self.from_entry(gone[-1] + 1) if gone else self

    def from_time(self, from_ms: int) -> LiveList:
        """Nothing captured before `from_ms`, and so nothing listed before such a chunk either."""
        early = [i for i, entry in enumerate(self.entries) if entry.capture_ms < from_ms]
        return self.from_entry(early[-1] + 1) if early else self

    def from_entry(self, first: int) -> LiveList:
        """Without the entries before the index `first`, which may be as many as there are."""
        breaks = sum(entry.at_break for entry in self.entries[1 : first + 1])
        return replace(
            self,
            media_sequence=self.media_sequence + first,
            discontinuity_sequence=self.discontinuity_sequence + breaks,
            entries=self.entries[first:],
        )


def begun(
    chunks: Sequence[ListedChunk],
    window: Window,
    *,
    now_ms: int,
    mark: SegmentMark,
    before: LiveList | None = None,
    target_s: int | None = None,
) -> LiveList:
    """A list of the newest of `chunks`.

    Args:
        chunks: ascending by `capture_ms`, at least one: the more, the better the target duration.
        before: the list that this one goes on from, after a jump: its numbers go on.
        target_s: of that list, if it still lives.
    """
    target_s = target_s or _target_s(chunks)
    listed = _entries(Entries(window.gap_ms), chunks, target_s)
    sequence = breaks = 0
    stored_after = NOTHING_STORED
    if before is not None:
        ended = before.from_entry(len(before.entries))
        sequence, breaks = ended.media_sequence, ended.discontinuity_sequence + 1
        stored_after = before.stored_after
    # Chunks that leave before they were ever listed are not counted.
    first = _leaving(listed, target_s, window)
    kept = tuple(listed[first:])
    moved_ms = min(now_ms, kept[-1].capture_ms + kept[-1].duration_ms)
    return LiveList(target_s, sequence, breaks, kept, moved_ms, mark, stored_after)


def appended(
    live: LiveList,
    last: ListedChunk | None,
    chunks: Sequence[ListedChunk],
    window: Window,
    *,
    now_ms: int,
    mark: SegmentMark,
) -> LiveList:
    """The list with `chunks` after it, and without what leaves its front then.

    A chunk that is longer than the target duration is listed with as much as that allows: all of it is played, for
    players go by the media.

    Args:
        last: the chunk that the list ends with; None, it is gone, or what comes does not follow from it.
        chunks: ascending by `capture_ms`, at least one.
    """
    behind = Entries(window.gap_ms) if last is None else Entries.after(live.entries[-1], last, window.gap_ms)
    added = _entries(behind, chunks, live.target_s)
    if last is None:
        added[0] = added[0]._replace(at_break=True)
    grown = replace(live, entries=(*live.entries, *added), moved_ms=now_ms, mark=mark)
    return grown.from_entry(_leaving(grown.entries, live.target_s, window))


def last_run(chunks: Sequence[ListedChunk], gap_ms: int) -> Sequence[ListedChunk]:
    """The newest chunks that follow from each other."""
    first = len(chunks) - 1
    while first > 0 and follows(chunks[first - 1], chunks[first], gap_ms):
        first -= 1
    return chunks[max(first, 0) :]


def _mark(stored: int | list[Any]) -> SegmentMark:
    """From JSON; lists of earlier releases have the newest number alone."""
    if isinstance(stored, int):
        return SegmentMark(stored)
    newest, unused = stored
    return SegmentMark(newest, tuple((first, last) for first, last in unused))


def _entries(made: Entries, chunks: Sequence[ListedChunk], target_s: int) -> list[Entry]:
    # §4.3.3.1: rounded to the nearest second it is at most the target.
    found = [made.add(chunk, min(chunk.duration_ms, target_s * 1000 + 499)) for chunk in chunks]
    return [_entry_of(*_text_of(entry)) for entry in found]


def _text_of(entry: Entry) -> list[int]:
    """What is kept of an entry. What one is that can be MPEG-TS as fMP4 is not, for it hardly ever is."""
    kept = [entry.capture_ms, entry.duration_ms, int(entry.at_break)]
    return kept if entry.is_stream else [*kept, entry.init_ms, entry.decode_ms]


def _entry_of(capture_ms: int, duration_ms: int, at_break: int, *fragment: int) -> Entry:
    if not fragment:
        return Entry(capture_ms, duration_ms, bool(at_break))
    init_ms, decode_ms = fragment
    return Entry(capture_ms, duration_ms, bool(at_break), init_ms, decode_ms, is_stream=False)


def _leaving(listed: Sequence[Entry], target_s: int, window: Window) -> int:
    """How many leave the front: as many as can, with at least `window_ms` and TARGETS_LISTED targets left."""
    first = max(len(listed) - MAX_ENTRIES, 0)
    kept_ms = sum(entry.duration_ms for entry in listed[first:])
    needed_ms = max(window.window_ms, TARGETS_LISTED * target_s * 1000)
    while kept_ms - listed[first].duration_ms >= needed_ms and len(listed) - first > TARGETS_LISTED:
        kept_ms -= listed[first].duration_ms
        first += 1
    return first


def _target_s(chunks: Sequence[ListedChunk]) -> int:
    most_ms = OUTLIER * median(chunk.duration_ms for chunk in chunks)
    longest_s = max(rounded_s(chunk.duration_ms) for chunk in chunks if chunk.duration_ms <= most_ms)
    # A camera's first chunk is often a short one. Those behind it tell, when they are of one length: players stay
    # behind by so many targets, and whoever has just added a camera watches it at once.
    later = {rounded_s(chunk.duration_ms) for chunk in chunks[1:]}
    tells = len(chunks) >= TARGETS_LISTED and len(later) == 1
    return longest_s if len(chunks) >= YOUNG_CHUNKS or tells else max(longest_s, EMPTY_TARGET_S)
