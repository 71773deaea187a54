"""One client: one request after the other, each parsed when the one before is answered."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

import trio

from service.http import answers
from service.http.exchange import Exchange
from service.http.framing import Event, Framer, Need
from service.http.heads import RequestHead
from service.http.pace import Patience
from service.http.refusals import Refused
from service.http.transport import Gone, Transport

if TYPE_CHECKING:
    from service.http.server import HttpServer

RECEIVE_BYTES = 16 * 1024
"""Received at once: with the head before it, all that a connection keeps of what its client sent."""


class Phase(Enum):
    """What a connection waits for, and how long.

    IDLE      the first byte of a request: `idle_timeout_s`; a stop or a newcomer ends it sooner
    HEAD      the rest of its head: `head_timeout_s`
    BUSY      the application, which bounds its time itself; a piece of a body: `body_timeout_s`; a reader: `Patience`
    CLOSING   the client, who may still be sending: `linger_close_s`
    """

    IDLE = auto()
    HEAD = auto()
    BUSY = auto()
    CLOSING = auto()


class Connection:
    """The server's end of one connection.

    Args:
        client: its peer's address and port.
        counted_as: whose connection it is, for his share of them.
    """

    def __init__(
        self, server: HttpServer, transport: Transport, client: tuple[str, int], counted_as: str
    ) -> None:
        self.server = server
        self.client = client
        self.counted_as = counted_as
        self.framer = Framer(server.limits.max_head_bytes)
        self.phase = Phase.IDLE
        self.since_s = trio.current_time()
        """When `phase` began."""
        self._transport = transport
        self._idle = trio.CancelScope()
        self._patience = Patience(
            min_bytes_per_s=server.limits.min_send_bytes_per_s, grace_s=server.limits.send_grace_s
        )

    async def serve(self) -> None:
        """Answer requests until either side ends it. Closes the transport, whatever happens."""
        try:
            try:
                if not await self._open():
                    return
                while (head := await self._next_head()) is not None:
                    self._enter(Phase.BUSY)
                    if not await Exchange(self, head).run():
                        await self._linger()
                        return
                    self.framer.begin_next()
                    self._enter(Phase.IDLE)
            except Refused as refused:
                await self.send(
                    answers.refusal(refused.status, refused.code, refused.detail, self.server.now_s())
                )
                await self._linger()
        except Gone:
            self._transport.reset()
        finally:
            self._transport.close()

    @property
    def is_tls(self) -> bool:
        """Its client speaks TLS with this server itself."""
        return self._transport.is_tls

    async def _open(self) -> bool:
        """Returns whether it may go on. Ends as one that is idle does: it has a handshake under way, no request."""
        if self.server.is_stopping or self._is_closing():
            return False
        with trio.CancelScope() as self._idle:
            said = await self._transport.open()
            if said is not None:
                self.client = said
                if not self.server.counts_as(self, said[0]):
                    raise Refused(503, "overloaded", "more is under way than this server takes; try again")
        self._enter(self.phase)
        return not self._is_closing() and not self._idle.cancelled_caught

    def end_if_idle(self) -> bool:
        """End it, if it waits for a request of which nothing has come. Returns whether it does."""
        if self.phase is not Phase.IDLE:
            return False
        self._enter(Phase.CLOSING)  # so that it makes way for one newcomer, and not for two
        self._idle.cancel()
        return True

    def _is_closing(self) -> bool:
        return self.phase is Phase.CLOSING

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since_s = trio.current_time()

    async def _next_head(self) -> RequestHead | None:
        """The next request; None when there is none any more."""
        limits = self.server.limits
        await trio.lowlevel.checkpoint()  # a client that sends many at once gets one turn for each
        if not self.framer.waiting_bytes:
            if self.server.is_stopping or self._is_closing():  # before this task had begun
                return None
            received = False
            with trio.move_on_after(limits.idle_timeout_s) as self._idle:
                received = await self._receive()
            if not received or self._is_closing():
                return None
        self._enter(Phase.HEAD)
        with trio.move_on_after(limits.head_timeout_s):
            while (event := self.framer.next()) is Need.DATA:
                if not await self._receive():
                    return None
            assert isinstance(event, RequestHead)
            return event
        raise Refused(408, "head_timeout", "the request's head did not come in time")

    async def next_of_body(self) -> bytes | Need:
        """The next piece of the body, or `Need.END`.

        Raises:
            Refused: it is no HTTP, or 408 `too_slow`. Gone: it ends too early.
        """
        with trio.move_on_after(self.server.limits.body_timeout_s):
            while (event := self.framer.next()) is Need.DATA:
                if not await self._receive():
                    raise Gone
            assert not isinstance(event, RequestHead)
            return event
        raise Refused(408, "too_slow", "the body came slower than the server waits for")

    def skip_body(self) -> bool:
        """Pass over what has come of a body that the application did not ask for. Returns whether that was all: what
        has not come is not waited for."""
        event: Event = b""
        try:
            while not self.framer.is_complete and event is not Need.DATA:
                event = self.framer.next()
        except Refused:
            return False
        return self.framer.is_complete

    async def _receive(self) -> bool:
        """Feed the framer. Returns whether there was anything."""
        data = await self._transport.receive(RECEIVE_BYTES)
        self.framer.feed(data)
        return bool(data)

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it, at the client's pace.

        Raises:
            Gone: the client has left, or reads too slowly.
        """
        rest = memoryview(data)
        while rest:
            before_s = trio.current_time()
            sent = 0
            with trio.move_on_after(self._patience.left_s):
                sent = await self._transport.send_some(rest)
            if not sent:
                self.server.note_let_go()
                raise Gone
            self._patience.waited(trio.current_time() - before_s)
            self._patience.took(sent)
            rest = rest[sent:]

    async def _linger(self) -> None:
        """Let the client read its answer: one that closes with bytes unread resets the connection, and the answer is
        lost with it (RFC 9112 §9.6)."""
        self._enter(Phase.CLOSING)
        limits = self.server.limits
        self._transport.end_sending()
        left_bytes = limits.drain_bytes
        with trio.move_on_after(limits.linger_close_s):
            while left_bytes > 0 and (data := await self._transport.receive(RECEIVE_BYTES)):
                left_bytes -= len(data)
                await trio.lowlevel.checkpoint()
