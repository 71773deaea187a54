"""What an MP4 clip holds, from its boxes (ISO/IEC 14496-12): duration, times, tracks, and whether it can be played.

A whole file says it in its movie header. A fragmented one (cameras that write as they record) says it
nowhere for sure: its sample durations are added up. Sizes and counts come from the device, so each is
checked against the bytes that are there and against a bound of our own.

A stream of fragments (CMAF, fMP4 in HLS) has its header in an *init segment* of its own, sent once: `read` tells it and
its fragments, and `read_fragment` reads one of these by the header that was sent before.
"""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import pairwise

import numpy as np

from ingest.mp4_boxes import MAX_BOXES, MAX_SAMPLES, Boxes, Unreadable
from storage.media_facts import CLOCK_TICKS, MAX_SPAN_TICKS, TICKS_PER_MS, Codec, KeyFrame, MediaFacts, Times

JUMP_S = 10
"""Time between fragments, beyond what their samples fill, that is still time: as `mpegts.JUMP_TICKS`."""

# tfhd (§8.8.7) and trun (§8.8.8) flags: which optional fields come before the one wanted.
_TFHD_BASE_DATA_OFFSET = 0x000001
_TFHD_DESCRIPTION_INDEX = 0x000002
_TFHD_DEFAULT_DURATION = 0x000008
_TRUN_DATA_OFFSET = 0x000001
_TRUN_FIRST_FLAGS = 0x000004
_TRUN_DURATION = 0x000100
_TRUN_SAMPLE_FIELDS = (0x000100, 0x000200, 0x000400, 0x000800)
_TFHD_DEFAULT_SIZE = 0x000010
_TFHD_DEFAULT_FLAGS = 0x000020
_TRUN_SAMPLE_FLAGS = 0x000400
_NOT_SYNC = 0x00010000  # sample flags, §8.8.3.1: others are needed to decode it

_CODECS = {  # sample entries, §8.5.2
    b"avc1": Codec.H264,
    b"avc3": Codec.H264,
    b"hvc1": Codec.H265,
    b"hev1": Codec.H265,
    b"mp4v": Codec.MPEG4_VIDEO,
    b"jpeg": Codec.MJPEG,
    b"mjpa": Codec.MJPEG,
    b"av01": Codec.AV1,
    b"mp4a": Codec.AAC,
    b".mp3": Codec.MPEG_AUDIO,
    b"Opus": Codec.OPUS,
    b"ac-3": Codec.AC3,
    b"ec-3": Codec.EAC3,
}
_ENCRYPTED = (b"encv", b"enca", b"drmi", b"drms")
"""Sample entries whose own codec is hidden (ISO/IEC 23001-7 §4.1, and QuickTime's)."""
_OBJECT_TYPES = {  # of `mp4a`, by what its `esds` says (ISO/IEC 14496-1 table 5, and its registration authority)
    0x69: Codec.MPEG_AUDIO,
    0x6B: Codec.MPEG_AUDIO,
    0xA5: Codec.AC3,
    0xA6: Codec.EAC3,
    0xAD: Codec.OPUS,
}
_ENTRY_BYTES = 1024
"""Of a sample entry of sound that are looked at: an AAC one has some 100."""
_SET_UP = (b"avcC", b"hvcC", b"av1C")  # boxes of a sample entry that set up a decoder


class Fault(Enum):
    """Why a clip can't be played."""

    NO_HEADER = auto()  # no `moov`, or one that was cut
    NO_FRAMES = auto()  # a header, and no frame in the chunk
    ENCRYPTED = auto()
    UNKNOWN_CODEC = auto()
    OTHER_INIT = auto()  # fragments of a track that their header does not have


class Part(Enum):
    """What there is of a recording."""

    CLIP = auto()  # all that playing it needs
    INIT = auto()  # the header of fragments that are still to come
    FRAGMENT = auto()  # fragments whose header came before


