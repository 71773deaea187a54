"""Resumable uploads (`protocols.tus`), in the connection's own task: what is stored of one, and how it becomes a chunk.

What came of an upload in a request is a *part* (`parts`), and so is each piece of a request that is larger than
what is held at once: packed, encrypted under its day's key, committed and acknowledged as every chunk, unreadable with
its device, and gone with its expiry day. So what is stored of an upload is a chain that only grows. The last part is
not stored: with those before it it is the chunk, which takes the ordinary way, and then a *mark* is stored, which says
that the upload is finished. A client that was not told sends the last part again, and the chunk is found to be stored.
"""

from __future__ import annotations

import structlog

from ingest import answers, media
from ingest.answers import Answer
from ingest.budget import Account
from ingest.chunks import chunk_at
from ingest.committed import Committed
from ingest.packing import MAX_MOVES, Outcome
from ingest.protocols.base import Admission
from ingest.protocols.table import PUT
from ingest.protocols.tus import (
    CHECKSUM_MISMATCH,
    ENDED,
    FINISHED,
    GONE,
    NO_UPLOAD,
    is_as_promised,
    mismatch,
    not_cuttable,
)
from ingest.protocols.upload_call import UploadCall
from ingest.receiving import Receiver
from ingest.resumable import finishing
from ingest.resumable.parts import (
    FINISHED_MARK,
    MAX_PARTS,
    TERMINATED_MARK,
    Stored,
    UploadParts,
    expires_line,
)
from ingest.room import wait_for_budget
from ingest.waits import ForPiece, ForUpload
from storage.days import expiry_day
from storage.errors import ClipkeepError, KeyDestroyed
from storage.rows.recordings import Verdict

_log = structlog.get_logger("ingest")


async def taken(receiver: Receiver, wait: ForUpload) -> None:
    """Do what a request about an upload asks for, and answer it. Raises nothing but Cancelled."""
    answer = answers.TRY_AGAIN
    data = wait.body.data()
    try:
        answer = await _Upload(receiver, wait.admission).asked(data)
    except KeyDestroyed:
        answer = answers.TERMINATED
    except ClipkeepError as error:
        _log.warning("upload_not_taken", code=error.code, device=wait.admission.device, detail=str(error))
    except Exception:  # its place in the order of answers, and what it is charged, must not be lost with it
        _log.exception("upload_not_taken", code="internal")
    finally:
        data.release()
        wait.body.release()
    upload = wait.admission.upload
    if upload is not None and upload.method == b"HEAD" and answer.code:
        receiver.count(answer)
        answer = Answer(answer.status, lines=answer.lines)  # whoever asks so reads no body
    receiver.refuse(wait.slot, answer if upload is None else answer.beside(upload.besides))


async def piece_taken(receiver: Receiver, wait: ForPiece) -> Answer | None:
    """Store what has come of a part whose rest is still to come. Returns why the rest is not taken. Raises nothing but
    Cancelled."""
    data = wait.body.data()
    try:
        return await _Upload(receiver, wait.admission).piece(data)
    except KeyDestroyed:
        return answers.TERMINATED
    except ClipkeepError as error:
        _log.warning("upload_not_taken", code=error.code, device=wait.admission.device, detail=str(error))
    except Exception:  # what it is charged must not be lost with it
        _log.exception("upload_not_taken", code="internal")
    finally:
        data.release()
        wait.body.release()
    return answers.TRY_AGAIN


async def save(receiver: Receiver, admission: Admission, data: memoryview) -> None:
    """Store what came of a part whose connection broke. Raises nothing but Cancelled."""
    try:
        await _Upload(receiver, admission).saved(data)
    except KeyDestroyed:
        pass  # nobody goes on with it
    except ClipkeepError as error:
        _log.warning("part_not_saved", code=error.code, device=admission.device, detail=str(error))
    except Exception:
        _log.exception("part_not_saved", code="internal")


