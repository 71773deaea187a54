"""The segment: one immutable object that packs many chunks which all expire on the same day.

Layout, little-endian (docs/formats.md draws it):

    magic               8 bytes  b"CLIPSEG1"
    chunk bodies        ciphertext + 16-byte GCM tag each, back to back, in ordinal order
    index               zstd of `INDEX_DTYPE` rows, one per chunk (of segments of version 1: `_INDEX_DTYPE_1`)
    footer              64 bytes, `_FOOTER`

Everything needed to rebuild the catalog's chunk rows is in the object. Three checksums make it safe to
read: the footer's own CRC-32, that of the compressed index, and that of all bytes before the index. A chunk
read by range is covered by its GCM tag, whose associated data is the device and the capture time, so that
a row which points at another chunk's bytes fails (invariant 11).

Pure: bytes in, bytes out. No store, no clock.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage import checksums
from storage.errors import CallerError, CorruptError, SegmentCorrupt
from storage.media_facts import FACTS_BYTES

MAGIC = b"CLIPSEG1"
FOOTER_MAGIC = b"CLIPEND1"
TAG_BYTES = 16
NONCE_BYTES = 12
MAX_CHUNK_BYTES = 16 * 1024 * 1024
"""Largest chunk in plaintext bytes: the contract's limit, and what one AES-GCM call encrypts in about 1 ms."""
MAX_SEGMENT_BYTES = 256 * 1024 * 1024
"""Largest object a reader accepts: well above target + largest chunk, far below what memory could not hold."""

INDEX_DTYPE = np.dtype(
    [
        ("capture_ms", "<i8"),
        ("crc64", "<u8"),  # CRC-64/NVME of the plaintext
        ("device", "<u4"),
        ("epoch", "<u4"),  # the device's erase epoch at admission; names the data key with device and month
        ("offset", "<u4"),  # of the ciphertext, from the start of the object
        ("length", "<u4"),  # of the plaintext, bytes; the stored body is TAG_BYTES longer
        ("crc32", "<u4"),  # of the plaintext
        ("duration_ms", "<u4"),
        ("nonce", "V12"),
        ("media", "u1"),  # ingest.media.Media
        ("facts", f"V{FACTS_BYTES}"),  # storage.media_facts; zeros: nothing is known
    ]
)
_ROW = struct.Struct(f"<qQIIIIII12sB{FACTS_BYTES}s")
assert _ROW.size == INDEX_DTYPE.itemsize
# Of segments of version 1: the same without facts, and three bytes that were reserved.
_INDEX_DTYPE_1 = np.dtype([*INDEX_DTYPE.descr[:-1], ("reserved", "V3")])
assert _INDEX_DTYPE_1.itemsize == 56
_AAD = struct.Struct("<Iq")
# magic, version, class_days, expires_on, chunk count, index offset, compressed bytes, CRC of the index,
# CRC of everything before it, segment id, reserved; then the CRC of these 60 bytes.
_FOOTER = struct.Struct("<8sHHIIIIIIQ16x")
FOOTER_BYTES = _FOOTER.size + 4
assert FOOTER_BYTES == 64
MIN_SEGMENT_BYTES = len(MAGIC) + FOOTER_BYTES
VERSION = 2
"""What is written. Version 1, of earlier releases, is read too."""
_INDEX_DTYPES = {1: _INDEX_DTYPE_1, VERSION: INDEX_DTYPE}


@dataclass(frozen=True, slots=True)
class Footer:
    """What the last 64 bytes of a segment say. `expires_on` is a day number (days since 1970-01-01 UTC)."""

    class_days: int
    expires_on: int
    chunks: int
    index_offset: int
    index_bytes: int
    index_crc32: int
    body_crc32: int
    segment_id: int
    version: int = VERSION


def associated_data(device: int, capture_ms: int) -> bytes:
    """The bytes that GCM authenticates beside a chunk: who recorded it, and when."""
    return _AAD.pack(device, capture_ms)


_OF_THREAD: Any = threading.local()
"""What each thread has for itself. Not of a subclass: compiled, its attributes would be fields of one object, the same
for all threads."""


def compressor() -> zstandard.ZstdCompressor:
    """This thread's own: one is not for two threads, and to make it costs 20 us of the 30 to 60 that an index takes.

    Level -1: what can be compressed of an index, the upper bytes of its numbers, any level finds.
    """
    found: zstandard.ZstdCompressor | None = getattr(_OF_THREAD, "compressor", None)
    if found is None:
        found = _OF_THREAD.compressor = zstandard.ZstdCompressor(level=-1)
    return found


