"""The catalog as those use it who read kept clips, and who copy them. The desk makes and ends them in the books."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from storage.rows.clips import ClipRow
from storage.rows.recordings import ChunkRow, SegmentCommit


class KeptObject(NamedTuple):
    """An object of a clip, durable in the store, and the rows that its chunks are copies of, one for each ordinal."""

    segment: SegmentCommit
    sources: Sequence[ChunkRow]


class ClipsCatalog(Protocol):
    """Kept clips by device and number."""

    @abstractmethod
    def clip_chunks(
        self, device: int, clip: int, from_ms: int, to_ms: int, *, limit: int, newest_first: bool = False
    ) -> list[ChunkRow]:
        """Copied chunks captured at `from_ms <= t < to_ms`, ascending: the first ones, or the last ones. Their
        `expires_on` is KEPT_DAY."""

    @abstractmethod
    def clip_init(self, device: int, clip: int, number: int) -> ChunkRow | None:
        """The copied init segment that fragments of the clip name by this number (`ReadingCatalog.init`)."""

    @abstractmethod
    def clip_key(self, clip: int) -> bytes | None:
        """Id of the clip's key in the vault; None when the clip has ended, or never was."""

    @abstractmethod
    def copied_bytes(self, clip: int) -> int:
        """Of plaintext, of the chunks that are copied."""

    @abstractmethod
    def claim_clip(self, *, now_ms: int, until_ms: int) -> ClipRow | None:
        """A clip that is to be copied and that nobody copies, the oldest: left to the caller until then. None: there is
        none."""

    @abstractmethod
    def commit_clip(
        self,
        clip: ClipRow,
        kept: KeptObject | None,
        *,
        next_ms: int,
        done: bool,
        now_ms: int,
        until_ms: int,
    ) -> ClipRow | None:
        """Note that what was captured before `next_ms` is copied, in one transaction with the rows of the copies. A
        chunk whose source was deleted, erased or swept meanwhile gets no row.

        Args:
            clip: as it was claimed, or as the commit before returned it.
            kept: None when nothing was left to copy.
            done: there is nothing behind it: the clip is ready, and of what was copied.
            until_ms: the claim goes on until then.

        Returns:
            The clip as it is now; None when it has ended, or is somebody else's: nothing was changed.
        """
