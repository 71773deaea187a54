"""A body that was taken, as the chunk that is packed: the one place where the two meet."""

from __future__ import annotations

from collections.abc import Callable

from ingest.media import Found
from ingest.packing import Chunk, Outcome
from ingest.protocols.base import Admission
from storage import checksums


def chunk_at(
    capture_ms: int,
    duration_ms: int,
    admission: Admission,
    data: bytes | bytearray | memoryview,
    found: Found,
    now_ms: int,
    moves: int,
    done: Callable[[Outcome, float], None],
) -> Chunk:
    """That chunk, captured at that time.

    Args:
        data: the body.
        found: what its media holds.
        moves: how many times it may give way to another chunk of its capture time.
        done: see `Chunk`.
    """
    return Chunk(
        device=admission.device,
        capture_ms=capture_ms,
        epoch=admission.epoch,
        class_days=admission.class_days,
        expires_on=admission.expires_on(capture_ms, now_ms),
        duration_ms=duration_ms,
        crc32=checksums.crc32(data),
        crc64=checksums.crc64nvme(data),
        media=found.media,
        length=len(data),
        facts=found.facts,
        moves_left=moves,
        done=done,
    )
