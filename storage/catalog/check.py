"""The catalog as check, repair and rebuild see it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from storage.rows.recordings import ChunkRow, Orphan, SegmentRow


class CheckCatalog(Protocol):
    """Every row, in order; what is wrong with them; and how they come back from the objects."""

    @abstractmethod
    def segments(self, *, after_id: int = 0, limit: int = 1000) -> list[SegmentRow]:
        """Segment rows with an id above `after_id`, in order."""

    @abstractmethod
    def segments_by_key(self, *, after_key: str = "", limit: int = 1000) -> list[SegmentRow]:
        """Segment rows with a key above `after_key`, in order of key: of characters, as stores list."""

    @abstractmethod
    def segment_with_key(self, key: str) -> SegmentRow | None:
        """The segment of this key, in whatever state."""

    @abstractmethod
    def adopt_orphans(
        self, orphans: Sequence[Orphan], *, fence: int, now_ms: int, delete_after_ms: int
    ) -> int:
        """Make tombstones of objects that the catalog does not know, so that sweeps delete them. Keys that it knows
        by now stay as they are. Returns how many are new."""

    @abstractmethod
    def day_rows(self, day: int) -> Iterator[ChunkRow]:
        """Yield the chunk rows of one expiry day in order of (segment_id, ordinal)."""

    @abstractmethod
    def damage(self) -> list[str]:
        """What the engine itself finds wrong with its files, each as a sentence: all that is stored is read from the
        disk anew, and every index compared with its table. At most some 1000. Minutes for a large catalog, beside a
        service.

        Raises:
            CatalogUnavailable: it could not be asked.
        """

    @abstractmethod
    def unlooked(self) -> list[str]:
        """What `damage` would not look at, each as a sentence that says what to do: the engine, or the user that is
        connected, lacks something. Empty when it looks at all there is."""

    @abstractmethod
    def broken_rows(self) -> Iterator[str]:
        """Yield a sentence per disagreement among the catalog's own rows (invariant 4)."""

    @abstractmethod
    def rebuild_chunks(self, segments: Iterable[tuple[SegmentRow, np.ndarray]]) -> int:
        """Re-create the chunk rows from the indexes of committed segments, less what was refused and what
        belongs to an earlier erase epoch, a deleted range or a closed day. Existing rows stay. What it leaves
        out is noted as refused; a segment left without live chunks goes with its day, nothing is tombstoned.

        The catalog's own row counts, found by key; the `SegmentRow` may be of a while ago. Returns how many
        rows were added.

        Raises:
            SegmentCorrupt: an index has another number of chunks than the catalog says its segment has (what
                earlier calls or batches added stays). `recover.load_index_of` tells beforehand.
        """
