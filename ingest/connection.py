"""One device's connection: requests in, answers out in order. Synchronous; the task beside it is in `serving`.

`ready` is called while the socket can be read: one receive, and all that follows from it, in one step (a chunk that
came whole is encrypted straight from the worker's one scratch buffer). What cannot be done at once (no budget, a data
key still to be fetched, no room in a segment, too many answers owed) is left to the connection's own task; until it is
done the socket is not read. So reading goes on to the next request while earlier chunks are being stored (stock ffmpeg
never waits for an answer), up to a bound. Answers go out through `outbox`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from enum import Enum, auto

import trio

from ingest import answers
from ingest.admission import Admission
from ingest.answers import Answer
from ingest.body import Body
from ingest.budget import Account
from ingest.framing import END, Event, Framer, Malformed
from ingest.heads import Head
from ingest.outbox import Outbox, Slot
from ingest.packing import Chunk
from ingest.receiving import Receiver

RECEIVE_BYTES = 1024 * 1024
"""Most bytes of one receive straight into a body: what a turn may take, about a millisecond."""
UNSENT_BYTES = 64 * 1024
"""Of answers that the peer has not read: past it no further request is looked at. Some 300 refusals."""
ORDERED_MS = 1000
"""How far the time of an arrival may run ahead of the clock so that chunks keep their order: a thousand chunks
within one millisecond."""


class Phase(Enum):
    """What the server waits for; the reaper's times depend on it."""

    IDLE = auto()  # a next request
    HEAD = auto()  # the rest of a head
    BODY = auto()  # the rest of a body
    OURS = auto()  # us: budget, keys, room in a segment, answers


class ForBudget:
    """Room in the byte budget for a next receive."""


class UntilRead:
    """The peer has read enough of its answers; then this request is looked at."""

    def __init__(self, head: Head) -> None:
        self.head = head


class ForPacking:
    """What packing this chunk takes: its data key, or room in a segment."""

    def __init__(self, chunk: Chunk, body: Body, slot: Slot) -> None:
        self.chunk = chunk
        self.body = body
        self.slot = slot


Wait = ForBudget | UntilRead | ForPacking
"""What the connection's task is to wait for before reading goes on."""