class SegmentWriter:
    """Fills one caller-owned buffer with encrypted chunks, then seals it.

    The encryption is the copy: plaintext goes from the receive buffer straight into its place here.

    Args:
        buffer: the memory to fill. It stays the caller's; it is lengthened here and `seal` may shorten it (see
            there), so nothing else may hold a view of it meanwhile.
        capacity: bytes to which the buffer may grow, at most MAX_SEGMENT_BYTES; its length when None.
    """

    def __init__(self, buffer: bytearray, capacity: int | None = None) -> None:
        self._capacity = max(len(buffer), capacity or 0)
        if self._capacity > MAX_SEGMENT_BYTES:
            raise CallerError(f"{self._capacity} bytes: no reader takes a segment above {MAX_SEGMENT_BYTES}")
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._index = bytearray()
        self.used_bytes = len(MAGIC)
        self.chunks = 0
        self._view[: len(MAGIC)] = MAGIC
        self._crc32 = checksums.crc32(MAGIC)

    def fits(self, length: int) -> bool:
        """Whether a chunk of `length` plaintext bytes, the index and the footer still fit."""
        index_bytes = (self.chunks + 1) * INDEX_DTYPE.itemsize
        return (
            self.used_bytes + length + TAG_BYTES + _zstd_bound(index_bytes) + FOOTER_BYTES <= self._capacity
        )

    def append(
        self,
        cipher: AESGCM,
        nonce: bytes,
        plaintext: bytes | bytearray | memoryview,
        *,
        device: int,
        capture_ms: int,
        epoch: int,
        duration_ms: int,
        crc32: int,
        crc64: int,
        media: int,
        facts: bytes = b"",
    ) -> int:
        """Encrypt one chunk into the buffer.

        Args:
            cipher: the data key of (device, epoch, month of `expires_on`).
            nonce: 12 bytes, never used before with this key.
            plaintext: 1 byte to MAX_CHUNK_BYTES; `fits(len(plaintext))` must be true.
            crc32, crc64: of the plaintext.
            facts: packed (`storage.media_facts`), or nothing.

        Returns:
            The chunk's ordinal in this segment.

        Raises:
            CallerError: a chunk or a nonce that no reader would take back; nothing was added.
        """
        length = len(plaintext)
        # AES-GCM takes other nonces too, but the index would cut them: the chunk could never be read.
        if not 0 < length <= MAX_CHUNK_BYTES or len(nonce) != NONCE_BYTES:
            raise CallerError(f"a chunk of {length} bytes with a nonce of {len(nonce)} cannot be stored")
        start = self.used_bytes
        end = start + length + TAG_BYTES
        if end > len(self._view):
            self._lengthen()
        place = self._view[start:end]
        cipher.encrypt_into(nonce, plaintext, _AAD.pack(device, capture_ms), place)
        self._crc32 = checksums.crc32(place, self._crc32)  # while the bytes are still in the cache
        self._index += _ROW.pack(
            capture_ms, crc64, device, epoch, start, length, crc32, duration_ms, nonce, media, facts
        )
        self.used_bytes = end
        self.chunks += 1
        return self.chunks - 1

    def copy(self, row: np.void, stored: memoryview | bytes) -> int:
        """Take over a chunk of another segment as it is: nonce, ciphertext and tag. Needs no key.

        Args:
            row: of the other segment's index, dtype INDEX_DTYPE.
            stored: its ciphertext and tag; there must be room for them.

        Returns:
            The chunk's ordinal in this segment.
        """
        start = self.used_bytes
        end = start + int(row["length"]) + TAG_BYTES
        self._view[start:end] = stored
        self._crc32 = checksums.crc32(self._view[start:end], self._crc32)
        moved = row.copy()
        moved["offset"] = start
        self._index += moved.tobytes()
        self.used_bytes = end
        self.chunks += 1
        return self.chunks - 1

    def index(self) -> np.ndarray:
        """The rows so far, shape (chunks,), dtype INDEX_DTYPE, a copy."""
        return np.frombuffer(bytes(self._index), dtype=INDEX_DTYPE)

    def seal(self, *, class_days: int, expires_on: int, segment_id: int) -> tuple[bytearray, int]:
        """Append the index and the footer.

        Returns:
            The whole object and its CRC-32. The object is the caller's buffer shortened in place when it is
            more than half full (a bytearray keeps its memory then), else an exact copy of the used part, so
            that a buffer never loses its memory. The writer must not be used afterwards.
        """
        compressed = compressor().compress(self._index)
        fields = _FOOTER.pack(
            FOOTER_MAGIC,
            VERSION,
            class_days,
            expires_on,
            self.chunks,
            self.used_bytes,
            len(compressed),
            checksums.crc32(compressed),
            self._crc32,
            segment_id,
        )
        tail = compressed + fields + checksums.crc32(fields).to_bytes(4, "little")
        size = self.used_bytes + len(tail)
        if size > len(self._view):
            self._lengthen()
        self._view[self.used_bytes : size] = tail
        crc32 = checksums.crc32(tail, self._crc32)
        if size * 2 > self._capacity:
            self.close()
            del self._buffer[size:]
            return self._buffer, crc32
        body = bytearray(self._view[:size])
        self.close()
        return body, crc32

    def _lengthen(self) -> None:
        """Give the buffer all of its capacity: only when it is needed, for what is added is filled with zeros."""
        self._view.release()
        # In pieces that stay in the cache, and in place, for `seal` shortened it without giving up its memory.
        while len(self._buffer) < self._capacity:
            self._buffer += _ZEROS[: self._capacity - len(self._buffer)]
        self._view = memoryview(self._buffer)

    def close(self) -> None:
        """Let go of the buffer, sealed or not. A buffer that is looked at cannot be resized."""
        self._view.release()


