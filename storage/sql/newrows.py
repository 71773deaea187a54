"""Chunk rows that are to be added to the table of one day, as an engine takes them."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from storage.media_facts import FACTS_BYTES
from storage.segment import INDEX_DTYPE

_INDEX_ROW = struct.Struct(f"<qqIIIIII12sB{FACTS_BYTES}s")
"""A row of `INDEX_DTYPE`, its CRC-64 signed, as the engines' integers are."""
assert _INDEX_ROW.size == INDEX_DTYPE.itemsize

CHUNK_COLUMNS = (
    "capture_ms",
    "crc64",
    "device",
    "epoch",
    '"offset"',  # a word of PostgreSQL's own
    "length",
    "crc32",
    "duration_ms",
    "nonce",
    "media",
    "facts",
    "segment_id",
    "ordinal",
)
"""The columns of `NewRows.values`."""


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of one or more segments. Three arrays of one length: `index` of INDEX_DTYPE, and of int64 each row's segment
    and its ordinal there."""

    index: np.ndarray
    segment_ids: np.ndarray
    ordinals: np.ndarray

    @classmethod
    def of(cls, index: np.ndarray, segment_id: int, ordinals: np.ndarray) -> NewRows:
        """Those of one segment with these ordinals, which ascend."""
        part = index if len(ordinals) == len(index) else index[ordinals]
        return cls(part, np.full(len(ordinals), segment_id, dtype=np.int64), ordinals)

    @classmethod
    def joined(cls, parts: Iterable[NewRows]) -> NewRows:
        """One after the other; at least one."""
        rows = list(parts)
        if len(rows) == 1:
            return rows[0]
        return cls(
            np.concatenate([r.index for r in rows]),
            np.concatenate([r.segment_ids for r in rows]),
            np.concatenate([r.ordinals for r in rows]),
        )

    def __len__(self) -> int:
        return len(self.index)

    def values(self) -> list[tuple[object, ...]]:
        """A tuple for each, in the order of CHUNK_COLUMNS."""
        rows = zip(
            _INDEX_ROW.iter_unpack(self.index.tobytes()),
            self.segment_ids.tolist(),
            self.ordinals.tolist(),
            strict=True,
        )
        return [(*row, segment_id, ordinal) for row, segment_id, ordinal in rows]
