"""What a chunk's media says about itself, as playback needs it: times, tracks, picture, key frame. Pure.

Ingest reads it from the media once (`ingest.media`); it is kept in the segment's index and in the chunk's catalog row,
and given back with every listing (`catalog.ChunkRow.facts`), packed: FACTS_BYTES bytes, or none at all where a chunk
was stored by a release that kept none. `unpack_facts` takes all of that.

**Times** are presentation times in ticks of 90 kHz, modulo 2**33 (26.5 hours), as MPEG-TS counts them (ISO/IEC 13818-1
§2.4.3.7). Those of MP4 are converted. They are the encoder's own and say nothing about the time of day: that is
`capture_ms`. Differences are taken the short way round, so that the wrap of the clock is no jump.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

TICKS_PER_MS: Final = 90
"""Presentation times count a 90 kHz clock."""
CLOCK_TICKS: Final = 1 << 33
"""Where presentation times start again from 0."""
MAX_SPAN_TICKS = (1 << 32) - 1
"""Longest span that is kept: 13 hours. A chunk is listed with an hour at most."""
CONTINUES_WITHIN_TICKS = 10_000 * TICKS_PER_MS
"""From the last frame of a chunk to the first of the next one, at most, for their times to be one clock that runs on:
10 s. A guess: above the frame distance of a time lapse, below what a restarted clock jumps by."""
_OVERLAP_DIVISOR = 8
"""How much of the earlier chunk the next one may begin before its end: an eighth. Frames that are shown before the key
frame that they follow in the stream, and clocks that jitter, need a frame or two; a clock that starts again goes back
by the whole chunk."""

_PACKED: Final = struct.Struct("<IIIIIHHHBBB")
FACTS_BYTES = _PACKED.size
"""29 bytes for each chunk in its segment's index, before compression, and 29 in its catalog row."""

PARAMETERS_AT = 16
"""Where `MediaFacts.parameters` is in packed facts: 4 bytes, little-endian."""

# Bits of the last byte.
_VIDEO_CLOCK_HIGH, _AUDIO_CLOCK_HIGH = 0x01, 0x02  # the 33rd bit of each first time
_VIDEO_TIMES: Final = 0x04  # those times are known
_AUDIO_TIMES: Final = 0x08
_KEY_SHIFT: Final = 4  # two bits: `KeyFrame`


class Codec(IntEnum):
    """What a track is coded with. The numbers are stored in the catalog and in segments: never renumber."""

    NONE = 0  # there is no such track, or it is not known whether there is
    OTHER = 1
    H264 = 2
    H265 = 3
    AAC = 4
    MPEG_AUDIO = 5  # layers 1 to 3
    OPUS = 6
    AC3 = 7
    EAC3 = 8
    MPEG2_VIDEO = 9
    MPEG4_VIDEO = 10
    MJPEG = 11
    AV1 = 12


class KeyFrame(IntEnum):
    """Whether a chunk's first picture is one that decodes by itself. Stored: never renumber."""

    UNKNOWN = 0
    NO = 1
    YES = 2


class Times(NamedTuple):
    """Presentation times of one track. 90 kHz ticks: `first_ticks` of the earliest frame, 0 to 2**33 − 1;
    `span_ticks` from it to the latest frame's own time, 0 of a single frame, at most MAX_SPAN_TICKS. (A tuple: a day's
    listing makes 20,000 of them.)"""

    first_ticks: int
    span_ticks: int

    @property
    def last_ticks(self) -> int:
        """Of the latest frame: when it begins to be shown. 0 to 2**33 − 1."""
        return (self.first_ticks + self.span_ticks) % CLOCK_TICKS


class MediaFacts(NamedTuple):
    """What is known of one chunk's media. Every field has a value that says "not known"."""

    video_times: Times | None = None
    """Of the first video track; None: no such track, or not known."""
    audio_times: Times | None = None
    """Of the first audio track, likewise."""
    video: Codec = Codec.NONE
    audio: Codec = Codec.NONE
    tracks: int = 0
    """16 bits of a hash of which tracks there are, their numbers and kinds; 0: not known."""
    parameters: int = 0
    """32 bits of a hash of how the decoders are set up (H.264 and H.265 parameter sets, AAC's rate and channels; of
    fragments: their init segment, by its number); 0: not known, as in a chunk that begins in the midst of a group of
    pictures."""
    width: int = 0
    """Picture width in pixels as the decoder is told; 0: not known, or no picture."""
    height: int = 0
    key_frame: KeyFrame = KeyFrame.UNKNOWN

    @property
    def times(self) -> Times | None:
        """Of the track that a player goes by: video, else audio. None: not known."""
        return self.video_times or self.audio_times

    @property
    def may_begin(self) -> bool:
        """Whether playback may begin at this chunk: not when its first picture is known to need earlier ones."""
        return self.key_frame is not KeyFrame.NO

    def pack(self) -> bytes:
        """FACTS_BYTES bytes, as they are stored. `unpack_facts` is the inverse.

        Raises:
            struct.error: a field out of its bounds.
        """
        video, audio = self.video_times or _NO_TIMES, self.audio_times or _NO_TIMES
        return packed_facts(
            video.first_ticks,
            video.span_ticks,
            audio.first_ticks,
            audio.span_ticks,
            self.video,
            self.audio,
            self.tracks,
            self.parameters,
            self.width,
            self.height,
            self.key_frame,
        )