def repack(
    body: bytes, index: np.ndarray, ordinals: np.ndarray, *, class_days: int, expires_on: int, segment_id: int
) -> tuple[bytearray, int, np.ndarray]:
    """A segment of some chunks of another one, each taken over as it is.

    Args:
        body: the other segment, checked by `parse_segment`; `index` is its index.
        ordinals: of the chunks to take, in this order.

    Returns:
        The whole object, its CRC-32 and its index.
    """
    rows = index[ordinals]
    stored_bytes = int(rows["length"].astype(np.int64).sum()) + TAG_BYTES * len(rows)
    room = len(MAGIC) + stored_bytes + _zstd_bound(rows.nbytes) + FOOTER_BYTES
    writer = SegmentWriter(bytearray(room))
    view = memoryview(body)
    for row in rows:
        start = int(row["offset"])
        writer.copy(row, view[start : start + int(row["length"]) + TAG_BYTES])
    moved = writer.index()
    sealed, crc32 = writer.seal(class_days=class_days, expires_on=expires_on, segment_id=segment_id)
    return sealed, crc32, moved


_ZEROS = bytes(64 * 1024)


def _zstd_bound(size: int) -> int:
    """Most bytes zstd makes of `size` bytes (ZSTD_COMPRESSBOUND, rounded up)."""
    return size + (size >> 8) + 128


