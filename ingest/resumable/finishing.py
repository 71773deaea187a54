"""A resumable upload that is larger than a chunk becomes chunks: all of them, or none.

Its parts are read one after the other and cut (`cut_ts`, `cut_mp4`), so no more of it is in memory than a chunk, a part
and a segment: `CUT_BYTES`, which are charged; one upload of a worker at a time. The chunks go into segments of their
own, which are put first. Then one transaction commits all of these, and the mark that says that the upload is finished.
Whoever is killed before that leaves prepared keys, which the sweep reclaims, and parts, from which the client's next
request begins once more; of two that do so at once the second one finds the mark.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import trio

from ingest import answers, inits, media, mpegts
from ingest.answers import Answer
from ingest.budget import Account
from ingest.chunks import chunk_at
from ingest.inits import KnownInit
from ingest.packing import Chunk, append
from ingest.protocols.base import Admission
from ingest.protocols.table import PUT
from ingest.protocols.tus import GONE, mismatch, not_cuttable
from ingest.protocols.upload_call import UploadCall
from ingest.receiving import Receiver
from ingest.resumable.cut_mp4 import MAX_HEADER_BYTES, Mp4Cutter
from ingest.resumable.cut_ts import TsCutter
from ingest.resumable.cutting import Cutter, NotCuttable, Times
from ingest.resumable.parts import FINISHED_MARK, Stored, UploadParts, below, expires_line, mark_ms
from ingest.room import wait_for_budget
from storage.days import MS_PER_DAY
from storage.rows.recordings import MAX_CLOCK_AHEAD_MS, SegmentCommit, Verdict
from storage.segment import MAX_CHUNK_BYTES, NONCE_BYTES, SegmentWriter, buffer_bytes

SEGMENT_BYTES: Final = 12 * 1024 * 1024
"""A segment is sealed at so many: 256 MiB are 22 objects."""
SHARES: Final = 4
CUT_BYTES: Final = SHARES * MAX_CHUNK_BYTES
"""Charged while an upload is cut: a chunk that is not complete, a part in clear and as it is stored, and a segment."""
TURN_WAIT_S: Final = 60.0
"""How long an upload waits for those that are cut before it, some seconds each; then its client is to come again."""
MOST_WAITING: Final = 16
"""Uploads that wait for their turn: what they hold is charged."""
PROBE_BYTES: Final = 2 * MAX_HEADER_BYTES
"""Of an upload, from which it is told whether it can be cut."""
PROBE_PARTS: Final = 8
"""That are read for it: of one whose beginning comes in more than these it is told at its end."""
_LASTING: Final = frozenset(
    (
        "not_cuttable",
        "no_header",
        "no_frames",
        "no_init",
        "encrypted",
        "unknown_codec",
        "conflict",
        "deleted",
        "expired",
        "clock_ahead",
        "not_entitled_at_capture",
    )
)
"""Refusals for which all of an upload was looked at."""
_SNIFFED_BYTES: Final = mpegts.MAX_JUNK_BYTES + media.SNIFF_PACKETS * mpegts.PACKET_BYTES
MOVES: Final = 3
"""How often an upload without a time of its own gives way to chunks that have the times of its chunks."""
_MOVE_MS: Final = 7


async def wrong_at_first(parts: UploadParts, stored: Stored, data: memoryview) -> str:
    """Why an upload can't be cut, by its first bytes; empty where it may be, where too little has come to tell, and
    where it was asked before.

    Args:
        data: what has come behind what is stored.

    Raises:
        KeyDestroyed, CorruptError, WorldError: it can't be looked at now.
    """
    if stored.offset >= PROBE_BYTES or len(stored.parts) > PROBE_PARTS:
        return ""
    head = b"".join([await parts.read(row) for row in stored.parts])
    # In a thread: 128 KiB of the smallest fragments take 0.1 s.
    return await trio.to_thread.run_sync(_wrong_with, head + data[: PROBE_BYTES - len(head)])


def _wrong_with(head: bytes) -> str:
    kind = media.sniff(head)
    if kind is media.Media.MP4:
        try:
            Mp4Cutter(MAX_CHUNK_BYTES).feed(head)
        except NotCuttable as error:
            return str(error)
        return ""
    if kind is media.Media.UNKNOWN and len(head) >= PROBE_BYTES:
        return media.inspect(head).what or "it is neither MPEG-TS nor MP4"
    return ""


async def finish(
    receiver: Receiver, admission: Admission, call: UploadCall, parts: UploadParts, last: memoryview
) -> Answer | None:
    """Make an upload chunks. Returns why not; None: they are stored, now or before.

    Args:
        last: its last part, which is not stored.

    Raises:
        KeyDestroyed, CorruptError, WorldError: it can't be done now.
    """
    known = receiver.uploads.not_taken
    key = (admission.device, call.number)
    if (refused := known.get(key, trio.current_time())) is not None:
        return refused
    async with _turn(receiver) as is_ours:
        if not is_ours:
            return answers.OVERLOADED
        # Whoever asked so at the same time waited for this turn, too: it is looked at once.
        if (refused := known.get(key, trio.current_time())) is not None:
            return refused
        refusal = await _finished(receiver, admission, call, parts, last)
        if refusal is not None and refusal.code in _LASTING:
            known.note(key, refusal, trio.current_time())
        return refusal


async def _finished(
    receiver: Receiver, admission: Admission, call: UploadCall, parts: UploadParts, last: memoryview
) -> Answer | None:
    """As `finish`, in its turn, whatever was answered before."""
    for move in range(MOVES):
        stored = await parts.stored()  # another one may have finished it, on whatever host
        if stored.mark:
            return None if stored.is_finished else GONE
        if stored.offset != call.offset or stored.offset + len(last) != call.length:
            return mismatch(stored.offset, expires_line(call))
        cut = _Cut(receiver, admission, call, parts)
        try:
            verdict = await cut.stored_by(stored, last, move * _MOVE_MS)
        except NotCuttable as error:
            return not_cuttable(str(error))
        except _Refused as refused:
            return refused.answer
        if verdict <= Verdict.DUPLICATE:
            receiver.took(admission.device, 0 if verdict else call.length, cut.count)
            return None
        if verdict in (Verdict.RECLAIMED, Verdict.NO_INIT):
            return answers.TRY_AGAIN
        if verdict != Verdict.CONFLICT or not (admission.may_move or cut.lost_mark):
            break
    return PUT.answer(verdict)


@asynccontextmanager
async def _turn(receiver: Receiver) -> AsyncIterator[bool]:
    """While this lasts nobody else cuts in this worker, and CUT_BYTES are charged. Whether it is so."""
    cutting, accounts = receiver.uploads.cutting, [Account() for _ in range(SHARES)]
    if cutting.statistics().tasks_waiting >= MOST_WAITING:
        yield False
        return
    with trio.move_on_after(TURN_WAIT_S) as waiting:
        await cutting.acquire()
    if waiting.cancelled_caught:
        yield False
        return
    try:
        charge = partial(wait_for_budget, receiver.budget, wanted=MAX_CHUNK_BYTES, whole=True)
        yield all([await charge(account) for account in accounts])
    finally:
        for account in accounts:
            receiver.budget.refund(account, account.charged_bytes)
        cutting.release()


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass
class _Segment:
    expires_on: int
    writer: SegmentWriter


class _Cut:
    """One try to make an upload chunks."""

    def __init__(
        self, receiver: Receiver, admission: Admission, call: UploadCall, parts: UploadParts
    ) -> None:
        self._receiver = receiver
        self._uploads = receiver.uploads
        self._admission = admission
        self._call = call
        self._parts = parts
        self._commits: list[SegmentCommit] = []
        self._segment: _Segment | None = None
        self._known: KnownInit | None = None
        self._times = Times(0)
        self.count = 0
        self.lost_mark = False
        """What stood in the way was that the upload had been ended."""

    async def stored_by(self, stored: Stored, last: memoryview, move_ms: int) -> int:
        """Cut it, and commit it. Returns a `Verdict`: STORED, or what stood in the way.

        Raises:
            NotCuttable, _Refused: it is not taken.
            ClipkeepError: it can't be done now.
        """
        if (refusal := self._receiver.taken_back(self._admission)) is not None:
            raise _Refused(refusal)
        self._times = Times(await self._start_ms(stored, last) + move_ms)
        async with aclosing(self._chunks(stored, last)) as chunks:
            async for chunk in chunks:
                await self._add(chunk)
        await self._seal()
        call, now_ms = self._call, self._receiver.now_ms()
        refusal = self._receiver.taken_back(self._admission)
        if refusal is not None:
            raise _Refused(refusal)
        if now_ms // MS_PER_DAY >= call.expires_on:
            raise _Refused(GONE)
        await self._add_mark()
        verdicts = await self._uploads.commit_whole(self._commits)
        self.lost_mark = bool(verdicts[-1][0] == Verdict.CONFLICT)
        return max(int(np.max(each)) for each in verdicts)

    async def _start_ms(self, stored: Stored, last: memoryview) -> int:
        """The capture time of its first picture."""
        call = self._call
        if call.capture_ms >= 0:
            return call.capture_ms
        duration_ms = call.duration_ms
        if not duration_ms:  # it ends where it was begun: how long it is only the whole says
            times = Times(0)
            async with aclosing(self._chunks(stored, last)) as chunks:
                async for chunk in chunks:
                    found = await trio.to_thread.run_sync(self._found, chunk)
                    times.begins_ms(found.facts, found.duration_ms)
            duration_ms, self._known = times.end_ms, None
        start_ms = max(call.created_ms - duration_ms, 0)
        return self._receiver.entitled_ms(self._admission.device, start_ms, call.created_ms)

    async def _chunks(self, stored: Stored, last: memoryview) -> AsyncGenerator[bytes, None]:
        cutter: Cutter | None = None
        for row in [*stored.parts, None]:
            data = last if row is None else await self._parts.read(row)
            if cutter is None:
                cutter = await self._cutter(stored, last)
            for chunk in await trio.to_thread.run_sync(cutter.feed, data):
                self._read_header(cutter)
                yield chunk
        assert cutter is not None, "there is a last part"
        for chunk in await trio.to_thread.run_sync(cutter.end):
            self._read_header(cutter)
            yield chunk

    async def _cutter(self, stored: Stored, last: memoryview) -> Cutter:
        head = b""
        for row in stored.parts:
            if len(head) < _SNIFFED_BYTES:
                head += (await self._parts.read(row))[:_SNIFFED_BYTES]
        head += last[:_SNIFFED_BYTES]
        most_bytes = self._receiver.limits.max_chunk_bytes
        kind = media.sniff(head)
        if kind is media.Media.UNKNOWN:
            raise NotCuttable(media.inspect(head).what or "it is neither MPEG-TS nor MP4")
        return TsCutter(most_bytes) if kind is media.Media.MPEG_TS else Mp4Cutter(most_bytes)

    def _read_header(self, cutter: Cutter) -> None:
        if isinstance(cutter, Mp4Cutter) and self._known is None:
            read = inits.read(self._admission.device, cutter.header)
            if isinstance(read, media.Found):
                raise _Refused(
                    answers.unplayable(read.missing, read.what) if read.missing else answers.NO_INIT
                )
            self._known = read

    # --- chunks -----------------------------------------------------------------------------------------------

    def _found(self, data: bytes) -> media.Found:
        read = media.part_of_stream
        if (known := self._known) is not None:
            read = partial(media.fragment, movie=known.movie, init=known.init.number)
        found = read(data)
        if found.missing:
            raise _Refused(answers.unplayable(found.missing, found.what))
        return found

    async def _add(self, data: bytes) -> None:
        """Put a chunk into a segment."""
        receiver, admission = self._receiver, self._admission
        found = await trio.to_thread.run_sync(self._found, data)
        capture_ms = self._times.begins_ms(found.facts, found.duration_ms)
        now_ms = receiver.now_ms()
        if capture_ms > now_ms + MAX_CLOCK_AHEAD_MS:
            raise _Refused(answers.clock_ahead(capture_ms, now_ms))
        if not receiver.is_entitled(admission.device, capture_ms, now_ms):
            raise _Refused(answers.not_entitled(capture_ms, now_ms))
        chunk = chunk_at(capture_ms, found.duration_ms, admission, data, found, now_ms, 0, _nobody)
        segment = self._segment
        if segment is not None and (
            segment.expires_on != chunk.expires_on
            or segment.writer.used_bytes >= SEGMENT_BYTES
            or not segment.writer.fits(chunk.length)
        ):
            await self._seal()
            segment = None
        if segment is None:
            segment = self._segment = await self._begin(chunk)
        await self._write(segment.writer, chunk, data)
        self.count += 1

    async def _begin(self, chunk: Chunk) -> _Segment:
        writer = SegmentWriter(bytearray(buffer_bytes(max(SEGMENT_BYTES, chunk.length))))
        if self._known is not None:
            init = self._known.init
            header = init.chunk(chunk.epoch, chunk.class_days, chunk.expires_on)
            await self._write(writer, header, init.data)
        return _Segment(chunk.expires_on, writer)

    async def _write(self, writer: SegmentWriter, chunk: Chunk, data: bytes | memoryview) -> None:
        cipher = await self._uploads.cipher(chunk.key_id())
        await trio.to_thread.run_sync(append, writer, cipher, os.urandom(NONCE_BYTES), chunk, data)

    async def _seal(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            put = self._uploads.put_apart(segment.writer, self._admission.class_days, segment.expires_on)
            self._commits.append(await put)

    async def _add_mark(self) -> None:
        data = memoryview(FINISHED_MARK)
        mark = below(self._admission, self._call, mark_ms(self._call), data, _nobody)
        writer = SegmentWriter(bytearray(buffer_bytes(0, len(data))))
        await self._write(writer, mark, data)
        put = self._uploads.put_apart(writer, mark.class_days, mark.expires_on)
        self._commits.append(await put)


def _nobody(outcome: int | None, now_s: float) -> None:
    """It is told with all others."""
