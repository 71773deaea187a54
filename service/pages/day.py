"""A day in words: what a timeline shows, as the rows of a table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from storage.rows.clips import ClipRow


@dataclass(frozen=True, slots=True)
class Line:
    """One row: Unix ms `from_ms <= t < to_ms`.

    Args:
        what: "recorded", "deleted", "nothing" or "kept".
        clip: of what is kept.
    """

    from_ms: int
    to_ms: int
    what: str
    clip: ClipRow | None = None


def lines(
    spans: Iterable[tuple[int, int]],
    deleted: Iterable[tuple[int, int]],
    kept: Sequence[ClipRow],
    from_ms: int,
    to_ms: int,
) -> list[Line]:
    """What is in [from_ms, to_ms), in order. Kept clips stand beside what was recorded at their time, with their whole
    length; in what is neither recorded nor deleted is nothing.

    Args:
        spans, deleted: each ascending.
    """
    there = [Line(first, last, "recorded") for first, last in spans]
    there += [Line(first, last, "deleted") for first, last in deleted]
    there.sort(key=lambda line: line.from_ms)
    found: list[Line] = []
    end_ms = from_ms
    for line in there:
        if line.from_ms > end_ms:
            found.append(Line(end_ms, line.from_ms, "nothing"))
        found.append(line)
        end_ms = max(end_ms, line.to_ms)
    if end_ms < to_ms:
        found.append(Line(end_ms, to_ms, "nothing"))
    found += [Line(clip.from_ms, clip.to_ms, "kept", clip) for clip in kept]
    return sorted(found, key=lambda line: (max(line.from_ms, from_ms), line.what == "kept"))


def within(clips: Iterable[ClipRow], from_ms: int, to_ms: int) -> list[ClipRow]:
    """The clips that have something of a range, by their beginning."""
    return sorted(
        (clip for clip in clips if clip.first_ms < to_ms and from_ms < clip.to_ms),
        key=lambda clip: clip.from_ms,
    )