def buffer_bytes(target_bytes: int, largest_chunk_bytes: int = 1024 * 1024) -> int:
    """The buffer for segments of `target_bytes`: the last chunk of up to `largest_chunk_bytes` still fits, and
    so does the index of a segment full of 4 KiB chunks (smaller ones seal a little earlier)."""
    body = len(MAGIC) + target_bytes + largest_chunk_bytes + TAG_BYTES
    return body + _zstd_bound((body // 4096 + 1) * INDEX_DTYPE.itemsize) + FOOTER_BYTES


def parse_footer(tail: bytes, object_bytes: int, *, subject: str = "") -> Footer:
    """Read the last FOOTER_BYTES of an object of `object_bytes`.

    Raises:
        SegmentCorrupt: cut, flipped, of another version, or not a segment; the detail names the field.
    """
    if len(tail) != FOOTER_BYTES:
        raise SegmentCorrupt(
            f"footer: {len(tail)} bytes where {FOOTER_BYTES} are needed: the object is cut", subject=subject
        )
    fields, crc = tail[:-4], int.from_bytes(tail[-4:], "little")
    magic, version, class_days, expires_on, chunks, offset, size, index_crc, body_crc, segment_id = (
        _FOOTER.unpack(fields)
    )
    if magic != FOOTER_MAGIC:
        raise SegmentCorrupt("footer magic: not the end of a segment: cut or overwritten", subject=subject)
    if checksums.crc32(fields) != crc:
        raise SegmentCorrupt("footer checksum does not match: flipped bits", subject=subject)
    if version not in _INDEX_DTYPES:
        raise SegmentCorrupt(f"footer version {version}: this release reads up to {VERSION}", subject=subject)
    smallest = len(MAGIC) + chunks * (TAG_BYTES + 1)
    if object_bytes > MAX_SEGMENT_BYTES or offset + size + FOOTER_BYTES != object_bytes or offset < smallest:
        raise SegmentCorrupt(f"object size {object_bytes} is not what the footer says: cut", subject=subject)
    return Footer(class_days, expires_on, chunks, offset, size, index_crc, body_crc, segment_id, version)


def parse_index(compressed: bytes, footer: Footer, *, subject: str = "") -> np.ndarray:
    """Decompress and check the index.

    Returns:
        Shape (footer.chunks,), dtype INDEX_DTYPE, read-only; nothing is known in it of the media of version 1.

    Raises:
        SegmentCorrupt: the checksum, the row count or the places of the chunks do not agree.
    """
    if len(compressed) != footer.index_bytes or checksums.crc32(compressed) != footer.index_crc32:
        raise SegmentCorrupt("index checksum does not match: cut or flipped bits", subject=subject)
    dtype = _INDEX_DTYPES[footer.version]
    raw_bytes = footer.chunks * dtype.itemsize
    try:
        # Asked first: the decompressor would make room for whatever the frame says.
        if zstandard.frame_content_size(compressed) != raw_bytes:
            raise SegmentCorrupt("index: not the number of rows the footer says", subject=subject)
        raw = zstandard.ZstdDecompressor().decompress(compressed, max_output_size=raw_bytes)
    except zstandard.ZstdError as error:
        raise SegmentCorrupt(f"index does not decompress: {error}", subject=subject) from error
    index = _as_written_now(np.frombuffer(raw, dtype=dtype))
    if not ((index["length"] > 0) & (index["length"] <= MAX_CHUNK_BYTES)).all():
        raise SegmentCorrupt("index: a chunk length out of bounds", subject=subject)
    stored = index["length"].astype(np.int64) + TAG_BYTES
    starts = np.concatenate(([len(MAGIC)], len(MAGIC) + np.cumsum(stored)))
    if not np.array_equal(starts[:-1], index["offset"]) or int(starts[-1]) != footer.index_offset:
        raise SegmentCorrupt("index: chunk places do not cover the body exactly", subject=subject)
    return index


def _as_written_now(index: np.ndarray) -> np.ndarray:
    """Rows of any version as those of this one."""
    if index.dtype == INDEX_DTYPE:
        return index
    rows = np.zeros(len(index), INDEX_DTYPE)
    for name in INDEX_DTYPE.names or ():
        if name != "facts":
            rows[name] = index[name]
    rows.setflags(write=False)
    return rows


def parse_segment(data: bytes | bytearray, *, subject: str = "") -> tuple[Footer, np.ndarray]:
    """Check a whole object in memory, every byte of it, and return its footer and index.

    Raises:
        SegmentCorrupt: anything is not what was written.
    """
    if not MIN_SEGMENT_BYTES <= len(data) <= MAX_SEGMENT_BYTES:
        raise SegmentCorrupt(f"{len(data)} bytes cannot be a segment", subject=subject)
    if data[: len(MAGIC)] != MAGIC:
        raise SegmentCorrupt("magic: this is not a segment", subject=subject)
    footer = parse_footer(bytes(data[-FOOTER_BYTES:]), len(data), subject=subject)
    index = parse_index(bytes(data[footer.index_offset : -FOOTER_BYTES]), footer, subject=subject)
    if checksums.crc32(memoryview(data)[: footer.index_offset]) != footer.body_crc32:
        raise SegmentCorrupt("body checksum does not match: flipped bits", subject=subject)
    return footer, index


def decrypt_chunk(cipher: AESGCM, nonce: bytes, stored: bytes, *, device: int, capture_ms: int) -> bytes:
    """The plaintext of one stored body (ciphertext + tag).

    Raises:
        CorruptError: wrong key, flipped bits, or bytes of another device or time (invariant 11).
    """
    try:
        return cipher.decrypt(nonce, stored, _AAD.pack(device, capture_ms))
    except (InvalidTag, ValueError):  # ValueError: a nonce of a length that GCM does not know
        raise CorruptError(
            "the stored bytes do not authenticate as this chunk",
            subject=f"device {device} at {capture_ms}",
            code="chunk_corrupt",
        ) from None
