"""HLS media playlists as text (RFC 8216). Pure. `timeline` says what recordings list, `live` what live playlists do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import NamedTuple
from urllib.parse import quote

from ingest.media import Media
from service.timeline import ListedChunk, follows
from storage.media_facts import (
    CLOCK_TICKS,
    NOTHING_KNOWN,
    TICKS_PER_MS,
    Codec,
    KeyFrame,
    same_set_up,
    ticks_between,
)

TARGETS_LISTED = 3
"""A live playlist keeps at least this many target durations (RFC 8216 §6.2.2), and so as many chunks: Chromium's own
player gives up on one of fewer."""

EMPTY_TARGET_S = 4
"""Target duration of a playlist without chunks: how soon a player asks again."""

_DAY_MS = 86_400_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


PLAYABLE = frozenset({Media.MPEG_TS, Media.MP4, Media.FMP4})
"""What a playlist lists."""
TURN_MS = (CLOCK_TICKS + TICKS_PER_MS // 2) // TICKS_PER_MS
"""The clock of 33 bits begins anew after so long: 26.5 hours."""


class Entry(NamedTuple):
    """A chunk in a playlist: Unix ms, ms above 0, and whether a discontinuity comes before it."""

    capture_ms: int
    duration_ms: int
    at_break: bool
    init_ms: int = 0
    """As fMP4: the chunk whose header it is played by, the first of those that are set up alike; 0: its own."""
    decode_ms: int = -1
    """As fMP4: near what time it is decoded, which tells whole turns of its clock apart; -1: as it says itself."""
    is_stream: bool = True
    """Players take it as MPEG-TS. H.265 is not for all of them, so it is fMP4, and so is what came as MP4."""


class Entries:
    """Makes entries of chunks in a row."""

    def __init__(self, gap_ms: int) -> None:
        self._gap_ms = gap_ms
        self._last: tuple[Entry, ListedChunk] | None = None
        self._set_up = NOTHING_KNOWN

    @classmethod
    def after(cls, entry: Entry, chunk: ListedChunk, gap_ms: int) -> Entries:
        """Those that come behind this one."""
        made = cls(gap_ms)
        made._last, made._set_up = (entry, chunk), chunk.facts
        return made

    def add(self, chunk: ListedChunk, duration_ms: int | None = None) -> Entry:
        """The next one; `duration_ms` to be listed with, where that is not the chunk's."""
        at_break, init_ms = False, 0
        if self._last is not None:
            before, previous = self._last
            at_break = not follows(previous, chunk, self._gap_ms)
            # Of a chunk that does not tell how it is set up, the last one that did.
            alike = same_set_up(self._set_up, chunk.facts) and same_set_up(previous.facts, chunk.facts)
            if previous.media is chunk.media and alike:
                init_ms = before.init_ms
        if chunk.facts.parameters:
            self._set_up = chunk.facts
        entry = Entry(
            chunk.capture_ms,
            chunk.duration_ms if duration_ms is None else duration_ms,
            at_break,
            init_ms or chunk.capture_ms,
            self._decode_ms(chunk, at_break),
            is_stream(chunk),
        )
        self._last = (entry, chunk)
        return entry

    def _decode_ms(self, chunk: ListedChunk, at_break: bool) -> int:
        times = chunk.facts.times
        if chunk.media is Media.MP4 or times is None:
            return -1
        # Never the first turn: what is decoded before it is shown could come before 0 there.
        first_ms = times.first_ticks // TICKS_PER_MS + TURN_MS
        if self._last is None or at_break:
            return first_ms
        before, previous = self._last
        if before.decode_ms < 0 or previous.facts.times is None:
            return first_ms
        step_ms = ticks_between(previous.facts.times.first_ticks, times.first_ticks) // TICKS_PER_MS
        turns = round((before.decode_ms + step_ms - first_ms) / TURN_MS)
        return first_ms + max(turns, 0) * TURN_MS


def is_stream(chunk: ListedChunk) -> bool:
    """See `Entry.is_stream`."""
    return chunk.media is Media.MPEG_TS and chunk.facts.video is not Codec.H265


def listable(chunks: Iterable[ListedChunk]) -> list[ListedChunk]:
    """What a playlist of these chunks lists: all that can be played. Where it has to be fMP4, a transport stream that
    begins without its decoder's set-up has no header, and is left out."""
    found = [chunk for chunk in chunks if chunk.media in PLAYABLE]
    if all(map(is_stream, found)):
        return found
    return [
        chunk
        for chunk in found
        if chunk.media is not Media.MPEG_TS
        or chunk.facts.parameters
        or chunk.facts.key_frame is not KeyFrame.NO
    ]


def mixes_sound(chunks: Iterable[ListedChunk]) -> bool:
    """Whether some have pictures without sound, and others have sound: see `playlist`."""
    found = {
        chunk.facts.audio is Codec.NONE
        for chunk in chunks
        if chunk.facts.video is not Codec.NONE or chunk.facts.audio is not Codec.NONE
    }
    return len(found) > 1