@dataclass(slots=True)
class _Track:
    """What a `trak` says: `id`, whether it is video or sound, ticks per second; of the samples in `moov` how many there
    are, their ticks, and where the first of them lies (bytes from the start of the chunk, −1 not known)."""

    id: int = 0
    video: bool = False
    sound: bool = False
    timescale: int = 0
    samples: int = 0
    sample_ticks: int = 0
    first_place: int = -1
    first_is_key: bool = True
    codec: Codec = Codec.NONE
    entry: bytes = b""
    """Type of its sample entry: four characters."""
    width: int = 0
    height: int = 0
    parameters: int = 0
    """Hash of what sets up the decoder; 0: not known."""


@dataclass(slots=True)
class Movie:
    """What a `moov` says. `default_ticks`: sample duration by track id, from `trex`. Durations in ticks."""

    timescale: int = 0
    duration: int = 0
    fragmented: bool = False
    fragment_duration: int = 0
    tracks: list[_Track] = field(default_factory=list)
    default_ticks: dict[int, int] = field(default_factory=dict)
    default_flags: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Fragment:
    """One track's part of a `moof`: when it starts on the track's clock, if that is said, its samples, and the flags of
    the first one (None: not said)."""

    decode_ticks: int | None
    sample_ticks: int
    samples: int = 0
    first_flags: int | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """What a chunk holds. `ticks` 0: the duration is not known; `timescale` of them are a second, at least 1.
    `fault` is None when it can be played, as far as its boxes tell."""

    ticks: int
    timescale: int
    facts: MediaFacts
    fault: Fault | None = None
    part: Part = Part.CLIP
    entry: str = ""
    """The sample entry that is the fault, where one is."""
    movie: Movie | None = None
    """Of an init segment."""


def read(data: bytes | bytearray | memoryview) -> Clip:
    """What the clip in `data` holds.

    A whole file: `moov/mvhd` (§8.2.2), else the sample table of its video track. A fragmented file: the
    samples in `moov` and in each `moof/traf/trun` of the video track (the first track, when none is
    video), by that track's clock, or what its fragments' start times span (`_fragments_ticks`);
    `mvex/mehd` (§8.8.2) only when no fragment has samples, for it is what the writer meant to write, not
    what is there.

    Args:
        data: bytes, one-dimensional and contiguous, boxes from 0. No view of it is left on return.

    Returns:
        Of an unknown duration when a value is zero or "unknown", a box is damaged or a bound was passed. Never raises
        on any content. Memory: tables of at most MAX_SAMPLES, 16 bytes each.
    """
    reader = _Reader(memoryview(data))
    with suppress(struct.error, Unreadable):  # struct.error: a field past the end of its box
        reader.scan()
    if reader.movie_found is None:
        if reader.moofs:
            return Clip(0, 1, MediaFacts(), part=Part.FRAGMENT)
        # A bound that was passed says nothing of the clip; a chunk has room for more boxes than are looked at.
        return Clip(0, 1, MediaFacts(), None if reader.boxes_left < 0 else Fault.NO_HEADER)
    try:
        return reader.clip(reader.movie_found)
    except (struct.error, Unreadable):
        return Clip(0, 1, MediaFacts())


def read_fragment(data: bytes | bytearray | memoryview, movie: Movie) -> Clip:
    """What fragments hold whose header was sent before.

    Args:
        data: as for `read`, of what that calls a FRAGMENT.
        movie: of the init segment, as `read` gave it.

    Returns:
        As `read`. `Fault.OTHER_INIT`: a track of theirs is not in this header.
    """
    reader = _Reader(memoryview(data))
    with suppress(struct.error, Unreadable):
        reader.scan()
    try:
        if not reader.track_ids() <= {track.id for track in movie.tracks}:
            return Clip(0, 1, MediaFacts(), Fault.OTHER_INIT, Part.FRAGMENT)
        reader.boxes_left = MAX_BOXES
        return replace(reader.clip(movie), part=Part.FRAGMENT)
    except (struct.error, Unreadable):  # a bound that was passed says nothing of them
        fault = None if reader.boxes_left < 0 else Fault.NO_FRAMES
        return Clip(0, 1, MediaFacts(), fault, Part.FRAGMENT)


