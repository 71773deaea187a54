"""What an ordinary transport stream chunk holds, read from its first and last packets. Pure.

Every chunk comes through here on its way to encryption, and cameras send much the same: program tables first, then a
frame of H.264 or H.265, perhaps sound. Of such a chunk `read` looks at a few packets at either end and at nothing else;
at eight frames where frames are not stored in the order in which they are shown. Whatever is otherwise it leaves to
`ts_edges`, whose answer is the same where both have one: a test compares them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from ingest.mpegts import JUMP_TICKS, PACKET_BYTES, SYNC_BYTE
from ingest.pictures import MAX_REMEMBERED_BYTES, described, first_picture
from ingest.ts_edges import (
    ORDERED_FRAMES,
    PRIVATE_STREAM,
    REACH_BYTES,
    REORDERED_FRAMES,
    WINDOW_BYTES,
    Reader,
    median_step,
    payload_at,
    pts_at,
    with_sound,
)
from ingest.ts_tables import NO_PID, Program
from storage.media_facts import CLOCK_TICKS, Codec, KeyFrame, packed_facts

FIRST_BYTES: Final = 21 * PACKET_BYTES
"""Looked at in one piece at either end, before windows of `ts_edges`: below 4 KiB a copy costs least."""
REMEMBERED: Final = 1024
"""Beginnings of chunks, and of pictures, that are remembered: each at most 564 bytes and what they say, 1.2 KB.
Tables of one camera come with up to 16 counters."""
KEY_BYTES: Final = 40
"""By which they are looked up: of a program map as far as its streams, of a picture as far as its size. What is found
is then compared as a whole."""

_DESCRIPTION_PID: Final = (
    0x11  # service description, which ffmpeg puts before the tables (ETSI EN 300 468 §5.1.3)
)
_CLOCK: Final = CLOCK_TICKS
_HALF: Final = CLOCK_TICKS >> 1
_WINDOW: Final = struct.Struct(f"{FIRST_BYTES}s")
_AAC: Final = Codec.AAC
_NONE: Final = Codec.NONE
_OTHER: Final = Codec.OTHER
_YES: Final = KeyFrame.YES
_UNKNOWN: Final = KeyFrame.UNKNOWN


class Quick:
    """What `read` found. `duration_ticks` > 0; `facts` packed, as `storage.media_facts` has them."""

    __slots__ = ("duration_ticks", "facts")

    def __init__(self, duration_ticks: int, facts: bytes) -> None:
        self.duration_ticks = duration_ticks
        self.facts = facts


class _Tables:
    """The packets before the first frame, and what they say."""

    __slots__ = ("map_pid", "packets", "program")

    def __init__(self) -> None:
        self.packets = b""
        self.map_pid = NO_PID
        self.program: Program | None = None
        """None: they are anything but tables, or name no picture."""

    def look(self, packets: bytes) -> None:
        reader = Reader(packets)
        reader.read_front()
        found = reader.program
        if reader.video.times or reader.audio.times or (found is not None and not found.has_video):
            found = None
        self.packets, self.map_pid, self.program = packets, reader.map_pid, found


class _Seen:
    """How a picture began, up to its first slice, and what that says."""

    __slots__ = ("beginning", "codec", "height", "key_frame", "parameters", "width")

    def __init__(self) -> None:
        self.codec: Codec | None = None
        """None: nothing is remembered."""
        self.beginning = b""
        self.parameters = 0
        self.width = 0
        self.height = 0
        self.key_frame: KeyFrame = _UNKNOWN


class _Track:
    """One track."""

    __slots__ = ("ascends", "earliest", "frames", "last", "origin", "pid", "reordered")

    def __init__(self) -> None:
        self.pid = NO_PID
        self.origin = 0
        """Time of its first frame."""
        self.earliest = 0
        """Time of its earliest frame, ticks after `origin`: 0 or less."""
        self.frames = 0
        """Seen at the front, REORDERED_FRAMES at most."""
        self.last = 0
        """At the front the time of the frame seen last, at the end the latest time: ticks after `origin`."""
        self.ascends = True
        """The frames of the front are stored in the order in which they are shown."""
        self.reordered = False
        """The stream says that they may be not."""

    def after(self, pts: int) -> int:
        """Ticks after `origin`, the short way round: signed."""
        return (pts - self.origin + _HALF) % _CLOCK - _HALF

    @property
    def first(self) -> int:
        """Time of its earliest frame."""
        return (self.origin + self.earliest) % _CLOCK

    @property
    def span(self) -> int:
        """From its earliest frame to its latest, ticks."""
        return self.last - self.earliest


class _Chunk:
    """One chunk, as far as it was read. Its methods return False for what is left to `ts_edges`."""

    __slots__ = (
        "audio",
        "data",
        "end",
        "key_packet",
        "map_pid",
        "picture",
        "place",
        "private",
        "program",
        "sound",
        "step",
        "video",
    )

    def __init__(
        self, data: bytes | bytearray | memoryview, end: int, map_pid: int, program: Program
    ) -> None:
        self.data = data
        self.end = end
        self.map_pid = map_pid
        self.program = program
        self.video = _Track()
        self.audio = _Track()
        self.place = -1
        """Byte of the packet in which the first picture starts."""
        self.picture = b""
        """What that packet carries of it."""
        self.key_packet = False
        """That packet is marked as one to begin at."""
        self.private = False
        """Sound is a private stream (Opus, AC-3), or something that is no sound."""
        self.sound = b""
        """What the packet carries in which sound starts."""
        self.step = 0
        """Between the last frames: the median distance, ticks."""

    def front(self, window: bytes, at: int) -> bool:
        """First frames: as far as the first of each track that the tables name, and of a picture track that is out of
        order as far as REORDERED_FRAMES."""
        video = self.video
        base, has_audio = 0, self.program.has_audio
        while True:
            size = len(window)
            while at < size:
                if (
                    window[at + 1] & 0xC0 == 0x40 and window[at] == SYNC_BYTE
                ):  # sound, and a unit starts in it
                    pid = (window[at + 1] & 0x1F) << 8 | window[at + 2]
                    if pid and pid != self.map_pid:
                        if not self.front_unit(window, at, pid, base):
                            return False
                        if (
                            (self.audio.frames or not has_audio)
                            and video.frames
                            and (not video.reordered or video.frames == REORDERED_FRAMES)
                        ):
                            return video.reordered or video.ascends
                at += PACKET_BYTES
            base += size
            if base >= self.end:
                return bool(video.frames) and (video.reordered or video.ascends)
            if base >= REACH_BYTES:
                return False
            window, at = bytes(self.data[base : min(base + WINDOW_BYTES, self.end)]), 0

    def front_unit(self, window: bytes, at: int, pid: int, base: int) -> bool:
        """A unit that starts in the packet at `at`: a frame, perhaps."""
        offset, end = payload_at(window, at), at + PACKET_BYTES
        pts = pts_at(window, offset, end)
        if pts < 0:
            return True
        kind = window[offset + 3]
        track = self.video if kind & 0xF0 == 0xE0 else self.audio
        if (
            track is self.audio and self.private and kind != PRIVATE_STREAM
        ):  # sound of an ordinary kind goes before it
            return False
        if track.pid == NO_PID:
            track.pid, track.origin = pid, pts
            if track is self.audio:
                self.private = kind == PRIVATE_STREAM
                self.sound = window[offset:end]
            else:
                self.place = base + at
                self.picture = window[offset + 9 + window[offset + 8] : end]
                self.key_packet = bool(window[at + 3] & 0x20 and window[at + 4] and window[at + 5] & 0x40)
        elif track.pid != pid:
            return True
        track.reordered = track.reordered or bool(window[offset + 7] & 0x40)
        if track.frames < REORDERED_FRAMES:
            after = track.after(pts)
            if (
                not -JUMP_TICKS <= after <= JUMP_TICKS
            ):  # a clock that was set, perhaps: all packets are to be asked
                return False
            track.ascends = track.ascends and after >= track.last
            track.earliest = min(track.earliest, after)
            track.frames += 1
            track.last = after
        return True

    def back(self, window: bytes) -> bool:
        """Last frames, the last one first: some pictures, and one packet of sound where there is sound."""
        base = self.end - len(window)
        video, audio = self.video, self.audio
        wanted, sounds = REORDERED_FRAMES if video.reordered else ORDERED_FRAMES, 0 if audio.frames else 1
        pictures: list[int] = []
        audio.last = audio.earliest
        while True:
            at = len(window) - PACKET_BYTES
            while at >= 0:
                if window[at + 1] & 0xC0 == 0x40 and window[at] == SYNC_BYTE:
                    pid = (window[at + 1] & 0x1F) << 8 | window[at + 2]
                    pts = pts_at(window, payload_at(window, at), at + PACKET_BYTES)
                    if pts >= 0 and pid == video.pid:
                        pictures.append(video.after(pts))
                    elif pts >= 0 and pid == audio.pid:
                        after = audio.after(pts)
                        if not audio.earliest <= after <= JUMP_TICKS:
                            return False
                        audio.last = max(audio.last, after)
                        sounds += 1
                    if len(pictures) >= wanted and sounds:
                        return self.steps(pictures)
                at -= PACKET_BYTES
            if base <= 0:  # fewer than wanted, as of a camera of one frame a second
                return bool(sounds) and self.steps(pictures)
            if self.end - base >= REACH_BYTES:
                return False
            start = max(base - WINDOW_BYTES, 0)
            window, base = bytes(self.data[start:base]), start

    def steps(self, pictures: list[int]) -> bool:
        """The latest picture and the usual step of the last ones, whose times are given from the end on."""
        video, ordered = self.video, sorted(pictures)
        if not ordered or ordered[0] < video.earliest or ordered[-1] - video.earliest > JUMP_TICKS:
            return False
        if not video.reordered and pictures[::-1] != ordered:
            return False
        video.last = ordered[-1]
        self.step = median_step(ordered)
        return self.step > 0

    def facts(self) -> bytes:
        """Packed."""
        program, video, audio = self.program, self.video, self.audio
        video_codec = program.codecs.get(video.pid, _OTHER)
        audio_codec = program.codecs.get(audio.pid, _OTHER) if audio.frames else _NONE
        seen = _seen(self.picture[:KEY_BYTES])
        if seen.codec is not video_codec or not self.picture.startswith(seen.beginning):
            self.look(seen, video_codec)
        parameters = seen.parameters
        if parameters and audio_codec is _AAC:
            parameters = with_sound(self.sound, parameters)
        return packed_facts(
            video.first,
            video.span,
            audio.first if audio.frames else -1,
            audio.span,
            video_codec,
            audio_codec,
            program.fingerprint,
            parameters,
            seen.width,
            seen.height,
            _YES if self.key_packet else seen.key_frame,
        )

    def look(self, seen: _Seen, codec: Codec) -> None:
        """Read how the picture begins."""
        picture = first_picture(self.picture, codec)
        # Where it begins in several packets, or is of a codec that is not read, the next one is read again.
        seen.codec = codec if 0 < picture.end <= MAX_REMEMBERED_BYTES else None
        seen.beginning = self.picture[: picture.end]
        if not picture.end:
            picture = Reader(self.data).beginning(self.video.pid, self.place, codec)
        seen.parameters, seen.width, seen.height = described(picture.sets, codec)
        seen.key_frame = picture.key_frame


def read(data: bytes | bytearray | memoryview) -> Quick | None:
    """What the stream in `data` holds; None when it is not an ordinary one: ask `ts_edges`.

    Args:
        data: bytes, one-dimensional and contiguous, of any content. Read in place, piece by piece, and no view of it is
            left when this returns.
    """
    size = len(data)
    if size < FIRST_BYTES:
        return None
    end = size - size % PACKET_BYTES
    front: bytes = _WINDOW.unpack_from(data, 0)[0]
    back: bytes = _WINDOW.unpack_from(data, end - FIRST_BYTES)[0]
    if not _in_sync(front, 0) or not _in_sync(
        back, 16 * PACKET_BYTES
    ):  # as `media` and `mpegts.aligned` want it
        return None
    last = 2 * PACKET_BYTES if front[2] == _DESCRIPTION_PID else PACKET_BYTES
    tables = _tables(front[last : last + KEY_BYTES])
    if not tables.packets or not front.startswith(tables.packets):
        tables.look(front[: last + PACKET_BYTES])
    program = tables.program
    if program is None:
        return None
    chunk = _Chunk(data, end, tables.map_pid, program)
    if not chunk.front(front, last + PACKET_BYTES) or not chunk.back(back):
        return None
    return Quick(chunk.video.span + chunk.step, chunk.facts())


def _in_sync(window: bytes, at: int) -> bool:
    """Whether five packets begin with the sync byte."""
    return (
        window[at] == SYNC_BYTE
        and window[at + PACKET_BYTES] == SYNC_BYTE
        and window[at + 2 * PACKET_BYTES] == SYNC_BYTE
        and window[at + 3 * PACKET_BYTES] == SYNC_BYTE
        and window[at + 4 * PACKET_BYTES] == SYNC_BYTE
    )


@lru_cache(maxsize=REMEMBERED)
def _tables(key: bytes) -> _Tables:
    """What was seen last of the chunks whose program map begins so."""
    return _Tables()


@lru_cache(maxsize=REMEMBERED)
def _seen(key: bytes) -> _Seen:
    """What was seen last of the pictures that begin so."""
    return _Seen()
