"""Chunks to fragmented MP4, in a child: packets are put into another container, never decoded. PyAV is imported here
and in `pictures` alone.

A chunk is one fragment: moof and mdat, as CMAF has them (ISO/IEC 23000-19), and its init is ftyp and moov. The same
decoder set-up gives the same init, byte for byte. Video has a clock of 90 kHz, audio one of its sample rate. The first
video and the first audio track are taken.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.logging
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

from service.remuxing import silence as silent
from service.remuxing.boxes import normalised, place, split_file

av.logging.set_level(None)

CLOCK_HZ = 90_000
TURN = 1 << 33
"""Ticks after which a transport stream's clock begins anew."""
VIDEO = frozenset({"h264", "hevc"})
AUDIO = frozenset({"aac", "mp2", "mp3", "opus", "ac3", "eac3"})
BELIEVED_TICKS = 10 * CLOCK_HZ
"""A time that the caller knows of a chunk is taken for right when it is so near to what is found in it."""
MAX_PACKETS = 200_000
"""Of one chunk: 89,240 packets fit in 16 MiB of MPEG-TS."""
BUFFER_BYTES = 1 << 20
READ_OPTIONS = {
    "protocol_whitelist": "none",  # no file, no network, whatever the media names
    "fpsprobesize": "0",
    "skip_frame": "all",  # what is found out by decoding is not needed: headers and parsers tell sizes and rates
    "skip_estimate_duration_from_pts": "1",
    "max_pixels": str(8192 * 8192),
    "enable_drefs": "0",
}
WRITE_OPTIONS = {
    "movflags": "+frag_custom+delay_moov+default_base_moof+frag_discont+skip_trailer",
    "use_editlist": "0",
    "write_btrt": "0",
    "brand": "iso6",
    "avoid_negative_ts": "disabled",
    "video_track_timescale": str(CLOCK_HZ),
}


class Unplayable(Exception):
    """It can't be done with this media. `code`: for whoever asked."""

    def __init__(self, detail: str, code: str = "unplayable_media") -> None:
        super().__init__(detail)
        self.code = code


class _Track(NamedTuple):
    """A track that is taken, and its packets in order of decoding."""

    source: Stream
    packets: list[Packet[Stream]]


def opened(parts: Sequence[memoryview], kind: str) -> InputContainer:
    """The media of a job: `ts`, or `mp4`, which may have its header in a part of its own. Demuxers are named, so that
    no other one is tried.

    Raises:
        av.FFmpegError, Unplayable: it is none of it.
    """
    if kind not in ("ts", "mp4"):
        raise Unplayable(f"no kind of media: {kind[:20]}")
    name, demuxers = ("mpegts", "mpegts") if kind == "ts" else ("mov", "mov,mp4,m4a,3gp,3g2,mj2")
    options = READ_OPTIONS | {"format_whitelist": demuxers}
    if kind == "ts":
        del options["enable_drefs"]
    file = io.BytesIO(b"".join(parts))
    return av.open(file, mode="r", format=name, options=options, buffer_size=BUFFER_BYTES)


