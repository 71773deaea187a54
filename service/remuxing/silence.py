"""Silence as AAC, for pictures that have no sound among others that have: players are set up for both, once, and can't
go on without either (Media Source Extensions §3.5.8: each header has to have the same kinds of tracks). Nothing is
encoded: a silent frame of AAC is always the same.

Frames lie on a grid that begins at 0 of the media's clock. So fragments that follow each other have frames that do."""

from __future__ import annotations

import io
from fractions import Fraction
from functools import cache

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream

CLOCK_HZ = 90_000
RATE_HZ = 48_000
FRAME = 1024
"""Samples of a frame."""
SILENT = bytes.fromhex("00c800802380")
"""A frame of AAC-LC with one channel in which nothing is heard (ISO/IEC 14496-3 §4.4.2.1: a single channel element
without spectral data)."""
CONFIG = bytes([0x11, 0x88])
"""AudioSpecificConfig (§1.6.2.1): AAC-LC, 48 kHz, one channel."""
MOST_S = 60
"""In one fragment, 17 KB: what is behind it in a longer one has no sound."""
_ADTS = bytes.fromhex("fff14c4001bffc") + SILENT
"""The frame with a header (§1.A.2.2), as demuxers read it."""


def frames(first: int, end: int) -> list[Packet[Stream]]:
    """Frames that begin in [first, end), ticks of 90 kHz; their times are samples."""
    begin, behind = (-(-ticks * RATE_HZ // (CLOCK_HZ * FRAME)) for ticks in (first, end))
    behind = min(behind, begin + MOST_S * RATE_HZ // FRAME)
    found: list[Packet[Stream]] = []
    for number in range(begin, behind):
        packet: Packet[Stream] = Packet(SILENT)
        packet.pts = packet.dts = number * FRAME
        packet.duration, packet.time_base = FRAME, Fraction(1, RATE_HZ)
        packet.is_keyframe = True
        found.append(packet)
    return found


def track(out: OutputContainer) -> Stream:
    """A track for them."""
    stream = out.add_stream_from_template(_template().streams.audio[0])
    stream.codec_context.extradata = CONFIG
    return stream


@cache
def _template() -> InputContainer:
    return av.open(io.BytesIO(_ADTS * 3), "r", format="aac")
