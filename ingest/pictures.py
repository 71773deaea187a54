"""How a chunk's first picture begins: key frame, parameter sets, size. Pure; H.264 and H.265 with start codes."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import NamedTuple

from ingest.parameter_sets import h264_size, h265_size
from ingest.ts_tables import REMEMBERED
from storage.media_facts import Codec, KeyFrame

MAX_UNITS = 64
"""NAL units looked at before the first slice. A camera has four or five: delimiter, parameter sets, messages."""
MAX_REMEMBERED_BYTES = 512
"""Of parameter sets together, to be remembered; larger ones are read each time."""

_START = b"\0\0\1"


class _Kinds(NamedTuple):
    """NAL unit types of one codec (ITU-T H.264 table 7-1, H.265 table 7-1), and where in the first byte they are."""

    shift: int
    mask: int
    first_slice: int
    last_slice: int
    first_key: int
    last_key: int
    first_set: int
    last_set: int
    sequence: int


_H264 = _Kinds(0, 31, 1, 5, 5, 5, 7, 8, 7)
_H265 = _Kinds(1, 63, 0, 31, 16, 23, 32, 34, 33)


def first_picture(data: bytes, codec: Codec) -> tuple[KeyFrame, bytes]:
    """Whether the first picture in `data` is a key frame, and the parameter sets that stand before it.

    A picture with a sequence parameter set before it counts as one: decoders may begin there, also where the picture
    is marked as a recovery point and not as an instantaneous refresh.

    Args:
        data: from the start of a picture, as much as there is at hand.
        codec: H264 or H265; of any other nothing is known.
    """
    if codec is not Codec.H264 and codec is not Codec.H265:
        return KeyFrame.UNKNOWN, b""
    kinds = _H264 if codec is Codec.H264 else _H265
    sets, may_begin = b"", False
    at = data.find(_START)
    for _ in range(MAX_UNITS):
        if at < 0 or at + 3 >= len(data):
            break
        kind = data[at + 3] >> kinds.shift & kinds.mask
        if kinds.first_slice <= kind <= kinds.last_slice:
            is_key = may_begin or kinds.first_key <= kind <= kinds.last_key
            return (KeyFrame.YES if is_key else KeyFrame.NO), sets
        following = data.find(_START, at + 3)
        if kinds.first_set <= kind <= kinds.last_set:
            sets += data[at : following if following >= 0 else len(data)].rstrip(b"\0")
            may_begin = may_begin or kind == kinds.sequence
        at = following
    return (KeyFrame.YES if may_begin else KeyFrame.UNKNOWN), sets


def described(sets: bytes, codec: Codec) -> tuple[int, int, int]:
    """What parameter sets say: a hash that is never 0, width and height (0 when that is not to be read). (0, 0, 0) of
    no sets."""
    if not sets:
        return 0, 0, 0
    return (_described if len(sets) <= MAX_REMEMBERED_BYTES else _described.__wrapped__)(sets, codec)


@lru_cache(maxsize=REMEMBERED)
def _described(sets: bytes, codec: Codec) -> tuple[int, int, int]:
    width = height = 0
    for unit in sets.split(_START):
        if codec is Codec.H264 and unit and unit[0] & 31 == _H264.sequence:
            width, height = h264_size(unit)
        elif codec is Codec.H265 and unit and unit[0] >> 1 & 63 == _H265.sequence:
            width, height = h265_size(unit)
    return zlib.crc32(sets) or 1, width, height
