"""One row of the entitlement bitmap: what the hot path must know of one device, in one cache line.

Pure: no file, no clock. `retention.bitmap` keeps these rows in a memory-mapped file.

A row is 64 bytes, little-endian:

    offset  size  field
         0     2  seq               sequence lock: odd while the row is being written
         2     1  flags             PRESENT 1, SUSPENDED 2, TERMINATED 4, ERASED 8
         3     1  class_days        retention class in days, 1..255; 0 when there is no plan
         4     2  first_day         first day of the window; until 2149
         6     2  viewer_generation viewer tokens of another generation are void
         8     4  token_generation  device and viewer tokens of another generation are void
        12     3  erase_epoch       goes up with each erasure; what was admitted under an older one loses
        15     1  limit_class       limits on uploads, 1..127, a place in the header; 0: none
        16    48  ring              384 day bits

Days are numbered from 1970-01-01 UTC. The bit of a day is at index `day % 384`, least significant bit
first within a byte, so moving the window forward leaves the bits of the days kept where they are. Days
outside `[first_day, first_day + 384)` are denied whatever the bits say.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import CallerError
from storage.rows.packages import MAX_LIMIT_CLASS

ROW_BYTES = 64
RING_DAYS = 384
"""A year, the oldest capture day of a month's retention, and some reach: what fits a cache line."""
SEQ_BYTES = 2
RING_OFFSET = 16
RING_BYTES = RING_DAYS // 8

PRESENT = 1
SUSPENDED = 2
TERMINATED = 4
ERASED = 8
FLAGS = PRESENT | SUSPENDED | TERMINATED | ERASED

HEAD = struct.Struct("<2xBBH2xII")
"""flags, class_days, first_day, token_generation, epoch_and_limits of a whole row: what the hot path asks (seq and
viewer_generation are skipped)."""
EPOCH_BITS = 24
MAX_EPOCH = (1 << EPOCH_BITS) - 1
"""Of epoch_and_limits the lower 24 bits are the erase epoch, the upper 8 the limit class. Rows of earlier releases had
32 bits for the epoch, of which the upper 8 were zero: nobody erases a device 16 million times."""
VIEWER_GENERATION_OFFSET = 6
MAX_VIEWER_GENERATION = (1 << 16) - 1
_HEAD = struct.Struct("<2xBBHHII")

ROW = np.dtype(
    [
        ("seq", "<u2"),
        ("flags", "u1"),
        ("class_days", "u1"),
        ("first_day", "<u2"),
        ("viewer_generation", "<u2"),
        ("token_generation", "<u4"),
        ("epoch_and_limits", "<u4"),
        ("ring", "u1", (RING_BYTES,)),
    ]
)

_STATE = PRESENT | TERMINATED | ERASED
_ALL_DAYS = (1 << RING_DAYS) - 1
_ROW_WORDS = ROW_BYTES // 8
_RING_WORD = RING_OFFSET // 8


@dataclass(frozen=True, slots=True)
class Row:
    """What a device may do, as the catalog compiled it.

    Args:
        flags: any of PRESENT, SUSPENDED, TERMINATED, ERASED.
        class_days: retention of a chunk written now, in days, 1..255; 0 when there is none.
        first_day: first day of the window, 0..2^16-1.
        token_generation: 0..2^32-1.
        erase_epoch: 0..MAX_EPOCH.
        days: bit i set = entitled on `first_day + i`; below 2^384.
        viewer_generation: 0..MAX_VIEWER_GENERATION.
        limit_class: 0..MAX_LIMIT_CLASS.
    """

    flags: int
    class_days: int
    first_day: int
    token_generation: int
    erase_epoch: int
    days: int
    viewer_generation: int = 0
    limit_class: int = 0

    def allows(self, day: int) -> bool:
        """Whether `day` is an entitled day. Flags are not looked at."""
        return 0 <= day - self.first_day < RING_DAYS and bool(self.days >> (day - self.first_day) & 1)


