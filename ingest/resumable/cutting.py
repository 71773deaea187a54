"""Where a long upload is cut into chunks, whatever its media: which boundaries, and how much is a chunk. Pure.

A cutter is fed an upload from its first byte on and gives chunks, which together are the upload: it holds no more than
one chunk and what it was fed last. Chunks begin with a key frame, so that each plays alone, wherever there is one in
time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

from storage.media_facts import TICKS_PER_MS, MediaFacts, continues, ticks_between, unpack_facts

ENOUGH_BYTES: Final = 4 * 1024 * 1024
"""A chunk ends at the first key frame behind so many bytes, or behind `ENOUGH_S`: 4 s of 8 Mbit/s."""
LEAST_BYTES: Final = 256 * 1024
"""A chunk has at least so many, however long it plays: an upload of 256 MiB makes no more than a thousand."""
ENOUGH_S: Final = 10
_ENOUGH_TICKS: Final = ENOUGH_S * 1000 * TICKS_PER_MS

CLEAN_KEY: Final = 2
"""Rank of a place: a key frame begins there, and no unit of another track is cut in two."""
KEY: Final = 1
"""A key frame begins there."""
PICTURE: Final = 0
"""A picture begins there that needs others."""


class NotCuttable(Exception):
    """What was fed can't be cut. Its text, for people, says what it is."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where chunks may be parted. `position`: bytes from the first chunk's begin, in what is given. `ticks`: when the
    picture there is shown, 90 kHz; None: not known. `tables`: what a chunk that begins there needs before it."""

    position: int
    rank: int
    ticks: int | None = None
    tables: bytes = b""


class Places:
    """Decides where to cut.

    Args:
        most_bytes: of a chunk, what is put before it included.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._enough_bytes = min(ENOUGH_BYTES, most_bytes // 2)
        self._least_bytes = min(LEAST_BYTES, most_bytes // 8)
        self._start = Place(0, KEY)
        self._known: dict[int, Place] = {}
        """By rank, the last one of this chunk."""

    def at(self, place: Place, must: bool = False) -> Iterator[Place]:
        """Where to cut, now that there is this place, which comes after all others.

        Args:
            must: a chunk has enough, whatever its size is.

        Raises:
            NotCuttable: there was none in time.
        """
        yield from self.before(place.position)
        size = place.position - self._start.position
        if self._start.ticks is None:
            self._start = replace(self._start, ticks=place.ticks)
        if size < self._least_bytes and not (must and size):
            return
        is_enough = must or self.is_enough(place.position, place.ticks)
        if is_enough and (place.rank == CLEAN_KEY or (place.rank == KEY and size >= 2 * self._enough_bytes)):
            yield self._cut(place)
        else:
            self._known[place.rank] = place

    def is_enough(self, position: int, ticks: int | None) -> bool:
        """Whether a chunk would end there, if a key frame began. `ticks`: as of a `Place`."""
        size = position - self._start.position
        return size >= self._least_bytes and (size >= self._enough_bytes or self._plays_long(ticks))

    def before(self, position: int) -> Iterator[Place]:
        """Where to cut, now that no place is before this position that was not told.

        Raises:
            NotCuttable: there is none.
        """
        while position - self._start.position + len(self._start.tables) > self._most_bytes:
            for rank in (CLEAN_KEY, KEY, PICTURE):
                place = self._known.get(rank)
                if place is not None and place.position > self._start.position:
                    yield self._cut(place)
                    break
            else:
                raise NotCuttable(
                    f"no picture begins in {self._most_bytes} bytes of it, behind the first "
                    f"{self._start.position}"
                )

    def _cut(self, place: Place) -> Place:
        self._start = place
        return place

    def _plays_long(self, ticks: int | None) -> bool:
        if self._start.ticks is None or ticks is None:
            return False
        return not 0 <= ticks_between(self._start.ticks, ticks) < _ENOUGH_TICKS


class Times:
    """When chunks were captured that follow on one another in one upload.

    Args:
        start_ms: when the first one begins, Unix ms.
    """

    def __init__(self, start_ms: int) -> None:
        self._facts: MediaFacts | None = None
        self._began_ms = start_ms
        self._ticks = 0
        """That are no whole millisecond, of what has gone by."""
        self.end_ms = start_ms
        """When the last one ends."""

    def begins_ms(self, packed_facts: bytes, duration_ms: int) -> int:
        """Of the next chunk. By its own times, as far as they run on from those of the one before: to add up durations
        would add up what is rounded. Else it begins where that one ends."""
        facts, before = unpack_facts(packed_facts), self._facts
        begins_ms = self.end_ms
        if before is not None and before.times and facts.times and continues(before, facts):
            gone = self._ticks + ticks_between(before.times.first_ticks, facts.times.first_ticks)
            begins_ms, self._ticks = self._began_ms + gone // TICKS_PER_MS, gone % TICKS_PER_MS
        if before is not None:
            begins_ms = max(begins_ms, self._began_ms + 1)
        self._facts, self._began_ms = facts, begins_ms
        self.end_ms = begins_ms + max(duration_ms, 1)
        return begins_ms


class Cutter(Protocol):
    """See the module docstring."""

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Take what follows; returns the chunks that are complete.

        Raises:
            NotCuttable: it is no media of this kind, or can't be cut.
        """

    def end(self) -> list[bytes]:
        """All was fed: the chunks that are left. Raises NotCuttable."""