class _Upload:
    """One request about an upload."""

    def __init__(self, receiver: Receiver, admission: Admission) -> None:
        assert admission.upload is not None, "its protocol gave it one"
        self._receiver = receiver
        self._admission = admission
        self._call: UploadCall = admission.upload
        self._parts = UploadParts(receiver.uploads, admission, self._call)

    async def asked(self, data: memoryview) -> Answer:
        """The answer to it. Raises ClipkeepError: it can't be done now."""
        call, device = self._call, self._admission.device
        secret = self._receiver.token_secret
        if call.method == b"POST":
            self._begin()
            if call.checksum is not None and not is_as_promised(call.checksum, data):
                return CHECKSUM_MISMATCH
            if len(data):
                stored = await self._parts.stored() if call.offset else Stored([])
                if (refusal := await self._receive(stored, data)) is not None:
                    return refusal
            location = f"Location: /v1/devices/{device}/uploads/{call.id(device, secret)}"
            return self._told(201, call.offset, location)
        if not call.is_ours(device, secret):
            return NO_UPLOAD
        stored = await self._parts.stored()
        if stored.is_terminated:
            return GONE
        if call.method == b"HEAD":
            offset = call.length if stored.mark else stored.offset
            said = (f"Upload-Metadata: {call.metadata}",) if call.metadata else ()
            return self._told(200, offset, f"Upload-Length: {call.length}", "Cache-Control: no-store", *said)
        if call.method == b"DELETE":
            return await self._terminate(stored)
        if stored.mark:
            return self._told(204, call.length) if call.offset == call.length else FINISHED
        if stored.offset != call.offset:
            return mismatch(stored.offset, self._expires())
        if call.checksum is not None and not is_as_promised(call.checksum, data):
            return CHECKSUM_MISMATCH
        return await self._receive(stored, data) or self._told(204, call.offset)

    def _begin(self) -> None:
        """Say for how long what comes of a new upload is kept."""
        self._call.days = expiry_day(0, -(-self._receiver.limits.tus_expire_h // 24))

    async def piece(self, data: memoryview) -> Answer | None:
        """Store what has come of a body that goes on. Returns why not. Raises ClipkeepError: it can't be done now."""
        call = self._call
        if call.method == b"POST":
            self._begin()
        elif not call.is_ours(self._admission.device, self._receiver.token_secret):
            return NO_UPLOAD
        stored = await self._parts.stored()
        if stored.is_terminated:
            return GONE
        if stored.mark:
            return FINISHED
        if stored.offset != call.offset:
            return mismatch(stored.offset, self._expires())
        return await self._receive(stored, data)

    async def saved(self, data: memoryview) -> None:
        """Store what came of a part. Raises ClipkeepError: it is not stored."""
        call = self._call
        if call.method != b"PATCH" or call.checksum is not None or not len(data):
            return  # nobody knows where to go on, or whether it is right
        if not call.is_ours(self._admission.device, self._receiver.token_secret):
            return
        stored = await self._parts.stored()
        if not stored.mark and stored.offset == call.offset and call.offset + len(data) < call.length:
            await self._receive(stored, data)

    def _told(self, status: int, offset: int, *lines: str) -> Answer:
        return Answer(status, lines=(f"Upload-Offset: {offset}", self._expires(), *lines))

    def _expires(self) -> str:
        return expires_line(self._call)

    def _refused(self, outcome: Outcome, offset: int) -> Answer | None:
        """What is answered where a part, or a mark, was not stored. `offset`: where it was to be."""
        if outcome == Verdict.STORED or outcome == Verdict.DUPLICATE:
            return None
        if outcome == Verdict.CONFLICT:  # another request for this offset was first
            return mismatch(offset, self._expires())
        return GONE if outcome == Verdict.EXPIRED else PUT.answer(outcome)

    async def _receive(self, stored: Stored, data: memoryview) -> Answer | None:
        """Take bytes behind those that are stored. Returns why not, None when they are stored."""
        admission, call = self._admission, self._call
        if not len(data):
            return None
        refusal = self._receiver.taken_back(admission)
        if refusal is None and len(stored.parts) >= MAX_PARTS:
            refusal = GONE
        if refusal is not None:
            return refusal
        if call.length > self._receiver.limits.max_chunk_bytes:
            wrong = await finishing.wrong_at_first(self._parts, stored, data)
            if wrong:
                return not_cuttable(wrong)
        counts, now_ms = self._receiver.counts, self._receiver.now_ms()
        if admission.limit_class:
            refusal = counts.take(admission.device, admission.limit_class, len(data), now_ms)
            if refusal is not None:
                return refusal
        try:
            if stored.offset + len(data) == call.length:
                refusal = await self._finish(stored, data)
            else:
                outcome = await self._parts.store(len(stored.parts), data)
                refusal = self._refused(outcome, stored.offset)
        except BaseException:
            counts.give_back(admission.device, len(data), now_ms)
            raise
        if refusal is not None:
            counts.give_back(admission.device, len(data), now_ms)
        else:
            call.offset += len(data)
        return refusal

    async def _terminate(self, stored: Stored) -> Answer:
        if stored.mark:
            return FINISHED
        return self._refused(await self._parts.store_mark(TERMINATED_MARK), 0) or ENDED

    # --- the last part ----------------------------------------------------------------------------------------

    async def _finish(self, stored: Stored, data: memoryview) -> Answer | None:
        """Make all of an upload a chunk. Returns why not."""
        receiver, call = self._receiver, self._call
        if call.length > receiver.limits.max_chunk_bytes:
            return await finishing.finish(receiver, self._admission, call, self._parts, data)
        account = Account()
        charged = 0
        try:
            if stored.parts:
                charged = await wait_for_budget(receiver.budget, account, call.length, whole=True)
                if not charged:
                    return answers.OVERLOADED
                whole = memoryview(await self._whole(stored, data))
            else:
                whole = data
            outcome, refusal = await self._commit(whole)
        finally:
            receiver.budget.refund(account, charged)
        if refusal is not None:
            return refusal
        if outcome not in (Verdict.STORED, Verdict.DUPLICATE):
            return PUT.answer(outcome)
        receiver.took(self._admission.device, call.length if outcome == Verdict.STORED else 0)
        return self._refused(await self._parts.store_mark(FINISHED_MARK), call.offset)

    async def _whole(self, stored: Stored, data: memoryview) -> bytearray:
        whole = bytearray(self._call.length)
        at = 0
        for row in stored.parts:
            whole[at : at + row.length] = await self._parts.read(row)
            at += row.length
        whole[at:] = data
        return whole

    async def _commit(self, whole: memoryview) -> tuple[Outcome, Answer | None]:
        receiver, admission, call = self._receiver, self._admission, self._call
        found = media.inspect(whole)
        if found.media is media.Media.FMP4:
            return None, answers.NO_INIT
        wrong = receiver.taken_back(admission) or receiver.wrong_with(admission, whole, found)
        if wrong is not None:
            return None, wrong
        now_ms = receiver.now_ms()
        duration_ms = admission.duration_ms or found.duration_ms
        capture_ms = call.capture_ms
        if capture_ms < 0:
            # Not by now: sent again, it has to be the same chunk.
            capture_ms = receiver.entitled_ms(
                admission.device, call.created_ms - duration_ms, call.created_ms
            )
        committed = Committed()
        moves = MAX_MOVES if admission.may_move else 0
        chunk = chunk_at(capture_ms, duration_ms, admission, whole, found, now_ms, moves, committed)
        await receiver.uploads.pack(chunk, whole)
        return await committed.outcome(lambda: receiver.uploads.ended), None
