"""Picture size from the parameter sets of H.264 (ITU-T H.264 §7.3.2.1) and H.265 (ITU-T H.265 §7.3.2.2). Pure.

A camera sends the same sets with every chunk, so what they say is remembered, and reading them costs nothing.
"""

from __future__ import annotations

_HIGH_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
"""H.264 profiles whose sequence parameter set says how colour is sampled (§7.3.2.1.1)."""
MAX_SET_BYTES = 512
"""Of a sequence parameter set that are looked at: the size stands before anything long. Usual are 20 to 80."""
_MAX_ZEROS = 31
"""Leading zeros of a number in a parameter set (§9.1): it fits 32 bits."""


class _Bits:
    """A parameter set, bit by bit. Raises ValueError past its end."""

    def __init__(self, unit: bytes) -> None:
        # §7.3.1: a 3 behind two zeros only keeps start codes apart.
        data = unit[:MAX_SET_BYTES].replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def take(self, bits: int) -> int:
        self._left -= bits
        if self._left < 0:
            raise ValueError("the parameter set ends early")
        return (self._value >> self._left) & ((1 << bits) - 1)

    def unsigned(self) -> int:
        """ue(v), §9.1."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > _MAX_ZEROS:
                raise ValueError("a number too large")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """se(v), §9.1.1."""
        code = self.unsigned()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def h264_size(unit: bytes) -> tuple[int, int]:
    """Width and height in pixels as a sequence parameter set says, without its start code; (0, 0) when it makes no
    sense. Raises nothing."""
    try:
        return _checked(*_h264_size(unit))
    except ValueError:
        return 0, 0


def h265_size(unit: bytes) -> tuple[int, int]:
    """As `h264_size`, of H.265."""
    try:
        return _checked(*_h265_size(unit))
    except ValueError:
        return 0, 0


def _checked(width: int, height: int) -> tuple[int, int]:
    return (width, height) if 0 < width < 1 << 16 and 0 < height < 1 << 16 else (0, 0)


def _h264_size(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit[1:])
    profile = bits.take(8)
    bits.take(16)
    bits.unsigned()
    colour = 1
    if profile in _HIGH_PROFILES:
        colour = bits.unsigned()
        if colour == 3:
            bits.take(1)
        bits.unsigned()
        bits.unsigned()
        bits.take(1)
        if bits.take(1):
            _skip_scaling(bits, 12 if colour == 3 else 8)
    bits.unsigned()
    _skip_order(bits)
    bits.unsigned()
    bits.take(1)
    width, map_units = (bits.unsigned() + 1) * 16, (bits.unsigned() + 1) * 16
    frames_only = bits.take(1)
    if not frames_only:
        bits.take(1)
    bits.take(1)
    height = map_units * (2 - frames_only)
    if bits.take(1):
        left, right, top, bottom = bits.unsigned(), bits.unsigned(), bits.unsigned(), bits.unsigned()
        width -= (left + right) * (2 if colour in (1, 2) else 1)
        height -= (top + bottom) * (2 if colour == 1 else 1) * (2 - frames_only)
    return width, height


def _skip_scaling(bits: _Bits, lists: int) -> None:
    """Scaling lists (§7.3.2.1.1.1)."""
    for number in range(lists):
        if not bits.take(1):
            continue
        last = following = 8
        for _ in range(16 if number < 6 else 64):
            if following:
                following = (last + bits.signed()) % 256
            last = following or last


def _skip_order(bits: _Bits) -> None:
    """How the order of pictures is told (§7.3.2.1.1)."""
    kind = bits.unsigned()
    if kind == 0:
        bits.unsigned()
    elif kind == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(min(bits.unsigned(), 255)):
            bits.signed()


def _h265_size(unit: bytes) -> tuple[int, int]:
    bits = _Bits(unit[2:])
    bits.take(4)
    layers = bits.take(3)
    bits.take(1)
    bits.take(96)  # profile, tier and level of all layers (§7.3.3)
    present = [bits.take(2) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for of_layer in present:
        bits.take((88 if of_layer & 2 else 0) + (8 if of_layer & 1 else 0))
    bits.unsigned()
    colour = bits.unsigned()
    if colour == 3:
        bits.take(1)
    width, height = bits.unsigned(), bits.unsigned()
    if bits.take(1):
        left, right, top, bottom = bits.unsigned(), bits.unsigned(), bits.unsigned(), bits.unsigned()
        width -= (left + right) * (2 if colour in (1, 2) else 1)
        height -= (top + bottom) * (2 if colour == 1 else 1)
    return width, height
