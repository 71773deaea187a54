"""Chunks in a row: how long each one plays, what follows from what, and where playback may begin. Pure.

A chunk's row says when it was captured (by the camera's clock or by its arrival), how long it plays, where that could
be told, and what its media says of itself (`storage.media_facts`). A player goes by the media's own timestamps, so they
decide where they are known, and capture times where they are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ingest.media import Media
from storage.media_facts import (
    NOTHING_KNOWN,
    MediaFacts,
    continues,
    distance_ms,
    same_set_up,
    unpack_facts,
)
from storage.rows.recordings import ChunkRow

BATCH_ROWS = 4096
"""Rows asked of the catalog at once by a long listing: some 2 MB of them, and a read transaction of some 10 ms."""
KEY_FRAME_ROWS = 64
"""Chunks before a range that are looked at for the key frame that its first picture needs: a minute of the shortest
chunks that cameras send. A group of pictures is a few seconds."""
DEFAULT_DURATION_MS = 4000
"""Of a chunk that does not tell, and that nothing follows: what cameras send by default."""
LONGEST_STEP_MS = 10_000
"""From a chunk that does not tell to the next one, at most, for that distance to be how long it plays: as
`media_facts.CONTINUES_WITHIN_TICKS`."""


class ListedChunk(NamedTuple):
    """A chunk as listings show it.

    `capture_ms`: Unix ms, from 1970 to 9999, unique per device. `duration_ms`: above 0. `length_bytes`, `crc32`: of the
    plaintext.
    """

    capture_ms: int
    duration_ms: int
    length_bytes: int
    media: Media
    facts: MediaFacts = NOTHING_KNOWN
    crc32: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of recording without a gap: Unix ms `from_ms <= t < to_ms`, and what it is made of."""

    from_ms: int
    to_ms: int
    chunk_count: int
    length_bytes: int


def timed(rows: Sequence[ChunkRow]) -> list[ListedChunk]:
    """Rows as they are listed, each with the time for which it plays.

    Where neither the device nor the media could tell (a single frame), that is the distance to the next chunk: by the
    media's clock if it runs on there, else by capture time up to LONGEST_STEP_MS. The last one of a session plays as
    long as the one before it.

    Args:
        rows: of one device, ascending by `capture_ms`.
    """
    found: list[ListedChunk] = []
    facts = [unpack_facts(row.facts) for row in rows]
    for i, row in enumerate(rows):
        duration_ms = row.duration_ms
        if not duration_ms:
            before = found[-1] if found else None
            after = (rows[i + 1].capture_ms, facts[i + 1]) if i + 1 < len(rows) else None
            duration_ms = _untold_ms(row.capture_ms, facts[i], before, after)
        media = _MEDIA.get(row.media, Media.UNKNOWN)
        found.append(ListedChunk(row.capture_ms, duration_ms, row.length, media, facts[i], row.crc32))
    return found


def _untold_ms(
    capture_ms: int, facts: MediaFacts, before: ListedChunk | None, after: tuple[int, MediaFacts] | None
) -> int:
    """How long a chunk plays that does not tell."""
    most_ms = LONGEST_STEP_MS
    if after is not None:
        next_ms, next_facts = after
        step_ms = distance_ms(facts, next_facts)
        if step_ms is not None:
            return step_ms
        most_ms = next_ms - capture_ms
        if continues(facts, next_facts) is None and most_ms <= LONGEST_STEP_MS:
            return most_ms
    usual_ms = DEFAULT_DURATION_MS
    if before is not None and capture_ms - before.capture_ms - before.duration_ms <= LONGEST_STEP_MS:
        usual_ms = before.duration_ms if continues(before.facts, facts) is not False else usual_ms
    return min(usual_ms, most_ms)


