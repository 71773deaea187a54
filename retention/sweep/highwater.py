"""How far the catalog was when it was last swept, kept in the store.

The bitmap knows it as well, but goes the way of its host: a disk that was rolled back took bitmap and catalog back
together, and a new host has none. The objects are elsewhere, and so is this mark: the one object that is written again.
It is as old as the last sweep, so what was lost of a younger catalog is for the bitmap alone to notice.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass

from storage.catalog.continuity import ContinuityCatalog
from storage.checksums import crc32
from storage.errors import CorruptError, ObjectMissing, WorldError
from storage.objects import ObjectStore

KEY = "sweep/high-water"
"""Not below the prefix of segments, so that no sweep, no check and no expiry rule of ours looks at it."""
_WORDS = "clipkeep: segment {:020d}, change {:020d}\n"
_FORM = re.compile(rb"clipkeep: segment (\d{20}), change (\d{20})\n")
_BYTES = len(_WORDS.format(0, 0))


@dataclass(frozen=True, slots=True)
class HighWater:
    """Numbers that only grow, as long as a catalog is the same."""

    segment_id: int = 0
    change: int = 0

    @classmethod
    def of(cls, catalog: ContinuityCatalog) -> HighWater:
        return cls(catalog.highest_segment_id(), catalog.newest_change())

    def raised_to(self, other: HighWater) -> HighWater:
        return HighWater(max(self.segment_id, other.segment_id), max(self.change, other.change))


def read_mark(store: ObjectStore) -> HighWater:
    """The store's mark; all zero when nothing was ever swept.

    Raises:
        CorruptError: `mark_corrupt`, what is there is none.
        WorldError: the store cannot be read.
    """
    try:
        found = _FORM.fullmatch(store.get_range(KEY, 0, _BYTES))
    except ObjectMissing:
        return HighWater()
    except CorruptError:
        found = None
    if found is None:
        raise CorruptError(
            "this is not what sweeps wrote, so nothing was deleted. Run `clipkeep sweep --accept-catalog` when you"
            " know that this is the newest catalog there is",
            subject=KEY,
            code="mark_corrupt",
        )
    return HighWater(int(found[1]), int(found[2]))


def write_mark(store: ObjectStore, mark: HighWater) -> None:
    """Put the mark.

    Raises:
        WorldError: the store took it, or not.
    """
    body = bytearray(_WORDS.format(mark.segment_id, mark.change).encode())
    store.put(KEY, body, crc32(body))


def raise_mark(store: ObjectStore, found: HighWater, catalog: ContinuityCatalog) -> HighWater:
    """Put a higher mark than was `found`, when the catalog has gone on. A store that is full, for one, must be swept
    all the same: the next pass tries again. Returns what is there now, as far as one knows."""
    mark = found.raised_to(HighWater.of(catalog))
    if mark != found:
        with suppress(WorldError):
            write_mark(store, mark)
            return mark
    return found
