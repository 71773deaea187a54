"""What is stored of one resumable upload: its parts, and the mark that says that it has ended.

A part is stored as a chunk of its device at a capture time far below 0 (`part_ms`), which says upload and ordinal. So
(device, capture time) being unique decides which of two requests for one offset counts, on whatever hosts they are:
both found as many parts stored, and only one of them stores the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from ingest.committed import Committed
from ingest.committing import Uploads
from ingest.media import Media
from ingest.packing import Chunk, Outcome
from ingest.protocols.base import Admission
from ingest.protocols.upload_call import UploadCall
from storage import checksums
from storage.days import ms_of_day
from storage.media_facts import FACTS_BYTES
from storage.rows.recordings import FIRST_PART_MS, ChunkRow

_ORDINAL_BITS: Final = 13
MAX_PARTS: Final = 4096
"""Of one upload: so many times it may break, or is sent on."""
_MARK: Final = (1 << _ORDINAL_BITS) - 1
"""Where an upload's mark is: beyond every part."""
FINISHED_MARK: Final = b"f"
TERMINATED_MARK: Final = b"tt"
"""Their lengths tell them apart, which are in the catalog's row."""


def part_ms(call: UploadCall, ordinal: int) -> int:
    """The capture time of a part. Below all init segments."""
    return FIRST_PART_MS - (call.number << _ORDINAL_BITS) - ordinal


def mark_ms(call: UploadCall) -> int:
    """The capture time of its mark."""
    return part_ms(call, _MARK)


def expires_line(call: UploadCall) -> str:
    """The header that says until when it can go on."""
    return f"Upload-Expires: {formatdate(ms_of_day(call.expires_on) / 1000, usegmt=True)}"


@dataclass
class Stored:
    """What is stored of an upload. `mark`: the length of its mark, 0 when there is none."""

    parts: list[ChunkRow]
    mark: int = 0

    @property
    def offset(self) -> int:
        return sum(row.length for row in self.parts)

    @property
    def is_finished(self) -> bool:
        return self.mark == len(FINISHED_MARK)

    @property
    def is_terminated(self) -> bool:
        return self.mark == len(TERMINATED_MARK)


class UploadParts:
    """The parts of the upload that one request is about."""

    def __init__(self, uploads: Uploads, admission: Admission, call: UploadCall) -> None:
        self._uploads = uploads
        self._admission = admission
        self._call = call

    async def stored(self) -> Stored:
        """Look at them: one query. Raises WorldError."""
        call = self._call
        rows = await self._uploads.parts.rows(
            self._admission.device,
            mark_ms(call),
            part_ms(call, 0) + 1,
            call.expires_on,
            limit=MAX_PARTS + 1,
        )
        mark = rows.pop(0).length if rows and rows[0].capture_ms == mark_ms(call) else 0
        return Stored(rows[::-1], mark)

    async def read(self, row: ChunkRow) -> bytes:
        """The bytes of a part. Raises KeyDestroyed, CorruptError, WorldError."""
        return await self._uploads.parts.read(row)

    async def store(self, ordinal: int, data: memoryview) -> Outcome:
        """Store a part. Raises KeyDestroyed, WorldError."""
        return await self._store(part_ms(self._call, ordinal), data)

    async def store_mark(self, mark: bytes) -> Outcome:
        """Say that the upload has ended. Raises KeyDestroyed, WorldError."""
        return await self._store(mark_ms(self._call), memoryview(mark))

    async def _store(self, capture_ms: int, data: memoryview) -> Outcome:
        committed = Committed()
        await self._uploads.pack(below(self._admission, self._call, capture_ms, data, committed), data)
        return await committed.outcome(lambda: self._uploads.ended)


def below(
    admission: Admission,
    call: UploadCall,
    capture_ms: int,
    data: memoryview,
    done: Callable[[Outcome, float], None],
) -> Chunk:
    """A part, or a mark, as a chunk."""
    return Chunk(
        device=admission.device,
        capture_ms=capture_ms,
        epoch=admission.epoch,
        class_days=call.days - 1,
        expires_on=call.expires_on,
        duration_ms=0,
        crc32=checksums.crc32(data),
        crc64=checksums.crc64nvme(data),
        media=Media.UNKNOWN,
        length=len(data),
        facts=bytes(FACTS_BYTES),
        moves_left=0,
        done=done,
    )
