"""MP4 files that are put together from fragments whose lengths are known before there are any. Pure.

A chunk becomes a moof and a mdat, a little shorter or longer than the chunk. Its *slot* in the file is as long as it
may get, and a `free` box fills what is left (ISO/IEC 14496-12 §8.1.2). So the place of each byte follows from the
lengths of the chunks: a download that broke goes on anywhere, and only the chunks behind that place are read. The
index (`sidx`, §8.16.3) and the length of the film (`mehd`, §8.8.2) are written before any chunk is read, too.

    ftyp moov free │ sidx │ moof mdat free │ moof mdat free │ …
    INIT_BYTES     │      │ slot_bytes     │
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from service.remuxing.boxes import boxes

LAYOUT_VERSION = 1
"""Of where what lies; a part of the tag of what can be continued."""
CLOCK_HZ = 90_000
INIT_BYTES = 8192
"""Of ftyp and moov with what fills them up: some 1200 bytes of H.264, 2500 of H.265."""
FREE_HEADER_BYTES = 8
_MOVIE_HZ = 1000
"""Ticks of a movie header, as libavformat writes it."""
_SIDX_HEAD = struct.Struct(">I4sIIIQQHH")
_SIDX_ENTRY = struct.Struct(">III")
_MAX_ENTRIES = 65_535
"""References of a `sidx`, which counts them in 16 bits."""
_SAP = 0x9000_0000
"""A subsegment that begins with a stream access point of type 1."""


class Slot(NamedTuple):
    """One chunk in a file. `ticks`: how long it plays, 90 kHz."""

    length_bytes: int
    ticks: int
    begins_with_key: bool


def slot_bytes(chunk_bytes: int, *, is_ts: bool) -> int:
    """Room for a chunk as a fragment. MPEG-TS spends 4 bytes of 188 and fills up each frame's last packet, which is
    more than the 16 bytes that a frame takes in a moof; MP4 may have spent as little as 4 bytes a frame.
    """
    return chunk_bytes + 2048 + (chunk_bytes >> 8 if is_ts else chunk_bytes >> 4) + FREE_HEADER_BYTES


def free(length: int) -> bytes:
    """The header of a `free` box of so many bytes; what is in it does not matter.

    Raises:
        ValueError: shorter than its header, and not empty.
    """
    if not length:
        return b""
    if length < FREE_HEADER_BYTES:
        raise ValueError("no room for a header")
    return struct.pack(">I4s", length, b"free")


def index_bytes(slots: int) -> int:
    """Length of the index of so many slots."""
    return _SIDX_HEAD.size + _SIDX_ENTRY.size * -(-slots // _grouped(slots))


def index(slots: Sequence[Slot], hz: int) -> bytes:
    """The `sidx` of slots that follow it at once. More than fit are listed several at a time.

    Args:
        hz: the clock of the first track, which readers expect here, too.
    """
    each = _grouped(len(slots))
    groups = [slots[i : i + each] for i in range(0, len(slots), each)]
    size = index_bytes(len(slots))
    head = _SIDX_HEAD.pack(size, b"sidx", 1 << 24, 1, hz, 0, 0, 0, len(groups))
    entries = [
        _SIDX_ENTRY.pack(
            sum(slot.length_bytes for slot in group) & 0x7FFF_FFFF,
            min(sum(slot.ticks for slot in group) * hz // CLOCK_HZ, 0xFFFF_FFFF),
            _SAP if group[0].begins_with_key else 0,
        )
        for group in groups
    ]
    return head + b"".join(entries)


def _grouped(slots: int) -> int:
    return max(-(-slots // _MAX_ENTRIES), 1)


def filled_init(init: bytes, ticks: int) -> bytes:
    """An init that says how long the film is, filled up to INIT_BYTES.

    Raises:
        ValueError: it is longer, or no init.
    """
    parts = []
    for kind, begin, end in boxes(init, 0, len(init)):
        if kind == b"moov":
            body = b"".join(
                _with_length(init[b:e], ticks) if inside == b"mvex" else init[b:e]
                for inside, b, e in boxes(init, begin + 8, end)
            )
            parts.append(struct.pack(">I4s", len(body) + 8, b"moov") + body)
        else:
            parts.append(init[begin:end])
    whole = b"".join(parts)
    rest = INIT_BYTES - len(whole)
    if rest < FREE_HEADER_BYTES:
        raise ValueError(f"an init of {len(whole)} bytes")
    return whole + free(rest) + bytes(rest - FREE_HEADER_BYTES)


def first_clock_hz(init: bytes) -> int:
    """Ticks a second of the first track's clock, as libavformat writes it: in a `mdhd` of version 0.

    Raises:
        ValueError: there is none.
    """
    at = init.find(b"mdhd")
    if at < 0 or at + 20 > len(init) or init[at + 4] != 0:
        raise ValueError("an init without a clock")
    (hz,) = struct.unpack_from(">I", init, at + 16)
    if not hz:
        raise ValueError("an init without a clock")
    return int(hz)


def _with_length(mvex: bytes, ticks: int) -> bytes:
    length = ticks * _MOVIE_HZ // CLOCK_HZ
    mehd = struct.pack(">I4sIQ", 20, b"mehd", 1 << 24, length)
    return struct.pack(">I4s", len(mvex) + len(mehd), b"mvex") + mehd + mvex[8:]
