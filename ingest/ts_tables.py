"""Which streams a transport stream says it has: its program tables (ISO/IEC 13818-1 §2.4.4). Pure.

A camera sends the same tables with every chunk, so what they say is remembered, and reading them costs nothing.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from storage.media_facts import Codec

NO_PID: Final = -1
REMEMBERED = 1024
"""Different tables that each function here remembers, and different parameter sets: each at most 1.2 KB with what they
say. A fleet has a few for each model of camera."""
MAX_STREAMS = 8
"""Of a program map that are told apart: a camera has two or three. A packet has room for thirty, and what is remembered
of a hostile one is to be small."""

_PAT, _PMT = 0x00, 0x02  # table ids, §2.4.4.5
_BY_STREAM_TYPE = {  # table 2-34, and what ATSC and Apple added
    0x01: Codec.MPEG2_VIDEO,
    0x02: Codec.MPEG2_VIDEO,
    0x03: Codec.MPEG_AUDIO,
    0x04: Codec.MPEG_AUDIO,
    0x0F: Codec.AAC,
    0x10: Codec.MPEG4_VIDEO,
    0x11: Codec.AAC,
    0x1B: Codec.H264,
    0x24: Codec.H265,
    0x81: Codec.AC3,
    0x87: Codec.EAC3,
}
_PRIVATE = 0x06  # a stream of private data: a descriptor says of what kind
_BY_DESCRIPTOR = {0x6A: Codec.AC3, 0x7A: Codec.EAC3}  # ETSI EN 300 468
_REGISTRATION = 0x05
_BY_REGISTRATION = {b"Opus": Codec.OPUS, b"AC-3": Codec.AC3, b"EAC3": Codec.EAC3, b"HEVC": Codec.H265}
VIDEO_CODECS = frozenset((Codec.H264, Codec.H265, Codec.MPEG2_VIDEO, Codec.MPEG4_VIDEO))
AUDIO_CODECS = frozenset((Codec.AAC, Codec.MPEG_AUDIO, Codec.AC3, Codec.EAC3, Codec.OPUS))


@dataclass(frozen=True, slots=True)
class Program:
    """What a program map says. `codecs` by PID, of the first MAX_STREAMS; `fingerprint` 1 to 65535, of all streams,
    their PIDs and types."""

    codecs: dict[int, Codec]
    fingerprint: int
    has_audio: bool
    has_video: bool


@lru_cache(maxsize=REMEMBERED)
def map_pid(payload: bytes) -> int:
    """The PID of the first program's map, from the payload of a packet that begins a program association table;
    NO_PID when it is none."""
    section = _section(payload, _PAT)
    for at in range(8, len(section) - 3, 4):
        if section[at] or section[at + 1]:  # program 0 is the network's
            return (section[at + 2] & 0x1F) << 8 | section[at + 3]
    return NO_PID


@lru_cache(maxsize=REMEMBERED)
def program(payload: bytes) -> Program | None:
    """What a program map says, from the payload of the packet that begins it; None when it is none. Of a map that goes
    on in another packet, what this one has (a camera has two streams; a packet has room for twenty)."""
    section = _section(payload, _PMT)
    if len(section) < 12:
        return None
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    codecs: dict[int, Codec] = {}
    said = b""
    while at + 5 <= len(section):
        kind = section[at]
        pid = (section[at + 1] & 0x1F) << 8 | section[at + 2]
        end = at + 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
        if len(codecs) < MAX_STREAMS:
            codecs[pid] = _codec(kind, section[at + 5 : end])
        said += section[at:end]
        at = end
    fingerprint = zlib.crc32(said) & 0xFFFF or 1
    kinds = set(codecs.values())
    return Program(
        codecs, fingerprint, not kinds.isdisjoint(AUDIO_CODECS), not kinds.isdisjoint(VIDEO_CODECS)
    )


def _section(payload: bytes, table_id: int) -> bytes:
    """The section that begins in this payload (§2.4.4.1), without its checksum; empty when it is of another table."""
    if not payload:
        return b""
    start = 1 + payload[0]
    if start + 3 > len(payload) or payload[start] != table_id:
        return b""
    length = (payload[start + 1] & 0x0F) << 8 | payload[start + 2]
    return payload[start : start + max(3 + length - 4, 0)]


def _codec(kind: int, descriptors: bytes) -> Codec:
    if kind != _PRIVATE:
        return _BY_STREAM_TYPE.get(kind, Codec.OTHER)
    at = 0
    while at + 2 <= len(descriptors):
        tag, length = descriptors[at], descriptors[at + 1]
        content = descriptors[at + 2 : at + 2 + length]
        if tag == _REGISTRATION and content[:4] in _BY_REGISTRATION:
            return _BY_REGISTRATION[content[:4]]
        if tag in _BY_DESCRIPTOR:
            return _BY_DESCRIPTOR[tag]
        at += 2 + length
    return Codec.OTHER
