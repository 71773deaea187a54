"""HLS media playlists and contiguous spans, rendered from a list of chunks (RFC 8216). Pure.

**Live playlists without state.** A player that reloads a live playlist relies on numbers that must not
change under it (RFC 8216 §6.2.1, §6.2.2): a chunk keeps its media sequence number, and what leaves the
front of the list is counted, chunks in `EXT-X-MEDIA-SEQUENCE`, discontinuities in
`EXT-X-DISCONTINUITY-SEQUENCE`. Any process of any worker may answer the next reload, so the numbers can't
come from a counter in memory. Numbers made from the capture time would be stable, but consecutive chunks
must have consecutive numbers, which times do not give.

So both are counts from an *anchor*: a moment that stays the same for the whole viewing and lies before the
first chunk listed. The caller takes it from the request, which is the same at every reload: the `from`
parameter, or a fixed distance before the end of the viewer token. `live_window` gets every chunk since the
anchor, replays what a server with a memory would have done, and returns the tail it would list now and how
much has left the front. The same chunks give the same answer anywhere, and more chunks never a smaller
number.

Two things still break the numbers, and neither can be helped without state: a chunk that arrives after a
later one was listed (players repeat or miss one chunk), and an anchor older than the retention (chunks
that expire are no longer counted; keep the anchor younger).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple
from urllib.parse import quote

from ingest.media import Media

TARGETS_LISTED = 3
"""A live playlist keeps at least this many target durations (RFC 8216 §6.2.2)."""

EMPTY_TARGET_S = 4
"""Target duration of a playlist without chunks: how soon a player asks again."""

_DAY_MS = 86_400_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class ListedChunk(NamedTuple):
    """A chunk as listings show it.

    `capture_ms`: Unix ms, from 1970 to 9999, unique per device. `duration_ms`: above 0, the caller's default
    where the chunk's own is unknown. `length_bytes`: of the plaintext.
    """

    capture_ms: int
    duration_ms: int
    length_bytes: int
    media: Media


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of recording without a gap: Unix ms `from_ms <= t < to_ms`, and what it is made of."""

    from_ms: int
    to_ms: int
    chunk_count: int
    length_bytes: int


@dataclass(frozen=True, slots=True)
class LiveWindow:
    """The tail of a recording that a live playlist lists now; the fields go to `playlist` as they are."""

    chunks: Sequence[ListedChunk]
    media_sequence: int
    discontinuity_sequence: int
    target_s: int


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


def live_window(chunks: Iterable[ListedChunk], *, gap_ms: int, window_ms: int) -> LiveWindow:
    """What a live playlist lists once `chunks` have arrived one by one: see the module's text.

    The window is as short as it can be with at least `window_ms` of media and `TARGETS_LISTED` target
    durations in it. It starts at the same chunk or a later one when chunks are appended, and so do
    both sequence numbers and the target duration (the longest chunk since the anchor: it only grows, and not
    at all with a camera whose chunks are of one length).

    Args:
        chunks: everything since the anchor, ascending by `capture_ms`; only MPEG-TS is looked at.
        gap_ms: as for `playlist`.
        window_ms: media to list, at least; what has left the window can't be played live any more.

    Raises:
        ValueError: chunks are not ascending.
    """
    listed = [chunk for chunk in chunks if chunk.media is Media.MPEG_TS]
    breaks = [at_break for _, at_break in _with_breaks(listed, gap_ms)]
    first = kept_ms = target_s = 0
    for chunk in listed:
        kept_ms += chunk.duration_ms
        target_s = max(target_s, _rounded_s(chunk.duration_ms))
        needed_ms = max(window_ms, TARGETS_LISTED * target_s * 1000)
        while kept_ms - listed[first].duration_ms >= needed_ms:
            kept_ms -= listed[first].duration_ms
            first += 1
    # The first chunk listed carries no tag: a discontinuity before it has left, and is counted (§6.2.2).
    return LiveWindow(listed[first:], first, sum(breaks[: first + 1]), target_s)