def entries(chunks: Iterable[ListedChunk], gap_ms: int) -> list[Entry]:
    """The chunks as entries of a playlist, of those that are `listable`: a discontinuity where one does not follow from
    the one before it, see `timeline.follows`; none before the first.

    Args:
        chunks: ascending by `capture_ms`.

    Raises:
        ValueError: they are not ascending.
    """
    listed = listable(chunks)
    if all(map(is_stream, listed)):
        return _streams(listed, gap_ms)
    made = Entries(gap_ms)
    found: list[Entry] = []
    for chunk in listed:
        if found and chunk.capture_ms <= found[-1].capture_ms:
            raise ValueError(
                f"chunks must ascend by capture_ms: {chunk.capture_ms} after {found[-1].capture_ms}"
            )
        found.append(made.add(chunk))
    return found


def _streams(chunks: Iterable[ListedChunk], gap_ms: int) -> list[Entry]:
    """As `entries`, of what goes out as it came: a day has 20,000, of which no more need be known."""
    found: list[Entry] = []
    previous: ListedChunk | None = None
    for chunk in chunks:
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
    silence: bool = False,
) -> str:
    """Render a media playlist of protocol version 3 (RFC 8216 §4.3); of version 7 where one of the chunks can't be
    MPEG-TS: then all are fMP4, for an EXT-X-MAP can't be unset.

    Every chunk carries its capture time as `EXT-X-PROGRAM-DATE-TIME`, in UTC with milliseconds: players
    that seek by wall clock then do not add up the rounding of durations over a day.
    URIs are relative to the playlist: `chunks/{capture_ms}.ts?token=...`, or `.m4s`, and `.map.mp4` for their header.

    Args:
        listed: the first one gets no EXT-X-DISCONTINUITY.
        token: the viewer's, any text; percent-encoded here.
        ended: nothing will be added: `EXT-X-PLAYLIST-TYPE:VOD` and `EXT-X-ENDLIST`. Else a live playlist.
        media_sequence: number of the first chunk listed.
        discontinuity_sequence: discontinuities up to and before the first chunk listed.
        target_s: target duration at least this: of a live playlist, where it must not change (§6.2.1).
        comments: lines for people who read it; players pass over them (§4.1). Single lines that do not begin with EXT.
        silence: as fMP4, pictures without sound get silence: where others have sound, or may get it. Browsers are set
            up for one or two tracks, and stop where that changes.

    Returns:
        The text, to be sent as UTF-8 with `application/vnd.apple.mpegurl`; lines end in a line feed.

    Raises:
        ValueError: a capture time is past the year 9999.
    """
    # §4.3.3.1: each duration, rounded to the nearest second, is at most the target.
    longest_s = max((rounded_s(entry.duration_ms) for entry in listed), default=0)
    target_s = max(longest_s, target_s) or EMPTY_TARGET_S
    lines = ["#EXTM3U", *(f"# {comment}" for comment in comments)]
    as_streams = all(entry.is_stream for entry in listed)
    lines += [f"#EXT-X-VERSION:{3 if as_streams else 7}", f"#EXT-X-TARGETDURATION:{target_s}"]
    lines.append(f"#EXT-X-MEDIA-SEQUENCE:{media_sequence}")
    if not ended or discontinuity_sequence:
        # §6.2.2 wants it wherever chunks may leave; before the first chunk (§4.3.3.3).
        lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity_sequence}")
    if ended:
        lines.append("#EXT-X-PLAYLIST-TYPE:VOD")
    quoted = quote(token, safe="")
    lines.extend(_lines(listed, quoted) if as_streams else _fragment_lines(listed, quoted, silence))
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
    for i, (capture_ms, duration_ms, at_break, _, _, _) in enumerate(listed):
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


def _fragment_lines(listed: Sequence[Entry], quoted_token: str, silence: bool) -> Iterator[str]:
    """As `_lines`, of fMP4: a header (§4.3.2.5) before the first chunk that is played by it."""
    map_ms = -1
    sound = "sound=1&" if silence else ""
    for i, entry in enumerate(listed):
        if entry.at_break and i:
            yield "#EXT-X-DISCONTINUITY"
        init_ms = entry.init_ms or entry.capture_ms
        if init_ms != map_ms:
            map_ms = init_ms
            yield f'#EXT-X-MAP:URI="chunks/{init_ms}.map.mp4?{sound}token={quoted_token}"'
        whole_s, rest_ms = divmod(entry.duration_ms, 1000)
        near = f"near={entry.decode_ms}&" if entry.decode_ms >= 0 else ""
        yield (
            f"#EXT-X-PROGRAM-DATE-TIME:{rfc3339(entry.capture_ms)}\n"
            f"#EXTINF:{whole_s}.{rest_ms:03d},\n"
            f"chunks/{entry.capture_ms}.m4s?{near}{sound}token={quoted_token}"
        )


def _date_text(day: int) -> str:
    return f"{date.fromordinal(_EPOCH_ORDINAL + day).isoformat()}T"


def _time_text(ms_of_day: int) -> str:
    seconds, ms = divmod(ms_of_day, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{ms:03d}Z"