def sequence_numbers(data: bytes | bytearray | memoryview) -> tuple[int, int] | None:
    """The numbers of the first and the last of these fragments, which encoders count from 1, or 0 (`mfhd`, §8.8.5).
    None: they have none."""
    reader, found = _Reader(memoryview(data)), []
    with suppress(struct.error, Unreadable):
        for _, start, end in reader.only(b"moof", 0, len(reader.data)):
            for _, inner, inner_end in reader.only(b"mfhd", start, end):
                found.append(reader.u32(inner + 4, inner_end))
    return (found[0], found[-1]) if found else None


def is_first(data: bytes | bytearray | memoryview) -> bool:
    """Whether these fragments say that they are the first after their header."""
    numbers = sequence_numbers(data)
    return numbers is not None and numbers[0] <= 1


def _fault_of(movie: Movie) -> tuple[Fault | None, str]:
    """What no player could do with the tracks that are looked at, and the sample entry that says so."""
    for kind in ("video", "sound"):
        track = next((t for t in movie.tracks if getattr(t, kind)), None)
        if track is not None and track.codec is Codec.OTHER:
            fault = Fault.ENCRYPTED if track.entry in _ENCRYPTED else Fault.UNKNOWN_CODEC
            return fault, "".join(chr(c) if 0x20 < c < 0x7F else "." for c in track.entry)
    return None, ""


