"""Reading segments back from the store: the index alone, or every byte. Needs no catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from storage.errors import SegmentCorrupt
from storage.objects import ObjectStore
from storage.rows.recordings import SegmentRow
from storage.segment import (
    FOOTER_BYTES,
    MAX_SEGMENT_BYTES,
    MIN_SEGMENT_BYTES,
    Footer,
    parse_footer,
    parse_index,
    parse_segment,
)

Result = TypeVar("Result")


def load_index(store: ObjectStore, key: str) -> tuple[Footer, np.ndarray]:
    """The index of a segment, from its object alone: a head and two ranged reads, whatever its size.

    Checks the footer and the index, not the chunk bodies: those have their GCM tags.

    Returns:
        The footer, and the rows, shape (footer.chunks,), dtype `segment.INDEX_DTYPE`, read-only.

    Raises:
        SegmentCorrupt: cut, flipped, or not a segment.
        ObjectMissing, StoreUnavailable, StoreDenied: as the store says.
    """
    size = _checked_size(store, key)

    def read() -> tuple[Footer, np.ndarray]:
        footer = parse_footer(store.get_range(key, size - FOOTER_BYTES, FOOTER_BYTES), size, subject=key)
        index = store.get_range(key, footer.index_offset, footer.index_bytes)
        return footer, parse_index(index, footer, subject=key)

    return read_again_if_corrupt(read)


def load_index_of(store: ObjectStore, row: SegmentRow) -> np.ndarray:
    """The index of a committed segment, once it is sure that the object under its key is that segment.

    Raises:
        SegmentCorrupt: also when the object is a sound segment, but another one than the catalog says.
        ObjectMissing, StoreUnavailable, StoreDenied: as the store says.
    """
    footer, index = load_index(store, row.key)
    _require_same(footer, row)
    return index


def load_segment_of(store: ObjectStore, row: SegmentRow) -> tuple[bytes, np.ndarray]:
    """A committed segment, every byte of it checked, and its index.

    Raises:
        As `load_index_of`.
    """

    def read() -> tuple[bytes, Footer, np.ndarray]:
        body = store.get_range(row.key, 0, row.size_bytes)
        return body, *parse_segment(body, subject=row.key)

    body, footer, index = read_again_if_corrupt(read)
    _require_same(footer, row)
    return body, index


def _require_same(footer: Footer, row: SegmentRow) -> None:
    for field, found, wanted in (
        ("segment id", footer.segment_id, row.segment_id),
        ("expiry day", footer.expires_on, row.expires_on),
        ("chunk count", footer.chunks, row.chunks),
    ):
        if found != wanted:
            raise SegmentCorrupt(f"{field} {found}, the catalog says {wanted}", subject=row.key)


def verify_object(store: ObjectStore, key: str) -> tuple[Footer, np.ndarray]:
    """Read a whole object, at most MAX_SEGMENT_BYTES of memory, and check every byte of it.

    Returns, raises: as `load_index`.
    """
    size = _checked_size(store, key)
    return read_again_if_corrupt(lambda: parse_segment(store.get_range(key, 0, size), subject=key))


def read_again_if_corrupt(read: Callable[[], Result]) -> Result:
    """The result of `read`; of a second try when the first finds what was read corrupt: a bit may have flipped on its
    way. What is corrupt in the store is so twice."""
    try:
        return read()
    except SegmentCorrupt:
        return read()


def _checked_size(store: ObjectStore, key: str) -> int:
    size = store.head(key).size_bytes
    if not MIN_SEGMENT_BYTES <= size <= MAX_SEGMENT_BYTES:
        raise SegmentCorrupt(f"{size} bytes cannot be a segment", subject=key)
    return size
