"""One device's connection: requests in, answers out in order. Synchronous; the task beside it is in `serving`.

`ready` is called while the socket can be read: one receive, and what follows from it, in one step (a chunk that
came whole is encrypted straight from the worker's one scratch buffer). What it is doing is one state, and `states` is
the table of what may follow. A step handles a bounded number of requests;
what was received beyond is kept, and its turn comes after the other connections'. What cannot be done at once (no
budget, a data key still to be fetched, no room in a segment, too many answers owed) is left to the connection's own
task; until it is done the socket is not read. So reading goes on to the next request while earlier chunks are being
stored (stock ffmpeg never waits for an answer), up to a bound. Answers go out through `outbox`.

A request is parsed when it can be answered, not before, and what is kept of a connection is charged to the budget:
what was received and not parsed, its body, and `REQUEST_BYTES` for each chunk whose answer has not been sent.
"""

from __future__ import annotations

import socket
from typing import Final

import trio

from ingest import answers, states
from ingest.answers import Answer
from ingest.body import Body
from ingest.budget import REQUEST_BYTES
from ingest.framing import END, Event, Framer
from ingest.heads import Head, Malformed
from ingest.outbox import CORKED, GONE, OPEN, Outbox, Slot
from ingest.protocols.base import Admission
from ingest.receiving import Receiver
from ingest.strangers import Strangers
from ingest.tls import TlsWire
from ingest.waits import ForBudget, ForInit, ForPacking, ForPiece, ForRoom, ForUpload, UntilRead, Wait

RECEIVE_BYTES: Final = 1024 * 1024
"""Most bytes of one receive straight into a body: what a turn may take, about a millisecond."""
UPLOAD_RECEIVE_BYTES: Final = 64 * 1024
"""Most bytes of one receive into a body of a resumable upload. They are large, and may come all at once: a turn of one
takes no more than that of a camera with small chunks."""
STRANGER_RECEIVE_BYTES: Final = 16 * 1024
"""Most bytes of one receive before a first request was admitted: a head, and the beginning of a body."""
REQUESTS_AT_ONCE = 16
"""Requests that a connection gets looked at in a turn: some 20 us each when they are refused."""
EVENTS_AT_ONCE = 1024
"""Pieces of bodies in a turn, 1 us each: more than 1 MiB has in the pieces that encoders cut."""


