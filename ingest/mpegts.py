"""Duration of an MPEG transport stream from its timestamps (ISO/IEC 13818-1).

A chunk is in memory when it is asked for its duration, on the hot path, between the last byte of its body
and its encryption. So the packets are never copied nor walked in Python: one strided pass looks at one
32-bit word of each 188-byte packet, and only the few packets in which a frame starts are read further.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

PACKET_BYTES: Final = 188
"""ISO/IEC 13818-1 §2.4.3.2. The 192- and 204-byte variants (discs, broadcast) are not accepted."""

SYNC_BYTE: Final = 0x47

TICKS_PER_MS: Final = 90
"""PTS counts a 90 kHz clock (§2.4.3.7)."""

JUMP_TICKS: Final = 10_000 * TICKS_PER_MS
"""A step between neighbouring frames above this (10 s), and above four times the usual step, is a clock
that was set, not time that passed. A guess: far above any camera's frame spacing (a time lapse's usual
step is large itself), far below what a restarted clock jumps by."""

_WORDS_PER_PACKET = PACKET_BYTES // 4
_PTS_MODULUS = 1 << 33

# The first four bytes of a packet as a little-endian word (§2.4.3.2): 0x47; error indicator clear and
# payload_unit_start set; not scrambled, with payload. Everything else is not asked.
_HEADER_MASK = 0xD000C0FF
_HEADER_WANTED = 0x10004047

# A PES header as far as the PTS (§2.4.3.6), the marker bits still in it.
_PES = np.dtype(
    [
        ("start", ">u4"),  # 00 00 01, stream id
        ("length", ">u2"),
        ("flags", ">u2"),  # 0x0080: PTS present
        ("header_bytes", "u1"),
        ("pts_high", "u1"),  # ....hhh1
        ("pts_middle", ">u2"),  # 15 bits and a marker
        ("pts_low", ">u2"),
    ]
)
_PES_BYTES = _PES.itemsize
_PTS_PRESENT = 0x0080

# (mask, wanted) on the word of start code and stream id (§2.4.3.7, table 2-22), best clock first: video,
# audio, then private stream 1 (AC-3 and the like).
_STREAMS = (
    (0xFFFFFFF0, 0x000001E0),
    (0xFFFFFFE0, 0x000001C0),
    (0xFFFFFFFF, 0x000001BD),
)

_Int64s = npt.NDArray[np.int64]


def duration_ticks(data: bytes | bytearray | memoryview) -> int | None:
    """How long the stream in `data` plays, in ticks of 90 kHz, or None when it does not tell.

    The timestamps of one elementary stream are used: of the first video stream with two of them, else
    the first audio stream. The duration runs from the earliest frame to the latest (frames may be stored
    out of order) plus one usual frame interval, for the last frame is shown too. The 33-bit clock may
    wrap in between.

    Not seen: a PES header split over two packets (no muxer in use does that), timestamps in scrambled or
    damaged packets, and whatever follows the last whole packet.

    Args:
        data: bytes, one-dimensional and contiguous; packets start at 0. Read in place, and no view of it
            is left when this returns.

    Returns:
        At least 1, or None. Never raises on any content. Time is linear in `len(data)`; memory is some
        KB on real video, and below three quarters of `len(data)` even when every packet starts a frame.
    """
    packets = len(data) // PACKET_BYTES
    if packets == 0:
        return None
    start, pid, offset = _unit_starts(data, packets)
    if start.size < 2:
        return None
    # A view of the PES header that would start at each byte of the chunk: no copy, and one gather takes
    # the whole headers out of it, where an index per byte would need fourteen.
    everywhere: npt.NDArray[Any] = np.ndarray(
        (packets * PACKET_BYTES - _PES_BYTES + 1,), f"V{_PES_BYTES}", data, 0, (1,)
    )
    pes = everywhere[start + offset].view(_PES)
    has_pts = (pes["flags"] & _PTS_PRESENT) != 0
    for mask, wanted in _STREAMS:
        found = np.flatnonzero(has_pts & ((pes["start"] & mask) == wanted))
        if found.size >= 2:
            found = found[pid[found] == pid[found[0]]]
            if found.size >= 2:
                return _span_ticks(_pts(pes[found]))
    return None


def _unit_starts(data: bytes | bytearray | memoryview, packets: int) -> tuple[_Int64s, _Int64s, _Int64s]:
    """Where payload units start: byte of the packet, its PID, offset of the payload inside the packet.

    Only packets in which a PES header with a PTS has room behind the adaptation field.
    """
    header = np.frombuffer(data, "<u4", packets * _WORDS_PER_PACKET)[::_WORDS_PER_PACKET]
    index = np.flatnonzero((header & _HEADER_MASK) == _HEADER_WANTED)
    header = header[index].astype(np.int64)
    start = index * PACKET_BYTES
    # The adaptation field (§2.4.3.4), where there is one, is a length byte and as many bytes as it says.
    has_field = (header >> 29) & 1
    offset = 4 + has_field * (1 + np.frombuffer(data, np.uint8)[start + 4].astype(np.int64))
    roomy = offset <= PACKET_BYTES - _PES_BYTES
    pid = (header & 0x1F00) | ((header >> 16) & 0xFF)
    return start[roomy], pid[roomy], offset[roomy]


def _pts(pes: npt.NDArray[Any]) -> _Int64s:
    """The 33-bit timestamps of PES headers, marker bits taken out (§2.4.3.7). Shape as `pes`."""
    high = (pes["pts_high"].astype(np.int64) >> 1) & 7
    middle = pes["pts_middle"].astype(np.int64) >> 1
    low = pes["pts_low"].astype(np.int64) >> 1
    return (high << 30) | (middle << 15) | low


def _span_ticks(pts: _Int64s) -> int | None:
    """Earliest to latest of at least two timestamps, plus the median step; None when all are equal."""
    # Distance from the first one, the short way round the clock, so that a wrap is no jump.
    half = _PTS_MODULUS // 2
    distance = (pts - pts[0] + half) % _PTS_MODULUS
    distance.sort()
    steps = np.diff(distance)
    steps = steps[steps > 0]
    if steps.size == 0:
        return None
    steps.sort()
    usual = int(steps[steps.size // 2])
    # A camera that set its clock inside the chunk did not record for the hours in between.
    jump_ticks = max(JUMP_TICKS, 4 * usual)
    total = int(steps.sum())
    if steps[-1] > jump_ticks:
        jumps = steps[steps > jump_ticks]
        total += usual * jumps.size - int(jumps.sum())
    return total + usual


# --- where packets begin --------------------------------------------------------------------------------------------

MAX_JUNK_BYTES = 5 * PACKET_BYTES
"""Before the first packet: as far as hls.js looks for it (`TSDemuxer.syncOffset`)."""
MAX_STRAY_BYTES = 64 * 1024
"""Inside a chunk, from one packet to the next one: beyond it the rest of the chunk is not read."""
MAX_RUNS = 64
"""Stretches of packets in a chunk with stray bytes between them; what follows is not read."""
_CONFIRMED = 3
"""Sync bytes in a row, a packet apart, that make a packet's start: one chance in 10**7 to be right by accident."""
CONFIRMED_BYTES: Final = (_CONFIRMED - 1) * PACKET_BYTES
"""From a packet's start on that tell that it is one, but for its own."""
_TAIL_PACKETS = 5


