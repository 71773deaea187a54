"""What a transport stream chunk holds, read at its two ends (ISO/IEC 13818-1). Pure.

Every chunk is asked, between the last byte of its body and its encryption, so only what is needed is looked at: from
the front the tables, the first frames of each track and the parameter sets; from the end backwards the last frames.
Where what they say is not plausible (a clock that was set inside the chunk, a time lapse), `mpegts` asks all packets.
"""

from __future__ import annotations

import zlib
from itertools import pairwise
from typing import Final

from ingest import mpegts
from ingest.mpegts import PACKET_BYTES, SYNC_BYTE
from ingest.pictures import H264, H265, Picture, described, first_picture
from ingest.ts_tables import NO_PID, Program, map_pid, program
from storage.media_facts import (
    CLOCK_TICKS,
    MAX_SPAN_TICKS,
    Codec,
    KeyFrame,
    MediaFacts,
    Times,
    ticks_between,
)

WINDOW_BYTES: Final = 64 * PACKET_BYTES
"""Looked at in one piece: bytes of a copy, which are read three times as fast as those of a view."""
REACH_BYTES: Final = 16 * WINDOW_BYTES
"""How far from either end, 188 KiB, sound and tables are looked for when there is a picture."""
REORDERED_FRAMES: Final = 8
"""Frames at either end that are looked at where frames are stored out of order. H.264 allows 16 (a decoder keeps that
many), encoders use up to 5."""
ORDERED_FRAMES: Final = 3
"""Frames at the end that are looked at where they are stored in order: two steps from one to the next."""
PICTURE_PACKETS: Final = 24
"""Of the first picture that are searched for parameter sets and slices: 4 KiB. An encoder's message before the slice
is a kilobyte or two."""

PRIVATE_STREAM: Final = 0xBD
"""Stream id, §2.4.3.7."""


class Edge:
    """What one end of a chunk tells about a track: the PID, and the presentation times of the frames found, in the
    order in which they were found. NO_PID: no such track."""

    def __init__(self) -> None:
        self.pid = NO_PID
        self.private = False
        """A private stream: AC-3, Opus and the like, or something that is no sound."""
        self.times: list[int] = []
        self.places: list[int] = []
        """Byte of the packet in which each frame starts."""
        self.sizes: list[int] = []
        """Bytes that each PES packet says it has; 0: it does not say."""
        self.reordered = False
        """Frames are stored in another order than they are shown in."""


class Media:
    """What is known of a chunk. `duration_ticks` 0: not known."""

    def __init__(self, duration_ticks: int, facts: MediaFacts) -> None:
        self.duration_ticks = duration_ticks
        self.facts = facts


