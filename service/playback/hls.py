"""HLS media playlists as text (RFC 8216). Pure. `timeline` says what recordings list, `live` what live playlists do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import NamedTuple
from urllib.parse import quote

from ingest.media import Media
from service.playback.timeline import ListedChunk, follows

TARGETS_LISTED = 3
"""A live playlist keeps at least this many target durations (RFC 8216 §6.2.2), and so as many chunks: Chromium's own
player gives up on one of fewer."""

EMPTY_TARGET_S = 4
"""Target duration of a playlist without chunks: how soon a player asks again."""

_DAY_MS = 86_400_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Entry(NamedTuple):
    """A chunk in a playlist: Unix ms, ms above 0, and whether a discontinuity comes before it."""

    capture_ms: int
    duration_ms: int
    at_break: bool


def entries(chunks: Iterable[ListedChunk], gap_ms: int) -> list[Entry]:
    """The MPEG-TS chunks as entries of a playlist: a discontinuity where one does not follow from the one before it,
    see `timeline.follows`; none before the first.

    Args:
        chunks: ascending by `capture_ms`. What is not MPEG-TS is left out.

    Raises:
        ValueError: they are not ascending.
    """
    found: list[Entry] = []
    previous: ListedChunk | None = None
    for chunk in chunks:
        if chunk.media is not Media.MPEG_TS:
            continue
        if previous is not None and chunk.capture_ms <= previous.capture_ms:
            raise ValueError(
                f"chunks must ascend by capture_ms: {chunk.capture_ms} after {previous.capture_ms}"
            )
        at_break = previous is not None and not follows(previous, chunk, gap_ms)
        found.append(Entry(chunk.capture_ms, chunk.duration_ms, at_break))
        previous = chunk
    return found


def playlist(
    listed: Sequence[Entry],
    *,
    token: str,
    ended: bool,
    media_sequence: int = 0,
    discontinuity_sequence: int = 0,
    target_s: int = 0,
    comments: Iterable[str] = (),
) -> str:
    """Render a media playlist of protocol version 3 (RFC 8216 §4.3).

    Every chunk carries its capture time as `EXT-X-PROGRAM-DATE-TIME`, in UTC with milliseconds: players
    that seek by wall clock then do not add up the rounding of durations over a day.
    URIs are relative to the playlist: `chunks/{capture_ms}.ts?token=...`.

    Args:
        listed: the first one gets no EXT-X-DISCONTINUITY.
        token: the viewer's, any text; percent-encoded here.
        ended: nothing will be added: `EXT-X-PLAYLIST-TYPE:VOD` and `EXT-X-ENDLIST`. Else a live playlist.
        media_sequence: number of the first chunk listed.
        discontinuity_sequence: discontinuities up to and before the first chunk listed.
        target_s: target duration at least this: of a live playlist, where it must not change (§6.2.1).
        comments: lines for people who read it; players pass over them (§4.1). Single lines that do not begin with EXT.

    Returns:
        The text, to be sent as UTF-8 with `application/vnd.apple.mpegurl`; lines end in a line feed.

    Raises:
        ValueError: a capture time is past the year 9999.
    """
    # §4.3.3.1: each duration, rounded to the nearest second, is at most the target.
    longest_s = max((rounded_s(entry.duration_ms) for entry in listed), default=0)
    target_s = max(longest_s, target_s) or EMPTY_TARGET_S
    lines = ["#EXTM3U", *(f"# {comment}" for comment in comments)]
    lines += ["#EXT-X-VERSION:3", f"#EXT-X-TARGETDURATION:{target_s}"]
    lines.append(f"#EXT-X-MEDIA-SEQUENCE:{media_sequence}")
    if not ended or discontinuity_sequence:
        # §6.2.2 wants it wherever chunks may leave; before the first chunk (§4.3.3.3).
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity_sequence}")
    if ended:
        lines.append("#EXT-X-PLAYLIST-TYPE:VOD")
    lines.extend(_lines(listed, quote(token, safe="")))
    if ended:
        lines.append("#EXT-X-ENDLIST")
    lines.append("")
    return "\n".join(lines)


def rfc3339(unix_ms: int) -> str:
    """`2026-07-01T12:00:00.250Z`: UTC with milliseconds (RFC 3339 §5.6). ValueError past the year 9999."""
    day, ms = divmod(unix_ms, _DAY_MS)
    return _date_text(day) + _time_text(ms)


def rounded_s(duration_ms: int) -> int:
    """To the nearest second; halves up, for the RFC leaves them open, and at least 1."""
    return max((duration_ms + 500) // 1000, 1)


def _lines(listed: Sequence[Entry], quoted_token: str) -> Iterator[str]:
    """The lines of each chunk, as one text per chunk. A day has 20,000 of them: dates are made once."""
    known_day, date_text = -1, ""
    for i, (capture_ms, duration_ms, at_break) in enumerate(listed):
        day, ms = divmod(capture_ms, _DAY_MS)
        if day != known_day:
            known_day, date_text = day, _date_text(day)
        whole_s, rest_ms = divmod(duration_ms, 1000)
        yield (
            f"{'#EXT-X-DISCONTINUITY' + chr(10) if at_break and i else ''}"
            f"#EXT-X-PROGRAM-DATE-TIME:{date_text}{_time_text(ms)}\n"
            f"#EXTINF:{whole_s}.{rest_ms:03d},\n"
            f"chunks/{capture_ms}.ts?token={quoted_token}"
        )


def _date_text(day: int) -> str:
    return f"{date.fromordinal(_EPOCH_ORDINAL + day).isoformat()}T"


def _time_text(ms_of_day: int) -> str:
    seconds, ms = divmod(ms_of_day, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{ms:03d}Z"
