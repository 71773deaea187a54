"""The task beside each connection: it does the waiting that `Connection.ready` leaves to it, and ends the connection.

All that is asynchronous about a connection is here; what follows from received bytes is synchronous, in `connection`.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import structlog
import trio

from ingest import answers
from ingest.budget import REQUEST_BYTES
from ingest.connection import Connection
from ingest.fragments import taken
from ingest.outbox import Outbox
from ingest.receiving import Receiver
from ingest.resumable import requests as resumable
from ingest.room import wait_for_budget
from ingest.waits import ForInit, ForPacking, ForPiece, ForRoom, ForUpload, UntilRead, Wait
from storage.errors import ClipkeepError, KeyDestroyed

_log = structlog.get_logger("ingest")


async def serve(connection: Connection) -> None:
    """Serve until the peer ends, an error ends it, or the server stops. Raises nothing but Cancelled, and what
    is a bug."""
    try:
        try:
            with connection.scope:
                await _attend(connection)
        finally:
            await _save(connection)
        connection.stop_reading()
        await _finish(connection)
    except OSError:
        pass  # the peer is gone: what was complete is stored all the same
    finally:
        # `send_rest` may be waiting for this socket, whose number the next connection gets.
        trio.lowlevel.notify_closing(connection.sock)
        connection.close()


async def _save(connection: Connection) -> None:
    """Store what came of a part of a resumable upload: the connection broke, or is let go."""
    if (broken := connection.take_broken()) is not None:
        admission, body = broken
        connection.receiver.poller.ignore(connection.sock)
        data, size = body.data(), body.length
        with trio.CancelScope(shield=True):
            await resumable.save(connection.receiver, admission, data)
        data.release()
        body.release()
        connection.refund(size + REQUEST_BYTES)


async def _attend(connection: Connection) -> None:
    """Do the waiting that `ready` leaves to this task, until no more is to be read."""
    while True:
        connection.begin()
        await connection.attention.wait()
        while (wait := connection.next_wait()) is not None:
            await _wait(connection, wait)
            connection.after_wait()
        if connection.ended():
            return


async def _wait(connection: Connection, wait: Wait) -> None:
    if isinstance(wait, (ForPacking, ForInit)):
        began_s = connection.begin_wait()
        with trio.CancelScope(shield=True):  # a complete body commits, whatever becomes of the connection
            packing = await taken(connection, wait) if isinstance(wait, ForInit) else wait
            if packing is not None and not (isinstance(wait, ForInit) and connection.gathers(packing)):
                await _pack(connection.receiver, packing)
        connection.end_wait(began_s)
        connection.next_request()
    elif isinstance(wait, ForUpload):
        began_s = connection.begin_wait()
        with trio.CancelScope(shield=True):
            await resumable.taken(connection.receiver, wait)
        connection.end_wait(began_s)
        connection.next_request()
    elif isinstance(wait, ForPiece):
        began_s, size = connection.begin_wait(), wait.body.length
        with trio.CancelScope(shield=True):
            refusal = await resumable.piece_taken(connection.receiver, wait)
        connection.refund(size)
        connection.end_wait(began_s)
        if refusal is not None:
            connection.refuse_rest(refusal)
    elif isinstance(wait, UntilRead):
        began_s = connection.begin_wait()
        while connection.owes_too_much():
            await connection.more_sent().wait()
        connection.end_wait(began_s)
    elif isinstance(wait, ForRoom):
        if await _granted(connection, REQUEST_BYTES):
            connection.refund(REQUEST_BYTES)  # whoever goes on now, in this very step, charges it
    elif granted := await _granted(connection, connection.wanted()):
        connection.receive(granted, charged=granted)


async def _granted(connection: Connection, wanted: int) -> int:
    """Wait for room in the budget. Returns the bytes charged; 0: there was none, and the connection ends."""
    began_s = connection.begin_wait()
    granted = await wait_for_budget(connection.receiver.budget, connection.account, wanted)
    connection.end_wait(began_s)
    if not granted:
        connection.evict(answers.OVERLOADED)
        await trio.lowlevel.checkpoint()
    return granted


async def pack_gathered(receiver: Receiver, wait: ForPacking) -> None:
    """Pack a chunk that has waited for others of its day. Raises nothing but Cancelled."""
    wait.slot.connection.gathered -= 1
    await _pack(receiver, wait)


async def _pack(receiver: Receiver, wait: ForPacking) -> None:
    """Pack what could not be packed at once. Returns when the body's memory is free; the answer comes by itself."""
    data = wait.body.data()
    refusal = None
    try:
        await receiver.uploads.pack(wait.chunk, data)
        receiver.packed(wait.slot, wait.chunk)
    except KeyDestroyed:
        refusal = answers.TERMINATED
    except ClipkeepError as error:
        _log.warning("chunk_not_packed", code=error.code, detail=str(error))
        refusal = answers.TRY_AGAIN
    except Exception:  # its place in the order of answers, and what it is charged, must not be lost with it
        _log.exception("chunk_not_packed", code="internal")
        refusal = answers.TRY_AGAIN
    finally:
        data.release()
        wait.body.release()
    if refusal is not None:
        receiver.refuse(wait.slot, refusal)


async def _finish(connection: Connection) -> None:
    """Wait for the answers still owed, say goodbye, and let the peer read them."""
    if connection.is_cut_off():
        return
    while connection.owes_answers():
        await connection.more_sent().wait()
    if not connection.ending():
        return
    # Closing with unread data in our buffer would reset the connection and take the answers with it.
    connection.wire.shutdown(socket.SHUT_WR)
    with trio.move_on_after(connection.limits.linger_close_s):
        left = connection.limits.drain_bytes
        while left > 0:
            await trio.lowlevel.wait_readable(connection.sock)
            with suppress(BlockingIOError):
                received = connection.sock.recv_into(connection.receiver.scratch)
                if not received:
                    return
                left -= received


async def send_rest(outbox: Outbox, timeout_s: float) -> None:
    """Send what the socket did not take at once. A peer that reads nothing is let go."""
    with trio.move_on_after(timeout_s):
        try:
            while outbox.send_more():
                await trio.lowlevel.wait_writable(outbox.sock)
            return
        except (OSError, trio.ClosedResourceError):
            pass
    outbox.give_up()