class Reader:
    """One chunk, packets from byte 0 on."""

    def __init__(self, data: bytes | bytearray | memoryview, reach_bytes: int = REACH_BYTES) -> None:
        self.data = data
        self.reach_bytes = reach_bytes
        self.end = len(data) // PACKET_BYTES * PACKET_BYTES
        self.map_pid = NO_PID
        self.program: Program | None = None
        self.video = Edge()
        self.audio = Edge()
        self.key_packet = False
        """The packet in which the first picture starts is marked as one to begin at."""

    def window(self, start: int, end: int) -> bytes:
        return bytes(self.data[start:end])

    # --- from the front ---------------------------------------------------------------------------------------

    def read_front(self) -> None:
        """Tables, tracks and the times of their first frames."""
        start = 0
        while start < self.end:
            end = min(start + WINDOW_BYTES, self.end)
            if self.front_window(self.window(start, end), start) or (
                end >= self.reach_bytes and (self.video.times or self.audio.times)
            ):
                return
            start = end

    def front_window(self, window: bytes, base: int) -> bool:
        """Look at one piece; returns whether nothing more is wanted."""
        at = 0
        size = len(window)
        while at < size:
            if window[at + 1] & 0xC0 == 0x40 and window[at] == SYNC_BYTE:  # sound, and a unit starts in it
                pid = (window[at + 1] & 0x1F) << 8 | window[at + 2]
                offset = payload_at(window, at)
                if pid == 0:
                    if self.map_pid == NO_PID:
                        self.map_pid = map_pid(window[offset : at + PACKET_BYTES])
                elif pid == self.map_pid:
                    if self.program is None:
                        self.program = program(window[offset : at + PACKET_BYTES])
                elif self.front_unit(window, at, offset, pid, base):
                    return True
            at += PACKET_BYTES
        return False

    def front_unit(self, window: bytes, at: int, offset: int, pid: int, base: int) -> bool:
        """A frame that starts in this packet, perhaps; returns whether nothing more is wanted."""
        pts = pts_at(window, offset, at + PACKET_BYTES)
        if pts < 0:
            return False
        stream = window[offset + 3]
        edge = self.video if stream & 0xF0 == 0xE0 else self.audio
        if edge.pid == NO_PID or (edge is self.audio and stream != PRIVATE_STREAM and edge.private):
            edge = self.begin(edge, pid, stream)
            if edge is self.video:
                self.key_packet = bool(window[at + 3] & 0x20 and window[at + 4] and window[at + 5] & 0x40)
        elif edge.pid != pid:
            return False
        edge.reordered = edge.reordered or bool(window[offset + 7] & 0x40)
        if len(edge.times) == REORDERED_FRAMES:
            return self.front_done()
        edge.times.append(pts)
        edge.places.append(base + at)
        edge.sizes.append(window[offset + 4] << 8 | window[offset + 5])
        return self.front_done()

    def begin(self, edge: Edge, pid: int, stream: int) -> Edge:
        """The track that is looked at: the first one, but sound of a kind of its own before a private stream."""
        if edge.pid != NO_PID:
            edge = self.audio = Edge()
        edge.pid = pid
        edge.private = stream == PRIVATE_STREAM
        return edge

    def front_done(self) -> bool:
        found = self.program
        if found is None or (found.has_audio and not self.audio.times):
            return False
        if not self.video.times:
            return not found.has_video
        return not self.video.reordered or len(self.video.times) >= REORDERED_FRAMES

    # --- from the end -----------------------------------------------------------------------------------------

    def read_back(self, video: Edge, audio: Edge) -> None:
        """The last frames of both tracks, the last one first."""
        wanted = REORDERED_FRAMES if self.video.reordered else ORDERED_FRAMES
        of_audio = 1 if video.pid != NO_PID else ORDERED_FRAMES
        end = self.end
        while end > 0:
            start = max(end - WINDOW_BYTES, 0)
            window = self.window(start, end)
            at = len(window) - PACKET_BYTES
            while at >= 0:
                if window[at + 1] & 0xC0 == 0x40 and window[at] == SYNC_BYTE:
                    pid = (window[at + 1] & 0x1F) << 8 | window[at + 2]
                    if pid == video.pid or pid == audio.pid:
                        self.back_unit(video if pid == video.pid else audio, window, at, start)
                at -= PACKET_BYTES
                if (video.pid == NO_PID or len(video.times) >= wanted) and (
                    audio.pid == NO_PID or len(audio.times) >= of_audio
                ):
                    return
            if self.end - start >= self.reach_bytes and (video.pid == NO_PID or len(video.times) >= wanted):
                return
            end = start

    def back_unit(self, edge: Edge, window: bytes, at: int, base: int) -> None:
        offset = payload_at(window, at)
        pts = pts_at(window, offset, at + PACKET_BYTES)
        if pts >= 0:
            edge.times.append(pts)
            edge.places.append(base + at)
            edge.sizes.append(window[offset + 4] << 8 | window[offset + 5])

    # --- what follows -----------------------------------------------------------------------------------------

    def payload_of(self, pid: int, place: int, packets: int) -> bytes:
        """What up to so many packets of a stream carry, from the byte `place` on."""
        found = b""
        while place < self.end and packets:
            end = min(place + min(2 * packets * PACKET_BYTES, WINDOW_BYTES), self.end)
            window = self.window(place, end)
            at = 0
            while at < len(window) and packets:
                if window[at] == SYNC_BYTE and (window[at + 1] & 0x1F) << 8 | window[at + 2] == pid:
                    found += window[payload_at(window, at) : at + PACKET_BYTES]
                    packets -= 1
                at += PACKET_BYTES
            place = end
        return found

    def beginning(self, pid: int, place: int, codec: Codec) -> Picture:
        """How the picture begins whose first packet is at `place`."""
        for packets in (1, 6, PICTURE_PACKETS):
            data = self.payload_of(pid, place, packets)
            picture = first_picture(data[9 + data[8] :], codec)  # behind the PES header
            if picture.end or (codec is not H264 and codec is not H265):
                break
        return picture


