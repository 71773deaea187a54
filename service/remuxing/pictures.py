"""Pictures of chunks, in a child: one key frame is decoded, made small and encoded as JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
from av.codec import CodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from service.remuxing.jobs import Unplayable, opened

MAX_SIDE = 4096
QSCALE = 4
"""Of MJPEG's 2 to 31: pictures of 320 pixels take some 10 kB."""


def still(
    parts: Sequence[memoryview], *, kind: str, at_ms: int, width: int
) -> tuple[dict[str, Any], list[bytes]]:
    """The key frame at or before a time of a chunk, else its first one.

    Args:
        at_ms: from the chunk's earliest picture on.
        width: in pixels, at most; a picture is made no larger than it is.

    Returns:
        `offset_ms`: when it is shown, from the chunk's earliest picture on; `width` and `height`.

    Raises:
        Unplayable: `no_picture`, no key frame in it can be decoded.
    """
    with opened(parts, kind) as source:
        stream = next(iter(source.streams.video), None)
        if stream is None:
            raise Unplayable("there is no picture in it", "no_picture")
        frame, offset_ms = _key_frame(source.demux(stream), stream, at_ms)
        small = _scaled(frame, width)
        return {"offset_ms": offset_ms, "width": small.width, "height": small.height}, [_jpeg(small)]


def _key_frame(packets: Any, stream: VideoStream, at_ms: int) -> tuple[VideoFrame, int]:
    base = stream.time_base or Fraction(1, 90_000)
    keys, earliest = [], None
    for packet in packets:
        if packet.pts is None or not packet.size:
            continue
        earliest = packet.pts if earliest is None else min(earliest, packet.pts)
        if packet.is_keyframe:
            keys.append(packet)
    if earliest is None or not keys:
        raise Unplayable("there is no key frame in it", "no_picture")
    ms = [int((packet.pts - earliest) * base * 1000) for packet in keys]
    last = max((i for i, each in enumerate(ms) if each <= at_ms), default=0)
    context = stream.codec_context
    context.thread_count = 1
    context.skip_frame = "NONKEY"
    for i in (*range(last, -1, -1), *range(last + 1, len(keys))):
        try:
            context.flush_buffers()
            frames = [*context.decode(keys[i]), *context.decode(None)]
        except av.FFmpegError:
            continue  # the next best one
        if frames:
            return frames[0], ms[i]
    raise Unplayable("no key frame in it can be decoded", "no_picture")


def _scaled(frame: VideoFrame, width: int) -> VideoFrame:
    if not (0 < frame.width <= 8192 and 0 < frame.height <= 8192):
        raise Unplayable("a picture without a size", "no_picture")
    wide = max(min(width, frame.width, MAX_SIDE) & ~1, 2)
    high = max(min(round(frame.height * wide / frame.width), MAX_SIDE) & ~1, 2)
    return frame.reformat(wide, high, "yuvj420p")


def _jpeg(frame: VideoFrame) -> bytes:
    encoder = CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = {"flags": "+qscale", "global_quality": str(118 * QSCALE)}
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def strip(
    parts: Sequence[memoryview], *, columns: int, width: int, height: int
) -> tuple[dict[str, Any], list[bytes]]:
    """JPEGs side by side in rows, as one JPEG. An empty part, and one that can't be decoded, stays grey.

    Args:
        columns, width, height: of the grid, and of each place in it, in pixels; even numbers.

    Raises:
        Unplayable: it would be larger than MAX_SIDE in one direction.
    """
    rows = -(-len(parts) // columns)
    if not parts or columns * width > MAX_SIDE or rows * height > MAX_SIDE:
        raise Unplayable("a strip of this size can't be made", "no_picture")
    sheet = VideoFrame(columns * width, rows * height, "yuvj420p")
    for plane in sheet.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    buffers = [memoryview(plane) for plane in sheet.planes]
    for i, part in enumerate(parts):
        picture = _picture(part, width, height)
        if picture is not None:
            left, top = (width - picture.width) // 4 * 2, (height - picture.height) // 4 * 2
            _paste(picture, buffers, sheet, i % columns * width + left, i // columns * height + top)
    return {"width": sheet.width, "height": sheet.height}, [_jpeg(sheet)]


def _picture(data: memoryview, width: int, height: int) -> VideoFrame | None:
    if not data:
        return None
    decoder = CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, VideoCodecContext)
    decoder.thread_count = 1
    frames = [*decoder.decode(av.Packet(bytes(data))), *decoder.decode(None)]
    if not frames:
        return None
    frame = frames[0]
    wide = min(width, round(frame.width * height / frame.height))
    high = min(height, round(frame.height * width / frame.width))
    return frame.reformat(max(wide & ~1, 2), max(high & ~1, 2), "yuvj420p")


def _paste(picture: VideoFrame, buffers: list[memoryview], sheet: VideoFrame, x: int, y: int) -> None:
    for i, (source, target) in enumerate(zip(picture.planes, sheet.planes, strict=True)):
        half = 1 if i else 0
        wide, high, left, top = picture.width >> half, picture.height >> half, x >> half, y >> half
        rows = memoryview(source)
        for row in range(high):
            to, begin = (top + row) * target.line_size + left, row * source.line_size
            buffers[i][to : to + wide] = rows[begin : begin + wide]


def warm_up() -> None:
    """Have everything loaded that a job needs, for no file can be opened later."""
    frame = VideoFrame(64, 36, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    picture = _jpeg(_scaled(frame, 32))
    strip([memoryview(picture)], columns=1, width=32, height=18)
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as out:
        stream = out.add_stream("mp2", rate=48_000)
        stream.codec_context.layout = "mono"
        sound = av.AudioFrame(format="s16", layout="mono", samples=1152)
        sound.sample_rate = 48_000
        for channel in sound.planes:
            channel.update(bytes(channel.buffer_size))
        out.mux([*stream.encode(sound), *stream.encode(None)])
    from service.remuxing.jobs import fragment

    fragment([memoryview(file.getvalue())], kind="ts")
