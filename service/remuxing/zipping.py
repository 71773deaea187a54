"""Zip archives of stored files whose lengths are known before their bytes are (APPNOTE.TXT 6.3.10): where each byte
lies follows from names and lengths. Pure.

The checksum of a file is known when it has gone out, so it stands behind the file (general purpose bit 3) and in the
directory. All of it is Zip64, whatever the lengths, so that their fields are as long always.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import NamedTuple

_VERSION = 45
_FLAGS = 0x0808
"""Checksum behind the file; names are UTF-8."""
_NONE_32 = 0xFFFF_FFFF
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_LOCAL_EXTRA = struct.Struct("<HHQQ")
_DESCRIPTOR = struct.Struct("<4sIQQ")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_CENTRAL_EXTRA = struct.Struct("<HHQQQ")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")
DESCRIPTOR_BYTES = _DESCRIPTOR.size


class Entry(NamedTuple):
    """A file in the archive. `at_ms`: when it is of, Unix ms. `offset`: where its header begins."""

    name: str
    length_bytes: int
    at_ms: int
    offset: int = 0


def header_bytes(entry: Entry) -> int:
    return _LOCAL.size + len(entry.name.encode()) + _LOCAL_EXTRA.size


def header(entry: Entry) -> bytes:
    """What comes before the file's bytes."""
    name = entry.name.encode()
    date, time = _when(entry.at_ms)
    head = _LOCAL.pack(
        b"PK\3\4", _VERSION, _FLAGS, 0, time, date, 0, _NONE_32, _NONE_32, len(name), _LOCAL_EXTRA.size
    )
    return head + name + _LOCAL_EXTRA.pack(1, 16, entry.length_bytes, entry.length_bytes)


def descriptor(entry: Entry, crc: int) -> bytes:
    """What comes after them."""
    return _DESCRIPTOR.pack(b"PK\7\10", crc, entry.length_bytes, entry.length_bytes)


def directory_bytes(entries: list[Entry]) -> int:
    names = sum(len(entry.name.encode()) for entry in entries)
    each = _CENTRAL.size + _CENTRAL_EXTRA.size
    return names + each * len(entries) + _END_64.size + _LOCATOR.size + _END.size


def directory(entries: list[Entry], crcs: list[int], begin: int) -> bytes:
    """The end of the archive, from `begin` on."""
    made = b"".join(_central(entry, crc) for entry, crc in zip(entries, crcs, strict=True))
    count, end = len(entries), begin + len(made)
    return (
        made
        + _END_64.pack(b"PK\6\6", _END_64.size - 12, _VERSION, _VERSION, 0, 0, count, count, len(made), begin)
        + _LOCATOR.pack(b"PK\6\7", 0, end, 1)
        + _END.pack(b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, _NONE_32, _NONE_32, 0)
    )


def _central(entry: Entry, crc: int) -> bytes:
    name = entry.name.encode()
    date, time = _when(entry.at_ms)
    sizes = (_NONE_32, _NONE_32, len(name), _CENTRAL_EXTRA.size)
    made_by = 3 << 8 | _VERSION  # Unix, for the permissions
    head = _CENTRAL.pack(
        *(b"PK\1\2", made_by, _VERSION, _FLAGS, 0, time, date, crc, *sizes, 0, 0, 0, 0o644 << 16, _NONE_32)
    )
    extra = _CENTRAL_EXTRA.pack(1, 24, entry.length_bytes, entry.length_bytes, entry.offset)
    return head + name + extra


def _when(at_ms: int) -> tuple[int, int]:
    """MS-DOS date and time, in UTC."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    date = max(at.year - 1980, 0) << 9 | at.month << 5 | at.day
    return date & 0xFFFF, at.hour << 11 | at.minute << 5 | at.second // 2