def read(data: bytes | bytearray | memoryview, reach_bytes: int = REACH_BYTES) -> Media | None:
    """What the stream in `data` holds; None when no frame starts in it: then there is nothing that could be played.

    Args:
        data: bytes, one-dimensional and contiguous, packets of 188 bytes from byte 0 (`mpegts.aligned`). Read in place,
            piece by piece, and no view of it is left when this returns.
        reach_bytes: how far from either end sound and tables are looked for when there is a picture.

    Returns:
        A duration of 0 ticks when it can't be told: a single frame. Raises nothing, on any content. Time is at worst
        linear in `len(data)`; memory is some 10 KB.
    """
    reader = Reader(data, reach_bytes)
    reader.read_front()
    video, audio = reader.video, reader.audio
    if not video.times and not audio.times:
        return None
    last_video, last_audio = Edge(), Edge()
    last_video.pid, last_audio.pid = video.pid, audio.pid
    reader.read_back(last_video, last_audio)
    duration_ticks = _duration_ticks(reader, video, last_video)
    if not duration_ticks:
        duration_ticks = _duration_ticks(reader, audio, last_audio)
    return Media(duration_ticks, _facts(reader, last_video, last_audio))


def _duration_ticks(reader: Reader, front: Edge, back: Edge) -> int:
    """From the earliest frame to the latest, and one usual step for that one to be shown; 0: not known."""
    if not front.times or not back.times:
        return 0
    span = _span(front, back)
    in_order = front.reordered or (_ascends(front.times) and _ascends(back.times[::-1]))
    if not in_order or not 0 <= span <= mpegts.JUMP_TICKS:
        return mpegts.duration_ticks(reader.data) or 0
    if front is reader.audio:
        return span + _last_sound(reader, back) if span or len(back.times) == 1 else 0
    step = _usual_step(back.times)
    return span + step if step else 0


def _span(front: Edge, back: Edge) -> int:
    """Signed ticks from the earliest frame of the front to the latest of the back."""
    origin = front.times[0]
    return max(ticks_between(origin, t) for t in back.times) - min(
        ticks_between(origin, t) for t in front.times
    )


def _ascends(times: list[int]) -> bool:
    return all(ticks_between(a, b) >= 0 for a, b in pairwise(times))


def _usual_step(times: list[int]) -> int:
    """`median_step` of presentation times in any order."""
    origin = times[0]
    return median_step(sorted([ticks_between(origin, t) for t in times]))


