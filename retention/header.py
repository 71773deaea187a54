"""The first 4096 bytes of a bitmap file: what it is, and a few numbers that change.

    offset  size  field
         0     8  magic "CKBITMAP"
         8     4  layout version, 2 (1 had no map of blocks: a writer that opens such a file adds it)
        12     4  row bytes, 64
        16     8  capacity in rows
        24     4  days in a ring, 384
        28    32  (zero)
        60     4  CRC-32 of bytes 0..59
        64     8  last_change         number of the last change applied from the catalog's change log
        72     8  closed_through      last expiry day already swept, a day number
        80     8  segment_high_water  highest segment id ever prepared: a catalog below it was restored
        88     8  unfinished          device whose change was begun and not finished
        96    16  boot_id             boot of the machine in which the rows were last rebuilt
       112     8  asked_ns            CLOCK_BOOTTIME before the feed last read the change log of home; 0: never
       120     8  home_day            the day by home's clock when the feed last heard it, a day number; 0: never
      1024  1024  limits              word n of 128: what limit class n allows (`retention.upload_limits`)
      2048  2048  blocks              a bit for each block of the file that has its place on the disk

Little-endian. The changing fields are 8 bytes on 8-byte boundaries of a mapped page, read and written by
one machine instruction each: they are seen whole without a lock. They are not under the CRC, which could
not change in the same instruction.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from retention.row import RING_DAYS, ROW_BYTES
from storage.errors import BitmapCorrupt, CallerError

HEADER_BYTES = 4096
MAX_ROWS = 1 << 32
"""Device numbers are unsigned 32-bit."""

LAST_CHANGE, CLOSED_THROUGH, SEGMENT_HIGH_WATER, UNFINISHED = range(8, 12)
"""Places of the changing fields, in words of 8 bytes."""
BOOT_ID = slice(96, 112)
ASKED = 14
HOME_DAY = 15
"""Places of `asked_ns` and `home_day`, in words of 8 bytes; zero in files of earlier releases."""
LIMITS = 128
"""Place of the word of limit class 0, which is always 0, in words of 8 bytes."""
BLOCKS = slice(2048, 4096)

_MAGIC = b"CKBITMAP"
_LAYOUT = 2
_WITHOUT_BLOCKS = 1
_CONSTANTS = struct.Struct("<8sIIQI32x")
_CRC = struct.Struct("<I")


def file_bytes(capacity_rows: int) -> int:
    """Size of a bitmap file, holes included."""
    return HEADER_BYTES + capacity_rows * ROW_BYTES


def new_header(capacity_rows: int) -> bytes:
    """Return the header of an empty bitmap.

    Raises:
        CallerError: `bad_capacity` outside 2..2^32.
    """
    if not 2 <= capacity_rows <= MAX_ROWS:
        raise CallerError(f"capacity must be 2 to 2^32 rows, not {capacity_rows}", code="bad_capacity")
    return constants_of(capacity_rows).ljust(HEADER_BYTES, b"\0")


def constants_of(capacity_rows: int) -> bytes:
    """The fields that do not change, and their CRC, in this release's layout."""
    constants = _CONSTANTS.pack(_MAGIC, _LAYOUT, ROW_BYTES, capacity_rows, RING_DAYS)
    return constants + _CRC.pack(zlib.crc32(constants))


def has_blocks(header: bytes) -> bool:
    """Whether a checked header has the map of blocks; an older layout's has not."""
    return bool(_CONSTANTS.unpack_from(header)[1] != _WITHOUT_BLOCKS)


def checked_capacity(path: Path, header: bytes, size_bytes: int) -> int:
    """Return the capacity in rows that a file's header promises and its size keeps.

    Args:
        header: its first 4096 bytes, or what there is of them.
        size_bytes: of the whole file, holes included.

    Raises:
        BitmapCorrupt: cut, flipped, or of another layout; names the file, the field and what to do.
    """
    if size_bytes < HEADER_BYTES:
        raise _corrupt(path, "header", f"cut after {size_bytes} of {HEADER_BYTES} bytes")
    magic, layout, row_bytes, capacity_rows, ring_days = _CONSTANTS.unpack_from(header)
    if magic != _MAGIC:
        raise _corrupt(path, "magic", f"{magic!r}, not {_MAGIC!r}")
    if layout not in (_LAYOUT, _WITHOUT_BLOCKS):
        raise _corrupt(path, "layout version", f"{layout}; this release reads {_LAYOUT}")
    constants = header[: _CONSTANTS.size]
    if _CRC.unpack_from(header, _CONSTANTS.size) != (zlib.crc32(constants),):
        raise _corrupt(path, "header CRC-32", "it is not that of the header's constant fields")
    if (row_bytes, ring_days) != (ROW_BYTES, RING_DAYS):
        raise _corrupt(path, "row layout", f"{row_bytes} bytes with {ring_days} days")
    promised = file_bytes(capacity_rows)
    if not 2 <= capacity_rows <= MAX_ROWS or size_bytes != promised:
        detail = f"{size_bytes} bytes, where {capacity_rows} rows take {promised}"
        raise _corrupt(path, "file size", detail)
    return int(capacity_rows)


def _corrupt(path: Path, field: str, found: str) -> BitmapCorrupt:
    todo = "Stop the service and move the file aside; the next start builds a new one from the catalog."
    return BitmapCorrupt(f"not a usable entitlement bitmap: {field}: {found}. {todo}", subject=str(path))
