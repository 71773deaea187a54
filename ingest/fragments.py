"""The way of fMP4: an init segment is stored and noted, and a fragment gets the one that it is read by.

Asynchronous, for both may have to wait: beside the connection, in its own task. A fragment then goes the way of every
chunk, with its init segment beside it in the same segment of the store, unless its day has that. Where the connection
knows the init segment, fragments take that way at once (`Receiver.take`).
"""

from __future__ import annotations

from functools import partial

import structlog
import trio

from ingest import answers, inits, media, mp4
from ingest.answers import Answer
from ingest.committed import Committed
from ingest.connection import Connection
from ingest.inits import InitInUse
from ingest.outbox import Slot
from ingest.packing import Chunk
from ingest.receiving import Receiver
from ingest.waits import ForInit, ForPacking
from storage.errors import ClipkeepError, KeyDestroyed
from storage.rows.recordings import SentInit, Verdict

_log = structlog.get_logger("ingest")


async def taken(connection: Connection, wait: ForInit) -> ForPacking | None:
    """Take a body that is fMP4. Returns what is to be packed; None: its answer is given, and its memory given back.
    Raises nothing but Cancelled."""
    data = wait.body.data()
    packing: ForPacking | None = None
    refusal: Answer | None = None
    try:
        if mp4.read(data).part is mp4.Part.INIT:
            refusal = await _take_init(connection, wait, data)
        else:
            found = await _take_fragment(connection, wait, data)
            if isinstance(found, Chunk):
                packing = ForPacking(found, wait.body, wait.slot)
            else:
                refusal = found
    except KeyDestroyed:
        refusal = answers.TERMINATED
    except ClipkeepError as error:
        _log.warning("fragment_not_taken", code=error.code, device=wait.admission.device, detail=str(error))
        refusal = answers.TRY_AGAIN
    except Exception:  # its place in the order of answers, and what it is charged, must not be lost with it
        _log.exception("fragment_not_taken", code="internal")
        refusal = answers.TRY_AGAIN
    finally:
        data.release()
        if packing is None:
            wait.body.release()
    if refusal is not None:
        connection.receiver.refuse(wait.slot, refusal)
    return packing


async def _take_init(connection: Connection, wait: ForInit, data: memoryview) -> Answer | None:
    """Pack an init segment, which is answered when it is stored and noted; or say why not."""
    receiver, admission = connection.receiver, wait.admission
    if len(data) > inits.MAX_INIT_BYTES:
        return answers.too_large(inits.MAX_INIT_BYTES)
    read = inits.read(admission.device, bytes(data))
    found = read if isinstance(read, media.Found) else media.Found(media.Media.FMP4)
    refusal = receiver.refusal(admission, data, found)
    if refusal is not None or isinstance(read, media.Found):
        return refusal or answers.NO_INIT
    known = receiver.uploads.inits.remember(read)
    now_ms = receiver.now_ms()
    expires_on = admission.expires_on(
        now_ms if admission.capture_ms is None else admission.capture_ms, now_ms
    )
    chunk = known.init.chunk(admission.epoch, admission.class_days, expires_on)
    chunk.done = committed = Committed(chunk.done)
    await receiver.uploads.pack(chunk, data)
    # From now on, for its fragments take it along. Who sends many at once and goes away without having read an answer
    # must not wait for this one: what is in the kernel's buffer then is lost.
    connection.init = InitInUse(known)
    sent = SentInit(admission.epoch, known.init.number, expires_on, now_ms)
    receiver.uploads.answer_soon(partial(_answer_init, receiver, wait.slot, sent, committed))
    return None


async def _take_fragment(connection: Connection, wait: ForInit, data: memoryview) -> Chunk | Answer:
    """A fragment as a chunk; or why it is none."""
    receiver, admission = connection.receiver, wait.admission
    numbers = mp4.sequence_numbers(data)
    first = numbers is not None and numbers[0] <= 1
    sent_by = partial(
        receiver.uploads.inits.sent_by,
        admission.device,
        admission.epoch,
        first=first,
        head_ms=admission.head_ms,
    )
    known = await sent_by()
    if known is None:
        return answers.NO_INIT
    found = media.fragment(data, known.movie, known.init.number)
    if (
        first
        and found.missing == media.NOT_ITS_INIT
        and (other := await sent_by(other_than=known.init.number))
    ):
        known, found = other, media.fragment(data, other.movie, other.init.number)
    connection.init = InitInUse(known, numbers[1] + 1 if numbers else None)
    refusal = receiver.refusal(admission, data, found)
    if refusal is not None:
        return refusal
    chunk = receiver.chunk(admission, data, found, wait.slot)
    chunk.init = known.init
    return chunk


async def _answer_init(receiver: Receiver, slot: Slot, sent: SentInit, committed: Committed) -> None:
    """Note an init segment when it is stored, and answer it. Raises nothing but Cancelled."""
    outcome = await committed.outcome(lambda: receiver.uploads.ended)
    if outcome in (Verdict.STORED, Verdict.DUPLICATE):
        try:
            await receiver.uploads.inits.note(slot.device, sent)
        except ClipkeepError as error:
            _log.warning("fragment_not_taken", code=error.code, device=slot.device, detail=str(error))
            outcome = None
        except Exception:  # its place in the order of answers must not be lost with it
            _log.exception("fragment_not_taken", code="internal")
            outcome = None
    receiver.done(slot, outcome, trio.current_time())
    receiver.flush()
