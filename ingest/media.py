"""What a chunk's bytes are, and how long they play. Pure; nothing of the chunk is kept.

Devices are trusted no further than this: the first bytes decide whether a body is video at all
(`sniff`), and the duration, where the device did not say one, is read from the media (`duration_ms`).
Neither decodes anything. A chunk that lies about itself harms only its own playback.
"""

from __future__ import annotations

from enum import IntEnum

from ingest import mp4, mpegts

MAX_DURATION_MS = 3_600_000
"""Longest duration a chunk is listed with: one hour. A chunk is a few seconds of video; 16 MiB, its largest
size, is an hour at 37 kbit/s, below any camera. What claims more is damaged or lying."""

SNIFF_PACKETS = 5
"""Sync bytes looked at. Each is one chance in 256 to be right by accident, five are one in 10**12."""

_SYNC_BYTES = bytes([mpegts.SYNC_BYTE]) * SNIFF_PACKETS


class Media(IntEnum):
    """Container of a chunk. The numbers are stored in the catalog and in segments: never renumber."""

    UNKNOWN = 0
    MPEG_TS = 1
    MP4 = 2


def sniff(data: bytes | bytearray | memoryview) -> Media:
    """Tell the container from the first bytes. Constant time; any content is fine.

    MPEG-TS: every one of the first packets that are wholly there starts with the sync byte (at least one
    packet of 188 bytes). MP4: the first box is `ftyp` (ISO/IEC 14496-12 §4.3) or `styp`, the same box on
    a media segment (§8.16.2), which is how segmenters mark a fragment that is sent without its header.
    A bare `moof` is refused: neither a player nor we could do anything with it, and a device that sends
    one is set up wrongly; `415` says so while somebody still looks.

    Args:
        data: the whole chunk, or at least its first `SNIFF_PACKETS * 188` bytes.
    """
    packets = min(len(data) // mpegts.PACKET_BYTES, SNIFF_PACKETS)
    starts = bytes(data[: packets * mpegts.PACKET_BYTES : mpegts.PACKET_BYTES])
    if packets and starts == _SYNC_BYTES[:packets]:
        return Media.MPEG_TS
    if len(data) >= mp4.HEADER_BYTES and bytes(data[4:8]) in (b"ftyp", b"styp"):
        return Media.MP4
    return Media.UNKNOWN


def duration_ms(data: bytes | bytearray | memoryview, media: Media) -> int | None:
    """How long the chunk plays, in ms, `0 < ms <= MAX_DURATION_MS`, or None when it does not tell.

    None is no fault: a single frame, a fragment whose clock rate is in another file, damaged or hostile
    bytes. What to assume then is the caller's business. More than the maximum is cut to it; less than a
    millisecond counts as one.

    Args:
        data: the whole chunk: bytes, one-dimensional, contiguous. Read in place, without a copy, and no
            view of it is left when this returns, so a bytearray can be resized afterwards.
        media: what `sniff` said. Wrong is harmless, UNKNOWN gives None.

    Raises:
        Nothing, on any content. Work and memory are bounded: see `mpegts.duration_ticks` (linear in the
        packets) and `mp4.MAX_BOXES`.
    """
    match media:
        case Media.MPEG_TS:
            ticks, per_second = mpegts.duration_ticks(data), mpegts.TICKS_PER_MS * 1000
        case Media.MP4:
            ticks, per_second = mp4.duration_ticks(data)
        case _:
            return None
    if not ticks:
        return None
    return min(max((ticks * 1000 + per_second // 2) // per_second, 1), MAX_DURATION_MS)
