"""One device's connection: requests in, answers out in order.

The reader task goes on to the next request while earlier chunks are being stored (stock ffmpeg never waits for an
answer), up to a bound. Answers are written from whatever task finishes them, in the order of the requests; only
when the socket is full does a task of its own take over.

Sockets are plain and non-blocking: `recv_into` without trio's checkpoint after each call, so that the scratch
buffer can be one for the whole worker.
"""

from __future__ import annotations

import socket
from collections import deque
from contextlib import suppress
from enum import Enum, auto

import trio

from ingest import answers
from ingest.admission import Admission, Credentials
from ingest.answers import Answer
from ingest.body import Body
from ingest.budget import Account
from ingest.framing import End, Event, Framer, Head, Malformed
from ingest.receiving import Receiver

RECEIVE_BYTES = 1024 * 1024
"""Most bytes of one receive: what a turn may take. Against 256 KiB it saves 1 to 2 % of the CPU at 1 MiB chunks."""
UNSENT_BYTES = 64 * 1024
"""Of answers that the peer has not read: past it no further request is looked at. Some 300 refusals."""
TURN_BYTES = 1024 * 1024
"""What one connection may receive before the others get their turn: about a millisecond."""
ORDERED_MS = 1000
"""How far the time of an arrival may run ahead of the clock so that chunks keep their order: a thousand chunks
within one millisecond."""


class Phase(Enum):
    """What the server waits for; the reaper's times depend on it."""

    IDLE = auto()  # a next request
    HEAD = auto()  # the rest of a head
    BODY = auto()  # the rest of a body
    OURS = auto()  # us: budget, keys, room in a segment, answers


class Slot:
    """The place of one answer in a connection's order. `data` is None until it is known."""

    __slots__ = ("connection", "data")

    def __init__(self, connection: Connection, data: bytes | None = None) -> None:
        self.connection = connection
        self.data = data