def _fragments_ticks(fragments: list[_Fragment], timescale: int) -> int:
    """Ticks of all fragments of a track.

    The sum of their samples, or from the start of the first to the end of the last, if that is longer:
    a writer that sends each frame at once does not know how long it is shown and writes 0. Start times
    that leave the sum more than JUMP_S behind are a clock that was set, and not believed.
    """
    total = sum(f.sample_ticks for f in fragments)
    starts = [f.decode_ticks for f in fragments if f.decode_ticks is not None]
    if len(starts) < max(len(fragments), 2):
        return total
    steps = sorted(later - earlier for earlier, later in pairwise(starts))
    last_ticks = fragments[-1].sample_ticks or max(steps[len(steps) // 2], 0)
    spanned = starts[-1] - starts[0] + last_ticks
    return spanned if total < spanned <= total + JUMP_S * timescale else total


def _duration_ticks(movie: Movie, track: _Track, fragments: list[_Fragment]) -> tuple[int, int]:
    """Ticks and timescale of the whole chunk; 0 where unknown."""
    if not movie.fragmented and movie.duration:
        return movie.duration, movie.timescale
    in_fragments = _fragments_ticks(fragments, track.timescale)
    if not in_fragments and movie.fragment_duration:
        return movie.fragment_duration, movie.timescale
    return track.sample_ticks + in_fragments, track.timescale


def _facts(
    movie: Movie,
    video: tuple[_Track | None, list[_Fragment]],
    sound: tuple[_Track | None, list[_Fragment]],
) -> MediaFacts:
    picture, of_picture = video
    codecs = [track.codec if track is not None else Codec.NONE for track in (picture, sound[0])]
    said = repr([(t.id, t.video, t.sound, t.codec.name) for t in movie.tracks]).encode()
    parameters = [t.parameters for t, _ in (video, sound) if t is not None]
    return MediaFacts(
        _times(*video),
        _times(*sound),
        codecs[0],
        codecs[1],
        zlib.crc32(said) & 0xFFFF or 1,
        zlib.crc32(repr(parameters).encode()) or 1 if all(parameters) else 0,
        picture.width if picture is not None else 0,
        picture.height if picture is not None else 0,
        _key_frame(picture, of_picture, has_sound=sound[0] is not None),
    )


def _key_frame(picture: _Track | None, fragments: list[_Fragment], *, has_sound: bool) -> KeyFrame:
    if picture is None:
        return KeyFrame.YES if has_sound else KeyFrame.UNKNOWN
    if picture.samples:
        return KeyFrame.YES if picture.first_is_key else KeyFrame.NO
    if not fragments or fragments[0].first_flags is None:
        return KeyFrame.UNKNOWN
    return KeyFrame.NO if fragments[0].first_flags & _NOT_SYNC else KeyFrame.YES


def _times(track: _Track | None, fragments: list[_Fragment]) -> Times | None:
    """Times of a track, its first sample at 0 or where its first fragment says. Decoding times, that is: how much later
    frames are shown is the same for all of a camera's chunks."""
    if track is None or not track.timescale:
        return None
    samples = track.samples + sum(f.samples for f in fragments)
    if not samples:
        return None
    ticks = track.sample_ticks + _fragments_ticks(fragments, track.timescale)
    first = 0 if track.samples or not fragments else fragments[0].decode_ticks or 0
    span = (ticks - ticks // samples) * TICKS_PER_MS * 1000 // track.timescale
    if not 0 <= span <= MAX_SPAN_TICKS:
        return None
    return Times(first * TICKS_PER_MS * 1000 // track.timescale % CLOCK_TICKS, span)


class _Reader(Boxes):
    """One pass over one chunk."""

    def __init__(self, data: memoryview) -> None:
        super().__init__(data)
        self.movie_found: Movie | None = None
        self.movie_cut = False
        self.moofs: list[tuple[int, int]] = []
        self.mdats: list[tuple[int, int]] = []
        """Where fragments lie, and where there is media."""

    def scan(self) -> None:
        """Find the header and the fragments."""
        for kind, start, end in self.boxes(0, len(self.data)):
            if kind == b"moov" and self.movie_found is None:
                self.movie_cut = self.cut
                self.movie_found = self.movie(start, end)
            elif kind == b"moof":
                self.moofs.append((start, end))
            elif kind == b"mdat":
                self.mdats.append((start, end))

    def clip(self, movie: Movie) -> Clip:
        """What header and fragments come to."""
        video = next((t for t in movie.tracks if t.video), None)
        sound = next((t for t in movie.tracks if t.sound), None)
        track = video or next(iter(movie.tracks), _Track())
        of_video = self.fragments_of(movie, video)
        of_sound = self.fragments_of(movie, sound)
        fragments = of_video if track is video else self.fragments_of(movie, track)
        has_frames = any(t.samples and self.is_media(t.first_place) for t in movie.tracks) or (
            bool(self.mdats) and any(f.samples for found in (of_video, of_sound, fragments) for f in found)
        )
        facts = _facts(movie, (video, of_video), (sound, of_sound))
        fault, entry = _fault_of(movie)
        if self.movie_cut:
            fault, entry = Fault.NO_HEADER, ""
        elif not has_frames:
            if movie.fragmented and movie.tracks and not self.moofs and not self.mdats:
                return Clip(0, 1, facts, fault, Part.INIT, entry, movie)
            fault, entry = Fault.NO_FRAMES, ""
        ticks, timescale = _duration_ticks(movie, track, fragments)
        if timescale <= 0:
            ticks, timescale = 0, 1
        return Clip(ticks, timescale, facts, fault, entry=entry)

    def track_ids(self) -> set[int]:
        """Of all fragments."""
        return {
            self.u32(inner + 4, inner_end)
            for start, end in self.moofs
            for _, traf, traf_end in self.only(b"traf", start, end)
            for _, inner, inner_end in self.only(b"tfhd", traf, traf_end)
        }

    def is_media(self, place: int) -> bool:
        return any(start <= place < end for start, end in self.mdats)

    def fragments_of(self, movie: Movie, track: _Track | None) -> list[_Fragment]:
        """A track's part of each fragment, in order; of a damaged one and what follows it nothing."""
        found: list[_Fragment] = []
        if track is None:
            return found
        ticks, flags = movie.default_ticks.get(track.id, 0), movie.default_flags.get(track.id)
        for start, end in self.moofs:
            fragment = self.fragment(start, end, track.id, ticks, flags)
            if fragment is not None:
                found.append(fragment)
        return found

    def movie(self, start: int, end: int) -> Movie:
        """`moov` (§8.2.1): `mvhd`, `mvex` and its tracks."""
        movie = Movie()
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"mvhd":
                movie.timescale, movie.duration = self.timed(inner, inner_end)
            elif kind == b"trak":
                movie.tracks.append(self.track(inner, inner_end))
            elif kind == b"mvex":
                movie.fragmented = True
                self.extends(inner, inner_end, movie)
        return movie

    def extends(self, start: int, end: int, movie: Movie) -> None:
        """`mvex` (§8.8.1): overall duration and the defaults of each track's samples, into `movie`."""
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"mehd":
                long = self.u32(inner, inner_end) >> 24 == 1
                read = self.u64 if long else self.u32
                movie.fragment_duration = read(inner + 4, inner_end)
            elif kind == b"trex":
                track = self.u32(inner + 4, inner_end)
                movie.default_ticks[track] = self.u32(inner + 12, inner_end)
                movie.default_flags[track] = self.u32(inner + 20, inner_end)

    def track(self, start: int, end: int) -> _Track:
        """`trak` (§8.3.1) and what is wanted of the boxes below it: `tkhd`, and `mdia` three levels deep."""
        track = _Track()
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"tkhd":
                long = self.u32(inner, inner_end) >> 24 == 1
                track.id = self.u32(inner + (20 if long else 12), inner_end)
            elif kind == b"mdia":
                self.media(inner, inner_end, track)
        return track

    def media(self, start: int, end: int, track: _Track) -> None:
        """`mdia` (§8.4.1): clock, kind and sample table of a track, into `track`."""
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"mdhd":
                track.timescale, _ = self.timed(inner, inner_end)
            elif kind == b"hdlr":
                handler = bytes(self.data[inner + 8 : min(inner + 12, inner_end)])
                track.video, track.sound = handler == b"vide", handler == b"soun"
            elif kind == b"minf":
                for _, table, table_end in self.only(b"stbl", inner, inner_end):
                    self.sample_table(table, table_end, track)

    def sample_table(self, start: int, end: int, track: _Track) -> None:
        """`stbl` (§8.5.1): what the samples are, how long, where, and which decode by themselves, into `track`."""
        for kind, inner, inner_end in self.boxes(start, end):
            if kind == b"stsd":
                self.description(inner, inner_end, track)
            elif kind == b"stts":
                track.samples, track.sample_ticks = self.time_table(inner, inner_end)
            elif kind == b"stss":  # §8.6.2: numbers of the samples that do, from 1; without it all do
                count = self.u32(inner + 4, inner_end)
                track.first_is_key = count > 0 and self.u32(inner + 8, inner_end) == 1
            elif kind in (b"stco", b"co64") and self.u32(inner + 4, inner_end):  # §8.7.5
                track.first_place = (self.u64 if kind == b"co64" else self.u32)(inner + 8, inner_end)

    def description(self, start: int, end: int, track: _Track) -> None:
        """The first sample entry of `stsd` (§8.5.2, §12.1.3, §12.2.3), into `track`."""
        for kind, inner, inner_end in self.boxes(start + 8, end):
            track.codec = _CODECS.get(kind, Codec.OTHER)
            track.entry = kind
            if track.video:
                size = self.u32(inner + 24, inner_end)
                track.width, track.height = size >> 16, size & 0xFFFF
                for inside, setup, setup_end in self.boxes(inner + 78, inner_end):
                    if inside in _SET_UP:
                        track.parameters = zlib.crc32(self.data[setup:setup_end]) or 1
            elif track.sound:  # channels and bits, then the rate
                said = bytes(self.data[inner + 16 : min(inner + 28, inner_end)])
                track.parameters = zlib.crc32(said) or 1
                if kind == b"mp4a":
                    track.codec = self.object_type(inner, inner_end)
            return

    def object_type(self, start: int, end: int) -> Codec:
        """What `mp4a` is, by its `esds` (ISO/IEC 14496-1 §7.2.6), wherever QuickTime has put that; AAC as a rule."""
        entry = bytes(self.data[start : min(end, start + _ENTRY_BYTES)])
        found = entry.find(b"esds")
        if found < 0:
            return Codec.AAC
        at = found + 8  # behind its version and flags
        for tag, skip in ((3, 3), (4, 0)):  # ES_Descriptor with its number and flags, DecoderConfigDescriptor
            if entry[at : at + 1] != bytes([tag]):
                return Codec.AAC
            at += 1
            while (
                entry[at : at + 1] >= b"\x80"
            ):  # a length, in as many bytes as there are with the upper bit, and one
                at += 1
            at += 1 + skip
        return _OBJECT_TYPES.get(entry[at], Codec.AAC) if at < len(entry) else Codec.AAC

    def time_table(self, start: int, end: int) -> tuple[int, int]:
        """How many samples `stts` (§8.6.1.2) has, and how long they are together: pairs of sample count and ticks."""
        pairs = self.table(start + 8, end, self.u32(start + 4, end), 2).astype(np.float64)
        # In floating point a hostile table can't overflow, and a real one is exact below 2**53.
        return int(pairs[:, 0].sum()), int(pairs[:, 0] @ pairs[:, 1])

    def fragment(
        self, start: int, end: int, track_id: int, default_ticks: int, default_flags: int | None
    ) -> _Fragment | None:
        """One track's samples in one `moof` (§8.8.4); None when it has none."""
        decode_ticks: int | None = None
        first_flags: int | None = None
        total, runs, samples = 0, 0, 0
        for _, traf, traf_end in self.only(b"traf", start, end):
            ticks: int | None = None
            flags = default_flags
            for kind, inner, inner_end in self.boxes(traf, traf_end):
                # §8.8.7, §8.8.12: header, then decode time, then the runs.
                if kind == b"tfhd":
                    ticks, flags = self.header(inner, inner_end, track_id, default_ticks, default_flags)
                elif kind == b"tfdt" and ticks is not None and decode_ticks is None:
                    long = self.u32(inner, inner_end) >> 24 == 1
                    decode_ticks = (self.u64 if long else self.u32)(inner + 4, inner_end)
                elif kind == b"trun" and ticks is not None:
                    if not runs:
                        first_flags = self.first_flags(inner, inner_end, flags)
                    total += self.run_ticks(inner, inner_end, ticks)
                    runs += 1
                    samples += self.u32(inner + 4, inner_end)
        return _Fragment(decode_ticks, total, samples, first_flags) if runs else None

    def header(
        self, start: int, end: int, track_id: int, ticks: int, sample_flags: int | None
    ) -> tuple[int | None, int | None]:
        """Ticks per sample and sample flags that `tfhd` (§8.8.7) sets for its runs, of which the given ones are the
        defaults; (None, None) when it is another track's."""
        flags = self.u32(start, end)
        if self.u32(start + 4, end) != track_id:
            return None, None
        at = start + 8 + 8 * bool(flags & _TFHD_BASE_DATA_OFFSET) + 4 * bool(flags & _TFHD_DESCRIPTION_INDEX)
        if flags & _TFHD_DEFAULT_DURATION:
            ticks = self.u32(at, end)
            at += 4
        if flags & _TFHD_DEFAULT_FLAGS:
            sample_flags = self.u32(at + 4 * bool(flags & _TFHD_DEFAULT_SIZE), end)
        return ticks, sample_flags

    def first_flags(self, start: int, end: int, default: int | None) -> int | None:
        """Flags of the first sample of a `trun` (§8.8.8)."""
        flags = self.u32(start, end)
        at = start + 8 + 4 * bool(flags & _TRUN_DATA_OFFSET)
        if flags & _TRUN_FIRST_FLAGS:
            return self.u32(at, end)
        if not flags & _TRUN_SAMPLE_FLAGS or not self.u32(start + 4, end):
            return default
        before = sum(bool(flags & bit) for bit in _TRUN_SAMPLE_FIELDS if bit < _TRUN_SAMPLE_FLAGS)
        return self.u32(at + 4 * before, end)

    def run_ticks(self, start: int, end: int, default_ticks: int) -> int:
        """Ticks of the samples in one `trun` (§8.8.8)."""
        flags, samples = self.u32(start, end), self.u32(start + 4, end)
        if not flags & _TRUN_DURATION:
            if samples > MAX_SAMPLES:
                raise Unreadable
            return samples * default_ticks
        skip = 4 * bool(flags & _TRUN_DATA_OFFSET) + 4 * bool(flags & _TRUN_FIRST_FLAGS)
        columns = sum(bool(flags & bit) for bit in _TRUN_SAMPLE_FIELDS)
        # The duration is the first of the fields a sample may have.
        return int(self.table(start + 8 + skip, end, samples, columns)[:, 0].sum(dtype=np.uint64))