def junk_bytes(data: bytes | bytearray | memoryview) -> int:
    """How many bytes come before the first packet, 1 to MAX_JUNK_BYTES; 0: no packets were found behind junk."""
    at = next_packet(data, 1, MAX_JUNK_BYTES)
    return max(at, 0)


def other_packet_bytes(data: bytes | bytearray | memoryview) -> int:
    """The packet size of packets with a time stamp before them (192) or a checksum behind them (204); else 0."""
    for size, first in ((192, 4), (204, 0)):
        starts = bytes(data[first : first + 5 * size : size])
        if len(starts) == 5 and starts.count(SYNC_BYTE) == 5:
            return size
    return 0


def aligned(data: bytes | bytearray | memoryview, start: int) -> bytes | bytearray | memoryview:
    """The packets of a chunk, from byte 0 on: `data` itself or a part of it, where its last packets are where the first
    ones let expect them; else a copy without the stray bytes and damaged packets between them.

    Args:
        start: byte of the first packet.
    """
    packets = (len(data) - start) // PACKET_BYTES
    tail = max(packets - _TAIL_PACKETS, 0) * PACKET_BYTES + start
    ends = bytes(data[tail : start + packets * PACKET_BYTES : PACKET_BYTES])
    if ends.count(SYNC_BYTE) == len(ends):
        return data if start == 0 else memoryview(data)[start:]
    whole = bytearray()
    everything = np.frombuffer(data, np.uint8)
    for _ in range(MAX_RUNS):
        packets = (len(data) - start) // PACKET_BYTES
        wrong = np.flatnonzero(everything[start : start + packets * PACKET_BYTES : PACKET_BYTES] != SYNC_BYTE)
        run = int(wrong[0]) if wrong.size else packets
        whole += data[start : start + run * PACKET_BYTES]
        start += run * PACKET_BYTES
        if not wrong.size:
            break
        # Bytes may be missing as well as added: then the next packet begins before this place.
        following = next_packet(data, start - PACKET_BYTES + 1, MAX_STRAY_BYTES)
        if following < 0:
            break
        start = following
    return whole


def next_packet(data: bytes | bytearray | memoryview, start: int, reach_bytes: int) -> int:
    """The first byte from `start` on, within `reach_bytes`, at which packets begin; −1 when there is none."""
    piece = (
        np.frombuffer(data, np.uint8)[start : start + reach_bytes + (_CONFIRMED - 1) * PACKET_BYTES]
        == SYNC_BYTE
    )
    places = len(piece) - (_CONFIRMED - 1) * PACKET_BYTES
    if places <= 0:
        return -1
    found = piece[:places].copy()
    for packet in range(1, _CONFIRMED):
        found &= piece[packet * PACKET_BYTES : packet * PACKET_BYTES + places]
    at = int(found.argmax())
    return start + at if found[at] else -1