def median_step(ordered: list[int]) -> int:
    """Median distance of neighbours in time, ticks, given in ascending order; 0 when all are equal."""
    steps = sorted([b - a for a, b in pairwise(ordered) if b > a])
    return steps[len(steps) // 2] if steps else 0


def _last_sound(reader: Reader, back: Edge) -> int:
    """How long the last packet of sound plays, ticks: AAC is counted, of anything else the bytes are compared with
    those of the packet before. A muxer puts many frames under one time, and fewer into the last packet of a chunk."""
    data = reader.payload_of(back.pid, back.places[0], 1 << 16)
    ticks = _aac_ticks(data[9 + data[8] :]) if len(data) > 9 else 0
    if ticks:
        return ticks
    step = _usual_step(back.times)
    if len(back.sizes) > 1 and back.sizes[0] and back.sizes[1]:
        return step * back.sizes[0] // back.sizes[1]
    return step


def _aac_ticks(data: bytes) -> int:
    """How long the AAC frames in `data` play (ADTS: ISO/IEC 13818-7 §6.2); 0 when it is no AAC."""
    at = blocks = 0
    rate = 0
    while at + 7 <= len(data) and data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0:
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        rate = _AAC_RATES[data[at + 2] >> 2 & 15]
        if size < 7 or not rate:
            return 0
        blocks += (data[at + 6] & 3) + 1
        at += size
    return blocks * 1024 * 90_000 // rate if rate else 0


_AAC_RATES = [
    96000,
    88200,
    64000,
    48000,
    44100,
    32000,
    24000,
    22050,
    16000,
    12000,
    11025,
    8000,
    7350,
    0,
    0,
    0,
]


def _facts(reader: Reader, last_video: Edge, last_audio: Edge) -> MediaFacts:
    video, audio = reader.video, reader.audio
    found = reader.program
    video_codec = audio_codec = Codec.NONE
    if video.times:
        video_codec = Codec.OTHER if found is None else found.codecs.get(video.pid, Codec.OTHER)
    if audio.times:
        audio_codec = Codec.OTHER if found is None else found.codecs.get(audio.pid, Codec.OTHER)
    key_frame, sets = KeyFrame.UNKNOWN, b""
    if video.times:
        picture = reader.beginning(video.pid, video.places[0], video_codec)
        key_frame, sets = picture.key_frame, picture.sets
        if reader.key_packet:
            key_frame = KeyFrame.YES
    elif audio.times:
        key_frame = KeyFrame.YES
    parameters, width, height = described(sets, video_codec)
    if audio_codec is Codec.AAC and (parameters or not video.times):
        parameters = with_sound(reader.payload_of(audio.pid, audio.places[0], 1), parameters)
    return MediaFacts(
        _times(video, last_video),
        _times(audio, last_audio),
        video_codec,
        audio_codec,
        0 if found is None else found.fingerprint,
        parameters,
        width,
        height,
        key_frame,
    )


def with_sound(data: bytes, parameters: int) -> int:
    """The hash of parameters with what AAC says of profile, rate and channels, in the packet in which sound starts."""
    start = 9 + data[8] if len(data) > 9 else 0
    if len(data) < start + 4 or data[start] != 0xFF:
        return parameters
    said = bytes((data[start + 2] & 0xFD, data[start + 3] & 0xC0))
    return zlib.crc32(said, parameters) or 1


def _times(front: Edge, back: Edge) -> Times | None:
    """First and last time of a track; None when there is none, or when a clock was set back inside."""
    if not front.times or not back.times:
        return None
    span = _span(front, back)
    if not 0 <= span <= MAX_SPAN_TICKS:
        return None
    origin = front.times[0]
    first = origin + min([ticks_between(origin, t) for t in front.times])
    return Times(first % CLOCK_TICKS, span)


def payload_at(window: bytes, at: int) -> int:
    """Where the payload of the packet at `at` begins, at most at its end (§2.4.3.2)."""
    control = window[at + 3] & 0xF0  # the upper two bits: scrambled
    if control == 0x10:
        return at + 4
    if control == 0x30:
        return min(at + 5 + window[at + 4], at + PACKET_BYTES)
    return at + PACKET_BYTES


def pts_at(window: bytes, at: int, end: int) -> int:
    """The time in the header of a PES packet (§2.4.3.6) that starts at `at`; −1 when there is none before `end`."""
    if at + 14 > end or window[at] or window[at + 1] or window[at + 2] != 1 or not window[at + 7] & 0x80:
        return -1
    if (window[at + 3] < 0xC0 and window[at + 3] != PRIVATE_STREAM) or window[at + 3] > 0xEF:
        return -1
    return (
        (window[at + 9] & 0x0E) << 29
        | window[at + 10] << 22
        | (window[at + 11] & 0xFE) << 14
        | window[at + 12] << 7
        | window[at + 13] >> 1
    )