class Connection:
    """See the module docstring. `serve` owns it; the reaper may `evict` it."""

    def __init__(self, sock: socket.socket, receiver: Receiver) -> None:
        self.sock = sock
        self.receiver = receiver
        self.limits = receiver.limits
        self.account = Account()
        self.phase = Phase.IDLE
        self.since_s = trio.current_time()
        """When this phase began, monotonic; moved forward by the time that we made it wait."""
        self.received_bytes = 0
        """Of the current body."""
        self._credentials = Credentials(receiver.token_secret)
        self._framer = Framer(self.limits.max_head_bytes)
        self._slots: deque[Slot] = deque()
        self._scope = trio.CancelScope()
        self._verdict: Answer | None = None
        self._body: Body | None = None
        self._admission: Admission | None = None
        self._close_after = False
        self._drain_bytes: int | None = None
        """While a refused body is thrown away: how much more of it is put up with."""
        self._closing = False
        self._unsent = bytearray()
        self._gone = False
        """The peer does not read its answers: they are no longer sent."""
        self._prepaid_bytes = 0
        """Charged for what was just received, and not yet part of a body."""
        self._progress = trio.Event()
        self._turn_bytes = 0
        self._last_arrival_ms = 0

    # --- the reader -----------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Read requests until the peer ends, an error ends it, or the server stops. Never raises but Cancelled."""
        try:
            with self._scope:
                await self._read()
            if self._verdict is not None and self._owes_an_answer():
                self.receiver.count(self._verdict)
                self._push(self._verdict.render(close=True))
            self._drop_body()
            await self._finish()
        except OSError:
            pass  # the peer is gone: what was complete is stored all the same
        finally:
            self._drop_body()
            self._refund_prepaid()
            # `_send_rest` may be waiting for this socket, whose number the next connection gets.
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()

    def ending(self) -> bool:
        """No further request is read; answers still owed are sent."""
        return self._closing

    async def _read(self) -> None:
        while not self.ending():
            if self._framer.direct_bytes and self._body is not None:
                if not await self._receive_direct(self._body):
                    return
                events = self._framer.direct_done()
            else:
                received = await self._receive_some()
                if not received:
                    return
                # The framer copies what it keeps: the scratch is everybody's.
                events = self._framer.feed(self.receiver.scratch[:received])
                if self.phase is Phase.IDLE and (events or not self._framer.between_messages):
                    self._enter(Phase.HEAD)
            for event in events:
                await self._on_event(event)
                if self.ending():
                    return
            self._refund_prepaid()

    async def _receive_some(self) -> int:
        """Receive into the scratch. What came is charged, also while its events wait to be looked at (invariant 15)."""
        scratch = self.receiver.scratch
        while True:
            await self._end_turn()
            granted = self.receiver.budget.charge(self.account, len(scratch))
            if not granted:
                await trio.lowlevel.wait_readable(self.sock)  # who sends nothing needs no budget
                if self.phase is Phase.IDLE:
                    self._enter(Phase.HEAD)
                granted = await self._charge(len(scratch))
            received = self._receive_now(scratch, granted)
            if received is not None:
                self._prepaid_bytes = received
                return received
            await trio.lowlevel.wait_readable(self.sock)

    def _receive_now(self, view: memoryview, granted: int) -> int | None:
        """Receive up to `granted` bytes, and give back what they exceed the receipt by: nobody holds bytes of the
        budget for what has not come. None when there is nothing yet."""
        received = 0
        try:
            received = self.sock.recv_into(view, granted)
        except BlockingIOError:
            return None
        finally:
            self._refund(granted - received)
        self._turn_bytes += received
        return received

    async def _end_turn(self) -> None:
        """Let other tasks run after every TURN_BYTES, so that one fast sender does not keep the loop to itself."""
        if self._turn_bytes >= TURN_BYTES:
            self._turn_bytes = 0
            await trio.lowlevel.checkpoint()

    async def _receive_direct(self, body: Body) -> bool:
        """Receive the rest of a sized body straight into its own memory. Returns whether it came."""
        remaining = self._framer.direct_bytes
        while remaining:
            await self._end_turn()
            granted = await self._charge(min(remaining, RECEIVE_BYTES))
            received = self._receive_now(body.tail(granted), granted)
            if received is None:
                await trio.lowlevel.wait_readable(self.sock)
                continue
            if not received:
                return False
            body.length += received
            self.received_bytes = body.length
            remaining -= received
        await trio.lowlevel.checkpoint_if_cancelled()
        return True

    async def _charge(self, wanted: int) -> int:
        granted = self.receiver.budget.charge(self.account, wanted)
        if granted:
            return granted
        phase, began_s = self.phase, self._wait_for_us()
        granted = await self.receiver.budget.wait(self.account, wanted)
        self._end_wait(phase, began_s)
        if not granted:
            self.evict(answers.OVERLOADED)
            await trio.lowlevel.checkpoint()
        return granted

    def _refund(self, size: int) -> None:
        if size:
            self.receiver.budget.refund(self.account, size)

    def _refund_prepaid(self) -> None:
        self._refund(self._prepaid_bytes)
        self._prepaid_bytes = 0

    # --- events -----------------------------------------------------------------------------------------------

    async def _on_event(self, event: Event) -> None:
        if isinstance(event, bytes):
            self._on_body(event)
        elif isinstance(event, Head):
            await self._on_head(event)
        elif isinstance(event, End):
            await self._on_end()
        else:
            self._on_malformed(event)

    async def _on_head(self, head: Head) -> None:
        if self._owes_too_much():
            began_s = self._wait_for_us()
            while self._owes_too_much():
                self._progress = trio.Event()
                await self._progress.wait()
            self._end_wait(Phase.HEAD, began_s)
        self._close_after = not head.keep_alive
        decided = self.receiver.admit(head, self._credentials)
        if isinstance(decided, Answer):
            self._refuse(decided, head)
            return
        self._admission = decided
        self._body = Body(self.receiver.pool, head.content_length)
        self._enter(Phase.BODY)
        self.received_bytes = 0
        if head.expect_continue:
            self._push(answers.CONTINUE)

    def _refuse(self, answer: Answer, head: Head) -> None:
        """Answer at once; throw the body away within a bound, so that a keep-alive client survives."""
        length = head.content_length or 0
        # A client that waits for 100 Continue may or may not send its body now: only closing is unambiguous.
        ambiguous = head.expect_continue or length > self.limits.drain_bytes
        close = ambiguous or not head.keep_alive or self.receiver.stopping
        data = answer.render(close=close)
        if head.method == b"HEAD":  # whoever asks so reads no body: it would pass for the next answer
            data = data[: data.index(b"\r\n\r\n") + 4]
        self._push(data)
        self.receiver.count(answer)
        if close:
            self._closing = True
        elif length or head.chunked:
            self._drain_bytes = self.limits.drain_bytes
            self._enter(Phase.BODY)
            self.received_bytes = 0

    def _on_body(self, piece: bytes) -> None:
        self.received_bytes += len(piece)
        if self._drain_bytes is not None:
            self._drain_bytes -= len(piece)
            if self._drain_bytes < 0:
                self._closing = True
            return
        body = self._body
        assert body is not None
        if body.length + len(piece) > self.limits.max_chunk_bytes:
            answer = answers.too_large(self.limits.max_chunk_bytes)
            self._drop_body()
            self._push(answer.render(close=True))
            self.receiver.count(answer)
            self._closing = True
            return
        self._prepaid_bytes -= len(piece)  # it is the body's from here on
        body.append(piece)

    async def _on_end(self) -> None:
        if self._drain_bytes is not None:
            self._drain_bytes = None
            self._next_request()
            return
        body, admission = self._body, self._admission
        if body is None or admission is None:
            self._next_request()
            return
        slot = Slot(self)
        self._slots.append(slot)
        self._body = self._admission = None
        began_s = self._wait_for_us()
        with trio.CancelScope(shield=True):  # a complete body commits, whatever becomes of the connection
            await self.receiver.take(admission, body, slot)
        self._end_wait(Phase.IDLE, began_s)
        self._next_request()

    def _on_malformed(self, event: Malformed) -> None:
        self._closing = True
        if self._drain_bytes is not None:
            return  # this request was answered before its body went wrong
        make = answers.head_too_large if event.status == 431 else answers.malformed
        answer = make(event.detail)
        self._drop_body()
        self._push(answer.render(close=True))
        self.receiver.count(answer)

    def _next_request(self) -> None:
        self._enter(Phase.HEAD if not self._framer.between_messages else Phase.IDLE)
        if self._close_after or self.receiver.stopping:
            self._closing = True

    def _drop_body(self) -> None:
        """Forget an incomplete body: it is never stored."""
        if self._body is not None:
            self._refund(self._body.length)
            self._body.release()
            self._body = None

    def _owes_an_answer(self) -> bool:
        """Whether a request has begun that was not answered."""
        return self._body is not None or self.phase is Phase.HEAD

    def _owes_too_much(self) -> bool:
        return len(self._slots) >= self.limits.max_outstanding or len(self._unsent) > UNSENT_BYTES

    @property
    def body_bytes(self) -> int:
        """Received of a body that is not complete: what letting go of this connection gives back."""
        return 0 if self._body is None else self._body.length

    def ends_with(self, slot: Slot) -> bool:
        """Whether the answer in this slot is the last one, and says so. Asked when the answer becomes known."""
        if self._slots[-1] is not slot or self._body is not None:
            return False
        # A body that is refused while it is taken is answered before the reader comes to closing.
        taking = self.phase is Phase.OURS
        return self._closing or (taking and (self._close_after or self.receiver.stopping))

    def arrival_ms(self, now_ms: int) -> int:
        """The capture time of a chunk that is timed by its arrival: those of one connection keep their order,
        also when several come within a millisecond."""
        last_ms = self._last_arrival_ms
        # Further ahead than any burst gets, the clock was set back.
        self._last_arrival_ms = last_ms + 1 if 0 <= last_ms - now_ms < ORDERED_MS else now_ms
        return self._last_arrival_ms

    # --- phases -----------------------------------------------------------------------------------------------

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since_s = trio.current_time()

    def _wait_for_us(self) -> float:
        self.phase = Phase.OURS
        return trio.current_time()

    def _end_wait(self, phase: Phase, began_s: float) -> None:
        """The client's clock stood still while it waited for us."""
        self.phase = phase
        self.since_s += trio.current_time() - began_s

    def evict(self, verdict: Answer | None) -> None:
        """End the reading now: with this answer to the current request, or without one between requests."""
        if self._closing:
            return
        self._verdict = verdict
        self._closing = True
        self._scope.cancel()

    def stop_when_idle(self) -> None:
        """The server stops: end now unless a request is being received."""
        if self.phase is Phase.IDLE:
            self.evict(None)

    # --- answers ------------------------------------------------------------------------------------------------

    def _push(self, data: bytes) -> None:
        """Queue bytes that are already known, in order."""
        self._slots.append(Slot(self, data))
        self.flush()

    def flush(self) -> None:
        """Send what is known, in order. Synchronous; never blocks."""
        slots = self._slots
        out = b""
        while slots and slots[0].data is not None:
            out += slots.popleft().data  # type: ignore[operator]
        if not out:
            return
        self._progress.set()
        if self._gone:
            return
        if self._unsent:
            self._unsent += out
            return
        try:
            sent = self.sock.send(out)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the peer is gone; the reader notices
        if sent < len(out):
            self._unsent += out[sent:]
            self.receiver.start_task(self._send_rest)

    async def _send_rest(self) -> None:
        """Send what the socket did not take at once. A peer that reads nothing is let go."""
        with trio.move_on_after(self.limits.send_timeout_s) as timeout:
            try:
                while self._unsent:
                    await trio.lowlevel.wait_writable(self.sock)
                    with suppress(BlockingIOError):
                        sent = self.sock.send(self._unsent)
                        del self._unsent[:sent]
            except (OSError, trio.ClosedResourceError):
                self._gone = True
        if timeout.cancelled_caught:
            self._gone = True
        if self._gone:
            self._unsent.clear()
            self.evict(None)
        self._progress.set()

    async def _finish(self) -> None:
        """Wait for the answers still owed, say goodbye, and let the peer read them."""
        while self._slots or self._unsent:
            self._progress = trio.Event()
            await self._progress.wait()
        if not self._closing:
            return
        # Closing with unread data in our buffer would reset the connection and take the answers with it.
        self.sock.shutdown(socket.SHUT_WR)
        with trio.move_on_after(self.limits.linger_close_s):
            left = self.limits.drain_bytes
            while left > 0:
                await self._end_turn()
                try:
                    received = self.sock.recv_into(self.receiver.scratch)
                except BlockingIOError:
                    await trio.lowlevel.wait_readable(self.sock)
                    continue
                if not received:
                    return
                self._turn_bytes += received
                left -= received
