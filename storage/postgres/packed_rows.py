"""Chunk rows as PostgreSQL keeps them: a table of packed rows for each expiry day, and a view that unpacks them.

A fleet's rows are most of the catalog, and PostgreSQL adds 28 bytes to each, rounded up to 8. The columns of the shared
SQL would take 128 to 136 bytes; these take 112 with the row's header, and lose nothing:

    capture_ms  8   place  8   crc64  8   device  4   crc32  4   offset  4   epoch  4   rest  1 + 18 + facts

    place   segment_id × 2^17 + ordinal
    rest    length modulo 2^24, 3 bytes; media × 2^22 + duration in ms, 3 bytes; nonce, 12; facts, 29 or none

Numbers in `rest` are big-endian. OID is PostgreSQL's one unsigned integer of 4 bytes: device numbers and CRC-32 go up
to 2^32 - 1. The view `chunks_N` has the columns that the shared SQL names; rows are deleted through it, and inserted
into and moved in the table `packed_N`.
"""

from __future__ import annotations

import struct

import numpy as np

from storage.media_facts import FACTS_BYTES
from storage.segment import MAX_CHUNK_BYTES, NONCE_BYTES
from storage.sql.newrows import NewRows

ORDINAL_BITS = 17
"""A segment has fewer chunks: the smallest that is taken is a packet of 188 bytes, and segments are below 24 MiB."""
DURATION_BITS = 22
"""An hour at most: `ingest.media.MAX_DURATION_MS`."""
MEDIA_BITS = 2
"""`ingest.media.Media` goes to 3."""
LENGTH_BYTES = 3
"""MAX_CHUNK_BYTES, which is 2^24, is kept as 0: no chunk is empty."""
assert MAX_CHUNK_BYTES == 1 << 8 * LENGTH_BYTES

REST_BYTES = 2 * LENGTH_BYTES + NONCE_BYTES + FACTS_BYTES
FILLFACTOR = 100
"""Of the index: a device's chunks come in order of time, so its pages are filled one after the other."""

VACUUM = "autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 4"
"""Rows are only added, and go with their table. A vacuum after inserts would write every page once more, and its image
into the log: 94 to 109 bytes a row were measured, beside the 170 of its insertion. Tables that live long enough are
frozen by the vacuum that goes by age. Where a sample for the planner lies matters little, and it too dirties pages."""

COLUMNS = ("capture_ms", "place", "crc64", "device", "crc32", '"offset"', "epoch", "rest")
_TYPES = ("bigint", "bigint", "bigint", "oid", "oid", "integer", "oid", "bytea")
_ORDINALS = (1 << ORDINAL_BITS) - 1

_COPIED = np.dtype(
    [
        ("fields", ">i2"),
        *(("capture_ms_size", ">i4"), ("capture_ms", ">i8")),
        *(("place_size", ">i4"), ("place", ">i8")),
        *(("crc64_size", ">i4"), ("crc64", ">u8")),
        *(("device_size", ">i4"), ("device", ">u4")),
        *(("crc32_size", ">i4"), ("crc32", ">u4")),
        *(("offset_size", ">i4"), ("offset", ">u4")),
        *(("epoch_size", ">i4"), ("epoch", ">u4")),
        ("rest_size", ">i4"),
        *(("length", "u1", (3,)), ("played", "u1", (3,))),
        *(("nonce", f"V{NONCE_BYTES}"), ("facts", f"V{FACTS_BYTES}")),
    ]
)
"""A row of COPY's binary format: the count of fields, then each one's size and its bytes, big-endian."""
_CONSTANTS = np.zeros((), dtype=_COPIED)
_CONSTANTS["fields"] = len(COLUMNS)
for _name, _size in zip(
    ("capture_ms", "place", "crc64", "device", "crc32", "offset", "epoch", "rest"),
    (8, 8, 8, 4, 4, 4, 4, REST_BYTES),
    strict=True,
):
    _CONSTANTS[f"{_name}_size"] = _size
_HEADER = struct.pack(">11sii", b"PGCOPY\n\xff\r\n\0", 0, 0)
_TRAILER = struct.pack(">h", -1)


def tables_of_day(day: int) -> str:
    """SQL that makes the table of an expiry day where it is missing, and its view."""
    columns = ", ".join(f"{name} {kind} NOT NULL" for name, kind in zip(COLUMNS, _TYPES, strict=True))
    played = f"get_byte(rest, {LENGTH_BYTES})"
    return f"""
        CREATE TABLE IF NOT EXISTS packed_{int(day)} (
            {columns}, PRIMARY KEY (device, capture_ms) WITH (fillfactor = {FILLFACTOR})
        ) WITH ({VACUUM});
        CREATE VIEW chunks_{int(day)} AS SELECT
            device,
            capture_ms,
            place >> {ORDINAL_BITS} AS segment_id,
            (place & {_ORDINALS})::integer AS ordinal,
            "offset",
            coalesce(nullif((get_byte(rest, 0) << 16) + (get_byte(rest, 1) << 8) + get_byte(rest, 2), 0),
                     {MAX_CHUNK_BYTES}) AS length,
            (({played} & 63) << 16) + (get_byte(rest, 4) << 8) + get_byte(rest, 5) AS duration_ms,
            crc32,
            crc64,
            substr(rest, 7, {NONCE_BYTES}) AS nonce,
            {played} >> 6 AS media,
            epoch,
            substr(rest, {7 + NONCE_BYTES}) AS facts
        FROM packed_{int(day)}"""


