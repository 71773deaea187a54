"""The body that the load generator sends: bytes with the shape of an MPEG-TS segment.

Real ones are H.264, which neither compresses nor repeats; so is this. One buffer serves all requests of
a run: what is unique about a chunk is its device and capture time.
"""

from __future__ import annotations

import random

PACKET_BYTES = 188
SYNC = 0x47
PAT_PID = 0x0000
MAP_PID = 0x1000
VIDEO_PID = 0x0100
CHUNK_DURATION_MS = 4000
"""What a camera says of each chunk: HLS segments are 2 to 6 s."""
FRAMES = 100
"""At 25 a second."""
_FRAME_TICKS = 3600

_PAT = bytes.fromhex("0000b00d0001c100000001f000") + bytes(4)
"""One program, its map under MAP_PID. (Checksums are zeros: nobody looks.)"""
_PMT = bytes.fromhex("0002b0120001c10000e100f0001be100f000") + bytes(4)
"""One stream, H.264, under VIDEO_PID."""
_KEY_FRAME = bytes.fromhex(
    "0000000109f0"  # access unit delimiter
    "0000000167640028acd940780227e5c05a808080a0000003002000000781e30632c0"  # 1920 x 1080
    "0000000168ebe3cb22c0"
    "0000000165"
)
_OTHER_FRAME = bytes.fromhex("0000000109f00000000141")


def transport_stream(size_bytes: int, seed: int = 0) -> bytearray:
    """Return the most whole MPEG-TS packets that fit into `size_bytes`, at least one.

    As a segmenter makes them: program tables, where there is room for more than frames, then the frames of four
    seconds, a key frame first; after a frame's header a random payload. The same arguments give the same bytes.
    """
    packets = max(1, size_bytes // PACKET_BYTES)
    stream = bytearray(random.Random(seed).randbytes(packets * PACKET_BYTES))
    tables = [(PAT_PID, _PAT), (MAP_PID, _PMT)] if packets > FRAMES else []
    frames = min(FRAMES, packets - len(tables))
    starts = {len(tables) + i * (packets - len(tables)) // frames: _frame(i) for i in range(frames)}
    for index in range(packets):
        pid, content = tables[index] if index < len(tables) else (VIDEO_PID, starts.get(index, b""))
        head = bytes((SYNC, bool(content) << 6 | pid >> 8, pid & 0xFF, 0x10 | index & 0x0F)) + content
        if index < len(tables):
            head = head.ljust(PACKET_BYTES, b"\xff")
        stream[index * PACKET_BYTES : index * PACKET_BYTES + len(head)] = head
    return stream


def _frame(number: int) -> bytes:
    """The start of a frame: its PES header and first units."""
    pts = number * _FRAME_TICKS
    clock = (0x21_0001_0001 | (pts >> 15) << 17 | (pts & 0x7FFF) << 1).to_bytes(5, "big")
    return b"\0\0\1\xe0\0\0\x80\x80\5" + clock + (_OTHER_FRAME if number else _KEY_FRAME)
