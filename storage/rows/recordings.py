"""Segments and chunks: what is stored, and what is to be deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

import numpy as np

MAX_CLOCK_AHEAD_MS = 600_000
"""How far a device's clock may be ahead. Not configurable: a commit derives from it in which partitions the same
(device, capture_ms) could already be."""

MAX_CAPTURE_MS = 1 << 62
"""Above every capture time."""


FIRST_PART_MS = -(1 << 60)
"""Capture times from here down are of parts of resumable uploads, which are no recordings yet. From -1 down to
-(2**32 - 1) are init segments; between there is nothing."""

FMP4 = 3
"""`media` of fragments whose header, an init segment, came before them; and of that."""


class SegmentState(IntEnum):
    """A key is in exactly one of these, or absent (invariant 4)."""

    PREPARED = 0  # reserved; a PUT may be under way
    COMMITTED = 1  # its chunks are served
    DELETING = 2  # un-indexed; the tombstone that the sweep works off


class Verdict(IntEnum):
    """What a commit decided about one chunk."""

    STORED = 0
    DUPLICATE = 1  # the same chunk is already stored
    CONFLICT = 2  # other bytes are stored at this device and time
    ERASED = 3  # the device's erase epoch has moved on since admission
    EXPIRED = 4  # its expiry day has been swept
    DELETED = 5  # its owner or an operator deleted this range
    RECLAIMED = 6  # the segment's key was no longer prepared: nothing of it is stored
    NO_INIT = 7  # of fragments: their init segment is not stored for this day


@dataclass(frozen=True, slots=True)
class PreparedKey:
    """A segment key reserved before its first byte is written (invariant 5)."""

    segment_id: int
    key: str
    prepared_ms: int


class SegmentMark(NamedTuple):
    """What was stored at one moment, by segment numbers: all up to `newest`, less the ranges `unused`.

    A worker prepares numbers in blocks and uses them for minutes, so a chunk that is stored later may be in a segment
    of a lower number. `unused`: (first, last) of each range that was prepared and not committed then, ascending; the
    newest MAX_UNUSED_RANGES.
    """

    newest: int
    unused: tuple[tuple[int, int], ...] = ()


NOTHING_STORED = SegmentMark(0)

MAX_UNUSED_RANGES = 64
"""Of a `SegmentMark`: a range for each worker, retention class and day of expiry, and some more for puts under way."""


@dataclass(frozen=True, slots=True)
class SegmentCommit:
    """A segment whose object is durable in the store. `index` has dtype `segment.INDEX_DTYPE`."""

    segment_id: int
    expires_on: int
    size_bytes: int
    crc32: int
    index: np.ndarray


@dataclass(frozen=True, slots=True)
class SegmentRow:
    segment_id: int
    key: str
    class_days: int
    expires_on: int
    state: SegmentState
    prepared_ms: int
    size_bytes: int
    chunks: int
    live_chunks: int
    crc32: int
    refused: bytes
    """uint32 ordinals that are not served: lost at commit, or deleted since. A rebuild honours them."""


class ChunkRow(NamedTuple):
    """Where one chunk is, and everything needed to read it. (A tuple: a day's listing makes 20,000 of them.)"""

    device: int
    capture_ms: int
    duration_ms: int
    """How long it plays; 0: neither the device nor the media could tell, as of a single frame."""
    expires_on: int
    segment_id: int
    segment_key: str
    ordinal: int
    offset: int
    length: int
    crc32: int
    nonce: bytes
    media: int
    epoch: int
    facts: bytes = b""
    """Packed; `storage.media_facts.unpack_facts` reads it, whatever it is."""

    def is_same_chunk(self, other: ChunkRow) -> bool:
        """Whether both are of one and the same ciphertext, wherever a rewrite has put it."""
        mine = (self.device, self.capture_ms, self.epoch, self.nonce)
        return mine == (other.device, other.capture_ms, other.epoch, other.nonce)


class LiveListRow(NamedTuple):
    """What the live playlist of a device lists, as playback stored it. `version` counts its changes, from 1."""

    version: int
    epoch: int
    state: str


class SentInit(NamedTuple):
    """The init segment that a device sent last: its fragments are read by that. `number` is minus the capture time of
    its chunk rows, `expires_on` the latest day that has one, `at_ms` when it was sent, 0 not known."""

    epoch: int
    number: int
    expires_on: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class DayTotals:
    """What one expiry day holds."""

    expires_on: int
    segments: int
    chunks: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An un-indexed object that is to be deleted. `reclaimed` ones are deleted twice, one ttl apart."""

    segment_id: int
    key: str
    size_bytes: int
    attempts: int
    reclaimed: bool


@dataclass(frozen=True, slots=True)
class Due:
    """What is due to be deleted."""

    objects: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Orphan:
    """An object under a key of ours that the catalog does not know."""

    key: str
    class_days: int
    expires_on: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Unindexed:
    """What a change made unserved."""

    chunks: int = 0
    size_bytes: int = 0
    dead_segments: int = 0


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums for reports and metrics."""

    devices: int = 0
    chunks: int = 0
    segments: dict[str, int] = field(default_factory=dict)
    segment_bytes: int = 0
    tombstones: int = 0
    oldest_tombstone_ms: int | None = None
    failing_tombstones: int = 0
    closed_through: int = 0
