"""The body that the load generator sends: bytes with the shape of an MPEG-TS segment.

Real ones are H.264, which neither compresses nor repeats; so is this. One buffer serves all requests of
a run: what is unique about a chunk is its device and capture time.
"""

from __future__ import annotations

import random

PACKET_BYTES = 188
SYNC = 0x47
PAT_PID = 0x0000
VIDEO_PID = 0x0100
CHUNK_DURATION_MS = 4000
"""What a camera says of each chunk: HLS segments are 2 to 6 s."""


def transport_stream(size_bytes: int, seed: int = 0) -> bytearray:
    """Return the most whole MPEG-TS packets that fit into `size_bytes`, at least one.

    Every packet has its sync byte, a PID, a continuity counter and a random payload; the first is where a
    segmenter puts the program association table. The same arguments give the same bytes.
    """
    packets = max(1, size_bytes // PACKET_BYTES)
    stream = bytearray(random.Random(seed).randbytes(packets * PACKET_BYTES))
    for index in range(packets):
        pid = PAT_PID if index == 0 else VIDEO_PID
        starts_unit = index < 2
        stream[index * PACKET_BYTES : index * PACKET_BYTES + 4] = bytes(
            (SYNC, starts_unit << 6 | pid >> 8, pid & 0xFF, 0x10 | index & 0x0F)
        )
    return stream
