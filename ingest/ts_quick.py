"""What an ordinary transport stream chunk holds, read from its first and last packets. Pure.

Every chunk comes through here on its way to encryption, and cameras send much the same: program tables first, then a
frame of H.264 or H.265, frames stored in the order in which they are shown, perhaps sound. Of such a chunk `read` looks
at a few packets at either end and at nothing else. Whatever is otherwise it leaves to `ts_edges`, whose answer is the
same where both have one: a test compares them.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final

from ingest.pictures import MAX_REMEMBERED_BYTES, described, first_picture
from ingest.ts_edges import (
    ORDERED_FRAMES,
    REORDERED_FRAMES,
    Reader,
    payload_at,
    pts_at,
    with_sound,
)
from ingest.ts_tables import NO_PID, Program
from storage.media_facts import CLOCK_TICKS, Codec, KeyFrame, packed_facts

PACKET: Final = 188
WINDOW_BYTES: Final = 21 * PACKET
"""Looked at in one piece, first: below 4 KiB a copy costs least."""
LARGE_BYTES: Final = 64 * PACKET
"""Looked at in one piece after that."""
REACH_BYTES: Final = 16 * LARGE_BYTES
"""How far from either end is looked; beyond it `ts_edges` is asked."""
JUMP_TICKS: Final = 10_000 * 90
"""As `mpegts.JUMP_TICKS`: a longer chunk may have a clock that was set inside it, and all of its packets are asked."""
REMEMBERED: Final = 1024
"""Beginnings of chunks, and of pictures, that are remembered: each at most 564 bytes and what they say, 2 MB in all.
Tables of one camera come with up to 16 counters."""
KEY_BYTES: Final = 40
"""By which they are looked up: of a program map as far as its streams, of a picture as far as its size. What is found
is then compared as a whole."""

_SYNC: Final = 0x47
_DESCRIPTION_PID: Final = (
    0x11  # service description, which ffmpeg puts before the tables (ETSI EN 300 468 §5.1.3)
)
_PRIVATE: Final = 0xBD
_CLOCK: Final = CLOCK_TICKS
_HALF: Final = CLOCK_TICKS >> 1
_WINDOW: Final = struct.Struct(f"{WINDOW_BYTES}s")
_AAC: Final = Codec.AAC
_OTHER: Final = Codec.OTHER
_NONE: Final = Codec.NONE
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

    __slots__ = ("frames", "last", "origin", "pid")

    def __init__(self) -> None:
        self.pid = NO_PID
        self.origin = 0
        """Time of its first frame, and its earliest."""
        self.frames = 0
        """Seen at the end that is read."""
        self.last = 0
        """The latest time seen at that end, ticks after `origin`."""

    def after(self, pts: int) -> int:
        """Ticks after `origin`, the short way round: signed."""
        return (pts - self.origin + _HALF) % _CLOCK - _HALF


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
        self.sound = b""
        """What the packet carries in which sound starts."""
        self.step = 0
        """Between the last frames: the median distance, ticks."""

    def front(self, window: bytes, at: int) -> bool:
        """First frames: as far as the first of each track that the tables name."""
        base, has_audio = 0, self.program.has_audio
        while True:
            size = len(window)
            while at < size:
                if window[at + 1] & 0xC0 == 0x40 and window[at] == _SYNC:  # sound, and a unit starts in it
                    pid = (window[at + 1] & 0x1F) << 8 | window[at + 2]
                    if pid and pid != self.map_pid:
                        if not self.front_unit(window, at, pid, base):
                            return False
                        if self.place >= 0 and (self.audio.frames or not has_audio):
                            return True
                at += PACKET
            base += size
            if base >= REACH_BYTES or base >= self.end:
                return False
            window, at = bytes(self.data[base : min(base + LARGE_BYTES, self.end)]), 0

    def front_unit(self, window: bytes, at: int, pid: int, base: int) -> bool:
        """A unit that starts in the packet at `at`: a frame, perhaps."""
        offset, end = payload_at(window, at), at + PACKET
        pts = pts_at(window, offset, end)
        if pts < 0:
            return True
        kind = window[offset + 3]
        if kind == _PRIVATE:  # sound or not
            return False
        track = self.video if kind & 0xF0 == 0xE0 else self.audio
        if track.pid == NO_PID:
            track.pid, track.origin = pid, pts
            if track is self.audio:
                self.sound = window[offset:end]
            else:
                self.place = base + at
                self.picture = window[offset + 9 + window[offset + 8] : end]
                self.key_packet = bool(window[at + 3] & 0x20 and window[at + 4] and window[at + 5] & 0x40)
        elif track.pid != pid:
            return True
        if track is self.video and window[offset + 7] & 0x40:  # may be stored out of order
            return False
        if track.frames < REORDERED_FRAMES:
            after = track.after(pts)
            if not track.last <= after <= JUMP_TICKS:
                return False
            track.frames += 1
            track.last = after
        return True

    def back(self, window: bytes) -> bool:
        """Last frames, the last one first: three pictures, and one packet of sound where there is sound."""
        base = self.end - len(window)
        video, audio = self.video, self.audio
        pictures, sounds, before = 0, 0 if audio.frames else 1, JUMP_TICKS
        steps: list[int] = []
        video.last = audio.last = 0
        while True:
            at = len(window) - PACKET
            while at >= 0:
                if window[at + 1] & 0xC0 == 0x40 and window[at] == _SYNC:
                    pid = (window[at + 1] & 0x1F) << 8 | window[at + 2]
                    pts = pts_at(window, payload_at(window, at), at + PACKET)
                    if pts >= 0 and pid == video.pid:
                        after = video.after(pts)
                        if not 0 <= after <= before:
                            return False
                        if not pictures:
                            video.last = after
                        elif after < before:
                            steps.append(before - after)
                        before = after
                        pictures += 1
                    elif pts >= 0 and pid == audio.pid:
                        after = audio.after(pts)
                        if not 0 <= after <= JUMP_TICKS:
                            return False
                        audio.last = max(audio.last, after)
                        sounds += 1
                    if pictures >= ORDERED_FRAMES and sounds:
                        steps.sort()
                        self.step = steps[len(steps) // 2] if steps else 0
                        return self.step > 0
                at -= PACKET
            if base <= 0 or self.end - base >= REACH_BYTES:
                return False
            start = max(base - LARGE_BYTES, 0)
            window, base = bytes(self.data[start:base]), start

    def facts(self) -> bytes:
        """Packed."""
        codecs, video, audio = self.program.codecs, self.video, self.audio
        video_codec = codecs.get(video.pid, _OTHER)
        audio_codec = codecs.get(audio.pid, _OTHER) if audio.frames else _NONE
        seen = _seen(self.picture[:KEY_BYTES])
        if seen.codec is not video_codec or not self.picture.startswith(seen.beginning):
            self.look(seen, video_codec)
        parameters = seen.parameters
        if parameters and audio_codec is _AAC:
            parameters = with_sound(self.sound, parameters)
        return packed_facts(
            video.origin,
            video.last,
            audio.origin if audio.frames else -1,
            audio.last,
            video_codec,
            audio_codec,
            self.program.fingerprint,
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
    if size < WINDOW_BYTES:
        return None
    end = size - size % PACKET
    front: bytes = _WINDOW.unpack_from(data, 0)[0]
    back: bytes = _WINDOW.unpack_from(data, end - WINDOW_BYTES)[0]
    if not _in_sync(front, 0) or not _in_sync(back, 16 * PACKET):  # as `media` and `mpegts.aligned` want it
        return None
    last = 2 * PACKET if front[2] == _DESCRIPTION_PID else PACKET
    tables = _tables(front[last : last + KEY_BYTES])
    if not tables.packets or not front.startswith(tables.packets):
        tables.look(front[: last + PACKET])
    program = tables.program
    if program is None:
        return None
    chunk = _Chunk(data, end, tables.map_pid, program)
    if not chunk.front(front, last + PACKET) or not chunk.back(back):
        return None
    return Quick(chunk.video.last + chunk.step, chunk.facts())


def _in_sync(window: bytes, at: int) -> bool:
    """Whether five packets begin with the sync byte."""
    return (
        window[at] == _SYNC
        and window[at + PACKET] == _SYNC
        and window[at + 2 * PACKET] == _SYNC
        and window[at + 3 * PACKET] == _SYNC
        and window[at + 4 * PACKET] == _SYNC
    )


@lru_cache(maxsize=REMEMBERED)
def _tables(key: bytes) -> _Tables:
    """What was seen last of the chunks whose program map begins so."""
    return _Tables()


@lru_cache(maxsize=REMEMBERED)
def _seen(key: bytes) -> _Seen:
    """What was seen last of the pictures that begin so."""
    return _Seen()