class Connection(Outbox):
    """See the module docstring. Owned by `serving.serve`; the reaper may `evict` it."""

    def __init__(self, sock: socket.socket, receiver: Receiver) -> None:
        super().__init__(sock, receiver.send_rest)
        self.receiver = receiver
        self.limits = receiver.limits
        self.account = Account()
        self.phase = Phase.IDLE
        self._now_s = self.since_s = trio.current_time()
        """When this phase began, monotonic; moved forward by the time that we made it wait."""
        self.received_bytes = 0
        """Of the current body."""
        self._framer = Framer(self.limits.max_head_bytes)
        self.scope = trio.CancelScope()
        """Around the task's reading."""
        self._verdict: Answer | None = None
        self._body: Body | None = None
        self._admission: Admission | None = None
        self._close_after = False
        self._drain_bytes: int | None = None
        """While a refused body is thrown away: how much more of it is put up with."""
        self._closing = False
        self._prepaid_bytes = 0
        """Charged for what was just received, and not yet part of a body."""
        self.attention = trio.Event()
        """Set when the task has something to do."""
        self._wait: Wait | None = None
        self._rest: Sequence[Event] = ()
        """What was received behind what is being waited for."""
        self._ended = False
        self._failure: Exception | None = None
        self._last_arrival_ms = 0

    # --- for the task beside it ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Read from now on, until something has to wait."""
        self.attention = trio.Event()
        self.receiver.poller.watch(self.sock, self.ready)

    def next_wait(self) -> tuple[Wait, Sequence[Event]] | None:
        """What to wait for next, and what to handle then. None: nothing, so that reading can go on."""
        wait, rest = self._wait, self._rest
        self._wait, self._rest = None, ()
        return None if wait is None else (wait, rest)

    def after_wait(self, rest: Sequence[Event]) -> None:
        """Handle what was received behind what has been waited for."""
        if self._wait is None and not self._closing:  # else it has to wait in its turn
            self._handle(rest)

    def ended(self) -> bool:
        """Nothing more is to be read. Raises what went wrong in `ready`: a bug."""
        if self._failure is not None:
            raise self._failure
        return self._ended or self._closing

    def ending(self) -> bool:
        """No further request is read; answers still owed are sent."""
        return self._closing

    def stop_reading(self) -> None:
        """Read no more; give the verdict, if there is one, to the request that is owed an answer."""
        self.receiver.poller.ignore(self.sock)
        if self._verdict is not None and self._owes_an_answer():
            self.receiver.count(self._verdict)
            self._push(self._verdict.render(close=True))
        self._drop_body()

    def close(self) -> None:
        """Let go of everything. Twice is harmless."""
        self.receiver.poller.ignore(self.sock)
        self._drop_body()
        self._refund_prepaid()
        self.sock.close()

    def _leave_to_task(self, wait: Wait | None = None, rest: Sequence[Event] = ()) -> None:
        """Read no more for now; the task goes on, first waiting for `wait`, then handling `rest`. Without a wait, this
        is the end of reading."""
        self.receiver.poller.ignore(self.sock)
        self._ended = wait is None
        self._wait = wait
        # The scratch is everybody's: what is kept of it is copied.
        self._rest = [bytes(event) if isinstance(event, memoryview) else event for event in rest]
        self.attention.set()

    # --- receiving --------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Receive once, and do what follows from it. Synchronous; raises nothing."""
        if self._closing:
            return  # evicted in this very turn: the task ends the reading, and would not see what to wait for
        try:
            self._now_s = trio.current_time()
            granted = self.receiver.budget.grant(self.account, self.wanted())
            if granted:
                self.receive(granted)
            else:
                self._leave_to_task(ForBudget())
        except Exception as error:
            self._failure = error
            self._leave_to_task()

    def wanted(self) -> int:
        if self._body is None:
            return len(self.receiver.scratch)
        return min(self._framer.direct_bytes, RECEIVE_BYTES) or len(self.receiver.scratch)

    def receive(self, granted: int, charged: int = 0) -> None:
        """Receive up to `granted` bytes, of which `charged` are charged already, and handle them.

        Charged is what was received, neither less (invariant 15) nor more: nobody holds bytes of the budget for what
        has not come.
        """
        body = self._body if self._framer.direct_bytes else None
        received = 0
        try:
            view = self.receiver.scratch if body is None else body.tail(granted)
            received = self.sock.recv_into(view, granted)
        except BlockingIOError:
            return
        finally:
            if charged:
                self._refund(charged - received)
            else:
                self.receiver.budget.charge(self.account, received)
        if not received:
            self._leave_to_task()
        elif body is None:
            self._prepaid_bytes = received
            events = self._framer.feed(view[:received])
            if self.phase is Phase.IDLE and (events or not self._framer.between_messages):
                self._enter(Phase.HEAD)
            self._handle(events)
        else:
            body.length += received
            self.received_bytes = body.length
            if received == self._framer.direct_bytes:
                self._handle(self._framer.direct_done())
            else:
                self._framer.direct_bytes -= received

    def _handle(self, events: Sequence[Event]) -> None:
        """Do what the events ask for, up to one that has to wait."""
        for place, event in enumerate(events, 1):
            wait = self._on_event(event)
            if self._closing:
                self._leave_to_task(wait)
                return
            if wait is not None:
                self._leave_to_task(wait, events[place:])
                return
        self._refund_prepaid()

    def _refund(self, size: int) -> None:
        if size:
            self.receiver.budget.refund(self.account, size)

    def _refund_prepaid(self) -> None:
        self._refund(self._prepaid_bytes)
        self._prepaid_bytes = 0

    # --- events -----------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> Wait | None:
        if event is END:
            return self._on_end()
        if isinstance(event, (memoryview, bytes)):
            self._on_body(event)
        elif isinstance(event, Head):
            if self.owes_too_much():
                return UntilRead(event)
            self.on_head(event)
        elif isinstance(event, Malformed):
            self._on_malformed(event)
        return None

    def on_head(self, head: Head) -> None:
        self._close_after = not head.keep_alive
        decided = self.receiver.admit(head, self._now_s)
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

    def _on_body(self, piece: bytes | memoryview) -> None:
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
        body.append(piece)
        self._prepaid_bytes -= len(piece)  # it is the body's from here on

    def _on_end(self) -> Wait | None:
        if self._drain_bytes is not None:
            self._drain_bytes = None
            self.next_request()
            return None
        body, admission = self._body, self._admission
        if body is None or admission is None:
            self.next_request()
            return None
        slot = Slot(self, body.length, self._now_s)
        self._slots.append(slot)
        self._body = self._admission = None
        self.phase = Phase.OURS
        chunk = self.receiver.take(admission, body, slot)
        if chunk is not None:
            body.keep()
            return ForPacking(chunk, body, slot)
        self.next_request()
        return None

    def _on_malformed(self, event: Malformed) -> None:
        self._closing = True
        if self._drain_bytes is not None:
            return  # this request was answered before its body went wrong
        make = answers.head_too_large if event.status == 431 else answers.malformed
        answer = make(event.detail)
        self._drop_body()
        self._push(answer.render(close=True))
        self.receiver.count(answer)

    def next_request(self) -> None:
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

    def owes_too_much(self) -> bool:
        return len(self._slots) >= self.limits.max_outstanding or len(self._unsent) > UNSENT_BYTES

    @property
    def body_bytes(self) -> int:
        """Received of a body that is not complete: what letting go of this connection gives back."""
        return 0 if self._body is None else self._body.length

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
        self.since_s = self._now_s

    def begin_wait(self) -> tuple[Phase, float]:
        """From now on it is us who are waited for. Returns the phase that this interrupts, and the time."""
        if self.phase is Phase.IDLE:
            self._enter(Phase.HEAD)
        phase, self.phase = self.phase, Phase.OURS
        return phase, trio.current_time()

    def end_wait(self, phase: Phase, began_s: float) -> None:
        """The client's clock stood still while it waited for us."""
        self.phase = phase
        self._now_s = trio.current_time()
        self.since_s += self._now_s - began_s

    def evict(self, verdict: Answer | None) -> None:
        """End the reading now: with this answer to the current request, or without one between requests."""
        if self._closing:
            return
        self._verdict = verdict
        self._closing = True
        self.scope.cancel()

    def stop_when_idle(self) -> None:
        """The server stops: end now unless a request is being received."""
        if self.phase is Phase.IDLE:
            self.evict(None)

    # --- the end ----------------------------------------------------------------------------------------------

    def ends_with(self, slot: Slot) -> bool:
        """Whether the answer in this slot is the last one, and says so. Asked when the answer becomes known."""
        if self._slots[-1] is not slot or self._body is not None:
            return False
        # A body that is refused while it is taken is answered before the reader comes to closing.
        taking = self.phase is Phase.OURS
        return self._closing or (taking and (self._close_after or self.receiver.stopping))

    def owes_answers(self) -> bool:
        """Answers are still to come or to be sent."""
        return bool(self._slots or self._unsent)