class Connection(Outbox):
    """See the module docstring. Owned by `serving.serve`; the reaper may `evict` it.

    Args:
        tls: over the socket, its handshake done. None: bytes come and go in clear.
    """

    def __init__(self, sock: socket.socket, receiver: Receiver, tls: TlsWire | None = None) -> None:
        super().__init__(sock, sock if tls is None else tls, receiver.send_rest)
        self.receiver = receiver
        self._tls = tls
        self._tls_bytes = 0
        """Charged for what TLS holds, mostly the beginning of a record: it has come, whatever the budget says."""
        self.limits = receiver.limits
        self.state = states.IDLE
        """See `ingest.states`. Changed by `_on` alone."""
        self._now_s = self.since_s = trio.current_time()
        """When what is waited for of the peer began, monotonic; moved forward by the time that we made it wait."""
        self.received_bytes = 0
        """Of the current body, admitted or refused."""
        self._framer = Framer(self.limits.max_head_bytes)
        self.scope = trio.CancelScope()
        """Around the task's reading."""
        self._body: Body | None = None
        """In BODY and BODY_WAITS."""
        self._admission: Admission | None = None
        """Of this body."""
        self._piece_bytes = 0
        """Of this body that are held before they are stored, and more is read; 0: all of it is held."""
        self._prepaid_bytes = 0
        """Charged for what was received and is no part of a body: between turns exactly what the framer holds."""
        self._strangers: Strangers | None = receiver.strangers
        """Where it is listed until a request is admitted on it."""
        receiver.strangers.add(self)
        self.attention = trio.Event()
        """Set when the task has something to do."""
        self._wait: Wait | None = None
        """For the task to take."""
        self._failure: Exception | None = None
        """In FAILED."""
        self._completion = receiver.done
        """Given to each slot: bound once, not for each chunk."""

    def _on(self, event: int) -> None:
        self.state = states.after(self.state, event)

    # --- for the task beside it ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Read from now on, until something has to wait."""
        self.attention = trio.Event()
        self.receiver.poller.watch(self.sock, self.ready)
        if self._tls is not None and self._tls.pending():  # of which no epoll knows
            self.receiver.poller.again(self.sock, self.ready)

    def next_wait(self) -> Wait | None:
        """What to wait for next. None: nothing, so that reading can go on."""
        wait, self._wait = self._wait, None
        return wait

    def after_wait(self) -> None:
        """Handle what was received behind what has been waited for."""
        if self._wait is None and self.state < states.NO_MORE:  # else it has to wait in its turn
            self._go_on()

    def ended(self) -> bool:
        """Nothing more is to be read. Raises what went wrong in `ready`: a bug."""
        if self._failure is not None:
            raise self._failure
        return self.state >= states.NO_MORE

    def ending(self) -> bool:
        """No further request is read; answers still owed are sent."""
        return self.state == states.ENDING or self.state == states.CUT_OFF

    def is_cut_off(self) -> bool:
        """It ends at once, whatever is owed."""
        return self.state == states.CUT_OFF

    def stop_reading(self) -> None:
        """Read no more, and forget what was received and is not complete."""
        self.receiver.poller.ignore(self.sock)
        self._let_go()

    def close(self) -> None:
        """Let go of everything. Twice is harmless."""
        self.receiver.poller.ignore(self.sock)
        self._let_go()
        self.receiver.strangers.forget(self)
        self._refund_unsent()
        self.sending = GONE
        self.sock.close()

    def _let_go(self) -> None:
        """Forget what was received and is not a complete body."""
        self._drop_body()
        self._framer.forget()
        self.refund(self._prepaid_bytes)
        self._prepaid_bytes = 0
        if self._tls is not None:
            self._tls.forget()
            self._charge_tls(self._tls)
        self.receiver.strangers.hold(self, 0)

    def _leave_to_task(self, wait: Wait | None = None) -> None:
        """Read no more for now; the task goes on with `wait`. None: reading has ended."""
        self.receiver.poller.ignore(self.sock)
        self._wait = wait
        self.attention.set()

    # --- receiving --------------------------------------------------------------------------------------------

    def ready(self) -> None:
        """Receive once, and do what follows from it. Synchronous; raises nothing."""
        if self.state >= states.NO_MORE:
            return  # evicted in this very turn: the task ends the reading, and would not see what to wait for
        try:
            self._now_s = trio.current_time()
            if self._framer.has_unread:
                self._go_on()
                return
            granted = self.receiver.budget.grant(self.account, self.wanted())
            if granted:
                self.receive(granted)
            else:
                self._leave_to_task(ForBudget())
        except Exception as error:
            self._failure = error
            self._on(states.FAILS)
            self._leave_to_task()

    def wanted(self) -> int:
        """Bytes to be received next at most."""
        if self._framer.direct_bytes:
            admission = self._admission
            is_upload = admission is not None and admission.upload is not None
            wanted = min(self._framer.direct_bytes, UPLOAD_RECEIVE_BYTES if is_upload else RECEIVE_BYTES)
            if self._piece_bytes and self._body is not None:
                wanted = min(wanted, self._piece_bytes - self._body.length)
            return wanted
        return STRANGER_RECEIVE_BYTES if self._strangers is not None else len(self.receiver.scratch)

    def receive(self, granted: int, charged: int = 0) -> None:
        """Receive up to `granted` bytes, of which `charged` are charged already, and handle them.

        Charged is what was received, neither less (invariant 15) nor more: nobody holds bytes of the budget for what
        has not come.
        """
        framer, body = self._framer, self._body
        is_direct = framer.direct_bytes > 0
        received = 0
        try:
            view = body.tail(granted) if is_direct and body is not None else self.receiver.scratch
            received = self.wire.recv_into(view, granted)
            if is_direct and body is not None:
                body.received(received)  # before the charge, which may have the pool give unused pages back
        except BlockingIOError:
            if self._tls is not None:
                self._settle()
                if self._tls.pending():
                    self.receiver.poller.again(self.sock, self.ready)
            return
        finally:
            if charged:
                self.refund(charged - received)
            else:
                self.receiver.budget.charge(self.account, received)
        if not received:
            self._on(states.EOF)
            self._leave_to_task()
            return
        if is_direct:
            self.received_bytes += received
            framer.received_directly(received)
            if body is None:  # of a refused body, and thrown away
                self.refund(received)
        else:
            self._prepaid_bytes += received
            framer.feed(view[:received])
        self._go_on()

    def _go_on(self) -> None:
        """Handle what was received: as much of it as a turn takes, up to what has to wait."""
        if self.sending == OPEN:
            self.sending = CORKED
        try:
            wait, has_more = self._handle()
        finally:
            if self.sending == CORKED:
                self.sending = OPEN
        self._framer.keep()
        self._settle()
        self.flush()
        if wait is not None or self.state >= states.NO_MORE:
            self._leave_to_task(wait)
        elif has_more or (self._tls is not None and self._tls.pending()):
            self.receiver.poller.again(self.sock, self.ready)

    def _handle(self) -> tuple[Wait | None, bool]:
        """Returns what to wait for, if anything, and whether the turn was too short for all that was received."""
        framer = self._framer
        requests_left, events_left = REQUESTS_AT_ONCE, EVENTS_AT_ONCE
        while self.state < states.NO_MORE:
            if framer.before_a_head and framer.has_unread:
                if not requests_left:
                    return None, True
                if self.owes_too_much():
                    return UntilRead(), False
                if not self.receiver.budget.has_room(self.account, REQUEST_BYTES):
                    return ForRoom(), False
                requests_left -= 1
            if self._piece_bytes and (piece := self._full_piece()) is not None:
                return piece, False
            event = framer.next_event()
            if event is None:
                break
            wait = self._on_event(event)
            if wait is not None:
                return wait, False
            events_left -= 1
            if not events_left:
                return None, framer.has_unread
        if self.state == states.IDLE and not framer.between_messages:
            self._on(states.BEGINS)
            self.since_s = self._now_s
        return None, False

    def _settle(self) -> None:
        """Give back what was charged for what has been read, all but what is held."""
        held = self._framer.held_bytes
        if held != self._prepaid_bytes:
            self.refund(self._prepaid_bytes - held)
            self._prepaid_bytes = held
        if self._tls is not None:
            self._charge_tls(self._tls)
        if self._strangers is not None:
            self._strangers.hold(self, held + self._tls_bytes)

    def _charge_tls(self, tls: TlsWire) -> None:
        held = tls.held_bytes
        if held > self._tls_bytes:
            self.receiver.budget.charge_anyway(self.account, held - self._tls_bytes)
        else:
            self.refund(self._tls_bytes - held)
        self._tls_bytes = held

    def refund(self, size: int) -> None:
        if size:
            self.receiver.budget.refund(self.account, size)

    # --- events -----------------------------------------------------------------------------------------------

    def _on_event(self, event: Event) -> Wait | None:
        if event is END:
            return self._on_end()
        if isinstance(event, memoryview):
            self._on_body(event)
        elif isinstance(event, Head):
            self._on_head(event)
        elif isinstance(event, Malformed):
            self._on_malformed(event)
        return None

    def _on_head(self, head: Head) -> None:
        decided = self.receiver.admit(head, self._now_s)
        if isinstance(decided, Answer):
            self._refuse(decided, head)
            return
        if self._strangers is not None:
            self._strangers.forget(self)
            self._strangers = None
        self.receiver.budget.charge(self.account, REQUEST_BYTES)  # there was room: see `_handle`
        self._admission = decided
        self._begin_piece(decided.piece_bytes, head.content_length)
        self._begin_body(states.ADMITTED)
        if head.expect_continue:
            self._push(answers.CONTINUE)

    def _begin_piece(self, piece_bytes: int, left_bytes: int | None) -> None:
        """Memory for a body, or for as much of it as is held at once. `left_bytes`: of it to come; None: not known."""
        self._piece_bytes = piece_bytes
        if piece_bytes:
            left_bytes = min(piece_bytes, piece_bytes if left_bytes is None else left_bytes)
        self._body = Body(self.receiver.pool, left_bytes)

    def _full_piece(self) -> ForPiece | None:
        """What is to be stored before more of a body is read; None: nothing yet. It stays charged until it is stored.

        Of what completes an upload all but its last byte: that is held for as long as making chunks of the upload
        takes, and many may wait for it.
        """
        body, admission = self._body, self._admission
        if body is None or admission is None or admission.upload is None:
            return None
        completes = admission.upload.offset + body.length >= admission.upload.length
        if body.length <= 1 if completes else body.length < self._piece_bytes or not self._framer.in_body:
            return None
        body.keep()
        last = body.take_last() if completes else b""
        admission.most_bytes -= body.length
        self._begin_piece(self._piece_bytes, self._framer.direct_bytes or None)
        if last and self._body is not None:
            self._body.append(last)
        return ForPiece(admission, body)

    def refuse_rest(self, answer: Answer) -> None:
        """Of a body of which a piece was not taken."""
        if self.state < states.NO_MORE:
            self._end_with(answer)

    def _refuse(self, answer: Answer, head: Head) -> None:
        """Answer at once; throw the body away within a bound, so that a keep-alive client survives."""
        length = head.content_length or 0
        # A client that waits for 100 Continue may or may not send its body now: only closing is unambiguous.
        ambiguous = head.expect_continue or length > self.limits.drain_bytes
        close = ambiguous or not head.keep_alive or self.receiver.stopping or answer.cuts_off
        data = answer.render(close=close)
        if head.method == b"HEAD":  # whoever asks so reads no body: it would pass for the next answer
            data = data[: data.index(b"\r\n\r\n") + 4]
        owes_more = len(self._slots) > 0
        self._push(data)
        self.receiver.answered(answer, self._now_s, target=head.target)
        if answer.cuts_off and not owes_more:
            self._on(states.CUT)
        elif close:
            self._on(states.LAST)
        else:
            self._begin_body(states.REFUSED)

    def _begin_body(self, event: int) -> None:
        self._on(event)
        self.since_s = self._now_s
        self.received_bytes = 0

    def _on_body(self, piece: memoryview) -> None:
        self.received_bytes += len(piece)
        if self.state == states.DRAIN:
            if self.received_bytes > self.limits.drain_bytes:
                self._on(states.LAST)
            return
        body, admission = self._body, self._admission
        assert body is not None, "the state says so"
        assert admission is not None, "the state says so"
        if body.length + len(piece) > admission.most_bytes:
            self._end_with(answers.too_large(admission.most_bytes))
            return
        body.append(piece)
        self._prepaid_bytes -= len(piece)  # it is the body's from here on

    def _on_end(self) -> Wait | None:
        if self.state == states.DRAIN:
            self.next_request()
            return None
        self._on(states.WHOLE)
        body, admission = self._body, self._admission
        assert body is not None, "the state said so"
        assert admission is not None, "the state said so"
        charged = body.length + REQUEST_BYTES
        slot = Slot(self, admission.device, admission.protocol, charged, self._now_s, self._completion)
        self._slots.append(slot)
        self._body = self._admission = None
        if admission.upload is not None:
            body.keep()
            return ForUpload(admission, body, slot)
        try:
            left = self.receiver.take(admission, body, slot)
        except Exception:  # a bug: the connection ends with it, and nothing may stay charged
            body.release()
            self.receiver.refuse(slot, answers.TRY_AGAIN)
            raise
        if isinstance(left, Admission):
            body.keep()
            return ForInit(left, body, slot)
        if left is not None:
            body.keep()
            wait = ForPacking(left, body, slot)
            if not self.gathers(wait):
                return wait
        self.next_request()
        return None

    def gathers(self, wait: ForPacking) -> bool:
        """Whether a chunk that can't be packed now waits for others of its day, so that reading goes on."""
        held = self.receiver.gather(wait, self._now_s)
        self.gathered += held
        return held

    def _on_malformed(self, event: Malformed) -> None:
        if self.state == states.DRAIN:  # this request was answered before its body went wrong
            self._on(states.LAST)
            return
        make = answers.head_too_large if event.status == 431 else answers.malformed
        self._end_with(make(event.detail))

    def _end_with(self, answer: Answer) -> None:
        """Refuse what has begun, and read no more."""
        device = None if self._admission is None else self._admission.device
        self._drop_body()
        self._push(self._beside(answer).render(close=True))
        self.receiver.answered(answer, self._now_s, device=device)
        self._on(states.LAST)

    def _beside(self, answer: Answer) -> Answer:
        """It with what its request's protocol says besides."""
        upload = None if self._admission is None else self._admission.upload
        return answer if upload is None else answer.beside(upload.besides)

    def next_request(self) -> None:
        """With the one before; or end, when that was the last one."""
        self._on(states.DONE)
        self.since_s = self._now_s
        if not self._framer.keeps_alive or self.receiver.stopping:
            self._on(states.LAST)

    def take_broken(self) -> tuple[Admission, Body] | None:
        """What came of a part of a resumable upload that is not complete, for the task to store and then to `refund`:
        nothing more of it comes. Its memory stays charged."""
        body, admission = self._body, self._admission
        if body is None or admission is None or admission.upload is None or not body.length:
            return None
        body.keep()
        self._body = self._admission = None
        return admission, body

    def _drop_body(self) -> None:
        """Forget an incomplete body: it is never stored."""
        if self._body is not None:
            self.refund(self._body.length + REQUEST_BYTES)
            self._body.release()
            self._body = None

    def owes_too_much(self) -> bool:
        if self.gathered and (
            self.gathered >= self.limits.max_gathered or self.receiver.uploads.gathering.is_full
        ):
            return True
        return len(self._slots) - self.gathered >= self.limits.max_outstanding or len(self._unsent) > 0

    @property
    def body_bytes(self) -> int:
        """Received of a body that is not complete."""
        return 0 if self._body is None else self._body.length

    @property
    def held_bytes(self) -> int:
        """What letting go of this connection gives back: of a body that is not complete, and what was not read yet."""
        return self.body_bytes + self._prepaid_bytes + self._tls_bytes

    @property
    def reads_nothing(self) -> bool:
        """Its peer leaves answers unread, and no more fit on the way to it."""
        return len(self._unsent) > 0

    # --- whose turn it is --------------------------------------------------------------------------------------

    def begin_wait(self) -> float:
        """From now on it is us who are waited for. Returns the time."""
        if self.state == states.IDLE:
            self.since_s = self._now_s
        self._on(states.WAITS)
        return trio.current_time()

    def end_wait(self, began_s: float) -> None:
        """The client's clock stood still while it waited for us."""
        self._on(states.GOES_ON)
        self._now_s = trio.current_time()
        self.since_s += self._now_s - began_s

    def evict(self, verdict: Answer | None) -> None:
        """End the reading now: with this answer to a request that has begun and has none, or without one."""
        if self.state >= states.NO_MORE:
            return
        has_begun = self.state in (states.HEAD, states.BODY, states.BODY_WAITS)
        self._on(states.LAST)
        if verdict is not None and has_begun:
            device = None if self._admission is None else self._admission.device
            self.receiver.answered(verdict, self._now_s, device=device)
            self._push(self._beside(verdict).render(close=True))
        self.scope.cancel()

    def cut_off(self) -> None:
        """End now, without waiting for the peer to read what it is owed. Only where no chunk waits for its answer."""
        self._on(states.CUT)
        self.scope.cancel()

    def stop_when_idle(self) -> None:
        """The server stops: end now unless a request is being received."""
        if self.state == states.IDLE:
            self.evict(None)

    # --- the end ----------------------------------------------------------------------------------------------

    def ends_with(self, slot: Slot) -> bool:
        """Whether the answer in this slot is the last one, and says so. Asked when the answer becomes known."""
        if self._slots[-1] is not slot or self._body is not None:
            return False
        # A body that is refused while it is taken is answered before the reader comes to closing.
        taking = self.state == states.TAKING
        return self.ending() or (taking and (not self._framer.keeps_alive or self.receiver.stopping))

    def owes_answers(self) -> bool:
        """Answers are still to come or to be sent."""
        return bool(self._slots or self._unsent)
