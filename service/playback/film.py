"""What an export as MP4 consists of: which chunks, where each lies in the film, and where in the file. Pure.

A film has a clock of its own. Chunks follow each other by their media's clock as far as that runs on; where recording
stopped, or a camera started again, the next chunk begins where the one before it ended: gaps are closed. Where decoders
have to be set up anew a film can't go on, so there is one for each set-up, and the export is an archive of them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

from ingest.media import Media
from service.playback.refusals import Refused
from service.remuxing import zipping
from service.remuxing.layout import INIT_BYTES, LAYOUT_VERSION, Slot, index_bytes, slot_bytes
from service.remuxing.remuxer import REWRAPPING_VERSION
from service.timeline import ListedChunk, follows
from storage.media_facts import KeyFrame, MediaFacts, distance_ms, ticks_between

TICKS_PER_MS = 90
MAX_FILMS = 64
"""In one archive: set-ups that change more often are a fault, and each has to be found out before the answer begins."""


class Placed(NamedTuple):
    """A chunk of a film. Ticks of 90 kHz: see `Remuxer.placed`. `sequence` counts from 1."""

    chunk: ListedChunk
    sequence: int
    at_ticks: int
    of_ticks: int | None
    until_ticks: int | None
    begins: bool
    ticks: int
    slot_bytes: int

    @property
    def slot(self) -> Slot:
        return Slot(self.slot_bytes, self.ticks, self.chunk.facts.key_frame is not KeyFrame.NO)


@dataclass(frozen=True, slots=True)
class Film:
    """Chunks that one set-up of the decoders plays."""

    chunks: Sequence[Placed]

    @property
    def from_ms(self) -> int:
        return self.chunks[0].chunk.capture_ms

    @property
    def ticks(self) -> int:
        return self.chunks[-1].at_ticks + self.chunks[-1].ticks

    @property
    def length_bytes(self) -> int:
        return INIT_BYTES + index_bytes(len(self.chunks)) + sum(each.slot_bytes for each in self.chunks)


def films(chunks: Sequence[ListedChunk], gap_ms: int) -> list[Film]:
    """Chunks as films, in order.

    Args:
        chunks: ascending by `capture_ms`; not empty.

    Raises:
        Refused: `range_too_large`, more than MAX_FILMS.
    """
    groups: list[list[ListedChunk]] = []
    known: dict[object, int] = {}
    for chunk in chunks:
        found = _set_up(chunk.facts)
        if not groups or any(known.get(name, value) != value for name, value in found.items()):
            groups.append([])
            known = {}
        known = found | known
        groups[-1].append(chunk)
    if len(groups) > MAX_FILMS:
        detail = f"codecs change more than {MAX_FILMS} times in this range: ask for less at once"
        raise Refused(detail, code="range_too_large")
    return [Film(_placed(group, gap_ms)) for group in groups]


def _placed(chunks: Sequence[ListedChunk], gap_ms: int) -> list[Placed]:
    found: list[Placed] = []
    at_ticks, begins = 0, True
    for i, chunk in enumerate(chunks):
        ticks, runs_on = chunk.duration_ms * TICKS_PER_MS, False
        if i + 1 < len(chunks):
            following = chunks[i + 1]
            before, after = chunk.facts.times, following.facts.times
            if before is not None and after is not None and distance_ms(chunk.facts, following.facts):
                runs_on = _keeps_its_clock(chunk) and follows(chunk, following, gap_ms)
                if runs_on:
                    ticks = ticks_between(before.first_ticks, after.first_ticks)
        times = chunk.facts.times
        of_ticks = times.first_ticks if times is not None and _keeps_its_clock(chunk) else None
        room = slot_bytes(chunk.length_bytes, is_ts=chunk.media is Media.MPEG_TS)
        until_ticks = None if runs_on else at_ticks + ticks
        found.append(Placed(chunk, i + 1, at_ticks, of_ticks, until_ticks, begins, ticks, room))
        at_ticks, begins = at_ticks + ticks, not runs_on
    return found


def _keeps_its_clock(chunk: ListedChunk) -> bool:
    """Whether its times are those of a clock that runs on from chunk to chunk; that of a clip begins with it."""
    return chunk.media in (Media.MPEG_TS, Media.FMP4)


def _set_up(facts: MediaFacts) -> dict[object, int]:
    """What is known of how decoders are set up. The hash of parameters has AAC's in it where its sound was found, which
    depends on where in the chunk it begins: so it is compared with those of chunks of which as much is known."""
    names = ("tracks", "video", "audio", "width", "height")
    found: dict[object, int] = {name: getattr(facts, name) for name in names}
    found["parameters", facts.audio] = facts.parameters
    return {name: value for name, value in found.items() if value}


def entries(parts: Sequence[Film], device: int) -> list[zipping.Entry]:
    """The films of an archive, with their places."""
    found: list[zipping.Entry] = []
    offset = 0
    for number, film in enumerate(parts, 1):
        name = f"device-{device}-{film.from_ms}-{number}.mp4"
        found.append(zipping.Entry(name, film.length_bytes, film.from_ms, offset))
        offset += zipping.header_bytes(found[-1]) + film.length_bytes + zipping.DESCRIPTOR_BYTES
    return found


def archive_bytes(found: list[zipping.Entry]) -> int:
    """Length of an archive of these."""
    last = found[-1]
    end = last.offset + zipping.header_bytes(last) + last.length_bytes + zipping.DESCRIPTOR_BYTES
    return end + zipping.directory_bytes(found)


def etag(parts: Sequence[Film]) -> str:
    """A strong tag (RFC 9110 §8.8.1): which chunks, how they lie, and what makes them."""
    digest = hashlib.sha256(f"mp4 {REWRAPPING_VERSION} {LAYOUT_VERSION} {version('av')}".encode())
    for film in parts:
        digest.update(struct.pack("<I", len(film.chunks)))
        for each in film.chunks:
            chunk = each.chunk
            digest.update(struct.pack("<qII", chunk.capture_ms, chunk.length_bytes, chunk.crc32))
            of_ticks = -1 if each.of_ticks is None else each.of_ticks
            digest.update(struct.pack("<q?q", each.at_ticks, each.begins, of_ticks))
    return f'"{digest.hexdigest()[:32]}"'
