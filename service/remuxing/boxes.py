"""MP4 boxes (ISO/IEC 14496-12) of what libavformat wrote: cut apart, and patched so that bytes depend on the media
alone. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_HEADER = struct.Struct(">I4s")


def boxes(data: bytes | bytearray | memoryview, begin: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, begin, end) of each box in a stretch.

    Raises:
        ValueError: a box is longer than the stretch, or shorter than its header.
    """
    while begin < end:
        if end - begin < 8:
            raise ValueError("a cut box")
        size, kind = _HEADER.unpack_from(data, begin)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, begin + 8)
        if size < 8 or size > end - begin:
            raise ValueError("a box out of bounds")
        yield kind, begin, begin + size
        begin += size


def split_file(data: memoryview) -> tuple[bytearray, memoryview]:
    """ftyp and moov; a view of moof and mdat of the one fragment behind them.

    Raises:
        ValueError: there is no such file in it.
    """
    where = {kind: (begin, end) for kind, begin, end in boxes(data, 0, len(data))}
    try:
        init_end, (moof, _), (_, end) = where[b"moov"][1], where[b"moof"], where[b"mdat"]
    except KeyError:
        raise ValueError("no fragment was written") from None
    return bytearray(data[:init_end]), data[moof:end]


def normalised(init: bytearray) -> bytes:
    """An init without what differs from one chunk to the next: the name of the library, and bit rates, which are
    measured of each.

    Raises:
        ValueError: as `boxes`.
    """
    parts = [bytes(init[begin:end]) for kind, begin, end in boxes(init, 0, len(init)) if kind == b"ftyp"]
    for kind, begin, end in boxes(init, 0, len(init)):
        if kind == b"moov":
            inner = [
                bytes(_without_bitrates(init[b:e]))
                for inside, b, e in boxes(init, begin + 8, end)
                if inside not in (b"udta", b"meta")
            ]
            body = b"".join(inner)
            parts.append(_HEADER.pack(len(body) + 8, b"moov") + body)
    return b"".join(parts)


def _without_bitrates(trak: bytearray) -> bytearray:
    at = trak.find(b"esds")
    if at >= 0:
        # esds: version and flags, ES_Descriptor (3, length, id, flags), DecoderConfigDescriptor (4, length, object
        # type, stream type, buffer size (3), most bits a second (4), mean (4)). libavformat writes each length in four
        # bytes.
        config = at + 4 + 4 + 5 + 3
        if trak[config : config + 1] == b"\4":
            trak[config + 5 + 2 : config + 5 + 2 + 11] = bytes(11)
    return trak


def place(fragment: memoryview, sequence: int, add: dict[int, int]) -> None:
    """Give a fragment its number and its time, in place.

    Args:
        fragment: begins with its moof.
        add: to the decode time of each track, by number, in the track's own ticks.

    Raises:
        ValueError: it is not one, or a time would be below 0.
    """
    for kind, begin, end in boxes(fragment, 0, len(fragment)):
        if kind != b"moof":
            continue
        for inside, b, e in boxes(fragment, begin + 8, end):
            if inside == b"mfhd":
                struct.pack_into(">I", fragment, b + 12, sequence & 0xFFFF_FFFF)
            elif inside == b"traf":
                _place_track(fragment, b + 8, e, add)


def _place_track(fragment: memoryview, begin: int, end: int, add: dict[int, int]) -> None:
    track = 0
    for kind, b, _ in boxes(fragment, begin, end):
        if kind == b"tfhd":
            (track,) = struct.unpack_from(">I", fragment, b + 12)
        elif kind == b"tfdt":
            if fragment[b + 8] != 1:
                raise ValueError("a decode time of 32 bits")
            (ticks,) = struct.unpack_from(">Q", fragment, b + 12)
            ticks += add.get(track, 0)
            if ticks < 0:
                raise ValueError("a decode time below 0")
            struct.pack_into(">Q", fragment, b + 12, ticks)