def fragment(
    parts: Sequence[memoryview],
    *,
    kind: str,
    near: int | None = None,
    at: int | None = None,
    of: int | None = None,
    until: int | None = None,
    begins: bool = False,
    sequence: int = 1,
    silence: bool = False,
) -> tuple[dict[str, Any], list[bytes | memoryview]]:
    """One chunk as init and fragment. Times are ticks of 90 kHz.

    Args:
        kind: `ts` or `mp4`.
        near: of media whose clock runs on: its times are kept, but for whole turns of the clock, so that they come as
            near to this as they can.
        at: instead, where the media's time `of` comes to lie; None: its earliest picture (or sound, without picture).
        until: sound of which more than half a frame lies behind it is left out: something else begins there.
        begins: nothing of it may lie before `at`: sound is left out, and pictures are decoded later. Something else
            ends there.
        sequence: number of the fragment.
        silence: pictures without sound get a track of silence.

    Returns:
        `first` and `end`: ticks of the earliest picture (sound) and of the end of the latest one.

    Raises:
        Unplayable: nothing in it can be played from MP4.
    """
    with opened(parts, kind) as source:
        tracks = _tracks(source)
        first, end = _extent(tracks[0])
        if at is not None:
            origin = first
            if of is not None:
                short = (of - first + TURN // 2) % TURN - TURN // 2
                origin = first + short if abs(short) <= BELIEVED_TICKS else first
            shift = at - origin
            if until is None and of is None:  # a clip of a playlist, which ends where another may begin
                _cut_sound(tracks, end - first)
        else:
            shift = 0 if near is None else (near - first + TURN // 2) // TURN * TURN
            earliest = shift + min(_ticks(track, track.packets[0].dts) for track in tracks)
            if (
                earliest < 0
            ):  # a decode time can't be; of a clip it is its first pictures' that are shown out of order
                shift += -earliest if kind == "mp4" else -(earliest // TURN) * TURN
        floor = at if begins and at is not None else None
        written = _written(tracks, kind, shift, floor, until, sequence, silence=silence)
    found = {"first": first + shift, "end": end + shift}
    return found, list(written)


CLIP_TIME_TICKS = 45
"""How far off a clip's time may be, which is in milliseconds: half of one, in 90 kHz."""


def _cut_sound(tracks: list[_Track], ticks: int) -> None:
    """Leave out the frames of sound that begin when the pictures, so many ticks of 90 kHz, have ended: they would be
    decoded after the next clip's first one, and Chromium then takes no picture until the next key frame. It does the
    same where two frames of sound begin more than two lengths of a frame apart, so one that reaches beyond stays: where
    clips are parts of one recording, the next one's sound begins where that ends."""
    if tracks[0].source.type != "video":
        return
    for track in tracks[1:]:
        up, down = _scale(track)
        end = _time(track.packets[0].pts) + (ticks - CLIP_TIME_TICKS) * down // up
        track.packets[1:] = [each for each in track.packets[1:] if _time(each.pts) <= end]


def _tracks(source: InputContainer) -> list[_Track]:
    """The first track of each kind that has frames, video first."""
    chosen: dict[int, _Track] = {}
    kinds: set[str] = set()
    for stream in sorted(source.streams, key=lambda each: (each.type != "video", each.index)):
        codecs = {"video": VIDEO, "audio": AUDIO}.get(stream.type, frozenset())
        if _codec(stream) in codecs and stream.type not in kinds:
            kinds.add(stream.type)
            chosen[stream.index] = _Track(stream, [])
    count = 0
    for packet in source.demux([track.source for track in chosen.values()]):
        track = chosen.get(packet.stream_index)
        if track is None or not packet.size or packet.dts is None:
            continue
        if packet.pts is None:
            packet.pts = packet.dts
        track.packets.append(packet)
        count += 1
        if count > MAX_PACKETS:
            raise Unplayable(f"more than {MAX_PACKETS} frames")
    tracks = [track for track in chosen.values() if track.packets]
    if not tracks:
        raise Unplayable("no frame of H.264, H.265, AAC, MP2, MP3, Opus or AC-3 in it")
    return tracks


def _codec(stream: Stream) -> str:
    """The codec, whatever its decoder is called."""
    return str(stream.codec_context.codec.canonical_name)


def _scale(track: _Track) -> tuple[int, int]:
    """Ticks of 90 kHz in a unit of a track's time, as a fraction."""
    base = track.source.time_base
    if base is None:
        raise Unplayable("a track without a clock")
    return base.numerator * CLOCK_HZ, base.denominator


def _extent(track: _Track) -> tuple[int, int]:
    """Presentation times of a track's earliest frame and of its latest one's end."""
    up, down = _scale(track)
    times = sorted(packet.pts for packet in track.packets if packet.pts is not None)
    latest = max(track.packets, key=lambda packet: packet.pts or 0)
    length = latest.duration or (times[-1] - times[-2] if len(times) > 1 else 0)
    return times[0] * up // down, (times[-1] + length) * up // down


def _written(
    tracks: list[_Track],
    kind: str,
    shift: int,
    floor: int | None,
    until: int | None,
    sequence: int,
    *,
    silence: bool,
) -> tuple[bytes, memoryview]:
    """Init and fragment. The muxer sees times from 0 on; where they lie is written into the fragment afterwards."""
    for track in tracks:
        _move(track, shift, floor, until)
    tracks = [track for track in tracks if track.packets]
    if not tracks:
        raise Unplayable("nothing of it lies within its bounds")
    begin = min(_ticks(track, track.packets[0].dts) for track in tracks)
    extent = _extent(tracks[0])
    file = io.BytesIO()
    add: dict[int, int] = {}
    with av.open(file, "w", format="mp4", options=WRITE_OPTIONS, buffer_size=BUFFER_BYTES) as out:
        queues: list[tuple[int, int, Packet[Stream]]] = []
        for number, track in enumerate(tracks, 1):
            stream = _added(out, track, kind)
            up, down = _scale(track)
            offset = begin * down // up
            strips = kind == "ts" and _codec(track.source) == "aac"
            base = track.source.time_base
            assert base is not None, "its scale is known"
            for packet in track.packets:
                moved = _without_adts(packet, base) if strips else packet
                moved.dts, moved.pts = _time(packet.dts) - offset, _time(packet.pts) - offset
                moved.stream = stream
                queues.append((_time(moved.dts) * up // down, number, moved))
            rate = CLOCK_HZ
            if track.source.type == "audio":
                rate = getattr(track.source.codec_context, "sample_rate", 0) or CLOCK_HZ
            add[number] = offset * up * rate // (down * CLOCK_HZ)
        if silence and [track.source.type for track in tracks] == ["video"]:
            number, stream = len(tracks) + 1, silent.track(out)
            offset = add[number] = begin * silent.RATE_HZ // CLOCK_HZ
            for packet in silent.frames(*extent):
                packet.dts = packet.pts = _time(packet.dts) - offset
                packet.stream = stream
                queues.append((packet.dts * CLOCK_HZ // silent.RATE_HZ, number, packet))
        queues.sort(key=lambda each: each[:2])
        for _, _, packet in queues:
            out.mux_one(packet)
    init, data = split_file(file.getbuffer())
    place(data, sequence, add)
    return normalised(init), data


def _ticks(track: _Track, time: int | None) -> int:
    up, down = _scale(track)
    return _time(time) * up // down


def _time(time: int | None) -> int:
    if time is None:
        raise Unplayable("a frame without a time")
    return time


def _move(track: _Track, shift: int, floor: int | None, until: int | None) -> None:
    """Shift the times of a track, and bring it within its bounds: see `fragment`. Decode times ascend afterwards."""
    up, down = _scale(track)
    by = shift * down // up
    least = None if floor is None else -(-floor * down // up)
    most = None if until is None else until * down // up
    kept: list[Packet[Stream]] = []
    before: int | None = None
    is_video = track.source.type == "video"
    for packet in track.packets:
        packet.dts, packet.pts = _time(packet.dts) + by, _time(packet.pts) + by
        if not is_video:
            if least is not None and packet.pts < least:
                continue
            if most is not None and packet.pts + (packet.duration or 0) // 2 > most:
                continue
        dts = packet.dts
        if least is not None:
            dts = max(dts, least)
        if before is not None:
            dts = max(dts, before + 1)
        packet.dts, packet.pts = dts, max(packet.pts, dts)
        before = dts
        kept.append(packet)
    track.packets[:] = kept


def _added(out: OutputContainer, track: _Track, kind: str) -> Stream:
    stream = out.add_stream_from_template(track.source)
    context = stream.codec_context
    codec = _codec(track.source)
    if codec == "hevc":
        context.codec_tag = "hvc1"  # Apple's players refuse hev1
    if kind == "ts" and codec == "aac":
        context.extradata = _audio_config(track.packets[0])
    if track.source.type == "video":
        context.extradata = _parameter_sets(bytes(context.extradata or b""), codec)
    if track.source.type == "video" and not context.extradata:
        raise Unplayable("its pictures are set up by a chunk before it", "no_parameters")
    return stream


def _parameter_sets(extradata: bytes, codec: str) -> bytes:
    """Parameter sets as a byte stream (ITU-T H.264 annex B), each once and without zeros behind it, which depend on
    what comes next in the stream. In boxes (`avcC`, `hvcC`) they stay as they are."""
    if not extradata.startswith((b"\0\0\1", b"\0\0\0\1")):
        return extradata
    sets: dict[bytes, None] = {}
    for unit in extradata.split(b"\0\0\1"):
        unit = unit.rstrip(b"\0")
        if unit and (unit[0] & 31 in (7, 8) if codec == "h264" else unit[0] >> 1 & 63 in (32, 33, 34)):
            sets[unit] = None
    return b"".join(b"\0\0\0\1" + unit for unit in sets)


def _audio_config(packet: Packet[Stream]) -> bytes:
    """AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) of what an ADTS header (§1.A.2.2) says."""
    head = bytes(memoryview(packet)[:7])
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF0 != 0xF0:
        raise Unplayable("AAC without ADTS headers")
    kind, rate, channels = (head[2] >> 6) + 1, head[2] >> 2 & 15, (head[2] & 1) << 2 | head[3] >> 6
    if rate > 12 or not channels:
        raise Unplayable("AAC of no known rate or channels")
    return bytes([kind << 3 | rate >> 1, (rate & 1) << 7 | channels << 3])


def _without_adts(packet: Packet[Stream], time_base: Fraction) -> Packet[Stream]:
    """A packet without its ADTS header. To ask each packet for its `time_base`, that of its track, takes 15 µs."""
    view = memoryview(packet)
    if len(view) < 7 or view[0] != 0xFF:
        raise Unplayable("AAC without ADTS headers")
    bare: Packet[Stream] = Packet(bytes(view[7 if view[1] & 1 else 9 :]))
    bare.pts, bare.dts, bare.duration = packet.pts, packet.dts, packet.duration
    bare.time_base = time_base
    bare.is_keyframe = True
    return bare