def drop_tables_of_day(day: int) -> str:
    """SQL that removes both. The view first: so do readers come to them."""
    return f"DROP VIEW IF EXISTS chunks_{int(day)}; DROP TABLE IF EXISTS packed_{int(day)}"


def packed(rows: NewRows) -> np.ndarray:
    """Rows as COPY sends them, in order of the key, so that two commits that both have some wait one way.

    Raises:
        OverflowError: a value that the table has no room for.
    """
    index = rows.index
    order = np.lexsort((index["capture_ms"], index["device"]))
    index, ordinals = index[order], rows.ordinals[order]
    duration, media = index["duration_ms"].astype(np.uint32), index["media"].astype(np.uint32)
    for name, most, bits in (
        ("ordinal", ordinals.max(), ORDINAL_BITS),
        ("duration", duration.max(), DURATION_BITS),
        ("media", media.max(), MEDIA_BITS),
        ("offset", index["offset"].max(), 31),
    ):
        if int(most) >> bits:
            raise OverflowError(f"a chunk row has no room for the {name} {int(most)}")
    copied = np.full(len(index), _CONSTANTS)
    for name in ("capture_ms", "crc64", "device", "crc32", "offset", "epoch", "nonce", "facts"):
        copied[name] = index[name]
    copied["place"] = rows.segment_ids[order] << ORDINAL_BITS | ordinals
    copied["length"] = _three_bytes(index["length"].astype(np.uint32))
    copied["played"] = _three_bytes(media << DURATION_BITS | duration)
    return copied


def _three_bytes(numbers: np.ndarray) -> np.ndarray:
    """The last three bytes of uint32, big-endian, shape (n, 3)."""
    return numbers.astype(">u4").view(np.uint8).reshape(-1, 4)[:, 1:]


def copy_in(table: str) -> str:
    """SQL that takes what `copied` sends."""
    return f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN (FORMAT binary)"


def copied(rows: NewRows) -> bytes:
    """What COPY takes: the whole of it."""
    return _HEADER + packed(rows).tobytes() + _TRAILER


def insert_where_free(table: str) -> str:
    """SQL that inserts rows whose key is free, and returns their `place`. Values: `arrays`."""
    arrays = ", ".join(f"%s::{'bigint' if kind == 'oid' else kind}[]" for kind in _TYPES)
    named = ", ".join(f"{name}::{kind}" for name, kind in zip(COLUMNS, _TYPES, strict=True))
    return (
        f"INSERT INTO {table} ({', '.join(COLUMNS)}) SELECT {named}"
        f" FROM unnest({arrays}) AS n ({', '.join(COLUMNS)}) ON CONFLICT DO NOTHING RETURNING place"
    )


def arrays(rows: NewRows) -> list[list[object]]:
    """A list for each of COLUMNS."""
    found = packed(rows)
    rest = found[["length", "played", "nonce", "facts"]]
    start = _COPIED.itemsize - REST_BYTES
    bytes_of = found.tobytes()
    return [
        *(found[name.strip('"')].tolist() for name in ("capture_ms", "place")),
        found["crc64"].astype("<u8").view("<i8").tolist(),
        *(found[name].tolist() for name in ("device", "crc32", "offset", "epoch")),
        [
            bytes_of[at + start : at + _COPIED.itemsize]
            for at in range(0, len(rest) * _COPIED.itemsize, _COPIED.itemsize)
        ],
    ]


def packed_row(
    device: int,
    capture_ms: int,
    segment_id: int,
    ordinal: int,
    offset: int,
    length: int,
    duration_ms: int,
    crc32: int,
    crc64: int,
    nonce: bytes,
    media: int,
    epoch: int,
    facts: bytes,
) -> tuple[object, ...]:
    """One row, in the order of COLUMNS, of the columns of SQLite's table.

    Raises:
        OverflowError: a value that the table has no room for.
    """
    if ordinal >> ORDINAL_BITS or duration_ms >> DURATION_BITS or media >> MEDIA_BITS:
        raise OverflowError(f"a chunk row has no room for {(ordinal, duration_ms, media)}")
    numbers = length % MAX_CHUNK_BYTES << 8 * LENGTH_BYTES | media << DURATION_BITS | duration_ms
    rest = numbers.to_bytes(2 * LENGTH_BYTES, "big") + nonce + facts
    return capture_ms, segment_id << ORDINAL_BITS | ordinal, crc64, device, crc32, offset, epoch, rest


def places(rows: NewRows) -> list[int]:
    """The `place` of each row, in their order."""
    found: list[int] = (rows.segment_ids << ORDINAL_BITS | rows.ordinals).tolist()
    return found


MOVE = (
    f'UPDATE {{table}} AS p SET place = %s::bigint << {ORDINAL_BITS} | n.new_ordinal, "offset" = n.new_offset'
    " FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::integer[])"
    " AS n (device, capture_ms, old_ordinal, new_ordinal, new_offset)"
    " WHERE p.device = n.device::oid AND p.capture_ms = n.capture_ms"
    f" AND p.place = (%s::bigint << {ORDINAL_BITS} | n.old_ordinal) RETURNING n.new_ordinal"
)
"""SQL that points rows at another segment. Values: the new segment, a list for each field of `Move`, the old one."""