def pack(row: Row) -> bytes:
    """Return the 64 bytes of `row`, its seq 0.

    Raises:
        CallerError: `bad_row`, a field is outside its bounds.
    """
    if row.flags & ~FLAGS or row.days & ~_ALL_DAYS:
        raise CallerError(f"unknown flags or days past the window of {RING_DAYS}: {row}", code="bad_row")
    if not (0 <= row.erase_epoch <= MAX_EPOCH and 0 <= row.limit_class <= MAX_LIMIT_CLASS):
        raise CallerError(f"an erase epoch or a limit class out of bounds: {row}", code="bad_row")
    try:
        head = _HEAD.pack(
            row.flags,
            row.class_days,
            row.first_day,
            row.viewer_generation,
            row.token_generation,
            row.limit_class << EPOCH_BITS | row.erase_epoch,
        )
    except struct.error as error:
        raise CallerError(f"a field is outside its bounds ({error}): {row}", code="bad_row") from error
    return head + _rotated(row.days, row.first_day).to_bytes(RING_BYTES, "little")


def unpack(raw: bytes) -> Row:
    """Return the row in 64 bytes: the inverse of `pack`. Its seq is ignored."""
    flags, class_days, first_day, viewer_generation, token_generation, packed = _HEAD.unpack_from(raw)
    ring = int.from_bytes(raw[RING_OFFSET:], "little")
    days = _rotated(ring, -first_day)
    epoch, limit_class = packed & MAX_EPOCH, packed >> EPOCH_BITS
    return Row(flags, class_days, first_day, token_generation, epoch, days, viewer_generation, limit_class)


def ended(rows: NDArray[np.void], today: int, grace_days: int) -> NDArray[np.intp]:
    """Return the positions, ascending, of rows whose right is over: TERMINATED ones, and PRESENT ones without an
    entitled day from `today - grace_days` on. SUSPENDED makes no difference; ERASED rows are left out.

    Args:
        rows: (n,) of ROW. Not modified.
        today: day number.
        grace_days: 0 or more.
    """
    flags = rows["flags"] & _STATE
    first_day = rows["first_day"].astype(np.uint32)
    # Nearly all rows of a living fleet are entitled today, and not looked at again. Two bytes and a word of a line
    # that is loaded anyway. The subtraction wraps, so a window that begins after today fails the comparison too.
    running = flags == PRESENT
    running &= rows["ring"][:, today % RING_DAYS // 8] & (1 << today % 8) != 0
    running &= np.uint32(today) - first_day < RING_DAYS
    others = np.flatnonzero(~running)
    over: NDArray[np.bool_] = flags[others] & (TERMINATED | ERASED) == TERMINATED
    present = np.flatnonzero(flags[others] == PRESENT)
    over[present] = _no_day_from(rows, others[present], today - grace_days)
    return others[over]


def _no_day_from(rows: NDArray[np.void], positions: NDArray[np.intp], cutoff: int) -> NDArray[np.bool_]:
    """(len(positions),): whether these rows hold no entitled day from `cutoff` on."""
    first_day = rows["first_day"][positions].astype(np.int64)
    before = np.clip(cutoff - first_day, 0, RING_DAYS)
    words = rows.view("<u8").reshape(-1, _ROW_WORDS)[positions, _RING_WORD:]
    words &= _masks_from(cutoff)[before]
    none: NDArray[np.bool_] = np.bitwise_or.reduce(words, axis=1) == 0
    return none


def window_ends_before(rows: NDArray[np.void], day: int) -> NDArray[np.intp]:
    """Return the positions of PRESENT rows whose window is over before `day`: `first_day + 384 < day`."""
    present = rows["flags"] & PRESENT != 0
    return np.flatnonzero(present & (rows["first_day"].astype(np.int64) + RING_DAYS < day))


def limit_classes(rows: NDArray[np.void]) -> list[int]:
    """The limit classes that these rows name, ascending, without 0."""
    found = np.unique(rows["epoch_and_limits"] >> EPOCH_BITS)
    return [int(limit_class) for limit_class in found if limit_class]


@lru_cache(maxsize=4)  # a scan asks for the same once a block
def _masks_from(cutoff: int) -> NDArray[np.uint64]:
    """(385, 6) of <u8: entry k keeps, of a window that began k days before `cutoff`, the ring bits of
    `cutoff` and later. All of the ring for 0, nothing for 384."""
    masks = b"".join(
        _rotated((1 << RING_DAYS - k) - 1, cutoff).to_bytes(RING_BYTES, "little")
        for k in range(RING_DAYS + 1)
    )
    table: NDArray[Any] = np.frombuffer(masks, "<u8").reshape(RING_DAYS + 1, -1)
    return table


def _rotated(days: int, by: int) -> int:
    """Rotate 384 bits to the left by `by` days: from window order to ring order, and back by `-by`."""
    shift = by % RING_DAYS
    return (days << shift | days >> (RING_DAYS - shift)) & _ALL_DAYS
