"""What a package lets a device upload: bytes a day and chunks a second. Pure.

Packages have few pairs of limits between them. Each pair has a number, its *limit class*, which the row of a device in
the entitlement bitmap names; the pairs themselves are in the bitmap's header, a word of 8 bytes each. So the hot path
finds the limits of a device where it finds its rights, and asks no database.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from storage.errors import Unprocessable
from storage.rows.packages import MAX_LIMIT_CLASS
from storage.segment import MAX_CHUNK_BYTES

MIN_BYTES_PER_DAY = MAX_CHUNK_BYTES
"""So that any chunk fits into a day of its own, and none is sent again for ever."""
MAX_BYTES_PER_DAY = (1 << 48) - 1
MAX_CHUNKS_PER_S = 1000
_CHUNKS_SHIFT = 48


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """Of one device while a plan of the package runs. 0: no limit.

    Args:
        bytes_per_day: stored on one UTC day, by the day on which they arrive; 0 or 16 MiB..2^48-1.
        chunks_per_s: in the long run; 0..1000.

    Raises:
        CallerError: `bad_package`.
    """

    bytes_per_day: int = 0
    chunks_per_s: int = 0

    def __post_init__(self) -> None:
        if self.bytes_per_day and not MIN_BYTES_PER_DAY <= self.bytes_per_day <= MAX_BYTES_PER_DAY:
            raise Unprocessable(
                f"the most bytes of a device and day are {MIN_BYTES_PER_DAY} or more (0: any number), not"
                f" {self.bytes_per_day}",
                code="bad_package",
            )
        if not 0 <= self.chunks_per_s <= MAX_CHUNKS_PER_S:
            raise Unprocessable(
                f"the most chunks of a device and second are 1 to {MAX_CHUNKS_PER_S} (0: any number), not"
                f" {self.chunks_per_s}",
                code="bad_package",
            )

    def __bool__(self) -> bool:
        return bool(self.bytes_per_day or self.chunks_per_s)

    @property
    def word(self) -> int:
        """8 bytes of the bitmap's header: bytes a day in the lower 48 bits, chunks a second above."""
        return self.chunks_per_s << _CHUNKS_SHIFT | self.bytes_per_day

    @classmethod
    def of_word(cls, word: int) -> UploadLimits:
        """The inverse of `word`."""
        return cls(word & MAX_BYTES_PER_DAY, word >> _CHUNKS_SHIFT)


NO_LIMITS = UploadLimits()


def class_of(known: Iterable[tuple[int, UploadLimits]], wanted: UploadLimits) -> int:
    """The limit class of a pair of limits: the one that packages have already, else the next one; 0 for no limits.

    Args:
        known: (limit class, limits) of the packages that there are.

    Raises:
        CallerError: `too_many_limits`.
    """
    if not wanted:
        return 0
    highest = 0
    for number, limits in known:
        if number and limits == wanted:
            return number
        highest = max(highest, number)
    if highest >= MAX_LIMIT_CLASS:
        raise Unprocessable(
            f"packages have {MAX_LIMIT_CLASS} different pairs of limits already, and there is no room for more; use"
            " one that another package has",
            code="too_many_limits",
        )
    return highest + 1
