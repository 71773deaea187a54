"""How a chunk's first picture begins: key frame, parameter sets, size. Pure; H.264 and H.265 with start codes."""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Final

from ingest.parameter_sets import h264_size, h265_size
from ingest.ts_tables import REMEMBERED
from storage.media_facts import Codec, KeyFrame

MAX_UNITS: Final = 64
"""NAL units looked at before the first slice. A camera has four or five: delimiter, parameter sets, messages."""
MAX_REMEMBERED_BYTES: Final = 512
"""Of parameter sets together, to be remembered; larger ones are read each time."""

_START: Final = b"\0\0\1"
H264: Final = Codec.H264
H265: Final = Codec.H265
_UNKNOWN: Final = KeyFrame.UNKNOWN
_NO: Final = KeyFrame.NO
_YES: Final = KeyFrame.YES


class _Kinds:
    """NAL unit types of one codec (ITU-T H.264 table 7-1, H.265 table 7-1), and where in the first byte they are."""

    __slots__ = (
        "first_key",
        "first_set",
        "first_slice",
        "last_key",
        "last_set",
        "last_slice",
        "mask",
        "sequence",
        "shift",
    )

    def __init__(
        self,
        shift: int,
        mask: int,
        slices: tuple[int, int],
        keys: tuple[int, int],
        sets: tuple[int, int],
        sequence: int,
    ) -> None:
        self.shift = shift
        self.mask = mask
        self.first_slice, self.last_slice = slices
        self.first_key, self.last_key = keys
        self.first_set, self.last_set = sets
        self.sequence = sequence


_H264: Final = _Kinds(0, 31, slices=(1, 5), keys=(5, 5), sets=(7, 8), sequence=7)
_H265: Final = _Kinds(1, 63, slices=(0, 31), keys=(16, 23), sets=(32, 34), sequence=33)


class Picture:
    """How a picture begins."""

    __slots__ = ("end", "key_frame", "sets")

    def __init__(self, key_frame: KeyFrame, sets: bytes, end: int) -> None:
        self.key_frame = key_frame
        self.sets = sets
        """The parameter sets before its first slice, with their start codes."""
        self.end = end
        """How many bytes said it, up to and with the first byte of the first slice; 0: no slice was found."""


def first_picture(data: bytes, codec: Codec) -> Picture:
    """Whether the first picture in `data` is a key frame, and the parameter sets that stand before it.

    A picture with a sequence parameter set before it counts as one: decoders may begin there, also where the picture
    is marked as a recovery point and not as an instantaneous refresh.

    Args:
        data: from the start of a picture, as much as there is at hand.
        codec: H264 or H265; of any other nothing is known.
    """
    if codec is not H264 and codec is not H265:
        return Picture(_UNKNOWN, b"", 0)
    kinds = _H264 if codec is H264 else _H265
    sets, may_begin, set_at = b"", False, -1
    at = data.find(_START)
    for _ in range(MAX_UNITS):
        if at < 0 or at + 3 >= len(data):
            break
        kind = data[at + 3] >> kinds.shift & kinds.mask
        if set_at >= 0:
            sets += data[set_at:at].rstrip(b"\0")
            set_at = -1
        if kinds.first_slice <= kind <= kinds.last_slice:
            is_key = may_begin or kinds.first_key <= kind <= kinds.last_key
            return Picture(_YES if is_key else _NO, sets, at + 4)
        if kinds.first_set <= kind <= kinds.last_set:
            set_at = at
            may_begin = may_begin or kind == kinds.sequence
        at = data.find(_START, at + 3)
    if set_at >= 0:
        sets += data[set_at : at if at >= 0 else len(data)].rstrip(b"\0")
    return Picture(_YES if may_begin else _UNKNOWN, sets, 0)


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
        if codec is H264 and unit and unit[0] & 31 == _H264.sequence:
            width, height = h264_size(unit)
        elif codec is H265 and unit and unit[0] >> 1 & 63 == _H265.sequence:
            width, height = h265_size(unit)
    return zlib.crc32(sets) or 1, width, height