def follows(previous: ListedChunk, chunk: ListedChunk, gap_ms: int) -> bool:
    """Whether a player may play `chunk` straight after `previous`: tracks, codecs and their parameters are the same,
    and timestamps run on. Else a playlist needs EXT-X-DISCONTINUITY between them.

    Timestamps that leave out more than `gap_ms` do not run on, and neither do capture times. Where the media does not
    tell, an overlap of capture times by more than `gap_ms` shows a clock that was set back, maybe the media's too.
    The clock of an MP4 clip begins with it. Players get clips placed by their capture times, which decide.
    """
    gap_by_capture_ms = chunk.capture_ms - previous.capture_ms - previous.duration_ms
    if Media.MP4 in (previous.media, chunk.media):
        alike = previous.media is chunk.media and same_set_up(previous.facts, chunk.facts)
        return alike and abs(gap_by_capture_ms) <= gap_ms
    step_ms = distance_ms(previous.facts, chunk.facts)
    if step_ms is not None:
        return step_ms - previous.duration_ms <= gap_ms and gap_by_capture_ms <= gap_ms
    return continues(previous.facts, chunk.facts) is not False and abs(gap_by_capture_ms) <= gap_ms


def beginning(chunks: Sequence[ListedChunk], from_ms: int, gap_ms: int) -> int:
    """Where playback from `from_ms` begins: the index of the first chunk to play; `len(chunks)` when there is none.

    That is the chunk in which `from_ms` lies, else the next one. When its first picture needs earlier ones, it is the
    chunk before it that has the key frame, as long as one follows from the other; without such a one, the next chunk
    that begins with a key frame, or, when none is known to, the first one after all.

    Args:
        chunks: of one container, ascending by `capture_ms`, with some from before `from_ms`.
    """
    first = next((i for i, chunk in enumerate(chunks) if chunk.capture_ms >= from_ms), len(chunks))
    if first and chunks[first - 1].capture_ms + chunks[first - 1].duration_ms > from_ms:
        first -= 1
    back = first
    while 0 < back < len(chunks) and not chunks[back].facts.may_begin:
        if not follows(chunks[back - 1], chunks[back], gap_ms):
            break
        back -= 1
    if back < len(chunks) and chunks[back].facts.may_begin:
        return back
    return next((i for i in range(first, len(chunks)) if chunks[i].facts.may_begin), first)


def spans(chunks: Iterable[ListedChunk], gap_ms: int) -> list[Span]:
    """Join chunks, of any media, into contiguous spans.

    A new span starts where more than `gap_ms` lie between the end of all chunks before and the start of
    the next. Overlaps join. No time is in two spans.

    Args:
        chunks: ascending by `capture_ms`.

    Raises:
        ValueError: they are not ascending.
    """
    found: list[Span] = []
    first_ms = end_ms = last_ms = count = length = 0
    for chunk in chunks:
        start_ms = chunk.capture_ms
        if count and start_ms <= last_ms:
            raise ValueError(f"chunks must ascend by capture_ms: {start_ms} after {last_ms}")
        if count and start_ms - end_ms > gap_ms:
            found.append(Span(first_ms, end_ms, count, length))
            count = 0
        if not count:
            first_ms = end_ms = start_ms
            length = 0
        end_ms = max(end_ms, start_ms + chunk.duration_ms)
        last_ms = start_ms
        count += 1
        length += chunk.length_bytes
    if count:
        found.append(Span(first_ms, end_ms, count, length))
    return found


def stretches(rows: Sequence[ChunkRow], gap_ms: int) -> list[tuple[int, int]]:
    """(from_ms, to_ms) of the `spans` that rows make: for a whole day at once, of which nothing else is asked.

    Args:
        rows: of one device, ascending by `capture_ms`.
    """
    if not all(row.duration_ms for row in rows):
        return [(span.from_ms, span.to_ms) for span in spans(timed(rows), gap_ms)]
    found: list[tuple[int, int]] = []
    from_ms = end_ms = -1
    for row in rows:
        start_ms = row.capture_ms
        if from_ms < 0 or start_ms - end_ms > gap_ms:
            if from_ms >= 0:
                found.append((from_ms, end_ms))
            from_ms = end_ms = start_ms
        end_ms = max(end_ms, start_ms + row.duration_ms)
    return [*found, (from_ms, end_ms)] if rows else found


_MEDIA = {int(media): media for media in Media}