def playlist(
    chunks: Iterable[ListedChunk],
    *,
    token: str,
    ended: bool,
    media_sequence: int,
    gap_ms: int,
    discontinuity_sequence: int = 0,
    target_s: int = 0,
) -> str:
    """Render a media playlist of protocol version 3 (RFC 8216 §4.3).

    Every chunk carries its capture time as `EXT-X-PROGRAM-DATE-TIME`, in UTC with milliseconds: players
    that seek by wall clock then do not add up the rounding of durations over a day. A chunk that does
    not follow from the one before starts a discontinuity, for the timestamps inside jump there.
    URIs are relative to the playlist: `chunks/{capture_ms}.ts?token=...`.

    Args:
        chunks: ascending by `capture_ms`. What is not MPEG-TS is left out.
        token: the viewer's, any text; percent-encoded here.
        ended: nothing will be added: `EXT-X-PLAYLIST-TYPE:VOD` and `EXT-X-ENDLIST`. Else a live playlist.
        media_sequence: number of the first chunk listed: 0 when the list starts at a fixed time,
            else of `live_window`.
        gap_ms: a chunk that starts more than this after the end of the one before it, or more than this
            before that end, is a discontinuity.
        discontinuity_sequence: discontinuities that have left a live playlist, of `live_window`.
        target_s: target duration at least this; of `live_window`, so that it does not shrink when
            a long chunk leaves (it must not change: §6.2.1).

    Returns:
        The text, to be sent as UTF-8 with `application/vnd.apple.mpegurl`; lines end in a line feed.

    Raises:
        ValueError: chunks are not ascending, or a capture time is past the year 9999.
    """
    listed = [chunk for chunk in chunks if chunk.media is Media.MPEG_TS]
    # §4.3.3.1: each duration, rounded to the nearest second, is at most the target.
    longest_s = max((_rounded_s(chunk.duration_ms) for chunk in listed), default=0)
    target_s = max(longest_s, target_s) or EMPTY_TARGET_S
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{target_s}"]
    lines.append(f"#EXT-X-MEDIA-SEQUENCE:{media_sequence}")
    if not ended or discontinuity_sequence:
        # §6.2.2 wants it wherever chunks may leave; before the first chunk (§4.3.3.3).
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity_sequence}")
    if ended:
        lines.append("#EXT-X-PLAYLIST-TYPE:VOD")
    lines.extend(_entries(listed, gap_ms, quote(token, safe="")))
    if ended:
        lines.append("#EXT-X-ENDLIST")
    lines.append("")
    return "\n".join(lines)


def rfc3339(unix_ms: int) -> str:
    """`2026-07-01T12:00:00.250Z`: UTC with milliseconds (RFC 3339 §5.6). ValueError past the year 9999."""
    day, ms = divmod(unix_ms, _DAY_MS)
    return _date_text(day) + _time_text(ms)


def _entries(listed: Sequence[ListedChunk], gap_ms: int, quoted_token: str) -> Iterator[str]:
    """The lines of each chunk, as one text per chunk. A day has 20,000 of them: dates are made once."""
    known_day, date_text = -1, ""
    for chunk, at_break in _with_breaks(listed, gap_ms):
        capture_ms = chunk.capture_ms
        day, ms = divmod(capture_ms, _DAY_MS)
        if day != known_day:
            known_day, date_text = day, _date_text(day)
        whole_s, rest_ms = divmod(chunk.duration_ms, 1000)
        yield (
            f"{'#EXT-X-DISCONTINUITY' + chr(10) if at_break else ''}"
            f"#EXT-X-PROGRAM-DATE-TIME:{date_text}{_time_text(ms)}\n"
            f"#EXTINF:{whole_s}.{rest_ms:03d},\n"
            f"chunks/{capture_ms}.ts?token={quoted_token}"
        )


def _with_breaks(listed: Iterable[ListedChunk], gap_ms: int) -> Iterator[tuple[ListedChunk, bool]]:
    """Each chunk, and whether it does not follow from the one before it. False for the first."""
    last_ms = end_ms = -1
    for chunk in listed:
        start_ms = chunk.capture_ms
        if start_ms <= last_ms:
            raise ValueError(f"chunks must ascend by capture_ms: {start_ms} after {last_ms}")
        # An overlap of that size is a clock that was set back: the timestamps can't be trusted either.
        yield chunk, last_ms >= 0 and abs(start_ms - end_ms) > gap_ms
        last_ms, end_ms = start_ms, start_ms + chunk.duration_ms


def _rounded_s(duration_ms: int) -> int:
    """To the nearest second; halves up, for the RFC leaves them open, and at least 1."""
    return max((duration_ms + 500) // 1000, 1)


def _date_text(day: int) -> str:
    return f"{date.fromordinal(_EPOCH_ORDINAL + day).isoformat()}T"


def _time_text(ms_of_day: int) -> str:
    seconds, ms = divmod(ms_of_day, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{ms:03d}Z"