def packed_facts(
    video_first_ticks: int,
    video_span_ticks: int,
    audio_first_ticks: int,
    audio_span_ticks: int,
    video: Codec,
    audio: Codec,
    tracks: int,
    parameters: int,
    width: int,
    height: int,
    key_frame: KeyFrame,
) -> bytes:
    """What `MediaFacts.pack` gives, without making one: ingest asks it of every chunk. A first time below 0: those
    times are not known, and then the span is not looked at."""
    flags = key_frame << _KEY_SHIFT
    if video_first_ticks >= 0:
        flags |= _VIDEO_TIMES | video_first_ticks >> 32
    else:
        video_first_ticks = video_span_ticks = 0
    if audio_first_ticks >= 0:
        flags |= _AUDIO_TIMES | audio_first_ticks >> 32 << 1
    else:
        audio_first_ticks = audio_span_ticks = 0
    return _PACKED.pack(
        video_first_ticks & 0xFFFF_FFFF,
        video_span_ticks,
        audio_first_ticks & 0xFFFF_FFFF,
        audio_span_ticks,
        parameters,
        tracks,
        width,
        height,
        video,
        audio,
        flags,
    )


_NO_TIMES = Times(-1, 0)
NOTHING_KNOWN = MediaFacts()
"""Of a chunk that was stored by a release that kept no facts, and of media that does not tell."""


def unpack_facts(packed: bytes) -> MediaFacts:
    """The facts of a chunk as `ChunkRow.facts` has them.

    A codec or key frame number of a later release reads as OTHER or UNKNOWN, anything that is not FACTS_BYTES long as
    NOTHING_KNOWN. Raises nothing.
    """
    if len(packed) != FACTS_BYTES:
        return NOTHING_KNOWN
    v_first, v_span, a_first, a_span, parameters, tracks, width, height, video, audio, flags = _PACKED.unpack(
        packed
    )
    return MediaFacts(
        Times(v_first | (flags & _VIDEO_CLOCK_HIGH) << 32, v_span) if flags & _VIDEO_TIMES else None,
        Times(a_first | (flags & _AUDIO_CLOCK_HIGH) << 31, a_span) if flags & _AUDIO_TIMES else None,
        _CODECS.get(video, Codec.OTHER),
        _CODECS.get(audio, Codec.OTHER),
        tracks,
        parameters,
        width,
        height,
        _KEY_FRAMES.get(flags >> _KEY_SHIFT & 3, KeyFrame.UNKNOWN),
    )


_CODECS = {int(codec): codec for codec in Codec}
_KEY_FRAMES = {int(kind): kind for kind in KeyFrame}


def ticks_between(earlier: int, later: int) -> int:
    """Signed distance of two presentation times, the short way round the 33-bit clock: −2**32 to 2**32 − 1 ticks."""
    half = CLOCK_TICKS >> 1
    return (later - earlier + half) % CLOCK_TICKS - half


def continues(previous: MediaFacts, following: MediaFacts) -> bool | None:
    """Whether `following` can be played straight after `previous` without a discontinuity: the same tracks and codecs,
    set up alike, and presentation times that run on.

    Times run on when the first frame of `following` comes after the last of `previous` (a little before it, for frames
    that are shown out of the order they are stored in: an eighth of the chunk), by CONTINUES_WITHIN_TICKS at most. The
    tracks that both have are looked at, each by its own clock.

    Nothing is said about the time of day: a clock that stood still while nobody recorded runs on here, and the distance
    of `capture_ms` shows the gap.

    Returns:
        None when the times of either are not known: then only `capture_ms` and durations can tell.
    """
    if not same_set_up(previous, following):
        return False
    verdict: bool | None = None
    for before, after in (
        (previous.video_times, following.video_times),
        (previous.audio_times, following.audio_times),
    ):
        if before is None or after is None:
            continue
        step = ticks_between(before.last_ticks, after.first_ticks)
        if not -(before.span_ticks // _OVERLAP_DIVISOR) < step <= CONTINUES_WITHIN_TICKS:
            return False
        verdict = True
    return verdict


def distance_ms(previous: MediaFacts, following: MediaFacts) -> int | None:
    """From the first frame of one chunk to that of the next one, in ms, at least 1: how long `previous` plays, exactly,
    when the next one `continues` it. None when it does not, or when that is not known."""
    before, after = previous.times, following.times
    if before is None or after is None or not continues(previous, following):
        return None
    ticks = ticks_between(before.first_ticks, after.first_ticks)
    return max((ticks + TICKS_PER_MS // 2) // TICKS_PER_MS, 1)


def same_set_up(one: MediaFacts, other: MediaFacts) -> bool:
    """Whether the same decoders, set up alike, play both: nothing that is known of both differs."""
    return all(
        not mine or not theirs or mine == theirs
        for mine, theirs in (
            (one.tracks, other.tracks),
            (one.video, other.video),
            (one.audio, other.audio),
            (one.parameters, other.parameters),
            (one.width, other.width),
            (one.height, other.height),
        )
    )
